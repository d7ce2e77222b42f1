"""The AWS provider's tables, and what the pure parts of the plugin make of them."""

from __future__ import annotations

import importlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import botocore.session
import pytest
from botocore.model import ServiceModel, Shape
from hypothesis import given
from hypothesis import strategies as st

from infra.local.adapters.aws_provider import checking, kms, policy_document, s3
from infra.local.adapters.aws_provider.configuration import Configuration
from infra.local.adapters.aws_provider.mapping import (
    Autoname,
    Field,
    Spec,
    canonical,
    from_aws,
    live_input,
    properties_from,
    request_of,
    to_aws,
)
from infra.local.adapters.aws_provider.mapping import Call as AwsCall
from infra.local.adapters.aws_provider.provider import SPECS, AwsProvider
from infra.local.adapters.aws_provider.resource import (
    DEFAULTS,
    TableResource,
    automatic_name,
    concerned,
)
from infra.local.adapters.property_values import UNKNOWN, Secret
from infra.local.adapters.provider_base import (
    Autoname as EngineAutoname,
)
from infra.local.adapters.provider_base import (
    Call,
    CheckFailedError,
    InitFailedError,
    ProviderError,
    UnsupportedTypeError,
)

SESSION = botocore.session.Session()


def model_of(spec: Spec) -> ServiceModel:
    return SESSION.get_service_model(spec.service)


def all_calls(spec: Spec) -> list[AwsCall]:
    tagging = [spec.tagging.read, spec.tagging.put, spec.tagging.remove] if spec.tagging else []
    return [spec.create, *spec.updates, *spec.reads, spec.delete, *filter(None, tagging)]


def wire_names(type_: str) -> set[str]:
    """The property names that Pulumi's SDK sends for a type."""
    module, _, name = type_.removeprefix("aws:").partition("/")
    service, class_name = module, name.partition(":")[2]
    cls = getattr(importlib.import_module(f"pulumi_aws.{service}"), class_name)
    return {
        getattr(member.fget, "_pulumi_name", attribute)
        for attribute, member in vars(cls).items()
        if isinstance(member, property)
    }


every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))


@every_spec
def test_every_property_of_a_table_is_one_of_the_released_provider(spec: Spec) -> None:
    named = {f.name for f in spec.all_fields} | set(spec.computed) | set(spec.instead)
    assert named - wire_names(spec.type) == set()


@every_spec
def test_every_property_of_the_released_provider_is_supported_or_refused_by_name(
    spec: Spec,
) -> None:
    known = {f.name for f in spec.all_fields} | set(spec.computed)
    for name in wire_names(spec.type) - known - {"tagsAll", "targetKeyArn"}:
        found = checking.problems(spec, model_of(spec), {name: "x"})
        assert name in {path for path, _ in found}


@every_spec
def test_every_member_of_a_table_is_one_of_aws(spec: Spec) -> None:
    for call in all_calls(spec):
        request = checking.input_shape(model_of(spec), call.operation)
        answer: Any = model_of(spec).operation_model(call.operation).output_shape
        for path in (*call.request, *call.constants):
            assert checking.shape_at(request, path)
        for path in filter(None, call.response):
            assert checking.shape_at(answer, path)


@every_spec
def test_every_member_inside_a_property_is_one_of_aws(spec: Spec) -> None:
    for field in spec.fields:
        if field.output:
            continue
        shape = checking.shape_of(spec, model_of(spec), field.name)
        assert shape is not None or field.local_type or field.name in _also(spec), field.name
        if field.fields:
            assert shape is not None
            for inner, members in _nested(field, shape):
                assert checking.shape_at(members, inner.member)


def _also(spec: Spec) -> set[str]:
    return {name for call in spec.writes for name in call.carries}


