"""What a `TenantNamespace` is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pulumi

from voicemesh import contract
from voicemesh.arguments import Faults
from voicemesh.cluster.accelerators import MIG_PROFILES
from voicemesh.sizes import ComputeSize, cpu_quantity, memory_quantity
from voicemesh.tenancy import addresses

_LAST_PORT: Final = 65535


@dataclass(frozen=True)
class TenantQuota:
    """What all pods of a namespace together may request, sidecars included.

    A pod counts until it is gone, so one that still serves its last streams does: where the quota
    has no room for a further pod, each pod of a rollout waits for the end of the one before.
    """

    cpu_cores: float
    """Requested cores."""

    memory_gib: float
    """Requested memory in GiB."""

    pods: int
    """Number of pods that have not ended."""

    gpus: Mapping[str, int] = field(default_factory=dict)
    """Count for each extended resource: nvidia.com/gpu, or nvidia.com/mig-1g.20gb for slices.
    Whole GPUs, and slices of a profile that `GpuNodeGroup` knows, are refused if not listed."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes amounts that no quota can have."""
        faults.at_least(0, f"{path}.cpu_cores", self.cpu_cores)
        faults.at_least(0, f"{path}.memory_gib", self.memory_gib)
        faults.whole_number(0, f"{path}.pods", self.pods)
        for resource, count in self.gpus.items():
            faults.whole_number(0, f"{path}.gpus[{resource}]", count)
            has_domain = "/" in resource and not resource.startswith("requests.")
            faults.require(has_domain, f"{path}.gpus", resource, "a name as in nvidia.com/gpu")

    @property
    def hard(self) -> dict[str, str]:
        """As Kubernetes writes it; extended resources are counted by their requests only."""
        slices = {profile for profiles in MIG_PROFILES.values() for profile in profiles}
        known = [contract.GPU_RESOURCE, *(contract.MIG_RESOURCE_PREFIX + it for it in slices)]
        # What a quota does not name, it does not bound.
        gpus = {**dict.fromkeys(known, 0), **self.gpus}
        return {
            "requests.cpu": cpu_quantity(self.cpu_cores),
            "requests.memory": memory_quantity(self.memory_gib),
            "pods": str(self.pods),
            **{f"requests.{resource}": str(count) for resource, count in sorted(gpus.items())},
            # The only way in from outside is the public gateway.
            "services.nodeports": "0",
            "services.loadbalancers": "0",
        }


@dataclass(frozen=True)
class Egress:
    """Addresses that a tenant's pods may connect to, besides what every tenant's may."""

    cidr: str
    """Block of addresses, as in 10.1.2.0/24, or 10.1.2.3/32 for a single one. Link-local addresses
    in it stay out of reach: one of them hands out the node's credentials."""

    ports: Sequence[int]
    """TCP ports there."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes what is no block of addresses, and ports that do not exist."""
        addresses.check_block(faults, f"{path}.cidr", self.cidr)
        faults.require(len(self.ports) > 0, f"{path}.ports", self.ports, "at least one TCP port")
        for index, port in enumerate(self.ports):
            exists = isinstance(port, int) and 1 <= port <= _LAST_PORT
            faults.require(exists, f"{path}.ports[{index}]", port, f"1 to {_LAST_PORT}")


@dataclass(frozen=True)
class TenantNetwork:
    """Who reaches a tenant's pods, and what they reach; everything else is denied.

    Always allowed are the pods of the tenant among each other, and to the cluster's DNS, to istiod
    and to the EKS Pod Identity agent. The kubelet's probes need no leave: traffic between a pod and
    its own node is never denied
    (https://kubernetes.io/docs/concepts/services-networking/network-policies/).
    """

    gateway_namespace: pulumi.Input[str] = contract.GATEWAY_NAMESPACE
    """Namespace whose pods may call the voices: `PublicGateway.namespace`."""

    caller_namespaces: Sequence[str] = ()
    """Further namespaces whose pods may call the voices, within the mesh."""

    monitoring_namespace: str = contract.MONITORING_NAMESPACE
    """Namespace from which Prometheus scrapes the pods."""

    telemetry_namespace: str = contract.MONITORING_NAMESPACE
    """Namespace of the collector to which the pods send traces, by OTLP."""

    https_cidrs: Sequence[str] = ("0.0.0.0/0",)
    """Blocks of addresses that the pods may connect to on port 443, link-local addresses excepted:
    S3, KMS, the token issuer. The API server is on that port, too, where its address is in one of
    these blocks; on EKS, so is every Service with port 443, by its own address. Name the VPC's
    endpoints alone to keep them out."""

    egress: Sequence[Egress] = ()
    """What else the pods may connect to."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes names of namespaces and blocks of addresses that are none."""
        for name in ("gateway_namespace", "monitoring_namespace", "telemetry_namespace"):
            faults.dns_label(f"{path}.{name}", getattr(self, name))
        for index, namespace in enumerate(self.caller_namespaces):
            faults.dns_label(f"{path}.caller_namespaces[{index}]", namespace)
        for index, cidr in enumerate(self.https_cidrs):
            addresses.check_block(faults, f"{path}.https_cidrs[{index}]", cidr)
        for index, egress in enumerate(self.egress):
            egress.check(faults, f"{path}.egress[{index}]")


@dataclass(frozen=True)
class TenantNamespaceArgs:
    """Arguments of `TenantNamespace`."""

    name: str
    """Name of the namespace and of the tenant."""

    quota: TenantQuota
    """What the tenant's pods together may request."""

    injection_labels: pulumi.Input[Mapping[str, str]] = field(
        default_factory=lambda: {"istio-injection": "enabled"}
    )
    """Labels by which istiod injects the namespace's pods: `IstioMesh.injection_labels`."""

    container_default: ComputeSize = field(default_factory=lambda: ComputeSize(0.1, 0.25))
    """What a container requests, and the memory it is limited to, where it does not say."""

    network: TenantNetwork = field(default_factory=TenantNetwork)
    """Who reaches the tenant's pods, and what they reach."""

    administrators: Sequence[str] = ()
    """Groups of Kubernetes users who run the tenant's workloads: they read everything that viewers
    do, restart and scale, run Jobs, and keep ConfigMaps and Secrets."""

    viewers: Sequence[str] = ()
    """Groups of Kubernetes users who look on: workloads, logs, events, routes, but no Secrets."""

    def __post_init__(self) -> None:
        faults = Faults.of(self)
        faults.dns_label("name", self.name)
        self.quota.check(faults, "quota")
        self.container_default.check(faults, "container_default")
        self.network.check(faults, "network")
        for name in ("administrators", "viewers"):
            _check_groups(faults, name, getattr(self, name))
        faults.raise_any()


def _check_groups(faults: Faults, path: str, groups: Sequence[str]) -> None:
    for index, group in enumerate(groups):
        # Groups such as system:authenticated are everyone's, or nobody's to give away.
        is_own = bool(group) and not group.startswith("system:")
        allowed = "a group of your own, not one of Kubernetes (system:…)"
        faults.require(is_own, f"{path}[{index}]", group, allowed)
    faults.unique(path, list(groups), "group")
