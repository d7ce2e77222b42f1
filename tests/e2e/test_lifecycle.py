"""The life of a stack on the real engine: up, change, drift, heal, refusal, destroy.

The tests of this module follow each other in the order of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiException

from infra.local import stack
from infra.local.paths import STATE
from infra.local.speak import speak
from tests.e2e.environment import APP, NAMESPACE, Environment, eventually, is_ready, local
from tests.e2e.small_stack import SmallStack

pytestmark = pytest.mark.usefixtures("without_lab")

_VARIANT = "voicemesh:voices[0].variants"


def _set(path: str, value: str) -> None:
    stack.pulumi("config", "set", "--path", path, value, *stack.WORKING)


def _changed_kinds(operation: str) -> list[str]:
    """The kinds of the resources that the last run of `operation` changed, with what it did."""
    events = (STATE / "logs" / f"pulumi-{operation}.events").read_text().splitlines()
    steps = [json.loads(line).get("resourcePreEvent") for line in events]
    done = [step["metadata"] for step in steps if step]
    return sorted(
        f"{step['op']} {step['type'].rpartition(':')[2]}" for step in done if step["op"] != "same"
    )


def test_an_unchanged_preview_shows_no_change(environment: Environment) -> None:
    assert stack.preview().total == 0


def test_image_weight_and_quota_change_in_place_and_nothing_else_does(
    environment: Environment,
) -> None:
    _set(f"{_VARIANT}[0].image", "localhost/voicemesh/speech-server:0.1.1")
    _set(f"{_VARIANT}[0].weight", "80")
    _set(f"{_VARIANT}[1].weight", "20")
    _set("voicemesh:tenants[0].quota.pods", "21")
    stack.up()
    assert _changed_kinds("up") == [
        "update Deployment",
        "update ResourceQuota",
        "update VirtualService",
        "update VirtualService",
    ]
    images = sorted(
        container.image
        for pod in environment.speech_pods()
        for container in pod.spec.containers
        if container.name != "istio-proxy"
    )
    assert [image.rpartition(":")[2] for image in images] == ["0.1.0", "0.1.1", "0.1.1"]


@contextmanager
def _added(**items: dict[str, Any]) -> Iterator[None]:
    """For a while, the stack's configuration has one more item in each of these lists."""
    before = stack.CONFIG_FILE.read_text()
    config = yaml.safe_load(before)
    for key, item in items.items():
        config["config"][f"voicemesh:{key}"].append(item)
    stack.CONFIG_FILE.write_text(yaml.safe_dump(config))
    try:
        yield
    finally:
        stack.CONFIG_FILE.write_text(before)


def test_a_second_tenant_with_a_voice_needs_only_configuration(environment: Environment) -> None:
    config = yaml.safe_load(stack.CONFIG_FILE.read_text())["config"]
    tenant = {**config["voicemesh:tenants"][0], "name": "radio"}
    variant = {**config["voicemesh:voices"][0]["variants"][0], "weight": 100, "replicas": 1}
    voice = {"name": "news", "tenant": "radio", "variants": [variant]}
    with _added(tenants=tenant, voices=voice):
        stack.up()
        assert {step.split()[0] for step in _changed_kinds("up")} == {"create"}
        pods = environment.core.list_namespaced_pod("radio", label_selector="app=news").items
        assert [is_ready(pod) for pod in pods] == [True]
    stack.up()
    assert {step.split()[0] for step in _changed_kinds("up")} == {"delete"}


def test_a_refresh_finds_no_drift(environment: Environment) -> None:
    stack.pulumi("refresh", "--yes", "--expect-no-changes", *stack.WORKING)


def test_what_was_deleted_behind_the_engines_back_is_healed(environment: Environment) -> None:
    kind = ("networking.istio.io", "v1", NAMESPACE, "destinationrules")
    rules = environment.custom.list_namespaced_custom_object(*kind)["items"]
    name = rules[0]["metadata"]["name"]
    environment.custom.delete_namespaced_custom_object(*kind, name)
    stack.up(refresh=True)
    assert "create DestinationRule" in _changed_kinds("up")
    assert environment.custom.get_namespaced_custom_object(*kind, name)["spec"] == rules[0]["spec"]
    assert stack.preview().total == 0


