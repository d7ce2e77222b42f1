"""What `ImageRegistry` declares: options, encryption, tags, and names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pulumi
import pulumi_aws as aws
import pytest

from tests.preview import rules
from tests.preview.rules import Rule, mutated, with_options
from voicemesh import ImageRegistry, ImageRegistryArgs
from voicemesh.arguments import ArgumentsError
from voicemesh.testing import EchoMocks, Recording, record

REPOSITORY = "aws:ecr/repository:Repository"
POLICY = "aws:ecr/lifecyclePolicy:LifecyclePolicy"
KEY = "aws:kms/key:Key"
KEY_ARN = "arn:aws:kms:eu-west-1:123456789012:key/1"
OUTPUTS = {
    KEY: {"arn": KEY_ARN},
    REPOSITORY: {"repositoryUrl": "registry.example.com/x", "name": "x-1a2b3c4"},
}


def recorded(
    options: pulumi.ResourceOptions | None = None, **arguments: Any
) -> tuple[Recording, dict[str, Any]]:
    given = {"repositories": ["speech-server", "cleanup"], **arguments}
    resolved: dict[str, Any] = {}

    def program() -> None:
        account = aws.Provider("aws", region="eu-west-1")
        opts = pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(providers=[account]))
        registry = ImageRegistry("registry", ImageRegistryArgs(**given), opts)
        registry.urls.apply(resolved.update)

    return record(program, resource_mocks=EchoMocks(outputs=OUTPUTS)), resolved


@pytest.fixture(scope="module")
def registry() -> Recording:
    return recorded()[0]


def images_are_protected(recording: Recording) -> Iterator[str]:
    for resource in recording.registrations:
        if resource.protect is not (resource.type in (REPOSITORY, KEY)):
            yield f"{resource.urn} has protect={resource.protect}"
        if resource.inputs.get("forceDelete"):
            yield f"{resource.urn} is deleted with its images"


def images_are_encrypted_and_scanned(recording: Recording) -> Iterator[str]:
    for repository in recording.of_type(REPOSITORY):
        encryption = repository.inputs.get("encryptionConfigurations")
        if encryption != [{"encryptionType": "KMS", "kmsKey": KEY_ARN}]:
            yield f"{repository.name} is encrypted by {encryption}"
        if repository.inputs.get("imageScanningConfiguration") != {"scanOnPush": True}:
            yield f"{repository.name} takes images that nobody scanned"
    for key in recording.of_type(KEY):
        if not key.inputs.get("enableKeyRotation"):
            yield f"{key.name} never rotates"


def only_the_tags_of_releases_move(recording: Recording) -> Iterator[str]:
    expected = [
        {"filter": pattern, "filterType": "WILDCARD"} for pattern in ("live-*", "rollback-*")
    ]
    for repository in recording.of_type(REPOSITORY):
        if repository.inputs.get("imageTagMutability") != "IMMUTABLE_WITH_EXCLUSION":
            yield f"{repository.name} lets every tag move, or none"
        moving = repository.inputs.get("imageTagMutabilityExclusionFilters")
        if moving != expected:
            yield f"{repository.name} lets {moving} move"


def each_repository_has_its_rules(recording: Recording) -> Iterator[str]:
    parents = {r.urn for r in recording.of_type(REPOSITORY)}
    ruled = {urn for policy in recording.of_type(POLICY) for urn in policy.depends_on}
    for urn in parents - ruled:
        yield f"{urn} keeps every image for ever"


INVARIANTS: list[Rule] = [
    rules.every_resource_is_the_child_of_a_component,
    rules.every_component_registers_outputs,
    rules.every_resource_uses_the_explicit_provider_of_its_package,
    rules.no_option_of_a_component_reaches_its_children,
]

MUTATIONS: list[tuple[Rule, str, Callable[[dict[str, Any]], Any]]] = [
    (images_are_protected, REPOSITORY, lambda inputs: inputs.update(forceDelete=True)),
    (
        images_are_encrypted_and_scanned,
        REPOSITORY,
        lambda inputs: inputs.pop("encryptionConfigurations"),
    ),
    (
        images_are_encrypted_and_scanned,
        REPOSITORY,
        lambda inputs: inputs["encryptionConfigurations"][0].pop("kmsKey"),
    ),
    (
        images_are_encrypted_and_scanned,
        REPOSITORY,
        lambda inputs: inputs["imageScanningConfiguration"].update(scanOnPush=False),
    ),
    (images_are_encrypted_and_scanned, KEY, lambda inputs: inputs.pop("enableKeyRotation")),
    (
        only_the_tags_of_releases_move,
        REPOSITORY,
        lambda inputs: inputs.update(imageTagMutability="MUTABLE"),
    ),
    (
        only_the_tags_of_releases_move,
        REPOSITORY,
        lambda inputs: inputs["imageTagMutabilityExclusionFilters"].pop(),
    ),
    (
        only_the_tags_of_releases_move,
        REPOSITORY,
        lambda inputs: inputs["imageTagMutabilityExclusionFilters"][0].update(filter="*"),
    ),
]

OPTION_MUTATIONS: list[tuple[Rule, str, dict[str, Any]]] = [
    (images_are_protected, REPOSITORY, {"protect": False}),
    (images_are_protected, KEY, {"protect": False}),
    (images_are_protected, POLICY, {"protect": True}),
    (each_repository_has_its_rules, POLICY, {"depends_on": frozenset()}),
    (rules.every_resource_is_the_child_of_a_component, POLICY, {"parent": "stack"}),
    (rules.every_component_registers_outputs, "voicemesh:index:ImageRegistry", {"outputs": {}}),
]


@pytest.mark.parametrize("rule", INVARIANTS, ids=lambda rule: rule.__name__)
def test_invariant(rule: Rule, registry: Recording) -> None:
    assert list(rule(registry)) == []


@pytest.mark.parametrize(("rule", "type_", "change"), MUTATIONS)
def test_rule_holds_and_notices_the_fault(
    rule: Rule, type_: str, change: Callable[[dict[str, Any]], Any], registry: Recording
) -> None:
    assert list(rule(registry)) == []
    assert list(rule(mutated(registry, type_, change)))


@pytest.mark.parametrize(("rule", "type_", "options"), OPTION_MUTATIONS)
def test_rule_holds_and_notices_the_option(
    rule: Rule, type_: str, options: dict[str, Any], registry: Recording
) -> None:
    assert list(rule(registry)) == []
    assert list(rule(with_options(registry, type_, **options)))


def test_no_option_that_the_caller_gives_reaches_a_child() -> None:
    given = pulumi.ResourceOptions(
        protect=True, aliases=[pulumi.Alias(name="before")], ignore_changes=["tags"]
    )
    recording, _ = recorded(given, deletion_protection=False)
    assert [component.protect for component in recording.components()] == [True]
    assert [*rules.no_option_of_a_component_reaches_its_children(recording)] == []


def test_without_protection_everything_can_be_destroyed() -> None:
    recording, _ = recorded(deletion_protection=False)
    assert not any(resource.protect for resource in recording.registrations)
    assert {r.inputs["forceDelete"] for r in recording.of_type(REPOSITORY)} == {True}


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        (None, {None}),
        ("voicemesh-prod", {"voicemesh-prod/speech-server", "voicemesh-prod/cleanup"}),
    ],
)
def test_names_are_left_to_the_engine_or_begin_with_the_prefix(
    prefix: str | None, names: set[str | None]
) -> None:
    recording, _ = recorded(name_prefix=prefix)
    assert {r.inputs.get("name") for r in recording.of_type(REPOSITORY)} == names


def test_urls_are_known_by_the_names_of_the_repositories() -> None:
    url = "registry.example.com/x"
    assert recorded()[1] == {"speech-server": url, "cleanup": url}


def test_days_are_the_ones_asked_for() -> None:
    recording, _ = recorded(rollback_days=21, unused_days=30)
    for policy in recording.of_type(POLICY):
        stored = json.loads(policy.inputs["policy"])["rules"]
        assert [rule["selection"]["countNumber"] for rule in stored[2:]] == [30, 21]


def test_urns_are_stable(registry: Recording) -> None:
    prefix = "urn:pulumi:test::voicemesh::voicemesh:index:ImageRegistry$"
    (component,) = registry.components()
    assert {child.urn.removeprefix(prefix) for child in registry.children(component)} == {
        f"{KEY}::registry",
        f"{REPOSITORY}::registry-speech-server",
        f"{REPOSITORY}::registry-cleanup",
        f"{POLICY}::registry-speech-server",
        f"{POLICY}::registry-cleanup",
    }


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        ({"rollback_days": 13}, "rollback_days is 13; allowed: a whole number ≥ 14"),
        ({"rollback_days": 14.5}, "rollback_days is 14.5; allowed: a whole number ≥ 14"),
        ({"rollback_days": 100}, "unused_days is 90; allowed: no less than rollback_days, 100"),
        ({"unused_days": 0}, "unused_days is 0; allowed: a whole number ≥ 14"),
        ({"repositories": []}, "repositories is \\[\\]; allowed: at least one"),
        ({"repositories": ["a", "a"]}, "repositories is 'a'; allowed: each repository once"),
        ({"repositories": ["Speech"]}, "repositories\\[0\\] is 'Speech'; allowed: a-z, 0-9"),
        ({"repositories": ["speech:1"]}, "repositories\\[0\\] is 'speech:1'; allowed: a-z, 0-9"),
        ({"name_prefix": "prod/"}, "name_prefix is 'prod/'; allowed: a-z, 0-9"),
    ],
)
def test_arguments_that_cannot_work_are_refused_by_name(
    arguments: dict[str, Any], refusal: str
) -> None:
    with pytest.raises(ArgumentsError, match=f"^ImageRegistry: {refusal}"):
        ImageRegistryArgs(**arguments)