def _nested(field: Field, shape: Shape) -> Iterator[tuple[Field, Shape]]:
    members = shape.member if shape.type_name == "list" else shape  # type: ignore[attr-defined]
    for inner in field.fields:
        if inner.output:
            continue
        yield inner, members
        if inner.fields:
            yield from _nested(inner, checking.shape_at(members, inner.member))


@pytest.mark.parametrize(
    ("spec", "immutable"),
    [
        (s3.BUCKET, {"bucket", "objectLockEnabled", "region"}),
        (s3.LIFECYCLE, {"bucket", "region"}),
        (s3.POLICY, {"bucket", "region"}),
        (s3.OBJECT, {"bucket", "key", "region"}),
        (kms.ALIAS, {"name", "region"}),
        (kms.KEY, {"keyId", "keyUsage", "customerMasterKeySpec", "multiRegion", "region"}),
    ],
    ids=lambda value: value.type if isinstance(value, Spec) else "",
)
def test_what_no_updating_call_carries_needs_a_replacement(spec: Spec, immutable: set[str]) -> None:
    assert spec.immutable == immutable


RULES = [
    {
        "id": "outputs",
        "status": "Enabled",
        "filter": {"and": {"prefix": "outputs/", "tags": {"b": "2", "a": "1"}}},
        "expiration": {"days": 7},
        "transitions": [{"days": 1, "storageClass": "GLACIER"}],
    }
]
AWS_RULES = [
    {
        "ID": "outputs",
        "Status": "Enabled",
        "Filter": {
            "And": {
                "Prefix": "outputs/",
                "Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}],
            }
        },
        "Expiration": {"Days": 7},
        "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}],
    }
]


def test_a_request_has_the_members_of_aws_and_the_answer_gives_the_properties_back() -> None:
    request = request_of(s3.LIFECYCLE, s3.LIFECYCLE.create, {"bucket": "b", "rules": RULES})
    assert request == {"Bucket": "b", "LifecycleConfiguration": {"Rules": AWS_RULES}}
    answer = {"Rules": AWS_RULES, "ResponseMetadata": {}}
    assert properties_from(s3.LIFECYCLE, s3.LIFECYCLE.reads[0], answer) == {"rules": RULES}


def test_a_list_of_one_is_a_plain_object_for_the_program() -> None:
    rule = {"objectOwnership": "BucketOwnerEnforced"}
    spec = s3.OWNERSHIP_CONTROLS
    request = request_of(spec, spec.create, {"bucket": "b", "rule": rule})
    assert request
    assert request["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert properties_from(spec, spec.reads[0], request) == {"rule": rule}


def test_a_rule_without_a_filter_selects_everything() -> None:
    rules = [{"id": "a", "status": "Enabled", "expiration": {"days": 7}}]
    request = request_of(s3.LIFECYCLE, s3.LIFECYCLE.create, {"bucket": "b", "rules": rules})
    assert request
    assert request["LifecycleConfiguration"]["Rules"][0]["Filter"] == {"Prefix": ""}


def _values(field: Field) -> st.SearchStrategy[Any]:
    if field.fields and field.name.endswith("s"):
        return st.lists(_objects(field), max_size=2)
    if field.fields:
        return _objects(field)
    if field.codec.expects == (bool, str):
        return st.sampled_from(["true", "false"])
    if field.unordered:
        return st.lists(st.text(max_size=3), max_size=3)
    if field.codec.expects is dict:
        return st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3)
    if field.codec.expects is str:
        return st.text(max_size=3) | st.datetimes().map(lambda moment: f"{moment.isoformat()}Z")
    return st.text(max_size=3) | st.integers() | st.booleans()


def _objects(field: Field) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {}, optional={f.name: _values(f) for f in field.fields if not f.output}
    )


_NESTED = [f for spec in SPECS.values() for f in spec.fields if f.fields]


@given(st.data())
def test_no_value_is_lost_on_the_way_to_aws_and_back(data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(_NESTED))
    value = data.draw(_values(field))
    assert from_aws(field, to_aws(field, value)) == value
    assert canonical(field, from_aws(field, to_aws(field, value))) == canonical(field, value)


