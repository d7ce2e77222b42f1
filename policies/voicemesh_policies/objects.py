"""Resources as rules look at them, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Generic, TypeVar

from voicemesh_policies.view import Finding, UnknownError, View

LONG_RUNNING: Final = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"})
WORKLOADS: Final = LONG_RUNNING | {"Pod", "Job", "CronJob"}
_TEMPLATES: Final = {
    **dict.fromkeys(LONG_RUNNING | {"Job"}, "spec.template"),
    "CronJob": "spec.jobTemplate.spec.template",
}
ISTIO_GROUPS: Final = frozenset(
    f"{group}.istio.io" for group in ("networking", "security", "telemetry", "extensions")
)
CLUSTER_SCOPED: Final = frozenset(
    {
        *("Namespace", "Node", "PersistentVolume", "PriorityClass", "StorageClass", "RuntimeClass"),
        *("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "APIService"),
        *("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "IngressClass"),
        *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "CSIDriver"),
        *("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding", "VolumeAttributesClass"),
        *("ClusterIssuer", "GatewayClass", "NodePool", "EC2NodeClass", "FlowSchema", "CSINode"),
        *("PriorityLevelConfiguration", "CertificateSigningRequest", "VolumeAttachment"),
    }
)
_NOT_OBJECTS: Final = frozenset({"helm.sh", "yaml", "kustomize"})


@dataclass(frozen=True)
class Resource:
    """One resource of a stack.

    Attributes:
        type: Pulumi's token, as `kubernetes:apps/v1:Deployment`.
        name: its logical name.
        load: reads the properties, under their names on the wire.
        protect: whether Pulumi refuses to delete it.
        load_provider: reads the properties of its provider.
        dependencies: URNs of what it depends on.
    """

    type: str
    name: str
    urn: str
    load: Callable[[], Any] = field(repr=False, compare=False)
    protect: bool = False
    load_provider: Callable[[], Any] = field(default=dict, repr=False, compare=False)
    dependencies: frozenset[str] = frozenset()

    @cached_property
    def props(self) -> View:
        return View(self.load())

    @cached_property
    def provider(self) -> View:
        return View(self.load_provider())

    @property
    def is_object(self) -> bool:
        """Whether it is an object of a Kubernetes cluster."""
        return self.type.startswith("kubernetes:") and self.group not in _NOT_OBJECTS

    @cached_property
    def group(self) -> str:
        """API group of a Kubernetes object: `` for the core group's; nothing else has one."""
        parts = self.type.split(":")
        if parts[0] != "kubernetes" or len(parts) != 3:
            return ""
        group = parts[1].rpartition("/")[0]
        return "" if group == "core" else group or parts[1]

    @cached_property
    def version(self) -> str:
        parts = self.type.split(":")
        return parts[1].rpartition("/")[2] if parts[0] == "kubernetes" and len(parts) == 3 else ""

    @cached_property
    def kind(self) -> str:
        """Kind of a Kubernetes object, as `Deployment`; the whole token of anything else."""
        parts = self.type.split(":")
        kubernetes = parts[0] == "kubernetes" and len(parts) == 3
        return parts[2] if kubernetes else self.type

    @property
    def is_istio(self) -> bool:
        return self.group in ISTIO_GROUPS

    @cached_property
    def namespace(self) -> str:
        return self.props.at("metadata.namespace").text or "default"

    @property
    def object_name(self) -> str:
        return self.props.at("metadata.name").text

    @property
    def spec(self) -> View:
        return self.props["spec"]

    @property
    def pod(self) -> View:
        """What it makes pods from: views of metadata and spec."""
        template = _TEMPLATES.get(self.kind)
        return self.props.at(template) if template else self.props

    @property
    def pod_labels(self) -> dict[str, str]:
        return self.pod.at("metadata.labels").labels

    @property
    def containers(self) -> list[View]:
        """All containers of its pods, those that run before the others first."""
        spec = self.pod["spec"]
        return [*spec["initContainers"].items, *spec["containers"].items]

    @property
    def gpus(self) -> dict[str, float]:
        """How many of which GPU resource one of its pods asks for."""
        wanted: dict[str, float] = {}
        for container in self.pod.at("spec.containers").items:
            for amounts in ("requests", "limits"):
                for name, amount in container["resources"][amounts].entries:
                    if is_gpu(name) and (count := amount.quantity):
                        wanted[name] = max(wanted.get(name, 0.0), count)
        return wanted

    def found(self, finding: Finding) -> Finding:
        """The finding as one about this resource, in a rule about a whole stack."""
        return Finding(finding.path, finding.shown, finding.problem, self.urn)


def is_injected(container: View) -> bool:
    """Whether Istio writes this container when it injects its proxy, image and probes included.

    https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/#customizing-injection
    """
    return container["name"].text == "istio-proxy" and container["image"].text == "auto"


