"""Waits for objects to become ready or to be gone, and says meanwhile what they lack."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.local.adapters.kubernetes_provider import readiness
from infra.local.adapters.kubernetes_provider.api import Api, Kind
from infra.local.adapters.kubernetes_provider.objects import (
    SKIP_AWAIT,
    TIMEOUT_SECONDS,
    WAIT_FOR,
    Object,
    annotation,
    is_true,
)
from infra.local.adapters.kubernetes_provider.readiness import Problems, Verdict
from infra.local.adapters.provider_base import Call, CancelledError, ProviderError

DELETE_TIMEOUT_SECONDS = 600
# A refusal that lasts this long is not a hiccup of a controller or of a starting neighbour.
HOPELESS_SECONDS = 30
_FIRST_POLL_SECONDS = 0.1
_POLL_SECONDS = 1.0
_EXPLAIN_SECONDS = 2.0
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "ReplicaSet")


class NotReadyError(ProviderError):
    """The object exists, but did not become ready.

    Args:
        live: the object as last seen.
        reasons: what it lacked.
    """

    def __init__(self, live: Object, reasons: Sequence[str]) -> None:
        self.live, self.reasons = live, tuple(reasons)
        super().__init__("; ".join(reasons))


def timeout_of(call: Call, obj: Object, default: float) -> float:
    """The time-out in seconds: `customTimeouts`, else the annotation, else the default."""
    text = annotation(obj, TIMEOUT_SECONDS)
    return call.timeout_seconds or (float(text) if text else default)


@dataclass(frozen=True)
class Waiter:
    """Waits on one API server."""

    api: Api

    def until_ready(self, call: Call, kind: Kind, obj: Object) -> Object:
        """The object, once it is ready.

        Raises:
            NotReadyError: it was not within the time, shows no hope to ever be, or the user
                interrupted.
        """
        if is_true(obj, SKIP_AWAIT) or not self.is_awaited(obj):
            return obj
        seconds = timeout_of(call, obj, readiness.timeout_seconds(kind.api_version, kind.kind))
        try:
            return self._watched(call, kind, obj, seconds)
        except NotReadyError:
            raise
        except ProviderError as error:
            raise NotReadyError(obj, (f"it could not be watched any more: {error}",)) from error

    def _watched(self, call: Call, kind: Kind, live: Object, seconds: float) -> Object:
        deadline = time.monotonic() + seconds
        patience, pause = _Patience(), _FIRST_POLL_SECONDS
        problems, explain_at = Problems((), False), 0.0
        while not (verdict := self.judge(kind, live)).ready:
            now = time.monotonic()
            if now >= min(explain_at, deadline):
                problems, explain_at = self._problems(live), now + _EXPLAIN_SECONDS
            lacking = (*verdict.waiting_for, *problems.texts)
            call.status("; ".join(lacking[:2]))
            if patience.is_lost(verdict.hopeless or problems.hopeless):
                raise NotReadyError(live, (f"no hope for {HOPELESS_SECONDS} s", *lacking))
            if now >= deadline:
                raise NotReadyError(live, (f"not ready after {seconds:g} s", *lacking))
            if call.cancelled.wait(min(pause, deadline - now)):
                raise NotReadyError(live, ("interrupted while waiting", *lacking))
            pause = min(pause * 1.5, _POLL_SECONDS)
            live = self._again(kind, live)
        call.status("")
        return live

    def is_awaited(self, obj: Object) -> bool:
        """Whether readiness means anything for this object."""
        known = readiness.awaited(obj["apiVersion"], obj["kind"])
        return known is not None or annotation(obj, WAIT_FOR) is not None

    def judge(self, kind: Kind, live: Object) -> Verdict:
        """Whether the object is ready now."""
        if (wanted := annotation(live, WAIT_FOR)) is not None:
            return custom_verdict(live, wanted)
        known = readiness.awaited(kind.api_version, kind.kind)
        if known is None:
            return readiness.READY
        return known.rule(live, self._companions(live, known.companions))

    def lacking(self, kind: Kind, live: Object) -> tuple[str, ...]:
        """What the object still lacks, also by its pods and events; nothing if it is ready."""
        verdict = self.judge(kind, live)
        return () if verdict.ready else (*verdict.waiting_for, *self._problems(live).texts)

    def until_gone(self, call: Call, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Returns once the object is gone, or another one has its name."""
        timeout = call.timeout_seconds or DELETE_TIMEOUT_SECONDS
        deadline = time.monotonic() + timeout
        pause = _FIRST_POLL_SECONDS / 2
        while live := self.api.get(kind, namespace, name):
            if uid and live["metadata"]["uid"] != uid:
                return
            finalizers = ", ".join(live["metadata"].get("finalizers") or ())
            held = f" (finalizers: {finalizers})" if finalizers else ""
            call.status(f"waiting for the deletion{held}")
            if time.monotonic() >= deadline:
                raise ProviderError(
                    f"{kind.kind} {namespace}/{name} still exists {timeout:g} s after its "
                    f"deletion was asked for{held}{_remaining(live)}"
                )
            if call.cancelled.wait(pause):
                raise CancelledError(f"interrupted while waiting for the deletion of {name}")
            pause = min(pause * 1.5, _POLL_SECONDS)

    def _again(self, kind: Kind, live: Object) -> Object:
        metadata = live["metadata"]
        found = self.api.get(kind, metadata.get("namespace", ""), metadata["name"])
        if found is None:
            raise NotReadyError(live, ("it was deleted by somebody else while being awaited",))
        return found

    def _companions(self, live: Object, which: tuple[str, str] | None) -> list[Object]:
        if which is None:
            return []
        kind = self.api.kind(*which)
        if which[1] == "EndpointSlice":
            label = f"kubernetes.io/service-name={live['metadata']['name']}"
            return self.api.list(kind, live["metadata"]["namespace"], labelSelector=label)
        return self.api.list(kind, "")

    def _pods(self, live: Object) -> list[Object]:
        labels = ((live.get("spec") or {}).get("selector") or {}).get("matchLabels")
        if live["kind"] not in _WORKLOADS or not labels:
            return []
        selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        namespace = live["metadata"]["namespace"]
        return self.api.list(self.api.kind("v1", "Pod"), namespace, labelSelector=selector)

    def _problems(self, live: Object) -> Problems:
        """What pods and events say about an object that is not ready."""
        namespace = live["metadata"].get("namespace")
        if not namespace:
            return Problems((), False)
        pods = readiness.pod_problems(self._pods(live))
        events = self.api.list(self.api.kind("v1", "Event"), namespace)
        warnings = readiness.warning_texts(events, [live["metadata"]["name"]])
        return Problems((*pods.texts, *warnings), pods.hopeless)


