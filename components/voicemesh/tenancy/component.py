"""The component that gives a tenant its namespace."""

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
from voicemesh.component import after, child_options
from voicemesh.namespaces import declare_namespace
from voicemesh.sizes import ComputeSize, memory_quantity
from voicemesh.tenancy.arguments import TenantNamespaceArgs

QUOTA_NAME: Final = "tenant"
WORKLOAD_ACCOUNT: Final = "tenant-workload"


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
