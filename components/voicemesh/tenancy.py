"""`TenantNamespace`: a tenant's share of the cluster, and the rules its pods live by."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import pulumi
from pulumi_kubernetes.core.v1 import (
    LimitRange,
    LimitRangeItemArgs,
    LimitRangeSpecArgs,
    ResourceQuota,
    ResourceQuotaSpecArgs,
    ServiceAccount,
)
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from voicemesh import contract
from voicemesh.arguments import Faults
from voicemesh.component import after, child_options
from voicemesh.namespaces import declare_namespace
from voicemesh.sizes import ComputeSize, cpu_quantity, memory_quantity

QUOTA_NAME: Final = "tenant"
WORKLOAD_ACCOUNT: Final = "tenant-workload"


@dataclass(frozen=True)
class TenantQuota:
    """What all pods of a namespace together may request, sidecars included."""

    cpu_cores: float
    """Requested cores."""

    memory_gib: float
    """Requested memory in GiB."""

    pods: int
    """Number of pods that have not ended."""

    gpus: Mapping[str, int] = field(default_factory=dict)
    """Count for each extended resource: nvidia.com/gpu, or nvidia.com/mig-1g.20gb for slices.
    Whole GPUs that are not listed are refused."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes amounts that no quota can have."""
        faults.at_least(0, f"{path}.cpu_cores", self.cpu_cores)
        faults.at_least(0, f"{path}.memory_gib", self.memory_gib)
        faults.at_least(0, f"{path}.pods", self.pods)
        for resource, count in self.gpus.items():
            faults.at_least(0, f"{path}.gpus[{resource}]", count)
            has_domain = "/" in resource and not resource.startswith("requests.")
            faults.require(has_domain, f"{path}.gpus", resource, "a name as in nvidia.com/gpu")

    @property
    def hard(self) -> dict[str, str]:
        """As Kubernetes writes it; extended resources are counted by their requests only."""
        gpus = {contract.GPU_RESOURCE: 0, **self.gpus}
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

    def __post_init__(self) -> None:
        faults = Faults("TenantNamespace")
        faults.dns_label("name", self.name)
        self.quota.check(faults, "quota")
        self.container_default.check(faults, "container_default")
        faults.raise_any()


class TenantNamespace(pulumi.ComponentResource):
    """A namespace that enforces `restricted`, injects sidecars and bounds what its pods request.

    Its Services cannot have node ports or load balancers: the way in is the public gateway.
    """

    namespace: pulumi.Output[str]
    """Name of the namespace; it exists once the quota holds."""

    service_account: pulumi.Output[str]
    """An account for the tenant's own workloads, without a token."""

    def __init__(
        self, name: str, args: TenantNamespaceArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("voicemesh:index:TenantNamespace", name, {}, opts)
        labels = pulumi.Output.from_input(args.injection_labels).apply(
            lambda injection: {**injection, contract.TENANT_LABEL: args.name}
        )
        namespace = declare_namespace(name, args.name, "restricted", child_options(self), labels)
        in_namespace = after(args.name, namespace)
        quota = ResourceQuota(
            name,
            metadata=ObjectMetaArgs(name=QUOTA_NAME, namespace=in_namespace),
            spec=ResourceQuotaSpecArgs(hard=args.quota.hard),
            opts=child_options(self),
        )
        limits = LimitRange(
            name,
            metadata=ObjectMetaArgs(name="containers", namespace=in_namespace),
            spec=LimitRangeSpecArgs(limits=[_container_defaults(args.container_default)]),
            opts=child_options(self),
        )
        account = ServiceAccount(
            name,
            metadata=ObjectMetaArgs(name=WORKLOAD_ACCOUNT, namespace=in_namespace),
            automount_service_account_token=False,
            opts=child_options(self),
        )
        self.namespace = after(args.name, quota, limits)
        self.service_account = after(WORKLOAD_ACCOUNT, account)
        self.register_outputs(
            {"namespace": self.namespace, "service_account": self.service_account}
        )


def _container_defaults(size: ComputeSize) -> LimitRangeItemArgs:
    # No default limit on CPU: a throttled synthesis is late although the node has idle cores.
    return LimitRangeItemArgs(
        type="Container",
        default={"memory": memory_quantity(size.memory_gib)},
        default_request=size.requests,
    )
