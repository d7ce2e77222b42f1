"""What must hold for every object and every image, whatever happens to it, as complaints.

Each function takes a stored configuration and yields what is wrong with it, so that a test can
also show it a configuration in which the fault is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product
from typing import Any, Literal

from tests.evaluators import ecr_lifecycle, s3_lifecycle
from tests.evaluators.ecr_lifecycle import Image
from tests.evaluators.s3_lifecycle import Bucket

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

Operation = Literal["put", "delete", "upload"]
Rules = Sequence[Mapping[str, Any]]

# A version is due a day after it was replaced or expired; S3 rounds both days up to midnight.
DAYS_UNTIL_REMOVED = 3
LONG_AFTER_DAYS = 2 * 365

MOST_IMAGES = 100_000
"""How many images a repository can hold unless AWS raises the quota.
https://docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html"""


@dataclass(frozen=True)
class Event:
    """Something a speech server does to a key, some time after the history's start."""

    operation: Operation
    after: timedelta


def outputs_expire_and_voices_stay(
    configuration: Mapping[str, Any], output_days: int = 7, quality_days: int = 30
) -> Iterator[str]:
    """Complaints about a `get_bucket_lifecycle_configuration` response.

    Outputs and quality snapshots can be read for so many days, and soon after nothing of them is
    stored; voices and models stay for ever, each version of them.
    """
    rules = configuration["Rules"]
    for start, events in product(_STARTS, _HISTORIES):
        for prefix, days in (("outputs/", output_days), ("quality/", quality_days)):
            for key in (f"{prefix}acme/a.wav", f"{prefix}a"):
                yield from faults_of_expiring_key(rules, key, start, events, days)
        for key in ("voices/acme/a.wav", "models/glm/weights", "voices/outputs/a", "output", "a"):
            yield from faults_of_lasting_key(rules, key, start, events)


def faults_of_expiring_key(
    rules: Rules, key: str, start: datetime, events: Sequence[Event], days: int
) -> Iterator[str]:
    """Where something under `key` goes before `days` have passed, or stays for long after."""
    end = Event("upload", events[-1].after + timedelta(days=days + DAYS_UNTIL_REMOVED))
    bucket = Bucket()
    for event, following in pairwise([*events, end]):
        at, next_at = start + event.after, start + following.after
        bucket = _done(bucket, event.operation, key, at)
        if event.operation == "put":
            promised = min(next_at, at + timedelta(days=days))
            if not s3_lifecycle.left(rules, bucket, at, promised).readable(key):
                yield f"{key} cannot be read until {promised} ({events})"
        bucket = s3_lifecycle.left(rules, bucket, at, next_at)
        oldest = next_at - timedelta(days=days + DAYS_UNTIL_REMOVED)
        if any(version.created < oldest for version in bucket.versions(key)):
            yield f"{key} keeps a version for more than {days + DAYS_UNTIL_REMOVED} days ({events})"
    if bucket.objects or bucket.uploads:
        yield f"{key} leaves {bucket} at {start + end.after} ({events})"


def faults_of_lasting_key(
    rules: Rules, key: str, start: datetime, events: Sequence[Event]
) -> Iterator[str]:
    """Where anything stored under `key` goes, other than unfinished uploads."""
    bucket = Bucket()
    end = Event("upload", events[-1].after + timedelta(days=LONG_AFTER_DAYS))
    for event, following in pairwise([*events, end]):
        at, next_at = start + event.after, start + following.after
        bucket = _done(bucket, event.operation, key, at)
        bucket = s3_lifecycle.left(rules, bucket, at, next_at)
    operations = [event.operation for event in events]
    if len(bucket.versions(key)) != operations.count("put"):
        yield f"{key} loses versions ({events})"
    stored = [operation for operation in operations if operation != "upload"]
    if bucket.readable(key) != (stored[-1:] == ["put"]):
        yield f"{key} can no longer be read ({events})"
    if bucket.uploads:
        yield f"{key} keeps unfinished uploads ({events})"