@contextmanager
def small_stack(folder: Path, program: str) -> Iterator[SmallStack]:
    """A small stack, which is gone afterwards with all that it made."""
    small = SmallStack(folder, program)
    small.init()
    yield small
    small.destroy()


@pytest.fixture
def rule_stack(environment: Environment, tmp_path: Path) -> Iterator[SmallStack]:
    with small_stack(tmp_path, "destination_rule.py") as small:
        yield small


@pytest.fixture
def voice_stack(environment: Environment, tmp_path: Path) -> Iterator[SmallStack]:
    with small_stack(tmp_path, "renamed_voice.py") as small:
        yield small


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"field": "consecutive_5xx"},
            ".spec.trafficPolicy.outlierDetection.consecutive_5xx: field not declared in schema",
        ),
        ({"mode": "SIMPL"}, 'spec.trafficPolicy.tls.mode: Unsupported value: "SIMPL"'),
        ({"namespace": "missing"}, 'namespaces "missing" not found'),
    ],
    ids=["unknown field", "bad enum", "missing namespace"],
)
def test_an_invalid_change_names_the_field_and_leaves_the_service_serving(
    environment: Environment,
    rule_stack: SmallStack,
    tmp_path: Path,
    change: dict[str, str],
    named: str,
) -> None:
    assert rule_stack.up().startswith("exit 0")
    kind = ("networking.istio.io", "v1", NAMESPACE, "destinationrules", "other")
    before = environment.custom.get_namespaced_custom_object(*kind)["spec"]

    said = rule_stack.up(**change)

    assert not said.startswith("exit 0")
    assert named in said
    assert environment.custom.get_namespaced_custom_object(*kind)["spec"] == before
    assert speak(environment.door, None, tmp_path / "a.wav").audio_seconds > 1


def _identities(resources: list[dict[str, Any]]) -> list[str]:
    """What exists in the cluster, by kind, name and UID."""
    return sorted(
        f"{resource['type']} {resource['id']} {resource['outputs']['metadata'].get('uid')}"
        for resource in resources
        if resource["type"].startswith("kubernetes:")
    )


def test_a_renamed_component_keeps_every_object(voice_stack: SmallStack) -> None:
    assert voice_stack.up(name="alto").startswith("exit 0")
    before = _identities(voice_stack.state())

    assert voice_stack.up(name="contralto", formerly="alto").startswith("exit 0")

    assert _identities(voice_stack.state()) == before
    assert any(r["urn"].endswith("::contralto-stable") for r in voice_stack.state())
    assert voice_stack.preview().startswith("exit 0")
    # Without the alias, another name is another component.
    assert not voice_stack.preview(name="tenor").startswith("exit 0")


def test_destroy_leaves_no_resource_and_up_makes_all_of_it_again(
    environment: Environment, tmp_path: Path
) -> None:
    stack.pulumi("destroy", "--yes", *stack.WORKING)
    exported = json.loads(stack.pulumi("stack", "export", *stack.SELECTED).stdout)
    left = [resource["type"] for resource in exported["deployment"].get("resources", [])]
    assert [kind for kind in left if not kind.startswith("pulumi:")] == []
    namespaces = {item.metadata.name for item in environment.core.list_namespace().items}
    assert namespaces == {"default", "kube-system", "kube-public", "kube-node-lease"}
    with pytest.raises(ApiException):
        environment.core.read_namespaced_service(APP, NAMESPACE)

    up = local("up")
    assert up.returncode == 0, up.stdout + up.stderr
    eventually(lambda: len(environment.speech_pods()) == 3, what="three speech pods")
    assert speak(environment.door, None, tmp_path / "a.wav").audio_seconds > 1
