"""The pack as Pulumi's policy host serves it."""

from __future__ import annotations

import runpy
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from pulumi.runtime import proto
from pulumi_policy import EnforcementLevel
from pulumi_policy.policy import _PolicyAnalyzerServicer
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE, unknown_checking_proxy

from infra.local.paths import CACHE
from tests.policies.mutants import MUTANTS, Mutant
from tests.policies.recorded import RULES, changed, environment
from tests.stacks import ROOT, STACKS
from voicemesh import charts, contract
from voicemesh.cluster import accelerators
from voicemesh_policies import gpu, instances, istio, mesh, pack, server
from voicemesh_policies.objects import Resource
from voicemesh_policies.view import UNKNOWN

MUTANT_OF = {it.rule: it for it in MUTANTS}

_DEFINITIONS = "base/files/crd-all.gen.yaml"
SERVER = "spec.template.spec.containers[0]"


def host(config: Any = None, servicer: Any = server.Servicer) -> _PolicyAnalyzerServicer:
    """The policy host with the pack, in this process."""
    served = servicer(pack.NAME, "0.1.0", pack.policies(), EnforcementLevel.MANDATORY)
    request = proto.ConfigureAnalyzerRequest()
    for name, own in (config or {}).items():
        request.policyConfig[name].enforcementLevel = proto.MANDATORY
        request.policyConfig[name].properties.update(own)
    served.Configure(request, None)
    return served


def analyzed(resource: Resource, config: Any = None, servicer: Any = server.Servicer) -> list[Any]:
    """What the host answers about a resource."""
    return list(host(config, servicer).Analyze(asked(resource), None).diagnostics)


def asked(resource: Resource) -> Any:
    """A resource as the engine tells a pack of it."""
    request = proto.AnalyzeRequest(
        type=resource.type,
        name=resource.name,
        urn=resource.urn,
        properties=json_format.ParseDict(_wire(resource.load()), struct_pb2.Struct()),
    )
    request.options.protect = resource.protect
    if provider := resource.load_provider():
        json_format.ParseDict(_wire(provider), request.provider.properties)
    return request


def in_stack(resource: Resource) -> Any:
    """A resource as the engine tells a pack of it among those of its stack."""
    request = asked(resource)
    return proto.AnalyzerResource(
        type=request.type,
        name=request.name,
        urn=request.urn,
        properties=request.properties,
        options=request.options,
        provider=request.provider,
        dependencies=sorted(resource.dependencies),
    )