@given(st.data())
def test_a_refresh_that_finds_what_was_asked_for_changes_no_input(data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(_NESTED))
    value = data.draw(_values(field))
    assert live_input(field, from_aws(field, to_aws(field, value)), value, importing=False) == value


def test_what_aws_adds_of_its_own_is_no_drift_and_a_real_difference_is() -> None:
    field = next(f for f in s3.ENCRYPTION.fields if f.name == "rules")
    stated = [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "aws:kms"}}]
    told = [{**stated[0], "bucketKeyEnabled": False, "blockedEncryptionTypes": ["SSE-C"]}]
    assert live_input(field, told, stated, importing=False) == stated
    other = [{**told[0], "bucketKeyEnabled": True}]
    found = live_input(field, other, stated, importing=False)
    assert found == [{**stated[0], "bucketKeyEnabled": True}]
    assert live_input(field, None, stated, importing=False) is None


def problems(spec: Spec, **inputs: Any) -> dict[str, str]:
    return dict(checking.problems(spec, model_of(spec), inputs))


def rules(**changed: Any) -> list[dict[str, Any]]:
    return [{**RULES[0], **changed}]


@pytest.mark.parametrize(
    ("spec", "inputs", "path", "reason"),
    [
        (s3.LIFECYCLE, {"rules": rules()}, "bucket", "is required"),
        (s3.LIFECYCLE, {"bucket": "b"}, "rules", "is required"),
        (s3.LIFECYCLE, {"rules": "all"}, "rules", "'all' is not a list"),
        (s3.LIFECYCLE, {"rules": ["all"]}, "rules[0]", "'all' is not an object"),
        (s3.LIFECYCLE, {"rules": rules(id=None)}, "rules[0].id", "is required"),
        (s3.LIFECYCLE, {"rules": rules(status="On")}, "rules[0].status", "not one of Enabled"),
        (
            s3.LIFECYCLE,
            {"rules": rules(expiration={"days": 0})},
            "rules[0].expiration.days",
            "0 is below the minimum of 1",
        ),
        (
            s3.LIFECYCLE,
            {"rules": rules(expiration={"day": 7})},
            "rules[0].expiration.day",
            "did you mean days?",
        ),
        (
            s3.LIFECYCLE,
            {"rules": rules(filter={"tag": {"key": "a"}})},
            "rules[0].filter.tag.value",
            "is required",
        ),
        (
            s3.LIFECYCLE,
            {"rules": rules(expiration={"days": "7"})},
            "rules[0].expiration.days",
            "valid types: <class 'int'>",
        ),
        (s3.BUCKET, {"bucket": "Voices"}, "bucket", "'Voices' must be 3 to 63 of a-z"),
        (s3.BUCKET, {"forceDestroy": "yes"}, "forceDestroy", "'yes' is not true or false"),
        (s3.BUCKET, {"tags": ["a"]}, "tags", "['a'] is not a map"),
        (s3.BUCKET, {"tags": {"a": 1}}, "tags", "value: 1"),
        (s3.BUCKET, {"acl": "private"}, "acl", "use aws.s3.BucketOwnershipControls"),
        (s3.BUCKET, {"buckets": "b"}, "buckets", "did you mean bucket?"),
        (kms.KEY, {"keyUsage": "PLAY"}, "keyUsage", "not one of SIGN_VERIFY"),
        (kms.KEY, {"deletionWindowInDays": 3}, "deletionWindowInDays", "below the minimum of 7"),
        (kms.ALIAS, {"name": "voices"}, "name", "'voices' must be"),
        (kms.ALIAS, {}, "targetKeyId", "is required"),
    ],
)
def test_a_wrong_input_is_named_with_its_path_and_reason(
    spec: Spec, inputs: dict[str, Any], path: str, reason: str
) -> None:
    assert reason in problems(spec, **inputs)[path]


