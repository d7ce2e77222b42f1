"""`voicemesh.testing` shows what Pulumi's own mocks hide; the rules notice careless components."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes
import pytest
from pulumi_kubernetes.core.v1 import ConfigMap, Secret

from tests.preview import rules
from voicemesh import TenantNamespace, TenantNamespaceArgs, TenantQuota
from voicemesh.testing import Recording, record

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

    with pytest.raises(LookupError, match=r"2 resources .* \['one', 'two'\]"):
        record(program).one("kubernetes:core/v1:ConfigMap")
