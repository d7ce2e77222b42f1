"""The evaluator of S3 Lifecycle, on the examples of AWS's documentation; and what it proves.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/lifecycle-configuration-examples.html
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pulumi
import pulumi_aws as aws
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from tests.evaluators import proofs
from tests.evaluators.proofs import Event, Operation
from tests.evaluators.s3_lifecycle import Bucket, UnknownElementError, Version, due, left
from voicemesh import VoiceStorage, VoiceStorageArgs
from voicemesh.testing import record

LIFECYCLE = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
BUCKET = "voices"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


START = at("2014-01-01 10:30")


def after(days: float) -> datetime:
    return START + timedelta(days=days)


def rule(**elements: Any) -> dict[str, Any]:
    return {"ID": "rule", "Status": "Enabled", "Filter": {"Prefix": ""}, **elements}


def keys_left(rules: Sequence[Mapping[str, Any]], bucket: Bucket, days: float) -> set[str]:
    return {key for key in bucket.objects if left(rules, bucket, START, after(days)).readable(key)}


def stored(*keys: str, versioned: bool = True, **attributes: Any) -> Bucket:
    bucket = Bucket(versioned=versioned)
    for key in keys:
        bucket = bucket.put(key, START, **attributes)
    return bucket


class TestAge:
    """ "Lifecycle rules: Based on an object's age" and "… on a specific date"."""

    def test_days_are_rounded_to_the_next_midnight(self) -> None:
        assert due(at("2014-01-15 10:30"), 3) == at("2014-01-19 00:00")

    def test_an_object_expires_at_that_midnight(self) -> None:
        rules = [rule(Expiration={"Days": 3})]
        bucket = Bucket().put("a", at("2014-01-15 10:30"))
        created = at("2014-01-15 10:30")
        assert left(rules, bucket, created, at("2014-01-18 23:59")).readable("a")
        assert not left(rules, bucket, created, at("2014-01-19 00:00")).readable("a")

    def test_noncurrent_days_count_from_the_creation_of_the_successor(self) -> None:
        rules = [rule(NoncurrentVersionExpiration={"NoncurrentDays": 3})]
        bucket = Bucket().put("a", at("2014-01-01 10:30")).put("a", at("2014-01-15 10:30"))
        before = left(rules, bucket, START, at("2014-01-18 23:59"))
        later = left(rules, bucket, START, at("2014-01-19 00:00"))
        assert [len(b.versions("a")) for b in (before, later)] == [2, 1]

    def test_a_deleted_photo_can_be_recovered_for_five_days(self) -> None:
        rules = [rule(NoncurrentVersionExpiration={"NoncurrentDays": 5})]
        bucket = Bucket().put("photo.gif", START).delete("photo.gif", at("2014-01-02 11:30"))
        before = left(rules, bucket, START, at("2014-01-07 23:59"))
        later = left(rules, bucket, START, at("2014-01-08 00:00"))
        assert [len(b.versions("photo.gif")) for b in (before, later)] == [1, 0]

    def test_on_its_date_a_rule_expires_everything_and_goes_on_to(self) -> None:
        rules = [rule(Expiration={"Date": at("2014-02-01 00:00")})]
        bucket = stored("old").put("new", at("2014-03-01 00:00"))
        assert not left(rules, bucket, START, at("2014-03-02 00:00")).readable("old")
        assert not left(rules, bucket, START, at("2014-03-02 00:00")).readable("new")
        assert left(rules, stored("old"), START, at("2014-01-31 23:59")).readable("old")


class TestFilters:
    """Examples 1, 2, 4, 5 and 9 of the page of examples; "Filter element"."""

    def test_a_prefix_selects_the_keys_that_begin_with_it(self) -> None:
        rules = [rule(Filter={"Prefix": "tax/"}, Expiration={"Days": 3650})]
        bucket = stored("tax/doc1.txt", "tax/doc2.txt", "example.jpg")
        assert keys_left(rules, bucket, 3651) == {"example.jpg"}

    @pytest.mark.parametrize("everything", [{}, {"Prefix": ""}])
    def test_an_empty_filter_selects_everything(self, everything: dict[str, str]) -> None:
        rules = [rule(Filter=everything, Expiration={"Days": 1})]
        assert not keys_left(rules, stored("a", "b/c"), 2)

    def test_all_tags_of_a_filter_must_match_and_others_do_no_harm(self) -> None:
        wanted = {"key1": "value1", "key2": "value2"}
        tags = [{"Key": key, "Value": value} for key, value in wanted.items()]
        rules = [rule(Filter={"And": {"Prefix": "tax/", "Tags": tags}}, Expiration={"Days": 1})]
        for key, own, stays in (
            ("tax/a", wanted, False),
            ("tax/a", {**wanted, "key3": "value3"}, False),
            ("tax/a", {"key1": "value1"}, True),
            ("tax/a", {**wanted, "key2": "other"}, True),
            ("a", wanted, True),
        ):
            assert bool(keys_left(rules, stored(key, tags=own), 2)) is stays, (key, own)

    def test_sizes_are_between_the_bounds(self) -> None:
        sizes = {"ObjectSizeGreaterThan": 500, "ObjectSizeLessThan": 64000}
        rules = [rule(Filter={"And": sizes}, Expiration={"Days": 1})]
        for size, stays in ((500, True), (501, False), (63999, False), (64000, True)):
            assert bool(keys_left(rules, stored("a", size=size), 2)) is stays, size

    def test_a_disabled_rule_does_nothing(self) -> None:
        rules = [
            rule(Filter={"Prefix": "logs/"}, Expiration={"Days": 1}),
            rule(Filter={"Prefix": "documents/"}, Expiration={"Days": 1}, Status="Disabled"),
        ]
        assert keys_left(rules, stored("logs/a", "documents/a"), 10) == {"documents/a"}

    def test_each_prefix_has_its_own_lifetime(self) -> None:
        rules = [
            rule(Filter={"Prefix": "classA/"}, Expiration={"Days": 3650}),
            rule(Filter={"Prefix": "classB/"}, Expiration={"Days": 365}),
        ]
        assert keys_left(rules, stored("classA/a", "classB/a"), 366) == {"classA/a"}

    def test_of_overlapping_rules_the_shorter_expiration_is_honoured(self) -> None:
        rules = [
            rule(Expiration={"Days": 365}),
            rule(Filter={"Prefix": "logs/"}, Expiration={"Days": 30}),
        ]
        assert keys_left(rules, stored("logs/a", "b"), 31) == {"b"}
        assert not keys_left(rules, stored("logs/a", "b"), 366)

    def test_expiry_by_one_tag_wins_over_a_transition_by_another(self) -> None:
        rules = [
            rule(
                Filter={"Tag": {"Key": "tag1", "Value": "value1"}},
                Transitions=[{"Days": 365, "StorageClass": "GLACIER"}],
            ),
            rule(Filter={"Tag": {"Key": "tag2", "Value": "value2"}}, Expiration={"Days": 14}),
        ]
        both = stored("a", tags={"tag1": "value1", "tag2": "value2"})
        assert keys_left(rules, both, 14) == {"a"}
        assert not keys_left(rules, both, 15)

    def test_an_element_that_is_not_evaluated_is_refused(self) -> None:
        for faulty in (
            rule(Expiration={"Hours": 1}),
            rule(Filter={"Suffix": ".wav"}),
            rule(Filter={"And": {"Tag": {}}}),
            rule(Archive={}),
        ):
            with pytest.raises(UnknownElementError):
                left([faulty], Bucket(), START, after(1))


class TestVersions:
    """Examples 6, 7 and 8; the table "Lifecycle actions and bucket versioning state"."""

    def test_without_versioning_an_expired_object_is_gone(self) -> None:
        rules = [rule(Expiration={"Days": 1})]
        bucket = left(rules, stored("a", versioned=False), START, after(2))
        assert not bucket.objects

    def test_with_versioning_it_gets_a_delete_marker(self) -> None:
        bucket = left([rule(Expiration={"Days": 1})], stored("a"), START, after(2))
        assert [version.delete_marker for version in bucket.objects["a"]] == [False, True]

    def test_nothing_happens_to_a_delete_marker_with_versions_below_it(self) -> None:
        rules = [rule(Expiration={"Days": 1})]
        bucket = stored("a").delete("a", after(0.5))
        assert left(rules, bucket, START, after(400)).objects == bucket.objects

    def test_newer_versions_are_retained_and_delete_markers_among_them_do_not_count(self) -> None:
        action = {"NoncurrentDays": 365, "NewerNoncurrentVersions": 5}
        rules = [rule(NoncurrentVersionExpiration=action)]
        bucket = Bucket()
        for day in range(7):
            bucket = bucket.put("a", after(day))
        assert len(left(rules, bucket, START, after(365)).versions("a")) == 7
        assert len(left(rules, bucket, START, after(1000)).versions("a")) == 6
        marked = bucket.delete("a", after(7)).put("a", after(8))
        assert len(left(rules, marked, START, after(1000)).versions("a")) == 6

    def test_a_marker_that_is_left_alone_is_removed_once_it_is_of_age(self) -> None:
        rules = [rule(Expiration={"Days": 60}, NoncurrentVersionExpiration={"NoncurrentDays": 30})]
        bucket = stored("a")
        assert left(rules, bucket, START, after(60)).readable("a")
        assert left(rules, bucket, START, after(90)).versions("a")
        assert not left(rules, bucket, START, after(93)).versions("a")
        assert left(rules, bucket, START, after(93)).objects
        assert not left(rules, bucket, START, after(123)).objects

    def test_a_rule_of_its_own_removes_lone_markers_at_once(self) -> None:
        action = {"NoncurrentDays": 30}
        rules = [
            rule(NoncurrentVersionExpiration=action, Expiration={"ExpiredObjectDeleteMarker": True})
        ]
        bucket = stored("logs/a").delete("logs/a", after(1))
        assert left(rules, bucket, START, after(31)).objects
        assert not left(rules, bucket, START, after(32)).objects
        assert left([rule(NoncurrentVersionExpiration=action)], bucket, START, after(400)).objects

    def test_unfinished_uploads_are_aborted_under_their_prefix(self) -> None:
        action = {"DaysAfterInitiation": 7}
        rules = [rule(Filter={"Prefix": "SomeKeyPrefix/"}, AbortIncompleteMultipartUpload=action)]
        bucket = Bucket().start_upload("SomeKeyPrefix/a", START).start_upload("b", START)
        assert left(rules, bucket, START, after(7)).uploads == bucket.uploads
        assert left(rules, bucket, START, after(8)).uploads == (("b", START),)


@pytest.fixture(scope="module")
def configuration() -> Iterator[dict[str, Any]]:
    """What S3 says of the bucket that `VoiceStorage` declares, once it has been told."""
    rules = record(_declare).one(LIFECYCLE).inputs["rules"]
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket=BUCKET)
        s3.put_bucket_lifecycle_configuration(
            Bucket=BUCKET, LifecycleConfiguration={"Rules": _as_the_api_names_it(rules)}
        )
        yield s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)


Change = Callable[[list[dict[str, Any]]], Any]


def _of(rules: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = (rule for rule in rules if rule["ID"] == name)
    return found


MUTATIONS: dict[str, tuple[Change, str]] = {
    "versions stay": (
        lambda rules: _of(rules, "expire-outputs").pop("NoncurrentVersionExpiration"),
        "outputs/acme/a.wav leaves .*Version",
    ),
    "versions stay for another week": (
        lambda rules: _of(rules, "expire-outputs").update(
            NoncurrentVersionExpiration={"NoncurrentDays": 7}
        ),
        "outputs/acme/a.wav leaves .*Version",
    ),
    "some versions are retained": (
        lambda rules: _of(rules, "expire-outputs").update(
            NoncurrentVersionExpiration={"NoncurrentDays": 1, "NewerNoncurrentVersions": 1}
        ),
        "outputs/acme/a.wav leaves .*Version",
    ),
    "delete markers stay": (
        lambda rules: rules.remove(_of(rules, "remove-delete-markers-of-outputs")),
        "outputs/acme/a.wav leaves .*delete_marker=True",
    ),
    "outputs do not expire": (
        lambda rules: _of(rules, "expire-outputs").update(Status="Disabled"),
        "outputs/acme/a.wav (keeps a version|leaves)",
    ),
    "outputs expire too early": (
        lambda rules: _of(rules, "expire-outputs").update(Expiration={"Days": 6}),
        "outputs/acme/a.wav cannot be read until 2026-03-08",
    ),
    "outputs expire too late": (
        lambda rules: _of(rules, "expire-outputs").update(Expiration={"Days": 8}),
        "outputs/acme/a.wav leaves .*Version",
    ),
    "everything expires": (
        lambda rules: _of(rules, "expire-outputs").update(Filter={"Prefix": ""}),
        "quality/acme/a.wav cannot be read",
    ),
    "versions of everything expire": (
        lambda rules: rules.append(rule(NoncurrentVersionExpiration={"NoncurrentDays": 365})),
        "voices/acme/a.wav loses versions",
    ),
    "what begins in the same way expires": (
        lambda rules: _of(rules, "expire-outputs").update(Filter={"Prefix": "output"}),
        "output loses versions|output can no longer be read",
    ),
    "one tenant's outputs stay": (
        lambda rules: _of(rules, "expire-outputs").update(Filter={"Prefix": "outputs/other/"}),
        "outputs/acme/a.wav (keeps a version|leaves)",
    ),
    "voices expire": (
        lambda rules: rules.append(rule(Filter={"Prefix": "voices/"}, Expiration={"Days": 365})),
        "voices/acme/a.wav can no longer be read",
    ),
    "quality snapshots stay": (
        lambda rules: rules.remove(_of(rules, "expire-quality")),
        "quality/acme/a.wav (keeps a version|leaves)",
    ),
    "uploads stay": (
        lambda rules: rules.remove(_of(rules, "abort-unfinished-uploads")),
        "outputs/acme/a.wav leaves .*uploads=",
    ),
    "some uploads stay": (
        lambda rules: _of(rules, "abort-unfinished-uploads").update(Filter={"Prefix": "outputs/"}),
        "quality/acme/a.wav leaves .*uploads=",
    ),
}


class TestVoiceStorage:
    def test_outputs_expire_and_voices_stay(self, configuration: dict[str, Any]) -> None:
        assert list(proofs.outputs_expire_and_voices_stay(configuration)) == []

    @pytest.mark.parametrize("fault", MUTATIONS)
    def test_a_fault_is_noticed(self, fault: str, configuration: dict[str, Any]) -> None:
        faulty = copy.deepcopy(configuration)
        change, complaint = MUTATIONS[fault]
        change(faulty["Rules"])
        found = proofs.outputs_expire_and_voices_stay(faulty)
        assert re.match(complaint, next(found, "no complaint"))

    @given(data=st.data())
    def test_whatever_happens_to_a_key(
        self, configuration: dict[str, Any], data: st.DataObject
    ) -> None:
        start = proofs.NOON + timedelta(seconds=data.draw(st.integers(0, 86_399)))
        events = data.draw(_histories())
        rules = configuration["Rules"]
        for prefix, days in (("outputs/", 7), ("quality/", 30)):
            key = prefix + data.draw(_NAMES)
            assert not [*proofs.faults_of_expiring_key(rules, key, start, events, days)]
        key = data.draw(st.sampled_from(["voices/", "models/", ""])) + data.draw(_NAMES)
        assert not [*proofs.faults_of_lasting_key(rules, key, start, events)]


_NAMES = st.text("ab/.", min_size=1, max_size=5)


@st.composite
def _histories(draw: st.DrawFn) -> list[Event]:
    operation: st.SearchStrategy[Operation] = st.sampled_from(["put", "delete", "upload"])
    pauses = draw(st.lists(st.integers(1, 20 * 86_400), max_size=5))
    seconds = [sum(pauses[:count]) for count in range(len(pauses) + 1)]
    return [Event(draw(operation), timedelta(seconds=second)) for second in seconds]


def _declare() -> None:
    account = aws.Provider("aws", region="us-east-1")
    VoiceStorage(BUCKET, VoiceStorageArgs(), pulumi.ResourceOptions(providers=[account]))


def _as_the_api_names_it(value: Any) -> Any:
    """Pulumi's names of members are S3's own, but for their first letter, and `ID`."""
    if isinstance(value, Mapping):
        return {
            "ID" if name == "id" else name[0].upper() + name[1:]: _as_the_api_names_it(member)
            for name, member in value.items()
        }
    return [_as_the_api_names_it(v) for v in value] if isinstance(value, list) else value


def test_versions_are_kept_in_order() -> None:
    bucket = Bucket().put("a", START).put("a", after(1)).delete("a", after(2))
    assert bucket.objects["a"] == (
        Version(START, noncurrent_since=after(1)),
        Version(after(1), noncurrent_since=after(2)),
        Version(after(2), delete_marker=True),
    )
