"""`voicemesh.testing` shows what Pulumi's own mocks hide; the rules notice careless components."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes
import pytest
from pulumi_kubernetes.core.v1 import ConfigMap, Secret

from tests.preview import rules
from voicemesh import TenantNamespace, TenantNamespaceArgs, TenantQuota
from voicemesh.testing import Recording, SecretValue, record

TENANT = TenantNamespaceArgs("tts", TenantQuota(4, 8, 20))


class Careless(pulumi.ComponentResource):
    """Does what most components in the wild do: hands its options on, registers nothing."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions) -> None:
        super().__init__("test:index:Careless", name, {}, opts)
        ConfigMap(name, opts=pulumi.ResourceOptions(parent=self).merge(opts))


def _record_with_provider(declare) -> Recording:
    def program() -> None:
        declare(kubernetes.Provider("cluster", kubeconfig="{}"))

    return record(program)


def test_options_that_leak_into_children_are_noticed() -> None:
    recording = _record_with_provider(
        lambda provider: Careless(
            "careless",
            pulumi.ResourceOptions(
                protect=True, aliases=[pulumi.Alias(name="old")], provider=provider
            ),
        )
    )
    faults = list(rules.no_option_of_a_component_reaches_its_children(recording))
    assert [fault.rsplit("::", 1)[1] for fault in faults] == [
        "careless is protected as its parent is",
        "careless has aliases as its parent has",
    ]


def test_options_of_a_careful_component_stay_with_it() -> None:
    options = {"protect": True, "aliases": [pulumi.Alias(name="old")], "ignore_changes": ["x"]}
    recording = _record_with_provider(
        lambda provider: TenantNamespace(
            "tts", TENANT, pulumi.ResourceOptions(**options, providers=[provider])
        )
    )
    component = recording.one("voicemesh:index:TenantNamespace")
    assert component.protect
    assert component.aliases
    assert component.ignore_changes == ("x",)
    children = recording.children(component)
    assert len(children) == 9
    assert [(c.protect, c.ignore_changes) for c in children] == [(False, ())] * 9
    assert list(rules.no_option_of_a_component_reaches_its_children(recording)) == []


def test_a_component_without_outputs_is_noticed() -> None:
    recording = _record_with_provider(
        lambda provider: Careless("careless", pulumi.ResourceOptions(provider=provider))
    )
    assert list(rules.every_component_registers_outputs(recording))


def test_a_resource_beside_the_components_or_without_the_provider_is_noticed() -> None:
    recording = record(lambda: ConfigMap("stray") and None)
    assert list(rules.every_resource_is_the_child_of_a_component(recording))
    assert list(rules.every_resource_uses_the_explicit_provider_of_its_package(recording))


def test_a_secret_in_the_open_is_noticed_and_a_hidden_one_is_not() -> None:
    def program() -> None:
        Secret("hidden", string_data=pulumi.Output.secret({"key": "hunter2"}))
        ConfigMap("open", data={"key": "hunter2"})
        pulumi.export("key", "hunter2")

    faults = list(rules.secrets_stay_secret("hunter2")(record(program)))
    assert [fault.split("::")[-1] for fault in faults] == [
        "open shows a secret at data.key",
        "the stack's output key shows a secret",
    ]


def test_the_same_object_declared_twice_is_noticed() -> None:
    def program() -> None:
        for name in ("one", "two"):
            ConfigMap(name, metadata={"name": "same", "namespace": "tts"})

    assert list(rules.no_object_is_declared_twice(record(program)))


def test_two_resources_of_one_urn_are_refused_as_by_the_engine() -> None:
    def program() -> None:
        for _ in range(2):
            ConfigMap("same")

    with pytest.raises(ValueError, match=r"duplicate resource URN .*::same"):
        record(program)


def test_what_a_program_raises_is_raised() -> None:
    def program() -> None:
        raise KeyError("oops")

    with pytest.raises(KeyError, match="oops"):
        record(program)


def test_what_an_output_raises_is_raised() -> None:
    def program() -> None:
        pulumi.Output.from_input(0).apply(lambda zero: 1 / zero)

    with pytest.raises(ZeroDivisionError):
        record(program)


