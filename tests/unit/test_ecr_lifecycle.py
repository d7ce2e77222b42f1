"""The evaluator of ECR lifecycle policies, on the examples of AWS's documentation; what it proves.

https://docs.aws.amazon.com/AmazonECR/latest/userguide/lifecycle_policy_examples.html
https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import boto3
import pulumi
import pulumi_aws as aws
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from tests.evaluators import proofs
from tests.evaluators.ecr_lifecycle import Image, InvalidPolicyError, expired, left
from tests.evaluators.proofs import NOON
from voicemesh import ImageRegistry, ImageRegistryArgs
from voicemesh.testing import record

POLICY = "aws:ecr/lifecyclePolicy:LifecyclePolicy"


def rule(priority: int, status: str, count_type: str, number: int, **tags: Any) -> dict[str, Any]:
    unit = {"countUnit": "days"} if count_type == "sinceImagePushed" else {}
    selection = {"tagStatus": status, "countType": count_type, "countNumber": number}
    return {
        "rulePriority": priority,
        "description": f"Rule {priority}",
        "selection": {**selection, **unit, **tags},
        "action": {"type": "expire"},
    }


def image(name: str, days_ago: float, *tags: str, lists: str = "") -> Image:
    return Image(name, NOON - timedelta(days=days_ago), frozenset(tags), frozenset(lists))


def expires(rules: list[dict[str, Any]], *images: Image) -> str:
    return "".join(sorted(expired(json.dumps({"rules": rules}), images, NOON)))


class TestExamples:
    """The page of examples, section by section; each says which images expire and why."""

    def test_filtering_on_image_age(self) -> None:
        rules = [rule(1, "tagged", "sinceImagePushed", 14, tagPatternList=["prod*"])]
        images = [
            image("A", 15, "prod"),
            image("B", 14, "prod1"),
            image("C", 15, "preprod"),
            image("D", 15),
        ]
        assert expires(rules, *images) == "A"

    def test_filtering_on_image_count(self) -> None:
        rules = [rule(1, "untagged", "imageCountMoreThan", 1)]
        assert expires(rules, image("A", 3), image("B", 2), image("C", 1), image("D", 9, "x")) == (
            "AB"
        )

    BETA_AND_PROD = (
        image("A", 10, "beta-1", "prod-1"),
        image("B", 9, "beta-2", "prod-2"),
        image("C", 8, "beta-3"),
    )

    def test_multiple_rules_a_an_image_that_a_higher_rule_saw_is_skipped(self) -> None:
        rules = [
            rule(1, "tagged", "imageCountMoreThan", 1, tagPatternList=["prod*"]),
            rule(2, "tagged", "imageCountMoreThan", 1, tagPatternList=["beta*"]),
        ]
        assert expires(rules, *self.BETA_AND_PROD) == "A"

    def test_multiple_rules_b_the_same_in_another_order(self) -> None:
        rules = [
            rule(1, "tagged", "imageCountMoreThan", 1, tagPatternList=["beta*"]),
            rule(2, "tagged", "imageCountMoreThan", 1, tagPatternList=["prod*"]),
        ]
        assert expires(rules, *self.BETA_AND_PROD) == "AB"
        assert expires(rules[::-1], *self.BETA_AND_PROD) == "AB"

    def test_multiple_tags_in_a_rule_a_an_image_must_match_all(self) -> None:
        rules = [rule(1, "tagged", "sinceImagePushed", 5, tagPatternList=["alpha*", "beta*"])]
        images = [
            image("A", 12, "alpha-1"),
            image("B", 11, "beta-1"),
            image("C", 10, "alpha-2", "beta-2"),
            image("D", 4, "alpha-3"),
            image("E", 3, "beta-3"),
            image("F", 2, "alpha-4", "beta-4"),
        ]
        assert expires(rules, *images) == "C"

    @pytest.mark.parametrize("tags", [{"tagPatternList": ["alpha*", "beta*"]}, {}])
    def test_multiple_tags_in_a_rule_b_tags_are_not_exclusive(self, tags: dict[str, Any]) -> None:
        tags = tags or {"tagPrefixList": ["alpha", "beta"]}
        rules = [rule(1, "tagged", "imageCountMoreThan", 1, **tags)]
        images = [
            image("A", 10, "alpha-1", "beta-1", "gamma-1"),
            image("B", 9, "alpha-2", "beta-2"),
            image("C", 8, "alpha-3", "beta-3", "gamma-2"),
        ]
        assert expires(rules, *images) == "AB"

    def test_all_images_a_only_the_newest_is_kept(self) -> None:
        images = [
            image("A", 4, "alpha-1"),
            image("B", 3, "beta-1"),
            image("C", 2),
            image("D", 1, "alpha-2"),
        ]
        assert expires([rule(1, "any", "imageCountMoreThan", 1)], *images) == "ABC"

    def test_all_images_b_all_types_of_rules_in_one_policy(self) -> None:
        rules = [
            rule(1, "tagged", "imageCountMoreThan", 1, tagPatternList=["alpha*"]),
            rule(2, "untagged", "sinceImagePushed", 1),
            rule(3, "any", "imageCountMoreThan", 1),
        ]
        images = [
            image("A", 4, "alpha-1", "beta-1"),
            image("B", 3),
            image("C", 2, "alpha-2"),
            image("D", 1, "git hash"),
            image("E", 0.99),
        ]
        assert expires(rules, *images) == "ABD"


class TestEvaluationRules:
    """What "Lifecycle policy evaluation rules" says beyond the examples."""

    def test_an_image_expires_by_one_rule_only(self) -> None:
        rules = [
            rule(1, "tagged", "sinceImagePushed", 1, tagPatternList=["a*"]),
            rule(2, "tagged", "sinceImagePushed", 1, tagPatternList=["*"]),
        ]
        found = expired(
            json.dumps({"rules": rules}), [image("A", 9, "a"), image("B", 9, "b")], NOON
        )
        assert found == {"A": 1, "B": 2}

    @pytest.mark.parametrize(
        ("pattern", "tag", "matches"),
        [
            ("prod*", "prod", True),
            ("prod*", "preprod", False),
            ("*prod*", "repo-production", True),
            ("*prod", "prod1", False),
            ("v1.*", "v10", False),
            ("*", "anything", True),
        ],
    )
    def test_wildcards(self, pattern: str, tag: str, matches: bool) -> None:
        rules = [rule(1, "tagged", "sinceImagePushed", 1, tagPatternList=[pattern])]
        assert bool(expires(rules, image("A", 9, tag))) is matches

    def test_parts_of_a_manifest_list_expire_only_after_it(self) -> None:
        policy = json.dumps({"rules": [rule(1, "any", "sinceImagePushed", 1)]})
        images = [image("L", 9, "multi", lists="PQ"), image("P", 9), image("Q", 9)]
        once = left(policy, images, NOON)
        assert [i.digest for i in once] == ["P", "Q"]
        assert left(policy, once, NOON) == []

    @pytest.mark.parametrize(
        ("rules", "complaint"),
        [
            (
                [
                    rule(1, "any", "imageCountMoreThan", 1),
                    rule(2, "untagged", "imageCountMoreThan", 1),
                ],
                "lowest priority",
            ),
            ([rule(1, "untagged", "imageCountMoreThan", 1)] * 2, "not unique"),
            (
                [
                    rule(1, "untagged", "imageCountMoreThan", 1),
                    rule(2, "untagged", "sinceImagePushed", 1),
                ],
                "two rules select untagged",
            ),
            (
                [
                    rule(1, "tagged", "imageCountMoreThan", 1, tagPrefixList=["a"]),
                    rule(2, "tagged", "sinceImagePushed", 1, tagPatternList=["a*"]),
                ],
                "the same tags",
            ),
            ([rule(1, "tagged", "imageCountMoreThan", 1)], "the reverse"),
            ([rule(1, "untagged", "imageCountMoreThan", 0)], "a count below 1"),
            ([rule(1, "any", "sinceImagePulled", 1)], "an unknown count type"),
            ([rule(1, "any", "imageCountMoreThan", 1, countUnit="days")], "does not count days"),
            (
                [rule(1, "tagged", "imageCountMoreThan", 1, tagPatternList=["*a*b*c*d*"])],
                "more than four wildcards",
            ),
            ([rule(1, "any", "imageCountMoreThan", 1, storageClass="archive")], "not evaluated"),
        ],
    )
    def test_what_ecr_would_refuse_is_refused(
        self, rules: list[dict[str, Any]], complaint: str
    ) -> None:
        with pytest.raises(InvalidPolicyError, match=complaint):
            expired(json.dumps({"rules": rules}), [], NOON)


@pytest.fixture(scope="module")
def policy() -> Iterator[dict[str, Any]]:
    """What ECR says of a repository that `ImageRegistry` declares, once it has been told."""
    declared = record(_declare).one(POLICY).inputs["policy"]
    with mock_aws():
        ecr = boto3.client("ecr", region_name="us-east-1")
        ecr.create_repository(repositoryName="speech-server")
        ecr.put_lifecycle_policy(repositoryName="speech-server", lifecyclePolicyText=declared)
        stored = ecr.get_lifecycle_policy(repositoryName="speech-server")
        yield json.loads(stored["lifecyclePolicyText"])


Change = Callable[[dict[int, dict[str, Any]]], Any]
"""Changes a policy whose rules are given by their priority."""


def _only_by_age(rules: dict[int, dict[str, Any]]) -> None:
    rules.clear()
    rules[1] = rule(1, "any", "sinceImagePushed", 14)


def _one_shield_for_both(rules: dict[int, dict[str, Any]]) -> None:
    del rules[2]
    rules[1]["selection"]["tagPatternList"] = ["live-*", "rollback-*"]


MUTATIONS: dict[str, tuple[Change, str]] = {
    "live images have no shield": (
        lambda rules: rules.pop(1),
        r"rule 10 expires an image tagged \['live-",
    ),
    "images to go back to have no shield": (
        lambda rules: rules.pop(2),
        r"rule 10 expires an image tagged \['rollback-",
    ),
    "one shield wants both tags": (
        _one_shield_for_both,
        r"rule 10 expires an image tagged \['live-acme-speech'\]",
    ),
    "the shield holds for a thousand images": (
        lambda rules: rules[1]["selection"].update(countNumber=1000),
        r"rule 1 expires an image tagged \['live-",
    ),
    "the shield comes last": (
        lambda rules: rules[1].update(rulePriority=15),
        r"rule 10 expires an image tagged \['live-",
    ),
    "the shield covers part of the tags": (
        lambda rules: rules[1]["selection"].update(tagPatternList=["live-v*"]),
        r"rule 10 expires an image tagged \['live-acme-speech'\]",
    ),
    "everything goes after 14 days": (
        _only_by_age,
        r"rule 1 expires an image tagged \['live-acme-speech'\] after 14 days",
    ),
    "untagged images go after a week": (
        lambda rules: rules[20]["selection"].update(countNumber=7),
        r"rule 20 expires an image tagged \[\] after 13 days",
    ),
    "tagged images go after a week": (
        lambda rules: rules[10]["selection"].update(countNumber=7),
        r"rule 10 expires an image tagged \['1.4.2'\] after 13 days",
    ),
    "untagged images stay": (
        lambda rules: rules.pop(20),
        r"an image tagged \[\] never expires",
    ),
    "tagged images stay": (
        lambda rules: rules.pop(10),
        r"an image tagged \['1.4.2'\] never expires",
    ),
    "only some tagged images go": (
        lambda rules: rules[10]["selection"].update(tagPatternList=["1*"]),
        r"an image tagged \['latest', 'live'\] never expires",
    ),
}


class TestImageRegistry:
    def test_no_needed_image_expires(self, policy: dict[str, Any]) -> None:
        assert list(proofs.no_needed_image_expires(json.dumps(policy))) == []

    @pytest.mark.parametrize("fault", MUTATIONS)
    def test_a_fault_is_noticed(self, fault: str, policy: dict[str, Any]) -> None:
        rules = {rule["rulePriority"]: rule for rule in json.loads(json.dumps(policy))["rules"]}
        change, complaint = MUTATIONS[fault]
        change(rules)
        found = proofs.no_needed_image_expires(json.dumps({"rules": [*rules.values()]}))
        assert re.match(complaint, next(found, "no complaint"))

    @given(data=st.data())
    def test_whatever_a_repository_holds(self, policy: dict[str, Any], data: st.DataObject) -> None:
        text, images = json.dumps(policy), data.draw(_REPOSITORIES)
        for days in (0, 7, 14, 15, 100):
            now = NOON + timedelta(days=days)
            assert not [*proofs.faults_among(text, images, now, kept_days=14)]
            images = left(text, images, now)
        assert all(_begins(image, "live-", "rollback-") for image in images)

    def test_tags_that_releases_move_are_the_ones_that_shield(self, policy: dict[str, Any]) -> None:
        repository = record(_declare).one("aws:ecr/repository:Repository")
        moved = [f["filter"] for f in repository.inputs["imageTagMutabilityExclusionFilters"]]
        shields = [rule["selection"]["tagPatternList"] for rule in policy["rules"][:2]]
        assert [[pattern] for pattern in moved] == shields


_TAGS = st.builds(
    str.__add__,
    st.sampled_from(["live-", "rollback-", "v", "", "alive-", "live"]),
    st.text("ab1-.", min_size=1, max_size=4),
)
_IMAGES = st.builds(
    image,
    st.text("0123456789abcdef", min_size=8, max_size=8),
    st.floats(0, 400),
    _TAGS,
    _TAGS,
) | st.builds(image, st.text("0123456789abcdef", min_size=8, max_size=8), st.floats(0, 400))
_REPOSITORIES = st.lists(_IMAGES, max_size=12, unique_by=lambda image: image.digest)


def _begins(image: Image, *prefixes: str) -> bool:
    return any(tag.startswith(prefixes) for tag in image.tags)


def _declare() -> None:
    account = aws.Provider("aws", region="us-east-1")
    options = pulumi.ResourceOptions(providers=[account])
    ImageRegistry("registry", ImageRegistryArgs(), options)
