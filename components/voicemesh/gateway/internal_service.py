"""Pods that serve a gateway's proxies, or each other, in its namespace: who may call them, and how
they come and go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_kubernetes.apps.v1 import (
    Deployment,
    DeploymentSpecArgs,
    DeploymentStrategyArgs,
    RollingUpdateDeploymentArgs,
)
from pulumi_kubernetes.core.v1 import (
    CapabilitiesArgs,
    ContainerArgs,
    LifecycleArgs,
    LifecycleHandlerArgs,
    PodSecurityContextArgs,
    PodSpecArgs,
    PodTemplateSpecArgs,
    ResourceRequirementsArgs,
    SeccompProfileArgs,
    SecurityContextArgs,
    Service,
    ServiceAccount,
    ServicePortArgs,
    ServiceSpecArgs,
    SleepActionArgs,
    VolumeArgs,
)
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs
from pulumi_kubernetes.networking.v1 import (
    NetworkPolicy,
    NetworkPolicyIngressRuleArgs,
    NetworkPolicyPeerArgs,
    NetworkPolicyPortArgs,
    NetworkPolicySpecArgs,
)
from pulumi_kubernetes.policy.v1 import PodDisruptionBudget, PodDisruptionBudgetSpecArgs

from voicemesh import contract
from voicemesh.component import child_options
from voicemesh.istio import AuthorizationPolicy
from voicemesh.istio.specs import AuthorizationPolicySpec
from voicemesh.mesh import TRUST_DOMAIN
from voicemesh.placement import topology_spread
from voicemesh.sizes import ComputeSize, memory_quantity

CONFINED: Final = SecurityContextArgs(
    allow_privilege_escalation=False,
    read_only_root_filesystem=True,
    capabilities=CapabilitiesArgs(drop=["ALL"]),
)

ANSWERING_ON: Final = LifecycleArgs(pre_stop=LifecycleHandlerArgs(sleep=SleepActionArgs(seconds=5)))
"""A pod that ends still answers for this long, until the gateway's proxies know."""

_PROXY_METRICS_PORT: Final = 15020
_MONITORING: Final = {"kubernetes.io/metadata.name": contract.MONITORING_NAMESPACE}


@dataclass(frozen=True)
class InternalService:
    """Pods with one container each, and the Service by which they are called.

    Attributes:
        app: their name, that of their Service and of their account.
        container: what runs in them.
        port: where they are called.
        caller: the identity that may call them; see `principal`.
        caller_labels: the labels of its pods.
        replicas: how many there are.
        annotations: of the pods.
        volumes: of the pods.
    """

    app: str
    container: ContainerArgs
    port: ServicePortArgs
    caller: str
    caller_labels: Mapping[str, str]
    replicas: int
    annotations: Mapping[str, pulumi.Input[str]]
    volumes: Sequence[VolumeArgs] = ()

    def declare(
        self,
        parent: pulumi.Resource,
        name: str,
        namespace: pulumi.Input[str],
        needed: Sequence[pulumi.Resource] = (),
    ) -> list[pulumi.Resource]:
        """Everything that they are; what to wait for before they are called.

        Args:
            parent: the gateway.
            name: its name, with which those of all resources begin.
            namespace: where everything goes.
            needed: what has to be there before the pods.
        """
        urn, opts = f"{name}-{self.app}", child_options(parent)
        metadata = ObjectMetaArgs(name=self.app, namespace=namespace)
        port = int(str(self.port.port))
        callers = may_call(self.app, self.caller, port)
        reachable = reachable_from(self.caller_labels, self.app, port)
        before = [
            ServiceAccount(
                urn, metadata=metadata, automount_service_account_token=False, opts=opts
            ),
            AuthorizationPolicy(urn, metadata, callers, opts),
            NetworkPolicy(urn, metadata=metadata, spec=reachable, opts=opts),
            *needed,
        ]
        if self.replicas > 1:
            budget = disruption_budget(self.app)
            before.append(PodDisruptionBudget(urn, metadata=metadata, spec=budget, opts=opts))
        deployment = Deployment(
            urn,
            metadata=metadata,
            spec=self.deployment_spec(),
            opts=child_options(parent, pulumi.ResourceOptions(depends_on=before)),
        )
        service = Service(
            urn,
            metadata=metadata,
            spec=ServiceSpecArgs(selector={contract.APP_LABEL: self.app}, ports=[self.port]),
            # Pulumi waits for its endpoints, and would make fewer things at a time meanwhile.
            opts=child_options(parent, pulumi.ResourceOptions(depends_on=[deployment])),
        )
        return [service, deployment]

    def deployment_spec(self) -> DeploymentSpecArgs:
        """Pods that have a successor before they end."""
        default = {"kubectl.kubernetes.io/default-container": self.app}
        return DeploymentSpecArgs(
            replicas=self.replicas,
            selector=pods(self.app),
            strategy=DeploymentStrategyArgs(
                type="RollingUpdate",
                rolling_update=RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
            ),
            template=PodTemplateSpecArgs(
                metadata=ObjectMetaArgs(
                    labels={contract.APP_LABEL: self.app},
                    annotations={**default, **self.annotations},
                ),
                spec=PodSpecArgs(
                    service_account_name=self.app,
                    automount_service_account_token=False,
                    # The variables of a Service named redis would look like settings.
                    enable_service_links=False,
                    topology_spread_constraints=topology_spread({contract.APP_LABEL: self.app}),
                    security_context=PodSecurityContextArgs(
                        run_as_non_root=True,
                        run_as_user=contract.UNPRIVILEGED_USER,
                        run_as_group=contract.UNPRIVILEGED_USER,
                        seccomp_profile=SeccompProfileArgs(type="RuntimeDefault"),
                    ),
                    containers=[self.container],
                    volumes=self.volumes or None,
                ),
            ),
        )