def test_recordings_share_nothing() -> None:
    first = record(lambda: ConfigMap("first") and None, stack="one")
    second = record(lambda: ConfigMap("second") and None, stack="two")
    assert [r.urn for r in first.registrations + second.registrations] == [
        "urn:pulumi:one::voicemesh::kubernetes:core/v1:ConfigMap::first",
        "urn:pulumi:two::voicemesh::kubernetes:core/v1:ConfigMap::second",
    ]


def test_looking_for_one_of_several_says_which_there_are() -> None:
    def program() -> None:
        ConfigMap("one")
        ConfigMap("two")

    recording = record(program)
    for type_, name, message in [
        ("kubernetes:core/v1:ConfigMap", None, "2 resources .* name any; there are one, two"),
        ("kubernetes:core/v1:ConfigMap", "three", "0 resources .* three; there are one, two"),
        ("kubernetes:core/v1:Configmap", None, "there are kubernetes:core/v1:ConfigMap"),
    ]:
        with pytest.raises(LookupError, match=message):
            recording.one(type_, name)


def test_outputs_of_other_stacks_are_given_and_secrets_among_them_stay_secret() -> None:
    def program() -> None:
        platform = pulumi.StackReference("acme/voicemesh/prod")
        ConfigMap("seen", data={"gateway": platform.require_output("gatewayRef")})
        pulumi.export("token", platform.require_output("token"))
        pulumi.export("missing", platform.get_output("missing"))

    outputs = {"gatewayRef": "istio-ingress/public", "token": SecretValue("hunter2")}
    recording = record(program, stacks={"acme/voicemesh/prod": outputs})
    seen = recording.one("kubernetes:core/v1:ConfigMap")
    assert seen.inputs["data"] == {"gateway": "istio-ingress/public"}
    assert recording.exports == {"token": "hunter2"}
    assert recording.secret_exports == {"token"}
    assert [(read.type, read.id) for read in recording.reads] == [
        ("pulumi:pulumi:StackReference", "acme/voicemesh/prod")
    ]


def test_a_reference_to_a_stack_without_given_outputs_is_refused_by_name() -> None:
    def program() -> None:
        pulumi.StackReference("acme/voicemesh/prod")

    with pytest.raises(LookupError, match=r"'acme/voicemesh/prod'; given: acme/voicemesh/dev"):
        record(program, stacks={"acme/voicemesh/dev": {}})


def test_configuration_is_given_as_python_values() -> None:
    def program() -> None:
        config = pulumi.Config()
        assert config.require_object("layers") == ["services"]
        assert config.require_bool("deletionProtection") is True
        assert pulumi.Config("aws").require("region") == "eu-west-1"
        pulumi.export("password", config.require_secret("password"))

    config = {
        "layers": ["services"],
        "deletionProtection": True,
        "aws:region": "eu-west-1",
        "password": SecretValue("hunter2"),
    }
    recording = record(program, config=config)
    assert recording.secret_exports == {"password"}
    assert "hunter2" not in repr(config)


def test_what_a_program_looks_at_is_kept_apart_from_what_it_declares() -> None:
    def program() -> None:
        made = ConfigMap("made")
        ConfigMap.get("seen", "tts/seen", pulumi.ResourceOptions(depends_on=[made]))

    recording = record(program)
    assert [r.name for r in recording.registrations] == ["made"]
    (read,) = recording.reads
    assert (read.name, read.id, read.depends_on) == (
        "seen",
        "tts/seen",
        {recording.registrations[0].urn},
    )


def test_options_that_decide_about_replacement_and_deletion_are_seen() -> None:
    options = pulumi.ResourceOptions(
        delete_before_replace=True,
        replace_on_changes=["data"],
        retain_on_delete=True,
        import_="tts/kept",
    )
    seen = record(lambda: ConfigMap("it", opts=options) and None).registrations[0]
    assert seen.delete_before_replace
    assert seen.retain_on_delete
    assert seen.replace_on_changes == ("data",)
    assert seen.import_id == "tts/kept"
    plain = record(lambda: ConfigMap("it") and None).registrations[0]
    assert (plain.delete_before_replace, plain.retain_on_delete) == (False, False)
    assert (plain.replace_on_changes, plain.import_id) == ((), "")
