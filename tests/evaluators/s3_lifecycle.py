"""What S3 Lifecycle leaves of a bucket: an evaluator of the stored configuration.

It takes rules as `get_bucket_lifecycle_configuration` returns them, and objects with their
versions, delete markers and unfinished uploads, and says what is left at a later time. S3 acts
some time after an object is due; here it acts at the midnight at which the object is due.

Storage classes are not looked at, and a bucket whose versioning was suspended is not modelled.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/lifecycle-expire-general-considerations.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

Rule = Mapping[str, Any]

_DAY = timedelta(days=1)


class UnknownElementError(Exception):
    """A configuration has an element that is not evaluated here."""


@dataclass(frozen=True)
class Version:
    """A version of an object, or a delete marker."""

    created: datetime
    delete_marker: bool = False
    size: int = 1_000
    """In bytes."""
    tags: Mapping[str, str] = field(default_factory=dict)
    noncurrent_since: datetime | None = None
    """When its successor was created; None while it is the current version."""


@dataclass(frozen=True)
class Bucket:
    """What a bucket holds. Each change gives a new one."""

    objects: Mapping[str, tuple[Version, ...]] = field(default_factory=dict)
    """All versions of each key, the current one last."""
    uploads: tuple[tuple[str, datetime], ...] = ()
    """Key and start of each multipart upload that was neither completed nor aborted."""
    versioned: bool = True

    def put(
        self, key: str, at: datetime, size: int = 1_000, tags: Mapping[str, str] | None = None
    ) -> Bucket:
        """Writes an object; with versioning, what was there becomes noncurrent."""
        return self._succeeded(key, Version(at, size=size, tags=tags or {}))

    def delete(self, key: str, at: datetime) -> Bucket:
        """Deletes without naming a version: with versioning, that adds a delete marker."""
        if not self.versioned:
            return self._with(key, ())
        return self._succeeded(key, Version(at, delete_marker=True))

    def start_upload(self, key: str, at: datetime) -> Bucket:
        """Begins a multipart upload that is never completed."""
        return replace(self, uploads=(*self.uploads, (key, at)))

    def readable(self, key: str) -> bool:
        """Whether a GET without a version succeeds."""
        versions = self.objects.get(key, ())
        return bool(versions) and not versions[-1].delete_marker

    def versions(self, key: str) -> tuple[Version, ...]:
        """All that is stored under a key, without delete markers."""
        return tuple(v for v in self.objects.get(key, ()) if not v.delete_marker)

    def _succeeded(self, key: str, version: Version) -> Bucket:
        if not self.versioned:
            return self._with(key, (version,))
        *older, current = (*self.objects.get(key, ()), version)
        if older:
            older[-1] = replace(older[-1], noncurrent_since=version.created)
        return self._with(key, (*older, current))

    def _with(self, key: str, versions: tuple[Version, ...]) -> Bucket:
        others = {k: v for k, v in self.objects.items() if k != key}
        return replace(self, objects={**others, key: versions} if versions else others)


def left(rules: Sequence[Rule], bucket: Bucket, since: datetime, until: datetime) -> Bucket:
    """What is left of a bucket at `until`, where nobody else changed it after `since`.

    Raises:
        UnknownElementError: a rule has something that is not evaluated here.
    """
    for rule in rules:
        _check(rule)
    enabled = [rule for rule in rules if rule["Status"] == "Enabled"]
    for midnight in _midnights(since, until):
        bucket = _applied(enabled, bucket, midnight)
    return bucket


def due(start: datetime, days: int) -> datetime:
    """When something is due that is to happen some days after `start`: rounded to the next day.

    Whether an exact midnight is rounded as well, the documentation does not say; its words, taken
    literally, do.
    """
    day = (start + days * _DAY).astimezone(UTC).date()
    return datetime.combine(day, time(), UTC) + _DAY


def _midnights(since: datetime, until: datetime) -> Iterator[datetime]:
    midnight = due(since, 0)
    while midnight <= until:
        yield midnight
        midnight += _DAY


def _applied(rules: Sequence[Rule], bucket: Bucket, now: datetime) -> Bucket:
    objects = {}
    for key, versions in bucket.objects.items():
        kept = _without_old_noncurrent(rules, key, versions, now)
        kept = _without_current(rules, key, kept, now, bucket.versioned)
        if kept:
            objects[key] = kept
    uploads = [upload for upload in bucket.uploads if not _aborted(rules, *upload, now)]
    return replace(bucket, objects=objects, uploads=tuple(uploads))


def _without_old_noncurrent(
    rules: Sequence[Rule], key: str, versions: tuple[Version, ...], now: datetime
) -> tuple[Version, ...]:
    return tuple(
        version
        for index, version in enumerate(versions)
        if not any(
            _ends_noncurrent(rule["NoncurrentVersionExpiration"], version, versions[index:], now)
            for rule in rules
            if "NoncurrentVersionExpiration" in rule and _selects(rule, key, version)
        )
    )


def _ends_noncurrent(
    action: Mapping[str, int], version: Version, with_newer: tuple[Version, ...], now: datetime
) -> bool:
    if version.noncurrent_since is None:
        return False
    # "The maximum number of noncurrent versions does not include […] noncurrent delete markers."
    newer = [v for v in with_newer[1:-1] if not v.delete_marker]
    return (
        len(newer) >= action.get("NewerNoncurrentVersions", 0)
        and due(version.noncurrent_since, action["NoncurrentDays"]) <= now
    )


def _without_current(
    rules: Sequence[Rule],
    key: str,
    versions: tuple[Version, ...],
    now: datetime,
    versioned: bool,
) -> tuple[Version, ...]:
    if not versions:
        return ()
    current = versions[-1]
    expirations = [
        r["Expiration"] for r in rules if "Expiration" in r and _selects(r, key, current)
    ]
    aged = any(_is_of_age(expiration, current, now) for expiration in expirations)
    if current.delete_marker:
        # The documentation calls a marker without other versions an expired delete marker.
        expired = aged or any(e.get("ExpiredObjectDeleteMarker") for e in expirations)
        return () if len(versions) == 1 and expired else versions
    if not aged:
        return versions
    if not versioned:
        return ()
    marker = Version(now, delete_marker=True)
    return (*versions[:-1], replace(current, noncurrent_since=now), marker)


def _is_of_age(expiration: Mapping[str, Any], version: Version, now: datetime) -> bool:
    if "Date" in expiration:
        return expiration["Date"] <= now
    return "Days" in expiration and due(version.created, expiration["Days"]) <= now


def _aborted(rules: Sequence[Rule], key: str, started: datetime, now: datetime) -> bool:
    return any(
        due(started, rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]) <= now
        for rule in rules
        if "AbortIncompleteMultipartUpload" in rule and _selects(rule, key, Version(started))
    )


def _selects(rule: Rule, key: str, version: Version) -> bool:
    """Whether a rule's filter matches; an empty one matches everything.

    A delete marker has neither tags nor a size.
    """
    conditions = {"Prefix": rule.get("Prefix", ""), **rule.get("Filter", {})}
    conditions |= conditions.pop("And", {})
    tags = [*conditions.get("Tags", ()), *filter(None, [conditions.get("Tag")])]
    size = 0 if version.delete_marker else version.size
    return (
        key.startswith(conditions["Prefix"])
        and all(version.tags.get(tag["Key"]) == tag["Value"] for tag in tags)
        and size > conditions.get("ObjectSizeGreaterThan", -1)
        and size < conditions.get("ObjectSizeLessThan", size + 1)
    )


_NOT_ABOUT_EXPIRY = {"ID", "Status", "Transitions", "NoncurrentVersionTransitions"}
_CONDITIONS = {"Prefix", "Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan"}
_ELEMENTS: Mapping[str, set[str]] = {
    "Filter": {*_CONDITIONS, "And"},
    "Filter.And": {*_CONDITIONS - {"Tag"}, "Tags"},
    "Expiration": {"Days", "Date", "ExpiredObjectDeleteMarker"},
    "NoncurrentVersionExpiration": {"NoncurrentDays", "NewerNoncurrentVersions"},
    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation"},
}


def _check(rule: Rule) -> None:
    _refuse_others("", rule, {*_NOT_ABOUT_EXPIRY, "Prefix", *(e.split(".")[0] for e in _ELEMENTS)})
    for path, known in _ELEMENTS.items():
        part: Any = rule
        for name in path.split("."):
            part = part.get(name, {})
        _refuse_others(path, part, known)


def _refuse_others(path: str, part: Mapping[str, Any], known: set[str]) -> None:
    others = sorted(part.keys() - known)
    if others:
        raise UnknownElementError(f"{path or 'rule'}: {', '.join(others)} is not evaluated")