def principal(namespace: str, account: str) -> str:
    """Identity of an account's pods."""
    return f"{TRUST_DOMAIN}/ns/{namespace}/sa/{account}"


def may_call(app: str, caller: str, port: int) -> AuthorizationPolicySpec:
    """Lets one account call these pods at one port, and nobody else at any."""
    return {
        "selector": {"matchLabels": {contract.APP_LABEL: app}},
        "action": "ALLOW",
        "rules": [
            {
                "from": [{"source": {"principals": [caller]}}],
                "to": [{"operation": {"ports": [str(port)]}}],
            }
        ],
    }


def reachable_from(callers: Mapping[str, str], app: str, port: int) -> NetworkPolicySpecArgs:
    """Lets pods of the namespace with these labels reach a port, and Prometheus the metrics."""
    labels = LabelSelectorArgs(match_labels=callers)
    monitoring = LabelSelectorArgs(match_labels=_MONITORING)
    return NetworkPolicySpecArgs(
        pod_selector=pods(app),
        policy_types=["Ingress"],
        ingress=[
            NetworkPolicyIngressRuleArgs(
                from_=[NetworkPolicyPeerArgs(pod_selector=labels)],
                ports=[NetworkPolicyPortArgs(port=port, protocol="TCP")],
            ),
            NetworkPolicyIngressRuleArgs(
                from_=[NetworkPolicyPeerArgs(namespace_selector=monitoring)],
                ports=[NetworkPolicyPortArgs(port=_PROXY_METRICS_PORT, protocol="TCP")],
            ),
        ],
    )


def disruption_budget(app: str) -> PodDisruptionBudgetSpecArgs:
    """One pod at a time may be evicted, and any that does not work."""
    return PodDisruptionBudgetSpecArgs(
        max_unavailable=1, unhealthy_pod_eviction_policy="AlwaysAllow", selector=pods(app)
    )


def scraped(port: int, path: str) -> dict[str, str]:
    """Annotations by which Prometheus finds metrics, and the sidecar merges them into its own."""
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(port),
        "prometheus.io/path": path,
    }


def resources(size: ComputeSize) -> ResourceRequirementsArgs:
    """What a container requests; its memory is its limit."""
    return ResourceRequirementsArgs(
        requests=size.requests, limits={"memory": memory_quantity(size.memory_gib)}
    )


def pods(app: str) -> LabelSelectorArgs:
    """Selects them."""
    return LabelSelectorArgs(match_labels={contract.APP_LABEL: app})
