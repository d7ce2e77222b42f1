"""What a `PublicGateway` is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import pulumi

from voicemesh import contract
from voicemesh.arguments import Faults
from voicemesh.charts import ChartSource
from voicemesh.gateway.hosts import GatewayHost
from voicemesh.gateway.quota import RequestQuota
from voicemesh.gateway.waf import WebApplicationFirewall
from voicemesh.issuers import TokenIssuer, check_issuers
from voicemesh.sizes import ComputeSize

_MIN_NODE_PORT: Final = 30000
_MAX_NODE_PORT: Final = 32767


class ServiceType(StrEnum):
    """How the gateway's Service is reached from outside the cluster."""

    LOAD_BALANCER = "LoadBalancer"
    NODE_PORT = "NodePort"


@dataclass(frozen=True)
class PublicGatewayArgs:
    """Arguments of `PublicGateway`."""

    hosts: Sequence[GatewayHost]
    """Host names that are served, each with its certificate. Any other SNI is refused."""

    issuers: Sequence[TokenIssuer]
    """Whose tokens the gateway takes, one issuer at least. Requests without a token get the page of
    a voice and its health, and nothing else."""

    namespace: str = contract.GATEWAY_NAMESPACE
    """Namespace that the component makes for the gateway alone."""

    charts: ChartSource = field(default_factory=ChartSource)
    """Where the chart `gateway` comes from; the same source as the mesh's."""

    injection_labels: pulumi.Input[Mapping[str, str]] = field(
        default_factory=lambda: {"istio-injection": "enabled"}
    )
    """Labels by which istiod injects the namespace's pods: `IstioMesh.injection_labels`."""

    mesh_revision: pulumi.Input[str] | None = None
    """The control plane that its proxies follow: `IstioMesh.revision`. When it changes, the pods
    are made again, one after the other. None for pods that somebody else restarts then."""

    service_type: ServiceType = ServiceType.LOAD_BALANCER
    """How the gateway is reached from outside the cluster."""

    http_node_port: int | None = None
    """Port of each node for HTTP, 30000 to 32767. Only with `NODE_PORT`; by default any."""

    https_node_port: int | None = None
    """Port of each node for HTTPS, 30000 to 32767. Only with `NODE_PORT`; by default any."""

    service_annotations: Mapping[str, str] = field(default_factory=dict)
    """Annotations of the Service, by which a cloud's load balancer is set up."""

    replicas: int = 2
    """Pods of the gateway."""

    size: ComputeSize = field(default_factory=lambda: ComputeSize(0.5, 0.25))
    """What each pod requests."""

    max_stream_seconds: int = 600
    """Longest stream, in seconds; a pod that ends serves its streams for this long."""

    quota: RequestQuota | None = None
    """Requests that each tenant may make; by default any number."""

    waf: WebApplicationFirewall | None = None
    """The web application firewall that looks at each request first; by default none."""

    def __post_init__(self) -> None:
        faults = Faults.of(self)
        faults.require(len(self.hosts) > 0, "hosts", self.hosts, "at least one host")
        for index, host in enumerate(self.hosts):
            host.check(faults, f"hosts[{index}]")
        faults.unique("hosts", [host.name for host in self.hosts], "host name")
        allowed = "at least one issuer of tokens"
        faults.require(len(self.issuers) > 0, "issuers", self.issuers, allowed)
        check_issuers(faults, "issuers", self.issuers)
        faults.dns_label("namespace", self.namespace)
        faults.require(
            isinstance(self.service_type, ServiceType),
            "service_type",
            self.service_type,
            ", ".join(f"ServiceType.{kind.name}" for kind in ServiceType),
        )
        for name in ("http_node_port", "https_node_port"):
            self._check_node_port(faults, name)
        faults.whole_number(1, "replicas", self.replicas)
        faults.whole_number(1, "max_stream_seconds", self.max_stream_seconds)
        self.size.check(faults, "size")
        self.charts.check(faults, "charts")
        if self.quota is not None:
            self.quota.check(faults, "quota")
        if self.waf is not None:
            self.waf.check(faults, "waf")
        faults.raise_any()

    def _check_node_port(self, faults: Faults, name: str) -> None:
        port = getattr(self, name)
        if port is None:
            return
        if self.service_type is not ServiceType.NODE_PORT:
            faults.require(False, name, port, "nothing, unless service_type is NODE_PORT")
        in_range = _MIN_NODE_PORT <= port <= _MAX_NODE_PORT
        faults.require(in_range, name, port, f"{_MIN_NODE_PORT} to {_MAX_NODE_PORT}")
