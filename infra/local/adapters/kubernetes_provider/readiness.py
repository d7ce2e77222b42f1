"""Whether an object is ready: decisions from what the API server says, without asking it.

The rules are those of the released provider (4.34, `await/`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.local.adapters.kubernetes_provider.objects import Object

_MINUTE = 60
DEFAULT_TIMEOUT_SECONDS = 10 * _MINUTE
_TIMEOUT_SECONDS = {
    ("v1", "PersistentVolume"): 5 * _MINUTE,
    ("v1", "PersistentVolumeClaim"): 5 * _MINUTE,
    ("v1", "ServiceAccount"): 5 * _MINUTE,
    ("v1", "ResourceQuota"): 5 * _MINUTE,
}
# Reasons with which a container never starts by waiting longer; the pod must be changed.
_HOPELESS = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)


@dataclass(frozen=True)
class Verdict:
    """What is known about an object's readiness.

    Args:
        ready: whether it is ready now.
        waiting_for: what it still lacks, for people; empty when ready.
        hopeless: whether waiting alone will most likely not help.
    """

    ready: bool
    waiting_for: tuple[str, ...] = ()
    hopeless: bool = False


READY = Verdict(True)
Rule = Callable[[Object, Sequence[Object]], Verdict]


@dataclass(frozen=True)
class Awaited:
    """How the readiness of a kind is judged.

    Args:
        rule: the verdict from the object and its companions.
        companions: API version and kind of the objects it also looks at; empty for none.
        reads: whether a refresh judges it too, and reports an object that is not ready.
    """

    rule: Rule
    companions: tuple[str, str] | None = None
    reads: bool = True


def timeout_seconds(api_version: str, kind: str) -> float:
    """How long the readiness of a kind is awaited when nobody says otherwise."""
    return _TIMEOUT_SECONDS.get((api_version, kind), DEFAULT_TIMEOUT_SECONDS)


def awaited(api_version: str, kind: str) -> Awaited | None:
    """How this kind is awaited; None where it is ready as soon as it exists."""
    return _AWAITED.get((api_version, kind))


def condition(obj: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    """The status condition of this type; empty where there is none."""
    conditions = (obj.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == type_), {})


def deployment(obj: Object, _: Sequence[Object] = ()) -> Verdict:
    """Ready when the controller has seen this generation and all its replicas are available."""
    spec, status = obj["spec"], obj.get("status") or {}
    if not _observed(obj):
        return Verdict(False, ("the Deployment controller has not seen the change yet",))
    progressing, failure = condition(obj, "Progressing"), condition(obj, "ReplicaFailure")
    wanted = spec.get("replicas", 1)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    rolled_out = (
        progressing.get("status") != "False"
        and updated >= wanted
        and available >= wanted
        and status.get("replicas", 0) <= updated
    )
    if rolled_out:
        return READY
    lacking = [f"{updated} of {wanted} replicas updated, {available} available"]
    if failure.get("status") == "True":
        lacking.append(f"[{failure.get('reason')}] {failure.get('message')}")
    if progressing.get("status") == "False":
        lacking.append(f"[{progressing.get('reason')}] {progressing.get('message')}")
    # With some pods of the new version up, a refused surge pod only slows the rollout down.
    refused = failure.get("status") == "True" and not updated
    stuck = progressing.get("reason") == "ProgressDeadlineExceeded"
    return Verdict(False, tuple(lacking), hopeless=refused or stuck)


def stateful_set(obj: Object, _: Sequence[Object] = ()) -> Verdict:
    """Ready when every replica runs the current revision and is ready."""
    status = obj.get("status") or {}
    if not _observed(obj):
        return Verdict(False, ("the StatefulSet controller has not seen the change yet",))
    wanted = obj["spec"].get("replicas", 1)
    ready = status.get("readyReplicas", 0)
    same = status.get("updateRevision") == status.get("currentRevision")
    on_delete = (obj["spec"].get("updateStrategy") or {}).get("type") == "OnDelete"
    if ready >= wanted and (same or on_delete):
        return READY
    updated = status.get("updatedReplicas", 0)
    return Verdict(False, (f"{updated} of {wanted} replicas updated, {ready} ready",))


def daemon_set(obj: Object, _: Sequence[Object] = ()) -> Verdict:
    """Ready when every node that should run it runs the current version and is available."""
    status = obj.get("status") or {}
    if not _observed(obj):
        return Verdict(False, ("the DaemonSet controller has not seen the change yet",))
    wanted = status.get("desiredNumberScheduled", 0)
    updated, ready = status.get("updatedNumberScheduled", 0), status.get("numberReady", 0)
    on_delete = (obj["spec"].get("updateStrategy") or {}).get("type") == "OnDelete"
    if ready >= wanted and (updated >= wanted or on_delete):
        return READY
    return Verdict(False, (f"{updated} of {wanted} nodes updated, {ready} ready",))


def pod(obj: Object, _: Sequence[Object] = ()) -> Verdict:
    """Ready when it is Ready, or has run to a good end."""
    phase = (obj.get("status") or {}).get("phase")
    if phase == "Succeeded" or condition(obj, "Ready").get("status") == "True":
        return READY
    problems = pod_problems([obj])
    return Verdict(False, problems.texts or (f"the Pod is {phase}",), problems.hopeless)


def job(obj: Object, _: Sequence[Object] = ()) -> Verdict:
    """Ready when complete; hopeless when failed."""
    if condition(obj, "Complete").get("status") == "True":
        return READY
    failed = condition(obj, "Failed")
    if failed.get("status") == "True":
        return Verdict(False, (f"[{failed.get('reason')}] {failed.get('message')}",), True)
    if (obj["spec"].get("suspend")) is True:
        return READY
    status = obj.get("status") or {}
    return Verdict(
        False, (f"{status.get('active', 0)} pods active, {status.get('succeeded', 0)} succeeded",)
    )


def service(obj: Object, slices: Sequence[Object]) -> Verdict:
    """Ready when it has endpoints and, as a load balancer, an address.

    Headless, external and selectorless Services have nothing to wait for.
    """
    spec = obj["spec"]
    type_ = spec.get("type", "ClusterIP")
    lacking = []
    if type_ == "LoadBalancer" and not _load_balancer_addresses(obj):
        lacking.append("the Service has no load balancer address yet")
    selects = spec.get("selector") and spec.get("clusterIP") != "None" and type_ != "ExternalName"
    if selects and not any(slice_.get("endpoints") for slice_ in slices):
        lacking.append(
            "the Service targets no Pods: the selected Pods may not be ready, or spec.selector "
            "may not match the labels of any Pod"
        )
    return Verdict(not lacking, tuple(lacking))


def ingress(obj: Object, _: Sequence[Object] = ()) -> Verdict:
    """Ready when a controller gave it an address."""
    if _load_balancer_addresses(obj):
        return READY
    return Verdict(False, ("no ingress controller has given the Ingress an address yet",))


def claim(obj: Object, storage_classes: Sequence[Object]) -> Verdict:
    """Ready when bound, or when its class binds it only to the first Pod that uses it."""
    if (obj.get("status") or {}).get("phase") == "Bound":
        return READY
    name = obj["spec"].get("storageClassName")
    for storage_class in storage_classes:
        if storage_class["metadata"]["name"] == name:
            if storage_class.get("volumeBindingMode") == "WaitForFirstConsumer":
                return READY
            break
    return Verdict(False, ("the PersistentVolumeClaim is not bound to a volume yet",))


def volume(obj: Object, _: Sequence[Object] = ()) -> Verdict:
    """Ready when it can be bound or is."""
    phase = (obj.get("status") or {}).get("phase")
    if phase in ("Available", "Bound"):
        return READY
    return Verdict(False, (f"the PersistentVolume is {phase or 'not recognised yet'}",))


def resource_quota(obj: Object, _: Sequence[Object] = ()) -> Verdict:
    """Ready when the controller has taken over its limits."""
    if (obj.get("status") or {}).get("hard") == obj["spec"].get("hard"):
        return READY
    return Verdict(False, ("the quota controller has not taken the limits over yet",))


def custom_resource_definition(obj: Object, _: Sequence[Object] = ()) -> Verdict:
    """Ready when the API server serves the kind."""
    if condition(obj, "Established").get("status") == "True":
        return READY
    refused = condition(obj, "NamesAccepted")
    text = f": {refused.get('message')}" if refused.get("status") == "False" else ""
    return Verdict(False, (f"the API server does not serve the kind yet{text}",), bool(text))


@dataclass(frozen=True)
class Problems:
    """What is wrong with some pods, for people, and whether waiting may help."""

    texts: tuple[str, ...]
    hopeless: bool


def pod_problems(pods: Iterable[Object]) -> Problems:
    """Every pod that is not ready: which container, and why."""
    texts: list[str] = []
    hopeless = False
    for obj in pods:
        name, status = obj["metadata"]["name"], obj.get("status") or {}
        if condition(obj, "Ready").get("status") == "True" or status.get("phase") == "Succeeded":
            continue
        scheduled = condition(obj, "PodScheduled")
        if scheduled.get("status") == "False":
            texts.append(f"pod {name}: [{scheduled.get('reason')}] {scheduled.get('message')}")
        for container in _containers(status):
            text, bad = _container_problem(container)
            if text:
                texts.append(f"pod {name}, container {container['name']}: {text}")
                hopeless = hopeless or bad
    return Problems(tuple(texts), hopeless)


def warning_texts(events: Iterable[Object], names: Iterable[str]) -> tuple[str, ...]:
    """The newest warning events about objects whose names begin with one of these."""
    prefixes = tuple(names)
    warnings = [
        event
        for event in events
        if event.get("type") == "Warning"
        and str((event.get("involvedObject") or {}).get("name", "")).startswith(prefixes)
    ]
    warnings.sort(key=_event_time)
    texts = [
        f"{event['involvedObject'].get('kind')} {event['involvedObject'].get('name')}: "
        f"[{event.get('reason')}] {event.get('message')}"
        for event in warnings
    ]
    return tuple(dict.fromkeys(texts))[-3:]


def _event_time(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def _containers(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]


def _container_problem(container: Mapping[str, Any]) -> tuple[str, bool]:
    state = container.get("state") or {}
    last = (container.get("lastState") or {}).get("terminated") or {}
    if waiting := state.get("waiting"):
        reason = waiting.get("reason") or ""
        if reason in ("ContainerCreating", "PodInitializing", ""):
            return "", False
        text = f"[{reason}] {waiting.get('message') or ''}".rstrip()
        if last:
            text += f" (last exit code {last.get('exitCode')}, {last.get('reason')})"
            said = (last.get("message") or "").strip().splitlines()
            text += f" {said[-1]}" if said else ""
        return text, reason in _HOPELESS
    if (ended := state.get("terminated")) and ended.get("exitCode"):
        text = f"[{ended.get('reason')}] exit code {ended['exitCode']}"
        return f"{text} {ended.get('message') or ''}".rstrip(), False
    if "running" in state and container.get("ready") is False:
        return "running, but not ready", False
    return "", False


def _observed(obj: Object) -> bool:
    generation = obj["metadata"].get("generation", 0)
    return (obj.get("status") or {}).get("observedGeneration", 0) >= generation


def _load_balancer_addresses(obj: Object) -> list[Any]:
    return ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []


_AWAITED: Mapping[tuple[str, str], Awaited] = {
    ("apps/v1", "Deployment"): Awaited(deployment),
    ("apps/v1", "StatefulSet"): Awaited(stateful_set),
    ("apps/v1", "DaemonSet"): Awaited(daemon_set),
    ("v1", "Pod"): Awaited(pod),
    ("batch/v1", "Job"): Awaited(job),
    ("v1", "Service"): Awaited(service, ("discovery.k8s.io/v1", "EndpointSlice")),
    ("networking.k8s.io/v1", "Ingress"): Awaited(ingress),
    ("v1", "PersistentVolumeClaim"): Awaited(
        claim, ("storage.k8s.io/v1", "StorageClass"), reads=False
    ),
    ("v1", "PersistentVolume"): Awaited(volume, reads=False),
    ("v1", "ResourceQuota"): Awaited(resource_quota, reads=False),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"): Awaited(custom_resource_definition),
}
