"""Which images an ECR lifecycle policy expires: an evaluator of the stored policy.

It takes the policy's text as `get_lifecycle_policy` returns it. ECR acts within 24 hours after an
image is due; here it acts when it is asked. Archiving and rules by the time of the last pull are
not evaluated, and refused.

https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html
https://docs.aws.amazon.com/AmazonECR/latest/userguide/lifecycle_policy_parameters.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

_MAX_WILDCARDS = 4


class InvalidPolicyError(Exception):
    """ECR would refuse the policy, or it has something that is not evaluated here."""


@dataclass(frozen=True)
class Image:
    """An image in a repository."""

    digest: str
    pushed: datetime
    tags: frozenset[str] = frozenset()
    lists: frozenset[str] = field(default_factory=frozenset)
    """Digests of the images that it consists of, if it is a manifest list."""


def left(policy_text: str, images: Collection[Image], now: datetime) -> list[Image]:
    """The images that the policy does not expire."""
    gone = set(expired(policy_text, images, now))
    return [image for image in images if image.digest not in gone]


def expired(policy_text: str, images: Collection[Image], now: datetime) -> dict[str, int]:
    """Digests of the images that expire, and the priority of the one rule that expires each.

    Raises:
        InvalidPolicyError: naming the rule and what is wrong with it.
    """
    rules = sorted(json.loads(policy_text)["rules"], key=lambda rule: rule["rulePriority"])
    _check(rules)
    youngest_first = sorted(images, key=lambda image: image.pushed, reverse=True)
    listed = {digest for image in images for digest in image.lists}
    seen: set[str] = set()
    by_rule: dict[str, int] = {}
    for rule in rules:
        selection = rule["selection"]
        # Each rule counts every image that it matches, as if none had been expired before …
        matching = [image for image in youngest_first if _matches(selection, image)]
        # … but expires only what matches no rule of higher priority, and no manifest list has.
        spared = seen | listed
        for image in _surplus(selection, matching, now):
            if image.digest not in spared:
                by_rule[image.digest] = rule["rulePriority"]
        seen |= {image.digest for image in matching}
    return by_rule


def _surplus(
    selection: Mapping[str, Any], youngest_first: Sequence[Image], now: datetime
) -> Sequence[Image]:
    count = selection["countNumber"]
    if selection["countType"] == "imageCountMoreThan":
        return youngest_first[count:]
    return [image for image in youngest_first if now - image.pushed > timedelta(days=count)]


def _matches(selection: Mapping[str, Any], image: Image) -> bool:
    if selection["tagStatus"] == "any":
        return True
    if selection["tagStatus"] == "untagged":
        return not image.tags
    # "If you specify multiple tags, only the images with all specified tags are selected."
    return all(any(map(_pattern(p).fullmatch, image.tags)) for p in _patterns(selection))


def _patterns(selection: Mapping[str, Any]) -> list[str]:
    prefixes = [f"{prefix}*" for prefix in selection.get("tagPrefixList", ())]
    return [*prefixes, *selection.get("tagPatternList", ())]


@lru_cache(maxsize=64)
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))))


def _check(rules: Sequence[Mapping[str, Any]]) -> None:
    priorities = [rule["rulePriority"] for rule in rules]
    if len(set(priorities)) < len(priorities):
        raise InvalidPolicyError(f"priorities {priorities} are not unique")
    for rule in rules:
        _check_rule(rule["rulePriority"], rule["action"], rule["selection"])
    statuses = [rule["selection"]["tagStatus"] for rule in rules]
    if "any" in statuses[:-1]:
        raise InvalidPolicyError("a rule for any image has not the lowest priority")
    if statuses.count("untagged") > 1:
        raise InvalidPolicyError("two rules select untagged images")
    patterns = [
        tuple(sorted(_patterns(r["selection"]))) for r in rules if _patterns(r["selection"])
    ]
    if len(set(patterns)) < len(patterns):
        raise InvalidPolicyError(f"two rules select the same tags: {patterns}")


_ELEMENTS = {
    "tagStatus",
    "tagPatternList",
    "tagPrefixList",
    "countType",
    "countUnit",
    "countNumber",
}


def _check_rule(priority: int, action: Mapping[str, str], selection: Mapping[str, Any]) -> None:
    tagged, by_age = selection["tagStatus"] == "tagged", "countUnit" in selection
    lists = {"tagPatternList", "tagPrefixList"} & selection.keys()
    wildcards = max((p.count("*") for p in selection.get("tagPatternList", ())), default=0)
    count = selection["countNumber"]
    faults = {
        "an action other than expire": action != {"type": "expire"},
        "elements that are not evaluated": not selection.keys() <= _ELEMENTS,
        "an unknown tag status": selection["tagStatus"] not in ("tagged", "untagged", "any"),
        "tags, but selects no tagged images, or the reverse": tagged != (len(lists) == 1),
        "an empty list of tags": tagged and not all(selection[name] for name in lists),
        "more than four wildcards": wildcards > _MAX_WILDCARDS,
        "an unknown count type": selection["countType"]
        not in ("imageCountMoreThan", "sinceImagePushed"),
        "a unit, but does not count days, or the reverse": by_age
        != (selection["countType"] == "sinceImagePushed"),
        "a unit other than days": selection.get("countUnit", "days") != "days",
        "a count below 1": not isinstance(count, int) or count < 1,
    }
    found = [fault for fault, is_there in faults.items() if is_there]
    if found:
        raise InvalidPolicyError(f"rule {priority} has {', '.join(found)}")
