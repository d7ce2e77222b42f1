"""How rules read properties, and find the resources that belong together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policies.recorded import RULES, changed, environment, one
from tests.policies.test_seed_snippets import declared
from voicemesh_policies.objects import Resource, Stack
from voicemesh_policies.rule import violations
from voicemesh_policies.view import UNKNOWN, UnknownError, View


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("30s", 30), ("1m30s", 90), ("0.5s", 0.5), ("2h", 7200), ("10ms", 0.01), ("0s", 0)),
        *(("", None), ("30", None), ("s", None), ("1m 30s", None), ("-1s", None), (30, None)),
    ],
)
def test_durations_are_read_as_istio_does(text: Any, seconds: float | None) -> None:
    assert View(text).seconds == seconds


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        *(("500m", 0.5), ("2", 2), (2, 2), ("16Gi", 16 * 2**30), ("1.5k", 1500), ("1e3", 1000)),
        *(("", None), ("Gi", None), ("1Xi", None), ("much", None), (True, None), ("1e999", None)),
    ],
)
def test_quantities_are_read_as_kubernetes_does(text: Any, amount: float | None) -> None:
    assert View(text).quantity == amount


@given(st.text())
def test_any_text_is_a_duration_and_a_quantity_or_none(text: str) -> None:
    assert View(text).seconds is None or View(text).seconds >= 0  # pyright: ignore
    assert View(text).quantity is None or isinstance(View(text).quantity, float)


def test_looking_at_an_unknown_value_raises_with_its_path() -> None:
    view = View({"spec": {"hosts": ["a", UNKNOWN]}})
    assert view.at("spec.hosts")[0].text == "a"
    for look in (
        lambda: view.at("spec.hosts")[1].text,
        lambda: view.at("spec.hosts").texts,
        lambda: view.at("spec.hosts")[1]["below"],
    ):
        with pytest.raises(UnknownError) as raised:
            look()
        assert raised.value.path == "spec.hosts[1]"


def test_a_path_shows_keys_with_dots_in_brackets() -> None:
    labels = View({"metadata": {"labels": {"voicemesh.io/tenant": "a"}}}).at("metadata.labels")
    assert labels["voicemesh.io/tenant"].path == 'metadata.labels["voicemesh.io/tenant"]'


def test_a_value_is_shown_as_json_and_shortened() -> None:
    assert View({"a": [1, 2.0, True, None]}).shown == '{"a": [1, 2, true, None]}'
    assert len(View(["x" * 1000] * 1000).shown) < 200
    assert View(None).shown == "missing"


@pytest.fixture
def stack() -> Stack:
    return Stack(environment("prod"))


@pytest.mark.parametrize(
    ("host", "near", "found"),
    [
        ("narrator", "studio", True),
        ("narrator", "captions", False),
        ("narrator.studio", "captions", True),
        ("narrator.studio.svc.cluster.local", "captions", True),
        ("narrator.studio.example.com", "studio", False),
        ("", "studio", False),
    ],
)
def test_a_host_of_the_mesh_names_a_service(
    stack: Stack, host: str, near: str, found: bool
) -> None:
    service = stack.service(host, near)
    assert (service is not None and service.name == "studio-narrator") is found


def test_a_service_selects_the_pods_that_have_all_its_labels(stack: Stack) -> None:
    service = stack.service("narrator", "studio")
    assert service is not None
    names = {it.object_name for it in stack.behind(service)}
    assert names == {"narrator-stable", "narrator-canary", "narrator-premium"}
    assert stack.selected("studio", {}) == []
    assert stack.selected("captions", {"app": "narrator"}) == []


@pytest.mark.parametrize(
    ("scaler", "numbers"),
    [
        ({"kind": "ScaledObject", "minReplicaCount": 2, "maxReplicaCount": 4}, (2, 4)),
        ({"kind": "ScaledObject"}, (0, 100)),
        ({"kind": "HorizontalPodAutoscaler", "minReplicas": 3, "maxReplicas": 5}, (3, 5)),
        ({"kind": "HorizontalPodAutoscaler", "maxReplicas": 5}, (1, 5)),
        (None, (7, 7)),
    ],
)
def test_the_number_of_pods_is_the_scalers_where_there_is_one(
    scaler: dict[str, Any] | None, numbers: tuple[int, int]
) -> None:
    voice = changed(
        one(environment("prod"), "Deployment studio-narrator-stable"), "spec.replicas", 7
    )
    resources = [voice]
    if scaler:
        target = {"kind": "Deployment", "name": "narrator-stable"}
        spec = {"scaleTargetRef": target, **{k: it for k, it in scaler.items() if k != "kind"}}
        manifest = {
            "apiVersion": "keda.sh/v1",
            "kind": scaler["kind"],
            "metadata": {},
            "spec": spec,
        }
        found = declared("scaler", manifest)
        manifest["metadata"]["namespace"] = "studio"
        resources.append(found)
    stack = Stack(tuple(resources))
    assert (stack.fewest_pods(voice), stack.most_pods(voice)) == numbers


@pytest.mark.parametrize(
    ("rule", "which"),
    [
        ("pods-outlive-their-streams", "Service studio-narrator"),
        ("one-pod-can-be-ejected", "Service studio-narrator"),
        ("namespaces-have-a-quota", "ResourceQuota library"),
        ("tokens-are-required", "AuthorizationPolicy library-reader"),
        ("gpus-fit-their-quota", "Deployment library-reader-stable"),
    ],
)
def test_what_is_in_no_known_place_could_be_anywhere(rule: str, which: str) -> None:
    lost = changed(one(environment("prod"), which), "metadata.namespace", UNKNOWN)
    resources: list[Resource] = [it for it in environment("prod") if it.urn != lost.urn]
    said = [it.message for it in violations(RULES[rule], [*resources, lost], {})]
    assert said
    assert all("metadata.namespace is not known" in it for it in said)