@pytest.mark.parametrize(
    ("spec", "inputs"),
    [
        (s3.BUCKET, {"bucket": "voices", "forceDestroy": True, "tags": {"a": "b"}}),
        (s3.LIFECYCLE, {"bucket": "voices", "rules": RULES}),
        (s3.LIFECYCLE, {"bucket": UNKNOWN, "rules": UNKNOWN}),
        (s3.LIFECYCLE, {"bucket": UNKNOWN, "rules": rules(expiration={"days": UNKNOWN})}),
        (s3.OBJECT, {"bucket": "voices", "key": "a", "content": "b", "metadata": {"a": "b"}}),
        (kms.KEY, {}),
    ],
)
def test_right_and_unknown_inputs_have_no_problem(spec: Spec, inputs: dict[str, Any]) -> None:
    assert problems(spec, **inputs) == {}


def call(name: str = "Voices", **changed: Any) -> Call:
    return Call(
        urn=f"urn:pulumi:test::project::aws:s3/bucket:Bucket::{name}",
        type="aws:s3/bucket:Bucket",
        name=name,
        cancelled=threading.Event(),
        log=lambda *_: None,
        **changed,
    )


BUCKET_NAME = Autoname("bucket", maximum=63, prefix_property="bucketPrefix")


def test_a_resource_without_a_name_gets_one_and_keeps_it() -> None:
    first = automatic_name(BUCKET_NAME, call(), {}, {})
    assert re.fullmatch(r"voices-[0-9a-f]{7}", first["bucket"])
    assert automatic_name(BUCKET_NAME, call(), first, {}) == first
    assert automatic_name(BUCKET_NAME, call(), first, {"bucket": "mine"}) == {}
    # A name that the program once stated is not kept when it no longer does.
    again = automatic_name(BUCKET_NAME, call(), {"bucket": "mine"}, {})
    assert re.fullmatch(r"voices-[0-9a-f]{7}", again["bucket"])


def test_the_name_is_the_same_in_preview_and_update_and_another_for_another_seed() -> None:
    seeds = (b"one", b"one", b"two")
    names = [automatic_name(BUCKET_NAME, call(random_seed=seed), {}, {}) for seed in seeds]
    assert names[0] == names[1] != names[2]


def test_a_prefix_and_the_engine_have_their_say_in_a_name() -> None:
    prefixed = automatic_name(BUCKET_NAME, call(), {}, {"bucketPrefix": "tts-"})["bucket"]
    assert re.fullmatch(r"tts-[0-9a-f]{7}", prefixed)
    old = {"bucket": prefixed, DEFAULTS: ["bucket"]}
    other = automatic_name(BUCKET_NAME, call(), old, {"bucketPrefix": "stt-"})["bucket"]
    assert other.startswith("stt-")
    proposing = call(autoname=EngineAutoname("PROPOSE", "Proposed"))
    assert automatic_name(BUCKET_NAME, proposing, {}, {})["bucket"] == "proposed"
    with pytest.raises(CheckFailedError, match="automatic names are off"):
        automatic_name(BUCKET_NAME, call(autoname=EngineAutoname("DISABLE", "")), {}, {})


def test_a_name_that_would_be_too_long_is_refused_with_its_length() -> None:
    with pytest.raises(CheckFailedError, match="has 68 characters, 63 at most; state a name"):
        automatic_name(BUCKET_NAME, call("v" * 60), {}, {})


CONFIGURATION = {
    "region": "eu-central-1",
    "accessKey": "an-access-key",
    "secretKey": Secret("a-secret-key"),
    "endpoints": json.dumps([{"s3": "http://127.0.0.1:1", "kms": "http://127.0.0.1:2"}]),
    "defaultTags": json.dumps({"tags": {"project": "voicemesh"}}),
    "s3UsePathStyle": "true",
    "skipCredentialsValidation": "true",
    "skipRegionValidation": "true",
    "maxRetries": "0",
}