def is_gpu(name: str) -> bool:
    return name == "nvidia.com/gpu" or name.startswith("nvidia.com/mig-")


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether labels have all of a selector that selects anything."""
    return bool(selector) and selector.items() <= labels.items()


@dataclass(frozen=True)
class Stack:
    """All resources of a stack."""

    resources: tuple[Resource, ...]

    @cached_property
    def _by_kind(self) -> Mapping[str, list[Resource]]:
        by_kind: dict[str, list[Resource]] = {}
        for resource in self.resources:
            by_kind.setdefault(resource.kind, []).append(resource)
        return by_kind

    def of(self, *kinds: str) -> list[Resource]:
        """Resources of these kinds, or types, in order."""
        return [it for kind in kinds for it in self._by_kind.get(kind, [])]

    @cached_property
    def _by_place(self) -> _Index[tuple[str, str]]:
        return _Index.of(self._objects, lambda it: [(it.namespace, it.kind)])

    @cached_property
    def _services(self) -> _Index[tuple[str, str]]:
        return _Index.of(self.of("Service"), lambda it: [(it.namespace, it.object_name)])

    @cached_property
    def _scalers(self) -> _Index[tuple[str, str, str]]:
        return _Index.of(self.of("ScaledObject", "HorizontalPodAutoscaler"), _scaled)

    @cached_property
    def _by_label(self) -> _Index[tuple[str, str, str]]:
        return _Index.of(
            self.of(*sorted(LONG_RUNNING)),
            lambda it: [(it.namespace, *label) for label in it.pod_labels.items()],
        )

    @cached_property
    def _objects(self) -> list[Resource]:
        """Those in namespaces; definitions of resources, which are large, are not read."""
        return [it for it in self.resources if it.is_object and it.kind not in CLUSTER_SCOPED]

    def within(self, namespace: str, *kinds: str) -> list[Resource]:
        """Objects of these kinds in a namespace."""
        return [it for kind in kinds for it in self._by_place.at((namespace, kind), kind)]

    def workloads(self, namespace: str) -> list[Resource]:
        """What runs pods in a namespace until somebody stops it."""
        return self.within(namespace, *sorted(LONG_RUNNING))

    def service(self, host: str, near: str) -> Resource | None:
        """The Service that a host of the mesh names, as seen from a namespace."""
        name, *rest = host.split(".")
        if rest[1:2] not in ([], ["svc"]):
            return None
        return next(iter(self._services.at((rest[0] if rest else near, name))), None)

    def behind(self, service: Resource) -> list[Resource]:
        """Workloads whose pods a Service selects."""
        return self.selected(service.namespace, service.spec["selector"].labels)

    def selected(self, namespace: str, selector: Mapping[str, str]) -> list[Resource]:
        """Workloads of a namespace whose pods have all labels of a selector."""
        if not selector:
            return []
        # The rarest label leaves the fewest to look at.
        found = (self._by_label.at((namespace, *label)) for label in selector.items())
        return [it for it in min(found, key=len) if selects(selector, it.pod_labels)]

    def fewest_pods(self, workload: Resource) -> float:
        """How many pods it has at least."""
        scaler = self.scaler(workload)
        if scaler is None:
            replicas = workload.spec["replicas"].number
            return 1.0 if replicas is None else replicas
        least = "minReplicaCount" if scaler.kind == "ScaledObject" else "minReplicas"
        found = scaler.spec[least].number
        # What they leave out: KEDA's is 0, that of Kubernetes 1.
        return found if found is not None else float(scaler.kind != "ScaledObject")

    def most_pods(self, workload: Resource) -> float:
        """How many pods it has at most, not counting those of an update."""
        scaler = self.scaler(workload)
        if scaler is None:
            return self.fewest_pods(workload)
        most = "maxReplicaCount" if scaler.kind == "ScaledObject" else "maxReplicas"
        found = scaler.spec[most].number
        return found if found is not None else 100.0

    def scaler(self, workload: Resource) -> Resource | None:
        """What decides the number of its pods, if anything does."""
        key = (workload.namespace, workload.kind, workload.object_name)
        return next(iter(self._scalers.at(key)), None)


def _scaled(scaler: Resource) -> list[tuple[str, str, str]]:
    target = scaler.spec["scaleTargetRef"]
    return [(scaler.namespace, target["kind"].text or "Deployment", target["name"].text)]


K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class _Index(Generic[K]):
    """Resources by what they are found by, and what of it is not known of some."""

    found: Mapping[K, list[Resource]]
    unknown: Mapping[str, UnknownError]
    """By kind."""

    @classmethod
    def of(cls, resources: Iterable[Resource], keys: Callable[[Resource], list[K]]) -> _Index[K]:
        found: dict[K, list[Resource]] = {}
        unplaced: dict[str, UnknownError] = {}
        for resource in resources:
            try:
                for key in keys(resource):
                    found.setdefault(key, []).append(resource)
            except UnknownError as error:
                unplaced[resource.kind] = error
        return cls(found, unplaced)

    def at(self, key: K, kind: str = "") -> list[Resource]:
        """What there is under a key.

        Raises:
            UnknownError: something, of the kind if one is given, could be there as well.
        """
        for its, error in self.unknown.items():
            if kind in ("", its):
                raise error
        return self.found.get(key, [])


def judged(
    resources: Iterable[Resource], judge: Callable[[Resource], Iterator[Finding]]
) -> Iterator[Finding]:
    """What a rule about a whole stack finds at each of some resources, with its URN; one with an
    unknown value does not keep the others from being judged."""
    for resource in resources:
        try:
            for finding in judge(resource):
                yield finding if finding.urn else resource.found(finding)
        except UnknownError as error:
            yield unknown(error, resource.urn)


def unknown(error: UnknownError, urn: str = "") -> Finding:
    problem = "so that this cannot be judged, and what cannot be judged does not pass"
    return Finding(
        error.path, "not known before the resources it depends on are made", problem, urn
    )
