"""All that the components generate: Istio finds no fault in it, nor does the API server."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import kubernetes.client
import pytest

from infra.local import toolbox
from tests.e2e.environment import NAMESPACE, Environment
from tests.e2e.istioctl import analyze_cluster, analyze_objects
from tests.e2e.lab import GATEWAY, GATEWAY_NAMESPACE, OTHER_TENANT, TENANT, Lab
from tests.e2e.rendered import Object, declared, recorded
from tests.e2e.submission import own_namespace, refusal
from tests.stacks import STACKS
from voicemesh.contract import APP_LABEL
from voicemesh.contract import GATEWAY_NAMESPACE as PUBLIC_NAMESPACE
from voicemesh.mesh import CNI_NAMESPACE, SYSTEM_NAMESPACE
from voicemesh.testing import Recording

NOT_SERVED: Final = {"ScaledObject"}
"""Kinds of an operator that the embedded environment does not have: KEDA."""


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Recording]:
    return recorded(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="session")
def istioctl() -> None:
    toolbox.ensure_tools(["istioctl"])


@pytest.fixture(scope="module")
def namespace(hosted: None) -> Iterator[str]:
    """An empty namespace, which stands in for those of other environments."""
    with own_namespace(Environment.running(), "strict-validation") as name:
        yield name


@pytest.mark.usefixtures("istioctl")
class TestAnalysis:
    @pytest.mark.parametrize("stack", STACKS)
    def test_nothing_is_found_in_what_an_environment_declares(
        self, recordings: Mapping[str, Recording], stack: str, tmp_path: Path
    ) -> None:
        assert analyze_objects(declared(recordings[stack]), tmp_path) == []

    @pytest.mark.parametrize(
        ("kind", "fault", "code"),
        [
            ("DestinationRule", lambda it: _rename_subsets(it), "IST0101"),
            ("DestinationRule", lambda it: it["spec"].update(host="nobody.tts"), "IST0101"),
            ("VirtualService", lambda it: it["spec"].update(gateways=["tts/none"]), "IST0101"),
        ],
        ids=["subsets", "host", "gateway"],
    )
    def test_a_fault_in_what_an_environment_declares_is_found(
        self,
        recordings: Mapping[str, Recording],
        kind: str,
        fault: Callable[[Object], None],
        code: str,
        tmp_path: Path,
    ) -> None:
        objects = copy.deepcopy(declared(recordings["local"]))
        for it in objects:
            if it["kind"] == kind:
                fault(it)
        assert code in {finding.code for finding in analyze_objects(objects, tmp_path)}

    def test_nothing_is_found_on_the_cluster(self, lab: Lab) -> None:
        check_analysis()

    def test_a_gateway_that_nothing_serves_is_found(self, lab: Lab) -> None:
        with (
            lab.patched("Gateway", GATEWAY_NAMESPACE, GATEWAY, {"selector": {"istio": "none"}}),
            pytest.raises(AssertionError, match="IST0101"),
        ):
            check_analysis()

    def test_a_subset_that_is_gone_is_found(self, lab: Lab) -> None:
        subsets = [{"name": "nobody", "labels": {"version": "none"}}]
        with (
            lab.patched("DestinationRule", TENANT, "plain", {"subsets": subsets}),
            pytest.raises(AssertionError, match="IST0101"),
        ):
            check_analysis()

    def test_a_namespace_that_is_injected_twice_is_found(self, lab: Lab) -> None:
        labels = lab.core.read_namespace(OTHER_TENANT).metadata.labels
        both = {"istio-injection": "enabled", "istio.io/rev": "voicemesh"}
        with (
            _labelled(lab, OTHER_TENANT, both, {name: labels.get(name) for name in both}),
            pytest.raises(AssertionError, match="IST0123"),
        ):
            check_analysis()


@contextmanager
def _labelled(
    lab: Lab, namespace: str, labels: Mapping[str, str], before: Mapping[str, str | None]
) -> Iterator[None]:
    lab.core.patch_namespace(namespace, {"metadata": {"labels": labels}})
    try:
        yield
    finally:
        lab.core.patch_namespace(namespace, {"metadata": {"labels": before}})


def check_analysis() -> None:
    ours = {
        *(NAMESPACE, PUBLIC_NAMESPACE, SYSTEM_NAMESPACE, CNI_NAMESPACE),
        *(GATEWAY_NAMESPACE, TENANT, OTHER_TENANT),
    }
    found = [f"{it.code} {it.origin}" for it in analyze_cluster() if it.namespace in ours]
    assert not found, "; ".join(found)


def _rename_subsets(rule: Object) -> None:
    for subset in rule["spec"]["subsets"]:
        subset["name"] += "-renamed"


class TestSubsets:
    def test_every_subset_selects_a_pod_template(self, lab: Lab) -> None:
        check_subsets(lab, TENANT)
        check_subsets(lab, NAMESPACE)

    def test_a_subset_with_another_label_is_noticed(self, lab: Lab) -> None:
        rule = lab.read("DestinationRule", TENANT, "plain")
        subsets = copy.deepcopy(rule["spec"]["subsets"])
        subsets[0]["labels"]["accelerator"] = "none"
        with (
            lab.patched("DestinationRule", TENANT, "plain", {"subsets": subsets}),
            pytest.raises(AssertionError, match="plain/stable selects no pod template"),
        ):
            check_subsets(lab, TENANT)


def check_subsets(lab: Lab, namespace: str) -> None:
    deployments: Any = kubernetes.client.AppsV1Api(lab.core.api_client)
    templates = [
        it.spec.template.metadata.labels
        for it in deployments.list_namespaced_deployment(namespace).items
    ]
    rules = lab.custom.list_namespaced_custom_object(
        "networking.istio.io", "v1", namespace, "destinationrules"
    )["items"]
    for rule in rules:
        service = {APP_LABEL: rule["spec"]["host"].split(".")[0]}
        for subset in rule["spec"].get("subsets", []):
            wanted = {**service, **subset["labels"]}
            selected = any(wanted.items() <= labels.items() for labels in templates)
            name = f"{rule['metadata']['name']}/{subset['name']}"
            assert selected, f"{name} selects no pod template"


class TestStrictValidation:
    @pytest.mark.parametrize("stack", STACKS)
    def test_the_api_server_takes_all_that_an_environment_declares(
        self,
        environment: Environment,
        recordings: Mapping[str, Recording],
        stack: str,
        namespace: str,
    ) -> None:
        for it in declared(recordings[stack]):
            if it["kind"] not in NOT_SERVED:
                assert refusal(environment, it, namespace) == ""

    @pytest.mark.parametrize(
        ("kind", "path"),
        [
            ("Deployment", ["spec", "template", "spec"]),
            ("DestinationRule", ["spec", "trafficPolicy", "outlierDetection"]),
            ("VirtualService", ["spec"]),
            ("MutatingWebhookConfiguration", ["webhooks", 0]),
        ],
    )
    def test_a_field_that_there_is_not_is_refused_by_its_name(
        self,
        environment: Environment,
        recordings: Mapping[str, Recording],
        namespace: str,
        kind: str,
        path: list[Any],
    ) -> None:
        it = next(it for it in declared(recordings["local"]) if it["kind"] == kind)
        place = it
        for part in path:
            place = place.setdefault(part, {}) if isinstance(part, str) else place[part]
        place["madeUp"] = "value"
        assert "madeUp" in refusal(environment, it, namespace)
