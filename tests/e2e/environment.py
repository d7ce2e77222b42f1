"""The embedded environment as the end-to-end tests see it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import kubernetes.client
import kubernetes.config
import tenacity

from infra.local import up
from infra.local.paths import CHECKOUT, STATE
from infra.local.speak import Door

T = TypeVar("T")

NAMESPACE = "tts"
APP = "speech"


@dataclass(frozen=True)
class Environment:
    """A running environment, as `make up` leaves it."""

    door: Door

    @classmethod
    def running(cls) -> Environment:
        """The environment that this checkout has."""
        return cls(up.door())

    @cached_property
    def _api(self) -> kubernetes.client.ApiClient:
        return kubernetes.config.new_client_from_config(str(STATE / "kubeconfig-host"))

    # The generated client declares every attribute of every object optional.
    @property
    def core(self) -> Any:
        return kubernetes.client.CoreV1Api(self._api)

    @property
    def apps(self) -> Any:
        return kubernetes.client.AppsV1Api(self._api)

    @property
    def custom(self) -> Any:
        return kubernetes.client.CustomObjectsApi(self._api)

    def speech_pods(self) -> list[Any]:
        """The pods of the voice service that are Ready and not about to go."""
        pods = self.core.list_namespaced_pod(NAMESPACE, label_selector=f"app={APP}").items
        return [pod for pod in pods if is_ready(pod) and not pod.metadata.deletion_timestamp]


def is_ready(thing: Any) -> bool:
    """Whether a pod or a node has the condition Ready."""
    conditions = thing.status.conditions or []
    return any(c.type == "Ready" and c.status == "True" for c in conditions)


def local(*arguments: str, timeout_seconds: float = 900) -> subprocess.CompletedProcess[str]:
    """Runs `python -m infra.local`; what it says is in `stdout` and `stderr`."""
    return subprocess.run(
        [sys.executable, "-m", "infra.local", *arguments],
        cwd=CHECKOUT,
        text=True,
        capture_output=True,
        timeout=timeout_seconds,
        check=False,
    )


def eventually(condition: Callable[[], T], within_seconds: float = 60, what: str = "") -> T:
    """Awaits a true answer of `condition`, which may also raise until then, and returns it."""
    started = time.monotonic()

    @tenacity.retry(
        stop=tenacity.stop_after_delay(within_seconds),
        wait=tenacity.wait_fixed(0.25),
        retry=tenacity.retry_if_exception_type() | tenacity.retry_if_result(lambda it: not it),
    )
    def awaited() -> T:
        return condition()

    try:
        return awaited()
    except tenacity.RetryError as error:
        last = error.last_attempt
        seen = last.exception() if last.failed else last.result()
        waited = time.monotonic() - started
        raise AssertionError(f"not within {waited:.0f} s: {what} (last: {seen!r})") from error