def test_the_configuration_is_read_as_the_engine_sends_it() -> None:
    configuration = Configuration.parse(CONFIGURATION, {})
    assert configuration == Configuration(
        region="eu-central-1",
        access_key="an-access-key",
        secret_key="a-secret-key",
        endpoints={"s3": "http://127.0.0.1:1", "kms": "http://127.0.0.1:2"},
        default_tags={"project": "voicemesh"},
        path_style=True,
        skip_credentials_validation=True,
        attempts=1,
    )
    assert "a-secret-key" not in repr(configuration)
    assert Configuration.parse({}, {"AWS_REGION": "eu-west-1"}).region == "eu-west-1"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"region": None}, "region: is required"),
        ({"secretKey": None}, "secretKey: accessKey and secretKey belong together"),
        ({"assumeRoles": '[{"roleArn": "a"}]'}, "assumeRoles: is not supported"),
        ({"endpoints": '[{"s3": "localhost:4566"}]'}, r"endpoints\[0\].s3: 'localhost:4566'"),
        ({"endpoints": '{"s3": "http://a"}'}, "endpoints: .* is not a list"),
        ({"s3UsePathStyle": "maybe"}, "s3UsePathStyle: 'maybe' is not a bool"),
        ({"defaultTags": '{"tag": {}}'}, "defaultTags.tag: is not known"),
    ],
)
def test_a_wrong_configuration_is_refused_by_property(
    changed: Mapping[str, Any], named: str
) -> None:
    with pytest.raises(CheckFailedError, match=named):
        Configuration.parse({**CONFIGURATION, **changed}, {})


@pytest.fixture
def provider() -> AwsProvider:
    """A provider whose endpoints nobody serves."""
    provider = AwsProvider()
    provider.configure(dict(CONFIGURATION))
    return provider


def test_an_unknown_type_or_function_is_refused_by_name(provider: AwsProvider) -> None:
    with pytest.raises(UnsupportedTypeError, match="aws:sqs/queue:Queue"):
        provider.resource_type("aws:sqs/queue:Queue")
    with pytest.raises(UnsupportedTypeError, match="aws:ec2/getAmi:getAmi"):
        provider.invoke("aws:ec2/getAmi:getAmi", {})


def test_default_tags_become_tags_and_the_programs_own_win(provider: AwsProvider) -> None:
    bucket = provider.resource_type("aws:s3/bucket:Bucket")
    checked = bucket.check(call(), {}, {"tags": {"team": "speech"}})
    assert checked["tags"] == {"project": "voicemesh", "team": "speech"}
    own = {"tags": Secret({"project": "mine"})}
    checked = bucket.check(call(), {}, own)
    assert isinstance(checked["tags"], Secret)
    assert checked["tags"].value == {"project": "mine"}


def test_a_policy_may_be_an_object_and_changes_only_by_what_it_means(
    provider: AwsProvider,
) -> None:
    policy = provider.resource_type("aws:s3/bucketPolicy:BucketPolicy")
    document = {"Version": "2012-10-17", "Statement": []}
    checked = policy.check(call(), {}, {"bucket": "voices", "policy": document})
    assert json.loads(checked["policy"]) == document
    spaced = {"bucket": "voices", "policy": json.dumps(document, indent=2)}
    assert policy.diff(call(), "voices", checked, checked, spaced).changed == {}
    other = {"bucket": "voices", "policy": json.dumps({**document, "Id": "x"})}
    found = policy.diff(call(), "voices", checked, checked, other)
    assert set(found.changed) == {("policy",)}
    assert found.replaces == frozenset()


def test_a_new_bucket_with_a_stated_name_waits_for_the_old_one_to_go(
    provider: AwsProvider,
) -> None:
    bucket = provider.resource_type("aws:s3/bucket:Bucket")
    old = {"bucket": "voices", "region": "eu-central-1"}
    moved = bucket.diff(call(), "voices", old, old, {**old, "region": "eu-west-1"})
    assert moved.replaces == {("region",)}
    assert moved.delete_first
    renamed = bucket.diff(call(), "voices", old, old, {**old, "bucket": "speech"})
    assert renamed.replaces == {("bucket",)}
    assert not renamed.delete_first


