"""The component that puts the gateway's pods, certificates and hosts together."""

from collections.abc import Sequence
from typing import Any, Final

import pulumi
from pulumi_kubernetes.core.v1 import Service
from pulumi_kubernetes.helm.v3 import Release
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from voicemesh.component import after, child_options
from voicemesh.gateway.arguments import PublicGatewayArgs, ServiceType
from voicemesh.gateway.authentication import declare_authentication
from voicemesh.gateway.certificates import declare_certificate, secret_name
from voicemesh.gateway.hosts import GatewayHost
from voicemesh.gateway.quota_service import declare_quota
from voicemesh.gateway.waf import declare_waf
from voicemesh.istio import Gateway
from voicemesh.istio.specs import GatewaySpec, Server
from voicemesh.mesh import CHART_TIMEOUT_SECONDS, DRAIN_MARGIN_SECONDS, TRUST_DOMAIN
from voicemesh.namespaces import declare_namespace
from voicemesh.placement import topology_spread_values
from voicemesh.revisions import restart_annotations

CONNECTION_IDLE_SECONDS: Final = 60
"""After this long without a request a client's connection is closed. It is shorter than the idle
time-outs of cloud load balancers (350 s for an NLB), which drop connections without a word, and it
bounds how long an idle client can keep a gateway pod that ends."""

LOAD_BALANCER_LAG_SECONDS: Final = 180
"""For this long a load balancer may lead new connections to a pod that ends, and none to one that
is new: an NLB takes up to three minutes for either (https://github.com/istio/istio/issues/35964,
https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/deploy/pod_readiness_gate).
By themselves, a proxy without connections ends after five seconds, and a rollout goes on at once.
"""