def no_needed_image_expires(policy_text: str, kept_days: int = 14) -> Iterator[str]:
    """Complaints about the text of a `get_lifecycle_policy` response.

    No image that is tagged `live-…` or `rollback-…` expires, nor any younger than `kept_days`, in
    a repository as full as one can be; what is neither does expire in the end.
    """
    ages = sorted({*_AGES_DAYS, kept_days - 0.01, kept_days})
    yield from faults_among(policy_text, [*_images(_TAGS, ages)], NOON, kept_days)
    yield from _faults_of_manifest_lists(policy_text, kept_days)
    useless = [*_images([tags for tags in _TAGS if not _is_needed(tags)], [LONG_AFTER_DAYS])]
    for image in ecr_lifecycle.left(policy_text, useless, NOON):
        yield f"an image tagged {sorted(image.tags)} never expires"
    crowd = (f"{prefix}{number}" for number in range(MOST_IMAGES // 2) for prefix in _NEEDED)
    crowded = [Image(tag, NOON - timedelta(days=1000), frozenset({tag})) for tag in crowd]
    yield from faults_among(policy_text, crowded, NOON, kept_days)


def faults_among(
    policy_text: str, images: Collection[Image], now: datetime, kept_days: int
) -> Iterator[str]:
    """Which of the images expire although they are needed or young."""
    by_digest = {image.digest: image for image in images}
    for digest, rule in ecr_lifecycle.expired(policy_text, images, now).items():
        image = by_digest[digest]
        age = now - image.pushed
        if _is_needed(image.tags) or age <= timedelta(days=kept_days):
            yield f"rule {rule} expires an image tagged {sorted(image.tags)} after {age}"


def _faults_of_manifest_lists(policy_text: str, kept_days: int) -> Iterator[str]:
    """A multi-platform image is needed with all its parts, which have no tags."""
    old = NOON - timedelta(days=LONG_AFTER_DAYS)
    parts = [Image(digest, old) for digest in ("amd64", "arm64")]
    digests = frozenset(part.digest for part in parts)
    live = Image("list", old, frozenset({f"{_NEEDED[0]}a"}), lists=digests)
    kept = ecr_lifecycle.left(policy_text, [live, *parts], NOON)
    if len(kept) < len(parts) + 1:
        yield f"of a live image with parts there is left {kept}"
    yield from faults_among(policy_text, [live, *parts], NOON, kept_days)


def _done(bucket: Bucket, operation: Operation, key: str, at: datetime) -> Bucket:
    if operation == "put":
        return bucket.put(key, at)
    if operation == "delete":
        return bucket.delete(key, at)
    return bucket.start_upload(key, at)


def _images(tag_sets: Collection[frozenset[str]], ages: Sequence[float]) -> Iterator[Image]:
    for number, (tags, age) in enumerate(product(tag_sets, ages)):
        yield Image(str(number), NOON - timedelta(days=age), tags)


def _is_needed(tags: Collection[str]) -> bool:
    return any(tag.startswith(_NEEDED) for tag in tags)


def _history(*events: tuple[Operation, float]) -> list[Event]:
    return [Event(operation, timedelta(days=days)) for operation, days in events]


_STARTS = (
    datetime(2026, 3, 1, tzinfo=UTC),
    NOON,
    datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC),
)
_HISTORIES = (
    _history(("put", 0)),
    _history(("put", 0), ("put", 3), ("put", 3.5)),
    _history(("put", 0), ("delete", 2)),
    _history(("put", 0), ("delete", 2), ("put", 2.5), ("delete", 6)),
    _history(("put", 0), ("put", 40)),
    _history(("delete", 0)),
    _history(("upload", 0), ("put", 1)),
)
_NEEDED = ("live-", "rollback-")
_TAGS = [
    frozenset(tags)
    for tags in (
        (),
        ("1.4.2",),
        ("latest", "live"),
        ("rollback",),
        ("alive-1", "not-rollback-2"),
        ("live-acme-speech",),
        ("rollback-acme-speech",),
        ("1.4.2", "live-acme-speech"),
        ("1.4.2", "rollback-acme-speech"),
        ("live-acme-speech", "rollback-other-speech"),
        ("live-",),
    )
]
_AGES_DAYS = (0, 1, 13, 13.99, 14, 14.01, 20, 89.99, 90.01, 365, 3650)
