"""The example stacks, previewed with the wheel from a clean installation."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.package import preview_example
from tests.package.clean_install import Installation
from tests.preview import rules
from tests.stacks import ROOT

EXAMPLES = ROOT / "examples"
PLATFORM = {
    "gateway": {
        "ref": "istio-ingress/public-gateway",
        "namespace": "istio-ingress",
        "principal": "cluster.local/ns/istio-ingress/sa/public-gateway",
    },
    "injectionLabels": {"istio-injection": "enabled"},
}
PREVIEWS = {
    ("team-voice", "prod"): {"acme/voicemesh/prod": PLATFORM},
    ("team-voice", "local"): {"organization/voicemesh/local": PLATFORM},
    ("regional-platform", "ireland"): {},
}


@pytest.fixture(scope="module")
def previews(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], dict[str, Any]]:
    """What each stack of the examples declares."""
    folder = tmp_path_factory.mktemp("elsewhere")
    return {key: _preview(installation, folder, *key) for key in PREVIEWS}


def _preview(installation: Installation, folder: Path, example: str, stack: str) -> dict[str, Any]:
    done = installation.run(
        str(Path(preview_example.__file__)),
        str(EXAMPLES / example),
        stack,
        json.dumps(PREVIEWS[example, stack]),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_examples_preview_with_the_wheel(
    previews: dict[tuple[str, str], dict[str, Any]],
) -> None:
    for seen in previews.values():
        components = [r for urn, r in seen["resources"].items() if urn.startswith("voicemesh:")]
        assert components
        assert "urls" in seen["exports"]


def test_a_teams_voice_takes_fifteen_lines_and_what_the_platform_says(
    previews: dict[tuple[str, str], dict[str, Any]],
) -> None:
    source = (EXAMPLES / "team-voice" / "__main__.py").read_text()
    (voice,) = [
        statement
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign) and "TtsVoiceService" in ast.unparse(statement)
    ]
    assert voice.end_lineno is not None
    assert voice.end_lineno - voice.lineno + 1 <= 15
    resources = previews["team-voice", "prod"]["resources"]
    routes = [r for urn, r in resources.items() if urn.endswith("::newsroom-reader-public")]
    assert [route["inputs"]["spec"]["hosts"] for route in routes] == [["newsroom.example.com"]]
    assert routes[0]["inputs"]["spec"]["gateways"] == [PLATFORM["gateway"]["ref"]]
    # Without hosts, the voice is for the mesh only.
    local = previews["team-voice", "local"]["resources"]
    assert [urn for urn in local if urn.endswith("::newsroom-reader-public")] == []


def test_a_whole_platform_uses_one_provider_for_each_side_and_protects_what_is_kept(
    previews: dict[tuple[str, str], dict[str, Any]],
) -> None:
    resources = previews["regional-platform", "ireland"]["resources"]
    made = {urn: r for urn, r in resources.items() if _type(urn)[0] in {"aws", "kubernetes"}}
    providers = {(_type(urn)[0], *r["provider"]) for urn, r in made.items()}
    assert providers == {("aws", "region"), ("kubernetes", "cluster")}
    protected = {_type(urn)[1] for urn, r in made.items() if r["protect"]}
    assert protected >= {"Bucket", "Cluster", "Key", "Repository"}


RULES = [
    rules.every_resource_is_the_child_of_a_component,
    rules.every_component_registers_outputs,
    rules.every_resource_uses_the_explicit_provider_of_its_package,
    rules.no_option_of_a_component_reaches_its_children,
    rules.no_object_is_declared_twice,
    rules.stateful_resources_are_protected,
    rules.every_route_leads_to_a_subset,
    rules.clients_keep_their_addresses,
    rules.pods_meet_the_restricted_standard,
    rules.rollouts_need_no_spare_gpu,
]


@pytest.mark.parametrize(("example", "stack"), PREVIEWS)
def test_the_examples_keep_the_rules_of_the_environments(example: str, stack: str) -> None:
    recording = preview_example.recorded(EXAMPLES / example, stack, PREVIEWS[example, stack])
    assert [fault for rule in RULES for fault in rule(recording)] == []
    if recording.of_type(rules.RELEASE):
        # What sidecars request is decided by the mesh, so only here it is known.
        assert list(rules.workloads_fit_their_quota(recording)) == []


def _type(urn: str) -> tuple[str, str]:
    """Package and name of a resource's type."""
    package, _, name = urn.split("::")[0].rpartition("$")[2].partition(":")
    return package, name.rpartition(":")[2]


def test_each_example_declares_the_configuration_that_it_reads() -> None:
    for program in EXAMPLES.glob("*/__main__.py"):
        read = set(re.findall(r"config\.(?:get|require)\w*\(\"(\w+)\"", program.read_text()))
        folder = program.parent
        for stack in folder.glob("Pulumi.*.yaml"):
            name = stack.name.split(".")[1]
            given = preview_example.configuration(folder, name)
            assert {f"{folder.name}:{key}" for key in read} <= given.keys(), stack
