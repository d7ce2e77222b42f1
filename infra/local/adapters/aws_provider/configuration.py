"""The provider's configuration: `region`, credentials, endpoints and what else is supported.

Pulumi sends every value that is not a text as JSON in a text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.config import Config

from infra.local.adapters.property_values import UNKNOWN, Properties, plain
from infra.local.adapters.provider_base import CheckFailedError

_TEXTS = ("region", "accessKey", "secretKey", "token", "profile", "retryMode")
_WITHOUT_EFFECT = (
    "skipMetadataApiCheck",
    "skipRegionValidation",
    "skipRequestingAccountId",
    "version",
)
_FLAGS = ("insecure", "s3UsePathStyle", "skipCredentialsValidation", *_WITHOUT_EFFECT[:3])
_OTHERS = ("maxRetries", "endpoints", "defaultTags", "version")
_SUPPORTED = frozenset((*_TEXTS, *_FLAGS, *_OTHERS))
_SECRET = "secretKey"  # noqa: S105 (a name)
_DEFAULT_ATTEMPTS = 5
_SECONDS_TO_CONNECT = 5
_SECONDS_TO_ANSWER = 60


@dataclass(frozen=True)
class Configuration:
    """What a program tells `aws.Provider`.

    Args:
        region: where resources live that do not say otherwise.
        access_key, secret_key, token, profile: credentials; empty: botocore's own search.
        endpoints: URL by service name; services without one are AWS's own.
        default_tags: tags of every resource that has tags.
        path_style: whether a bucket is addressed in the path, not in the host name.
        skip_credentials_validation: whether to ask nothing of STS at the start.
        verify_certificates: whether TLS certificates are checked.
        attempts: how often a call is tried in all.
        retry_mode: `standard` or `adaptive`.
    """

    region: str
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    profile: str = ""
    endpoints: Mapping[str, str] = field(default_factory=dict)
    default_tags: Mapping[str, str] = field(default_factory=dict)
    path_style: bool = False
    skip_credentials_validation: bool = False
    verify_certificates: bool = True
    attempts: int = _DEFAULT_ATTEMPTS
    retry_mode: str = "standard"

    @classmethod
    def parse(cls, wire: Properties, environment: Mapping[str, str] = os.environ) -> Configuration:
        """From what the engine sends.

        Raises:
            CheckFailedError: naming each property that is not supported or not right.
        """
        values = plain(wire)
        problems = [
            (name, "is not supported by the embedded environment's aws provider")
            for name in sorted(values.keys() - _SUPPORTED)
            if not _is_unset(values[name])
        ]
        reader = _Reader(values, problems)
        region = reader.text("region") or _region_of(environment)
        if not region:
            problems.append(("region", "is required; state it or set AWS_REGION"))
        if bool(reader.text("accessKey")) != bool(reader.text(_SECRET)):
            problems.append((_SECRET, "accessKey and secretKey belong together"))
        parsed = cls(
            region=region,
            access_key=reader.text("accessKey"),
            secret_key=reader.text(_SECRET),
            token=reader.text("token"),
            profile=reader.text("profile"),
            endpoints=_endpoints(reader.json("endpoints", []), problems),
            default_tags=_default_tags(reader.json("defaultTags", {}), problems),
            path_style=reader.flag("s3UsePathStyle"),
            skip_credentials_validation=reader.flag("skipCredentialsValidation"),
            verify_certificates=not reader.flag("insecure"),
            attempts=reader.json("maxRetries", _DEFAULT_ATTEMPTS - 1) + 1,
            retry_mode=reader.text("retryMode") or "standard",
        )
        if problems:
            raise CheckFailedError(problems)
        return parsed

    def botocore_config(self) -> Config:
        """The settings of every client."""
        return Config(
            retries={"mode": self.retry_mode, "total_max_attempts": self.attempts},
            s3={"addressing_style": "path" if self.path_style else "auto"},
            connect_timeout=_SECONDS_TO_CONNECT,
            read_timeout=_SECONDS_TO_ANSWER,
            user_agent_extra="voicemesh",
        )


@dataclass(frozen=True)
class _Reader:
    """Reads single values, and notes those that are not right."""

    values: Properties
    problems: list[tuple[str, str]]

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if value is None or value is UNKNOWN:
            return ""
        if not isinstance(value, str):
            self.problems.append((name, f"{value!r} is not a text"))
            return ""
        return value

    def json(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        if value in (None, "") or value is UNKNOWN:
            return default
        try:
            parsed = json.loads(value) if isinstance(value, str) else value
        except json.JSONDecodeError:
            parsed = value
        if type(parsed) is not type(default):
            self.problems.append((name, f"{value!r} is not a {type(default).__name__}"))
            return default
        return parsed

    def flag(self, name: str) -> bool:
        return self.json(name, default=False)


def _is_unset(value: Any) -> bool:
    return value in (None, "", "[]", "{}", "null", [], {})


def _region_of(environment: Mapping[str, str]) -> str:
    return environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or ""


def _endpoints(listed: list[Any], problems: list[tuple[str, str]]) -> dict[str, str]:
    """One map of URLs by service, of a list of such maps."""
    merged: dict[str, str] = {}
    for index, entry in enumerate(listed):
        if not isinstance(entry, dict):
            problems.append((f"endpoints[{index}]", f"{entry!r} is not a map of service to URL"))
            continue
        for service, url in entry.items():
            if url and not str(url).startswith(("http://", "https://")):
                problems.append((f"endpoints[{index}].{service}", f"{url!r} is not a URL"))
            elif url:
                merged[service] = url
    return merged


def _default_tags(wire: dict[str, Any], problems: list[tuple[str, str]]) -> dict[str, str]:
    tags = wire.get("tags") or {}
    if unknown := sorted(wire.keys() - {"tags"}):
        problems.append((f"defaultTags.{unknown[0]}", "is not known; defaultTags has only tags"))
    return tags