def test_what_aws_will_choose_is_unknown_before_creation(provider: AwsProvider) -> None:
    key = provider.resource_type("aws:kms/key:Key")
    outputs = key.preview_create(call(), {"description": "Voices"})
    assert outputs["arn"] is UNKNOWN
    assert outputs["policy"] is UNKNOWN
    assert outputs["description"] == "Voices"
    assert outputs["isEnabled"] is True


def test_a_configuration_that_is_not_known_yet_does_not_keep_from_previewing() -> None:
    provider = AwsProvider()
    provider.configure({**CONFIGURATION, "endpoints": UNKNOWN})
    bucket = provider.resource_type("aws:s3/bucket:Bucket")
    inputs = bucket.check(call(), {}, {"forceDestroy": True})
    assert bucket.preview_create(call(), inputs)["region"] is UNKNOWN
    with pytest.raises(ProviderError, match="configuration is not known yet"):
        bucket.create(call(), inputs)


def test_an_endpoint_that_nobody_serves_is_named(provider: AwsProvider) -> None:
    bucket = provider.resource_type("aws:s3/bucket:Bucket")
    with pytest.raises(ProviderError, match=r"Voices: CreateBucket: .*http://127.0.0.1:1"):
        bucket.create(call(), {"bucket": "voices"})


class _HalfMade(TableResource):
    """A resource whose first call works, and whose later ones AWS refuses for a while."""

    refusing = True

    def _do(self, where: str, aws_call: AwsCall, properties: dict[str, Any]) -> dict[str, Any]:
        if self.refusing and aws_call is not self.spec.create:
            raise ProviderError(f"{where}: {aws_call.operation}: SlowDown: later")
        self.done = [*getattr(self, "done", []), aws_call.operation]
        return {}


def test_what_was_made_before_a_failure_stays_in_the_state_and_is_completed_by_the_next_update(
    provider: AwsProvider,
) -> None:
    resource = _HalfMade(s3.BUCKET, provider)
    inputs = {"bucket": "voices", "tags": {"a": "b"}}
    with pytest.raises(InitFailedError, match="PutBucketTagging: SlowDown") as raised:
        resource.create(call(), inputs)
    outputs = raised.value.outputs
    assert raised.value.id == "voices"
    assert outputs["arn"] == "arn:aws:s3:::voices"
    resource.refusing = False
    # The engine updates what did not get ready, though no input has changed.
    resource.update(call(), "voices", inputs, outputs, inputs)
    assert "PutBucketTagging" in resource.done


def test_a_message_of_aws_is_traced_to_the_property_that_it_means() -> None:
    message = "'Days' for Expiration action must be a positive integer"
    assert "rules.expiration.days" in concerned(s3.LIFECYCLE, message)
    assert concerned(s3.LIFECYCLE, "nothing of ours") == ""
    assert concerned(kms.ALIAS, "TargetKeyId must not be an alias") == "targetKeyId"


def test_a_policy_document_has_the_words_of_iam() -> None:
    result = policy_document.policy_document(
        {
            "statements": [
                {
                    "effect": "Deny",
                    "notActions": ["s3:Get*", "s3:List*"],
                    "resources": ["*"],
                    "principals": [{"type": "*", "identifiers": ["*"]}],
                }
            ]
        }
    )
    assert json.loads(result["json"]) == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "NotAction": ["s3:Get*", "s3:List*"],
                "Resource": "*",
                "Principal": "*",
            }
        ],
    }
    with pytest.raises(CheckFailedError, match="sourcePolicyDocuments: is not supported"):
        policy_document.policy_document({"sourcePolicyDocuments": ["{}"]})
