"""The NetworkPolicies of a tenant's namespace.

A policy sees a connection as it is on the wire: pod addresses, after a Service's address was
translated, and the port that the pod was called on. Sidecars call pods at that same port, 8080 for
a voice, and only behind the pod's own interface is it redirected to 15006, so policies name the
ports of applications. https://istio.io/latest/docs/ops/deployment/application-requirements/

Amazon's VPC CNI sees a Service's address before it is translated. It adds the addresses of Services
to what pods are allowed by labels, if the labels here are among those that the Service selects by,
as with CoreDNS and istiod: name no others.
https://github.com/aws/amazon-network-policy-controller-k8s/blob/main/pkg/resolvers/endpoints.go
"""

from collections.abc import Mapping, Sequence
from typing import Final

import pulumi
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs
from pulumi_kubernetes.networking.v1 import (
    IPBlockArgs,
    NetworkPolicyEgressRuleArgs,
    NetworkPolicyIngressRuleArgs,
    NetworkPolicyPeerArgs,
    NetworkPolicyPortArgs,
    NetworkPolicySpecArgs,
)

from voicemesh import contract
from voicemesh.mesh import SYSTEM_NAMESPACE
from voicemesh.tenancy.addresses import exceptions
from voicemesh.tenancy.arguments import TenantNetwork

ISTIOD_PORT: Final = 15012
"""Where istiod gives proxies their configuration and certificates."""

METRICS_PORT: Final = 15020
"""Where a sidecar's agent serves its own, Envoy's and the application's metrics as one."""

OTLP_PORTS: Final = (4317, 4318)

POD_IDENTITY_AGENT: Final = "169.254.170.23/32"
"""Where each EKS node's agent hands its pods the credentials of their own role.
https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html"""

_NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
_DNS_PODS: Final = {"k8s-app": "kube-dns"}
_ISTIOD_PODS: Final = {"app": "istiod"}
_EVERY_POD: Final = LabelSelectorArgs()


def policies(network: TenantNetwork) -> dict[str, NetworkPolicySpecArgs]:
    """By name; each allows something that the first one denies."""
    return {
        "default-deny": _policy(ingress=[], egress=[]),
        "within-namespace": _within_namespace(),
        "callers": _policy(ingress=_callers(network)),
        "cluster-services": _policy(egress=_cluster_services(network)),
        "outside": _policy(egress=_outside(network)),
    }


def _policy(
    ingress: Sequence[NetworkPolicyIngressRuleArgs] | None = None,
    egress: Sequence[NetworkPolicyEgressRuleArgs] | None = None,
) -> NetworkPolicySpecArgs:
    directions = {"Ingress": ingress, "Egress": egress}
    return NetworkPolicySpecArgs(
        pod_selector=_EVERY_POD,
        # Said even where Kubernetes would derive it: of a policy without any egress rule, it
        # derives that egress stays free.
        policy_types=[name for name, rules in directions.items() if rules is not None],
        ingress=ingress,
        egress=egress,
    )


def _within_namespace() -> NetworkPolicySpecArgs:
    anyone = [NetworkPolicyPeerArgs(pod_selector=_EVERY_POD)]
    return _policy(
        ingress=[NetworkPolicyIngressRuleArgs(from_=anyone)],
        egress=[NetworkPolicyEgressRuleArgs(to=anyone)],
    )


def _callers(network: TenantNetwork) -> list[NetworkPolicyIngressRuleArgs]:
    callers = [network.gateway_namespace, *network.caller_namespaces]
    return [
        NetworkPolicyIngressRuleArgs(
            from_=[_pods(namespace) for namespace in callers], ports=_tcp(contract.HTTP_PORT)
        ),
        NetworkPolicyIngressRuleArgs(
            from_=[_pods(network.monitoring_namespace)], ports=_tcp(METRICS_PORT)
        ),
    ]


def _cluster_services(network: TenantNetwork) -> list[NetworkPolicyEgressRuleArgs]:
    dns = [NetworkPolicyPortArgs(port=53, protocol=protocol) for protocol in ("UDP", "TCP")]
    return [
        NetworkPolicyEgressRuleArgs(to=[_pods("kube-system", _DNS_PODS)], ports=dns),
        NetworkPolicyEgressRuleArgs(
            to=[_pods(SYSTEM_NAMESPACE, _ISTIOD_PODS)], ports=_tcp(ISTIOD_PORT)
        ),
        NetworkPolicyEgressRuleArgs(
            to=[_pods(network.telemetry_namespace)], ports=_tcp(*OTLP_PORTS)
        ),
        NetworkPolicyEgressRuleArgs(
            to=[NetworkPolicyPeerArgs(ip_block=IPBlockArgs(cidr=POD_IDENTITY_AGENT))],
            ports=_tcp(80),
        ),
    ]


def _outside(network: TenantNetwork) -> list[NetworkPolicyEgressRuleArgs]:
    https = NetworkPolicyEgressRuleArgs(
        to=[_block(cidr) for cidr in network.https_cidrs], ports=_tcp(443)
    )
    further = [
        NetworkPolicyEgressRuleArgs(to=[_block(egress.cidr)], ports=_tcp(*egress.ports))
        for egress in network.egress
    ]
    # A rule that names no peer would allow them all.
    return [https, *further] if network.https_cidrs else further


def _pods(
    namespace: pulumi.Input[str], labels: Mapping[str, str] | None = None
) -> NetworkPolicyPeerArgs:
    """Pods of another namespace: those with certain labels, or all."""
    return NetworkPolicyPeerArgs(
        namespace_selector=LabelSelectorArgs(match_labels={_NAMESPACE_NAME: namespace}),
        pod_selector=None if labels is None else LabelSelectorArgs(match_labels=labels),
    )


def _block(cidr: str) -> NetworkPolicyPeerArgs:
    return NetworkPolicyPeerArgs(ip_block=IPBlockArgs(cidr=cidr, except_=exceptions(cidr) or None))


def _tcp(*ports: int) -> list[NetworkPolicyPortArgs]:
    return [NetworkPolicyPortArgs(port=port, protocol="TCP") for port in ports]