def _wire(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _wire(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_wire(entry) for entry in value]
    return UNKNOWN_STRING_VALUE if value is UNKNOWN else value


def mutant(rule: str) -> Resource:
    return MUTANT_OF[rule].applied()[0]


def with_unknown(rule: str) -> Resource:
    found = MUTANT_OF[rule]
    return changed(found.original(), found.path, UNKNOWN)


def test_the_host_tells_what_each_rule_is() -> None:
    told = {it.name: it for it in host().GetAnalyzerInfo(None, None).policies}
    assert set(told) == set(RULES)
    for name, rule in RULES.items():
        assert told[name].description == f"{rule.what} {rule.why}"
        assert told[name].remediation_steps == rule.fix
        assert told[name].url == rule.link
        assert told[name].framework.name == rule.framework
        assert list(told[name].tags) == [rule.concern]
        assert told[name].enforcementLevel == proto.MANDATORY
        assert {"waivers", "unknownValues"} <= set(told[name].configSchema.properties)


def test_the_host_reports_a_violation_with_its_rule_and_level() -> None:
    (said,) = analyzed(mutant("memory-is-limited"))
    assert said.policyName == "memory-is-limited"
    assert said.enforcementLevel == proto.MANDATORY
    assert said.severity == proto.POLICY_SEVERITY_HIGH
    assert f"{SERVER}.resources.limits.memory is missing" in said.message


def test_an_unknown_value_leaves_a_mandatory_rule_mandatory() -> None:
    (said,) = analyzed(with_unknown("memory-is-limited"))
    assert (said.policyName, said.enforcementLevel) == ("memory-is-limited", proto.MANDATORY)
    assert f"{SERVER}.resources.limits.memory is not known before" in said.message


def test_an_unknown_value_is_advisory_only_where_the_environment_says_so() -> None:
    advisory = {"memory-is-limited": {"unknownValues": "advisory"}}
    (said,) = analyzed(with_unknown("memory-is-limited"), advisory)
    assert (said.policyName, said.enforcementLevel) == ("memory-is-limited", proto.ADVISORY)
    assert f"{SERVER}.resources.limits.memory" in said.message
    (said,) = analyzed(mutant("memory-is-limited"), advisory)
    assert said.enforcementLevel == proto.MANDATORY


def test_settings_that_an_environment_leaves_out_have_their_defaults() -> None:
    config = {"others-image-is-listed": {"images": ["docker.io/somebody/*"]}}
    assert analyzed(mutant("others-image-is-listed"), config) == []
    (said,) = analyzed(MUTANT_OF["others-image-is-listed"].original(), config)
    assert said.policyName == "others-image-is-listed"


def test_the_host_takes_waivers_from_the_configuration() -> None:
    waiver = {"resource": "studio-*", "reason": "a test", "expires": "9999-12-31"}
    config = {"memory-is-limited": {"waivers": [waiver]}}
    assert analyzed(mutant("memory-is-limited"), config) == []
    expired = {"memory-is-limited": {"waivers": [{**waiver, "expires": "2020-01-01"}]}}
    assert len(analyzed(mutant("memory-is-limited"), expired)) == 2


def told(diagnostics: Any) -> list[tuple[Any, ...]]:
    return sorted((it.policyName, it.enforcementLevel, it.urn, it.message) for it in diagnostics)


@pytest.mark.parametrize("it", MUTANTS, ids=lambda it: it.rule)
def test_the_pack_serves_rules_as_pulumis_own_servicer_does(it: Mutant) -> None:
    resource = it.applied()[0]
    ours, pulumis = (
        told(analyzed(resource, {}, servicer))
        for servicer in (server.Servicer, _PolicyAnalyzerServicer)
    )
    assert ours == pulumis
    assert bool(ours) is bool(RULES[it.rule].on_resource)


@pytest.mark.parametrize("stack", STACKS)
def test_the_pack_serves_rules_about_stacks_as_pulumis_own_servicer_does(stack: str) -> None:
    config = {"cost-is-within-budget": {"monthlyUsd": 1}}
    resources = [*environment(stack), *environment("prod")]
    request = proto.AnalyzeStackRequest(resources=map(in_stack, resources))
    ours, pulumis = (
        told(host(config, servicer).AnalyzeStack(request, None).diagnostics)
        for servicer in (server.Servicer, _PolicyAnalyzerServicer)
    )
    assert ours == pulumis
    assert ours or stack == "prod"


def test_a_rule_that_is_disabled_says_nothing() -> None:
    served = host({"memory-is-limited": {}})
    request = proto.ConfigureAnalyzerRequest()
    request.policyConfig["memory-is-limited"].enforcementLevel = proto.DISABLED
    served.Configure(request, None)
    assert not served.Analyze(asked(mutant("memory-is-limited")), None).diagnostics


def test_secrets_are_read_and_assets_are_not() -> None:
    secret = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "value": [1]}
    asset = {"4dabf18193072939515e22adb298388d": "c44067f5952c0a294b673a41bacd8c17", "text": "a"}
    struct = json_format.ParseDict({"a": secret, "b": asset, "c": None}, struct_pb2.Struct())
    assert server.read(struct) == {"a": [1], "b": UNKNOWN, "c": None}


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=8,
)


