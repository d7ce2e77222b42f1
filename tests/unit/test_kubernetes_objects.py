"""Decisions of the kubernetes provider that need no cluster."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.local.adapters.kubernetes_provider.drift import drifted_inputs
from infra.local.adapters.kubernetes_provider.helm import (
    install_arguments,
    resource_names,
    template_arguments,
)
from infra.local.adapters.kubernetes_provider.kubeconfig import load_text, parse
from infra.local.adapters.kubernetes_provider.object_client import is_edited_by_hand
from infra.local.adapters.kubernetes_provider.objects import (
    api_version_and_kind,
    automatic_name,
    identity,
    imported_inputs,
    live_outputs,
    normalised,
    parse_identity,
    planned_outputs,
    with_name,
)
from infra.local.adapters.kubernetes_provider.provider import KubernetesProvider
from infra.local.adapters.kubernetes_provider.replacement import forcing_paths
from infra.local.adapters.property_values import UNKNOWN, Secret, changes, path_text
from infra.local.adapters.provider_base import (
    Autoname,
    CheckFailedError,
    ProviderError,
    UnsupportedTypeError,
    replaced_by,
)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("kubernetes:core/v1:Pod", ("v1", "Pod")),
        ("kubernetes:apps/v1:Deployment", ("apps/v1", "Deployment")),
        ("kubernetes:networking.istio.io/v1:Gateway", ("networking.istio.io/v1", "Gateway")),
    ],
)
def test_a_token_names_api_version_and_kind(token: str, expected: tuple[str, str]) -> None:
    assert api_version_and_kind(token) == expected


@pytest.mark.parametrize("id_", ["space/name", "name"])
def test_ids_are_read_as_they_are_written(id_: str) -> None:
    namespace, name = parse_identity(id_)
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    assert identity({"metadata": metadata}) == id_


def test_a_secret_keeps_one_secret_map_of_data() -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "stringData": {"word": Secret("x"), "later": UNKNOWN, "gone": None},
        "data": {"raw": "eQ=="},
    }
    result = normalised(secret)
    assert "stringData" not in result
    word = base64.b64encode(b"x").decode()
    assert result["data"] == Secret({"raw": "eQ==", "word": word, "later": UNKNOWN})


def test_a_config_map_is_no_secret() -> None:
    plain_map = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}
    assert normalised(plain_map) == plain_map


def test_names_are_the_programs_the_old_ones_or_new_ones() -> None:
    given = with_name({"metadata": {"name": "mine"}}, {}, "res", None, b"")
    assert given == {"metadata": {"name": "mine"}}
    first = with_name({}, {}, "res", None, b"seed")
    assert first["metadata"]["name"].startswith("res-")
    assert len(first["metadata"]["name"]) == len("res-") + 8
    assert with_name({}, {}, "res", None, b"seed") == first, "preview and update agree"
    assert with_name({}, first, "res", None, b"other") == first, "an update keeps the name"
    assert with_name({}, {}, "res", None, b"other") != first
    # A name that the program has stopped giving was not automatic, and is not kept.
    assert with_name({}, given, "res", None, b"")["metadata"]["name"] != "mine"


def test_the_engines_naming_rules_are_obeyed() -> None:
    assert automatic_name("res", Autoname("ENFORCE", "demanded"), b"") == "demanded"
    with pytest.raises(CheckFailedError, match=r"metadata\.name"):
        automatic_name("res", Autoname("DISABLE", ""), b"")


def replaced(old: dict[str, Any], new: dict[str, Any], **mutable: bool) -> set[str]:
    settings = {"config_map_mutable": False, "secret_mutable": False, **mutable}
    changed = changes(old, new)
    return {path_text(path) for path in replaced_by(changed, forcing_paths(old, **settings))}


def obj(kind: str, api_version: str = "v1", **fields: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, **fields}


@pytest.mark.parametrize(
    ("old", "change", "expected"),
    [
        (obj("Deployment", "apps/v1", spec={"replicas": 1}), {"spec": {"replicas": 2}}, set()),
        (
            obj("Deployment", "apps/v1", spec={"selector": {"matchLabels": {"a": "b"}}}),
            {"spec": {"selector": {"matchLabels": {"a": "c"}}}},
            {"spec.selector.matchLabels.a"},
        ),
        (
            obj("Job", "batch/v1", spec={"template": {"spec": {"x": 1}}}),
            {"spec": {"template": {"spec": {"x": 2}}}},
            {"spec.template.spec.x"},
        ),
        (obj("ConfigMap", data={"a": "1"}), {"data": {"a": "2"}}, {"data.a"}),
        (obj("Secret", data={"a": "1"}), {"data": {"a": "2"}}, {"data.a"}),
        (obj("Service", spec={"type": "ClusterIP"}), {"spec": {"type": "NodePort"}}, set()),
        (obj("Service", spec={"clusterIP": "a"}), {"spec": {"clusterIP": "b"}}, {"spec.clusterIP"}),
        (obj("Service", spec={}), {"metadata": {"name": "y"}}, {"metadata.name"}),
        (obj("Anything", "example.org/v1", spec=1), {"spec": 2}, set()),
    ],
)
def test_immutable_fields_need_a_new_object(
    old: dict[str, Any], change: dict[str, Any], expected: set[str]
) -> None:
    assert replaced(old, {**old, **change}) == expected


def test_mutable_config_maps_change_in_place_unless_they_say_otherwise() -> None:
    old, new = obj("ConfigMap", data={"a": "1"}), obj("ConfigMap", data={"a": "2"})
    assert replaced(old, new, config_map_mutable=True) == set()
    fixed = {"immutable": True}
    assert replaced({**old, **fixed}, {**new, **fixed}, config_map_mutable=True) == {"data.a"}


INPUTS = {
    "spec": {
        "cpu": "1000m",
        "replicas": 2,
        "containers": [{"name": "main", "image": "a"}],
        "gone": "x",
    }
}
APPLIED = {
    "spec": {
        "cpu": "1",
        "replicas": 2,
        "containers": [{"name": "sidecar"}, {"name": "main", "image": "a", "policy": "Always"}],
        "gone": "x",
        "defaulted": True,
    }
}


def test_another_spelling_and_defaults_are_no_drift() -> None:
    assert drifted_inputs(INPUTS, APPLIED, APPLIED) == INPUTS
    live = {"spec": {**APPLIED["spec"], "defaulted": False, "added": 1}}
    assert drifted_inputs(INPUTS, APPLIED, live) == INPUTS


def test_changed_and_removed_values_are_drift() -> None:
    live = {
        "spec": {
            **APPLIED["spec"],
            "replicas": 7,
            "containers": [{"name": "sidecar"}, {"name": "main", "image": "b"}],
        }
    }
    del live["spec"]["gone"]
    assert drifted_inputs(INPUTS, APPLIED, live) == {
        "spec": {"cpu": "1000m", "replicas": 7, "containers": [{"name": "main", "image": "b"}]}
    }


LIVE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {
        "name": "x",
        "namespace": "y",
        "uid": "1",
        "resourceVersion": "2",
        "creationTimestamp": "3",
        "managedFields": [{}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
    },
    "spec": {"clusterIP": "10.96.0.7", "ports": []},
    "status": {"loadBalancer": {}},
}


def test_outputs_are_the_live_object_without_bookkeeping() -> None:
    outputs = live_outputs(LIVE)
    assert "managedFields" not in outputs["metadata"]
    assert outputs["status"] == LIVE["status"]
    assert "managedFields" in LIVE["metadata"], "the live object itself is left alone"


def test_a_preview_does_not_promise_what_only_the_server_decides() -> None:
    planned = planned_outputs(LIVE, {"spec": {}}, new=True)
    assert "status" not in planned
    assert planned["metadata"]["uid"] is UNKNOWN
    assert planned["spec"]["clusterIP"] is UNKNOWN
    assert planned["metadata"]["name"] == "x"
    chosen = planned_outputs(LIVE, {"spec": {"clusterIP": "10.96.0.7"}}, new=True)
    assert chosen["spec"]["clusterIP"] == "10.96.0.7"


def test_a_preview_of_a_change_keeps_what_the_server_has_decided() -> None:
    planned = planned_outputs(LIVE, {"spec": {}}, new=False)
    assert planned["metadata"]["uid"] == "1"
    assert planned["spec"]["clusterIP"] == "10.96.0.7"
    assert planned["metadata"]["resourceVersion"] is UNKNOWN


def test_imported_inputs_are_what_a_program_would_write() -> None:
    assert imported_inputs(LIVE) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x", "namespace": "y"},
        "spec": LIVE["spec"],
    }


@pytest.mark.parametrize(
    ("message", "by_hand"),
    [
        ('Apply failed with 1 conflict: conflict with "kubectl-edit" using apps/v1: .a', True),
        ('Apply failed with 1 conflict: conflict with "keda" using apps/v1: .a', False),
        ('2 conflicts: conflicts with "kubectl":\n- .a\nconflicts with "keda":\n- .b', False),
        ("the object has been modified", False),
    ],
)
def test_only_edits_by_hand_are_taken_over(message: str, by_hand: bool) -> None:
    assert is_edited_by_hand(message) is by_hand


RELEASE = {
    "name": "mesh",
    "namespace": "istio-system",
    "chart": "base",
    "version": "1.31.0",
    "repositoryOpts": {"repo": "https://charts.example.org"},
}


def test_helm_is_told_what_the_release_says() -> None:
    told = install_arguments({**RELEASE, "atomic": True, "waitForJobs": True}, "v.json", 90)
    assert told[:4] == ["upgrade", "--install", "mesh", "base"]
    for flags in (
        ["--namespace", "istio-system"],
        ["--version", "1.31.0"],
        ["--repo", "https://charts.example.org"],
        ["--values", "v.json"],
    ):
        assert " ".join(flags) in " ".join(told)
    assert {"--timeout=90s", "--wait", "--wait-for-jobs", "--atomic"} <= set(told)
    hasty = install_arguments({**RELEASE, "skipAwait": True, "waitForJobs": True}, "v.json", 90)
    assert not {"--wait", "--wait-for-jobs", "--atomic"} & set(hasty)


def test_crds_of_a_chart_are_rendered_unless_skipped() -> None:
    assert "--include-crds" in template_arguments(RELEASE, "v.json")
    skipping = template_arguments({**RELEASE, "skipCrds": True}, "v.json")
    assert "--include-crds" not in skipping
    assert "--skip-crds" in skipping


def test_the_names_in_a_chart_are_grouped_by_kind() -> None:
    rendered = """
