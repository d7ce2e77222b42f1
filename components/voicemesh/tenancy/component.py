"""The component that gives a tenant its namespace."""

from collections.abc import Sequence
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
from pulumi_kubernetes.networking.v1 import NetworkPolicy
from pulumi_kubernetes.rbac.v1 import PolicyRuleArgs, Role, RoleBinding, RoleRefArgs, SubjectArgs

from voicemesh import contract
from voicemesh.component import after, child_options
from voicemesh.namespaces import declare_namespace
from voicemesh.sizes import ComputeSize, memory_quantity
from voicemesh.tenancy import access, network
from voicemesh.tenancy.arguments import TenantNamespaceArgs

QUOTA_NAME: Final = "tenant"
WORKLOAD_ACCOUNT: Final = "tenant-workload"
_RBAC_GROUP: Final = "rbac.authorization.k8s.io"


class TenantNamespace(pulumi.ComponentResource):
    """A namespace that enforces `restricted`, injects sidecars, bounds what its pods request and
    denies every connection that is not allowed.

    Its Services cannot have node ports or load balancers: the way in is the public gateway.
    """

    namespace: pulumi.Output[str]
    """Name of the namespace; it exists once the quota and the NetworkPolicies hold."""

    service_account: pulumi.Output[str]
    """An account for the tenant's own workloads, without a token."""

    def __init__(
        self, name: str, args: TenantNamespaceArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("voicemesh:index:TenantNamespace", name, {}, opts)
        self._name = name
        labels = pulumi.Output.from_input(args.injection_labels).apply(
            lambda injection: {**injection, contract.TENANT_LABEL: args.name}
        )
        namespace = declare_namespace(name, args.name, "restricted", child_options(self), labels)
        self._in_namespace = after(args.name, namespace)
        bounds = [*self._bounds(args), *self._policies(args)]
        account = ServiceAccount(
            name,
            metadata=self._metadata(WORKLOAD_ACCOUNT),
            automount_service_account_token=False,
            opts=child_options(self),
        )
        self._grant("viewers", access.viewer_rules(), args.viewers)
        self._grant("administrators", access.administrator_rules(), args.administrators)
        self.namespace = after(args.name, *bounds)
        self.service_account = after(WORKLOAD_ACCOUNT, account)
        self.register_outputs(
            {"namespace": self.namespace, "service_account": self.service_account}
        )

    def _metadata(self, object_name: str) -> ObjectMetaArgs:
        return ObjectMetaArgs(name=object_name, namespace=self._in_namespace)

    def _bounds(self, args: TenantNamespaceArgs) -> list[pulumi.Resource]:
        quota = ResourceQuota(
            self._name,
            metadata=self._metadata(QUOTA_NAME),
            spec=ResourceQuotaSpecArgs(hard=args.quota.hard),
            opts=child_options(self),
        )
        limits = LimitRange(
            self._name,
            metadata=self._metadata("containers"),
            spec=LimitRangeSpecArgs(limits=[_container_defaults(args.container_default)]),
            opts=child_options(self),
        )
        return [quota, limits]

    def _policies(self, args: TenantNamespaceArgs) -> list[pulumi.Resource]:
        return [
            NetworkPolicy(
                f"{self._name}-{policy}",
                metadata=self._metadata(policy),
                spec=spec,
                opts=child_options(self),
            )
            for policy, spec in network.policies(args.network).items()
        ]

    def _grant(self, role: str, rules: list[PolicyRuleArgs], groups: Sequence[str]) -> None:
        """Declares a role, if anyone has it."""
        if not groups:
            return
        made = Role(
            f"{self._name}-{role}",
            metadata=self._metadata(role),
            rules=rules,
            opts=child_options(self),
        )
        RoleBinding(
            f"{self._name}-{role}",
            metadata=self._metadata(role),
            role_ref=RoleRefArgs(api_group=_RBAC_GROUP, kind="Role", name=after(role, made)),
            subjects=[
                SubjectArgs(api_group=_RBAC_GROUP, kind="Group", name=group) for group in groups
            ],
            opts=child_options(self),
        )


def _container_defaults(size: ComputeSize) -> LimitRangeItemArgs:
    # No default limit on CPU: a throttled synthesis is late although the node has idle cores.
    return LimitRangeItemArgs(
        type="Container",
        default={"memory": memory_quantity(size.memory_gib)},
        default_request=size.requests,
    )