@given(it=st.sampled_from([it for it in MUTANTS if it.path.startswith("spec.")]), value=_JSON)
@settings(max_examples=60, deadline=None)
def test_the_host_survives_any_value(it: Mutant, value: Any) -> None:
    resource = changed(it.original(), it.path, value)
    assert all("in the rule itself" not in said.message for said in analyzed(resource))


def test_unknown_values_are_found_however_deep_they_are() -> None:
    proxied = unknown_checking_proxy({"a": [{"b": UNKNOWN_STRING_VALUE, "c": 1}], "d": {}})
    assert pack.plain(proxied) == {"a": [{"b": UNKNOWN, "c": 1}], "d": {}}


def test_what_is_nested_too_deep_counts_as_unknown() -> None:
    value: Any = "deep"
    for _ in range(5_000):
        value = [value]
    assert "UNKNOWN" in repr(pack.plain(value))


def test_the_defaults_are_what_the_library_does() -> None:
    headers = RULES["identity-headers-do-not-route"].config["identityHeaders"]["default"]
    assert set(headers) == {
        contract.TENANT_HEADER,
        contract.TIER_HEADER,
        contract.SCOPE_HEADER,
        contract.SUBJECT_HEADER,
    }
    spoken = [contract.BASIC_SCOPE, contract.PREMIUM_SCOPE]
    assert {
        contract.SPEECH_PATH: spoken,
        contract.SPEECH_STREAM_PATH: spoken,
        contract.TTS_PATH: spoken,
        contract.VOICES_PATH: [contract.PREMIUM_SCOPE],
        contract.BATCH_PATH: [contract.BATCH_SCOPE],
        contract.ADMIN_PATH: [contract.ADMIN_SCOPE],
    } == mesh._SCOPES
    assert RULES["rollback-images-stay"].config["keptTags"]["default"] == [
        f"{contract.LIVE_TAG_PREFIX}*",
        f"{contract.ROLLBACK_TAG_PREFIX}*",
    ]
    assert (gpu.TAINT, gpu.OFFLINE_TAINT) == (contract.GPU_TAINT_KEY, contract.WORKLOAD_TAINT_KEY)
    assert (gpu.ACCELERATOR_LABEL, gpu.NODE_TYPE_LABEL, gpu.OFFLINE) == (
        contract.ACCELERATOR_LABEL,
        contract.NODE_TYPE_LABEL,
        contract.OFFLINE_NODE_TYPE,
    )
    label = RULES["namespaces-have-a-quota"].config["namespaceLabel"]["default"]
    assert label == contract.TENANT_LABEL


def test_instance_types_have_the_gpus_that_the_library_knows() -> None:
    known = {name: (it.accelerator, it.gpus) for name, it in accelerators.INSTANCES.items()}
    assert known.items() <= instances.GPUS.items()
    slices = {name: it for of in accelerators.MIG_PROFILES.values() for name, it in of.items()}
    assert slices == instances.SLICES


def test_the_table_of_fields_is_of_the_istio_that_is_installed() -> None:
    assert istio.istio_version() == charts.ISTIO_VERSION


def test_the_table_of_fields_is_made_from_the_definitions_of_istio() -> None:
    found = sorted((CACHE / "tools").glob(f"istio-{charts.ISTIO_VERSION}-*/charts/{_DEFINITIONS}"))
    if not found:
        pytest.skip("Istio's charts are not here; `make up` fetches them")
    generate = runpy.run_path(str(ROOT / "policies" / "generate_schemas.py"))
    assert generate["istio_table"](found[0], charts.ISTIO_VERSION) == istio._table("istio")


def test_a_wheel_has_the_rules_and_their_tables(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT / "policies",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("voicemesh_policies-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "voicemesh_policies/pack.py",
        "voicemesh_policies/data/istio.json.gz",
        "voicemesh_policies/data/envoy.json.gz",
    } <= set(names)
    assert not [it for it in names if not it.startswith("voicemesh_policies")]