class _Patience:
    """Remembers since when an object looks hopeless."""

    def __init__(self) -> None:
        self._since: float | None = None

    def is_lost(self, hopeless: bool) -> bool:
        if not hopeless:
            self._since = None
            return False
        now = time.monotonic()
        self._since = self._since or now
        return now - self._since >= HOPELESS_SECONDS


def custom_verdict(live: Object, wanted: str) -> Verdict:
    """The verdict of `pulumi.com/waitFor`: `condition=Type[=Status]` or `jsonpath={.a.b}[=value]`.

    Several may be given as a JSON list, as the released provider allows.
    """
    if wanted.lstrip().startswith("["):
        verdicts = [custom_verdict(live, str(item)) for item in json.loads(wanted)]
        lacking = tuple(text for verdict in verdicts for text in verdict.waiting_for)
        return Verdict(not lacking, lacking)
    language, _, rest = wanted.partition("=")
    if language == "condition":
        type_, _, status = rest.partition("=")
        found = str(readiness.condition(live, type_).get("status"))
        fits = found.lower() == (status or "True").lower()
        return Verdict(fits, () if fits else (f"condition {type_} is {found}",))
    if language == "jsonpath":
        path, _, value = rest.partition("}=")
        found = _at(live, path.strip("{}"))
        fits = found is not None and (not value or str(found) == value)
        return Verdict(fits, () if fits else (f"{path.strip('{}')} is {found!r}",))
    raise ProviderError(
        f"annotation {WAIT_FOR} is {wanted!r}; use condition=TYPE, condition=TYPE=STATUS, "
        "jsonpath={.path} or jsonpath={.path}=VALUE"
    )


def _at(value: Any, path: str) -> Any:
    for name, index in re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", path):
        if index:
            value = (
                value[int(index)] if isinstance(value, list) and int(index) < len(value) else None
            )
        else:
            value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            return None
    return value


def _remaining(live: Object) -> str:
    """What a Namespace's conditions say about why it is still there."""
    conditions = (live.get("status") or {}).get("conditions") or []
    texts = [c.get("message") for c in conditions if c.get("status") == "True" and c.get("message")]
    return ": " + " ".join(texts) if texts else ""