class PublicGateway(pulumi.ComponentResource):
    """Istio's ingress gateway in a namespace of its own, which enforces `restricted`.

    HTTPS with TLS 1.2 or newer on the hosts given, each with its certificate; plain HTTP answers
    with a redirect. A VirtualService binds to it by `gateway_ref`.
    """

    namespace: pulumi.Output[str]
    """Namespace of the gateway's pods."""

    gateway_ref: pulumi.Output[str]
    """`namespace/name` for the `gateways` of a VirtualService."""

    principal: pulumi.Output[str]
    """Identity of the gateway's proxies, for authorization policies of what is behind them."""

    address: pulumi.Output[str | None]
    """Host name or IP of the load balancer; None where the Service has none."""

    def __init__(
        self, name: str, args: PublicGatewayArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("voicemesh:index:PublicGateway", name, {}, opts)
        namespace = declare_namespace(
            name, args.namespace, "restricted", child_options(self), args.injection_labels
        )
        in_namespace = after(args.namespace, namespace)
        release = Release(
            name,
            name=name,
            namespace=in_namespace,
            values=gateway_values(name, args),
            timeout=CHART_TIMEOUT_SECONDS + args.replicas * load_balancer_lag(args.service_type),
            opts=child_options(self),
            **args.charts.release_arguments("gateway"),
        )
        certificates = [
            made
            for host in args.hosts
            if (made := declare_certificate(self, name, host, in_namespace)) is not None
        ]
        authentication = declare_authentication(
            self, name, args.namespace, in_namespace, args.issuers
        )
        needed: list[pulumi.Resource] = [release, *certificates, *authentication]
        restarts = restart_annotations(args.mesh_revision)
        if args.waf is not None:
            waf = declare_waf(self, name, namespace, args.namespace, args.waf, restarts)
            needed.append(waf)
        if args.quota is not None:
            quota = declare_quota(self, name, namespace, args.namespace, args.quota, restarts)
            needed.append(quota)
        gateway = Gateway(
            name,
            ObjectMetaArgs(name=name, namespace=in_namespace),
            gateway_spec(name, args.hosts),
            child_options(self, pulumi.ResourceOptions(depends_on=needed)),
        )
        self.namespace = in_namespace
        self.gateway_ref = after(f"{args.namespace}/{name}", gateway)
        self.principal = after(f"{TRUST_DOMAIN}/ns/{args.namespace}/sa/{name}", release)
        self.address = self._address(name, args, release)
        self.register_outputs(
            {
                "namespace": self.namespace,
                "gateway_ref": self.gateway_ref,
                "principal": self.principal,
                "address": self.address,
            }
        )

    def _address(
        self, name: str, args: PublicGatewayArgs, release: Release
    ) -> pulumi.Output[str | None]:
        if args.service_type is not ServiceType.LOAD_BALANCER:
            return after(None, release)
        # Known only once the release exists: the first preview has no Service to look at.
        identity = release.status.apply(lambda _: f"{args.namespace}/{name}")
        service = Service.get(name, identity, opts=child_options(self))
        return service.status.apply(_load_balancer_address)


def load_balancer_lag(service_type: ServiceType) -> int:
    """How many seconds later than Kubernetes a load balancer knows its pods, if there is one."""
    return LOAD_BALANCER_LAG_SECONDS if service_type is ServiceType.LOAD_BALANCER else 0


def gateway_values(name: str, args: PublicGatewayArgs) -> dict[str, Any]:
    """Values of the chart `gateway`."""
    lag = load_balancer_lag(args.service_type)
    labels = {"app": name, "istio": name}
    return {
        "imagePullPolicy": "IfNotPresent",
        "podAnnotations": restart_annotations(args.mesh_revision),
        "labels": labels,
        "replicaCount": args.replicas,
        "autoscaling": {"enabled": False},
        # The chart makes one for two pods or more.
        "podDisruptionBudget": {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow"},
        "topologySpreadConstraints": topology_spread_values(labels),
        "minReadySeconds": lag,
        "resources": {"requests": args.size.requests},
        "env": {
            "ISTIO_META_IDLE_TIMEOUT": f"{CONNECTION_IDLE_SECONDS}s",
            **({"MINIMUM_DRAIN_DURATION": f"{lag}s"} if lag else {}),
        },
        "terminationGracePeriodSeconds": lag + args.max_stream_seconds + DRAIN_MARGIN_SECONDS,
        # The chart's own securityContext has the sysctl but no seccompProfile: `restricted` asks
        # for one.
        "securityContext": {
            "seccompProfile": {"type": "RuntimeDefault"},
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
        },
        "service": {
            "type": args.service_type.value,
            # Keeps the client's address: a node passes on only to pods of its own.
            "externalTrafficPolicy": "Local",
            "annotations": dict(args.service_annotations),
            "ports": [
                _service_port("status-port", 15021),
                _service_port("http2", 80, args.http_node_port),
                _service_port("https", 443, args.https_node_port),
            ],
        },
    }


def _service_port(name: str, port: int, node_port: int | None = None) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "port": port, "protocol": "TCP", "targetPort": port}
    return entry if node_port is None else {**entry, "nodePort": node_port}


def gateway_spec(name: str, hosts: Sequence[GatewayHost]) -> GatewaySpec:
    """A server for HTTPS per host, and one that redirects plain HTTP."""
    redirect: Server = {
        "port": {"number": 80, "name": "http", "protocol": "HTTP"},
        "hosts": [_scoped(host) for host in hosts],
        "tls": {"httpsRedirect": True},
    }
    secure: list[Server] = [
        {
            "port": {"number": 443, "name": f"https-{index}", "protocol": "HTTPS"},
            "hosts": [_scoped(host)],
            "tls": {
                "mode": "SIMPLE",
                "minProtocolVersion": "TLSV1_2",
                "credentialName": secret_name(name, host),
            },
        }
        for index, host in enumerate(hosts)
    ]
    return {"selector": {"istio": name}, "servers": [redirect, *secure]}


def _scoped(host: GatewayHost) -> str:
    return f"{host.namespace}/{host.name}"


def _load_balancer_address(status: Any) -> str | None:
    balancer = status.load_balancer if status is not None else None
    ingress = balancer.ingress if balancer is not None else None
    return (ingress[0].hostname or ingress[0].ip) if ingress else None