apiVersion: v1
kind: Service
metadata: {name: b, namespace: n}
---
# nothing
---
apiVersion: v1
kind: Service
metadata: {name: a}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
"""
    assert resource_names(rendered) == {
        "Deployment.apps/apps/v1": ["d"],
        "Service/v1": ["a", "n/b"],
    }


def kubeconfig(**user: Any) -> str:
    return yaml.safe_dump(
        {
            "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443/"}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [
                {"name": "one", "context": {"cluster": "c", "user": "u"}},
                {"name": "two", "context": {"cluster": "c", "user": "u", "namespace": "n"}},
            ],
            "current-context": "one",
        }
    )


def test_a_kubeconfig_names_a_cluster() -> None:
    one, two = (parse(kubeconfig(token="hidden"), name) for name in (None, "two"))
    assert (one.server, one.token, one.namespace) == ("https://10.0.0.1:6443", "hidden", "default")
    assert two.namespace == "n"
    assert yaml.safe_load(two.text)["current-context"] == "two"
    assert "hidden" not in repr(one)


@pytest.mark.parametrize(
    ("text", "context", "named"),
    [
        (kubeconfig(token="t"), "three", "no context 'three'; it has 'one', 'two'"),
        (kubeconfig(exec={"command": "aws"}), None, "'exec' authentication"),
        ("nonsense", None, "not a YAML mapping"),
    ],
)
def test_a_kubeconfig_that_cannot_serve_is_refused(
    text: str, context: str | None, named: str
) -> None:
    with pytest.raises(ProviderError, match=named):
        parse(text, context)


def test_a_kubeconfig_is_content_or_a_path_of_the_program_or_project(tmp_path: Path) -> None:
    program, project = tmp_path / "infra", tmp_path
    program.mkdir()
    (project / "config").write_text("of the project")
    assert load_text("config", (program, project)) == "of the project"
    (program / "config").write_text("of the program")
    assert load_text("config", (program, project)) == "of the program"
    assert load_text("clusters:\n- x", (program,)) == "clusters:\n- x"
    with pytest.raises(ProviderError, match="'missing' does not exist"):
        load_text("missing", (program, project))


@pytest.mark.parametrize(
    "token",
    [
        "kubernetes:yaml:ConfigFile",
        "kubernetes:yaml/v2:ConfigGroup",
        "kubernetes:helm.sh/v4:Chart",
        "kubernetes:kustomize/v2:Directory",
        "kubernetes:apps/v1:DeploymentPatch",
        "kubernetes:core/v1:PodList",
    ],
)
def test_what_is_no_object_is_refused_by_name(token: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=token):
        KubernetesProvider().resource_type(token)


def test_client_side_apply_is_refused() -> None:
    with pytest.raises(ProviderError, match="enableServerSideApply"):
        KubernetesProvider().configure({"enableServerSideApply": "false"})
    KubernetesProvider().configure({"enableServerSideApply": "true"})
