"""`ImageRegistry`: repositories in which an image that is still needed cannot expire."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pulumi
from pulumi_aws import ecr, kms

from voicemesh import contract
from voicemesh.arguments import Faults
from voicemesh.component import after, child_options

MIN_ROLLBACK_DAYS: Final = 14

_KEY_DELETION_DAYS: Final = 30
# More images than a repository can hold: a rule that counts so many expires none of them.
# https://docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html
_ALL_IMAGES: Final = 999_999
_REPOSITORY_NAME: Final = re.compile(
    r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
)


@dataclass(frozen=True)
class ImageRegistryArgs:
    """Arguments of `ImageRegistry`."""

    repositories: Sequence[str] = ("speech-server",)
    """Names of the repositories, one for each image."""

    name_prefix: str | None = None
    """Begins the repositories' full names, as in `voicemesh-prod` for
    `voicemesh-prod/speech-server`: unique in account and region. By default each is the
    component's name and its own, with a random end."""

    rollback_days: int = MIN_ROLLBACK_DAYS
    """Days for which every image is kept from its push on, whatever its tags; at least 14.
    An untagged image expires then."""

    unused_days: int = 90
    """Days after its push when a tagged image expires, unless it has a tag `live-*` or
    `rollback-*`; those never expire. At least `rollback_days`."""

    deletion_protection: bool = True
    """Whether repositories and key are protected: `pulumi destroy` then refuses to touch them.
    Without it, a repository is deleted with all its images."""

    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of repositories and key."""

    def __post_init__(self) -> None:
        faults = Faults.of(self)
        faults.require(
            len(self.repositories) > 0, "repositories", self.repositories, "at least one"
        )
        for index, repository in enumerate(self.repositories):
            _check_name(faults, f"repositories[{index}]", repository)
        faults.unique("repositories", list(self.repositories), "repository")
        if self.name_prefix is not None:
            _check_name(faults, "name_prefix", self.name_prefix)
        faults.whole_number(MIN_ROLLBACK_DAYS, "rollback_days", self.rollback_days)
        faults.whole_number(MIN_ROLLBACK_DAYS, "unused_days", self.unused_days)
        if isinstance(self.rollback_days, int) and isinstance(self.unused_days, int):
            allowed = f"no less than rollback_days, {self.rollback_days}"
            fits = self.unused_days >= self.rollback_days
            faults.require(fits, "unused_days", self.unused_days, allowed)
        faults.raise_any()


class ImageRegistry(pulumi.ComponentResource):
    """ECR repositories, encrypted with a key of their own, whose images are scanned when pushed.

    Tags cannot be moved, but for `live-*` and `rollback-*`: a release gives them to the digests
    that it runs and would go back to, before any request reaches them. While an image has one it
    does not expire, and no image expires within `rollback_days` of its push.
    """

    urls: pulumi.Output[dict[str, str]]
    """Where to push and pull each image, by its name in `repositories`; known once the rules by
    which images expire are in place."""

    key_arn: pulumi.Output[str]
    """ARN of the key that encrypts the images."""

    def __init__(
        self, name: str, args: ImageRegistryArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("voicemesh:index:ImageRegistry", name, {}, opts)
        key = kms.Key(
            name,
            description=f"Encrypts the images of {name}",
            enable_key_rotation=True,
            deletion_window_in_days=_KEY_DELETION_DAYS,
            tags=args.tags,
            opts=child_options(self, pulumi.ResourceOptions(protect=args.deletion_protection)),
        )
        urls = {
            repository: self._repository(f"{name}-{repository}", args, repository, key)
            for repository in args.repositories
        }
        self.urls = pulumi.Output.all(**urls)
        self.key_arn = key.arn
        self.register_outputs({"urls": self.urls, "key_arn": self.key_arn})

    def _repository(
        self, name: str, args: ImageRegistryArgs, repository: str, key: kms.Key
    ) -> pulumi.Output[str]:
        made = ecr.Repository(
            name,
            name=None if args.name_prefix is None else f"{args.name_prefix}/{repository}",
            encryption_configurations=[{"encryption_type": "KMS", "kms_key": key.arn}],
            image_scanning_configuration={"scan_on_push": True},
            image_tag_mutability="IMMUTABLE_WITH_EXCLUSION",
            image_tag_mutability_exclusion_filters=[
                {"filter": pattern, "filter_type": "WILDCARD"} for pattern in moving_tags()
            ],
            force_delete=not args.deletion_protection,
            tags=args.tags,
            opts=child_options(self, pulumi.ResourceOptions(protect=args.deletion_protection)),
        )
        rules = ecr.LifecyclePolicy(
            name,
            repository=made.name,
            policy=json.dumps(lifecycle_policy(args.rollback_days, args.unused_days)),
            opts=child_options(self),
        )
        return after(made.repository_url, rules)


def moving_tags() -> list[str]:
    """Patterns of the tags that are moved from image to image."""
    return [f"{contract.LIVE_TAG_PREFIX}*", f"{contract.ROLLBACK_TAG_PREFIX}*"]


def lifecycle_policy(rollback_days: int, unused_days: int) -> dict[str, Any]:
    """When images expire, in the words of ECR.

    An image that matches the tags of a rule cannot be expired by one of lower priority, so the
    first rules are a shield. A rule with several patterns matches only images that have a tag for
    each of them: hence one rule for each pattern.
    https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html
    """
    shields = [
        _rule(
            priority,
            f"Keep images tagged {pattern}",
            tagStatus="tagged",
            tagPatternList=[pattern],
            countType="imageCountMoreThan",
            countNumber=_ALL_IMAGES,
        )
        for priority, pattern in enumerate(moving_tags(), start=1)
    ]
    tagged = _rule(
        10,
        f"Expire other tagged images after {unused_days} days",
        tagStatus="tagged",
        tagPatternList=["*"],
        **_older_than(unused_days),
    )
    untagged = _rule(
        20,
        f"Expire untagged images after {rollback_days} days",
        tagStatus="untagged",
        **_older_than(rollback_days),
    )
    return {"rules": [*shields, tagged, untagged]}


def _rule(priority: int, description: str, **selection: Any) -> dict[str, Any]:
    return {
        "rulePriority": priority,
        "description": description,
        "selection": selection,
        "action": {"type": "expire"},
    }


def _older_than(days: int) -> dict[str, Any]:
    return {"countType": "sinceImagePushed", "countUnit": "days", "countNumber": days}


def _check_name(faults: Faults, path: str, name: Any) -> None:
    faults.matches(
        _REPOSITORY_NAME, path, name, "a-z, 0-9, '-', '_', '.' and '/', as in 'speech-server'"
    )
