"""What a `PublicGateway` is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import pulumi

from voicemesh import contract
from voicemesh.arguments import Faults, is_known
from voicemesh.mesh import ChartSource
from voicemesh.sizes import ComputeSize

_MIN_NODE_PORT: Final = 30000
_MAX_NODE_PORT: Final = 32767


class ServiceType(StrEnum):
    """How the gateway's Service is reached from outside the cluster."""

    LOAD_BALANCER = "LoadBalancer"
    NODE_PORT = "NodePort"


@dataclass(frozen=True)
class GatewayHost:
    """A host name and its certificate: the name of a Secret, or certificate and private key."""

    name: str
    """Full host name, as clients send it in SNI and Host."""

    secret_name: pulumi.Input[str] | None = None
    """A Secret of type kubernetes.io/tls that exists in the gateway's namespace, for instance kept
    by cert-manager. Conflicts with `certificate` and `private_key`."""

    certificate: pulumi.Input[str] | None = None
    """Certificate chain in PEM, the host's own first. Needs `private_key`."""

    private_key: pulumi.Input[str] | None = field(default=None, repr=False)
    """Its private key in PEM; it is kept as a secret."""

    namespace: str = "*"
    """The only namespace whose VirtualServices may serve this host; `*` for any."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes names that are none, and a certificate that is missing or given twice."""
        faults.hostname(f"{path}.name", self.name)
        pair = (self.certificate is not None, self.private_key is not None)
        given = self.secret_name is not None
        faults.require(
            pair in {(False, False), (True, True)} and given is not pair[0],
            f"{path}.secret_name",
            self.secret_name if is_known(self.secret_name) else "given",
            "secret_name alone, or certificate with private_key",
        )
        for name in ("certificate", "private_key"):
            pem = getattr(self, name)
            is_pem = not isinstance(pem, str) or pem.lstrip().startswith("-----BEGIN ")
            faults.require(is_pem, f"{path}.{name}", "(not shown)", "PEM text")


@dataclass(frozen=True)
class PublicGatewayArgs:
    """Arguments of `PublicGateway`."""

    hosts: Sequence[GatewayHost]
    """Host names that are served, each with its certificate. Any other SNI is refused."""

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

    def __post_init__(self) -> None:
        faults = Faults.of(self)
        faults.require(len(self.hosts) > 0, "hosts", self.hosts, "at least one host")
        for index, host in enumerate(self.hosts):
            host.check(faults, f"hosts[{index}]")
        faults.unique("hosts", [host.name for host in self.hosts], "host name")
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
        faults.raise_any()

    def _check_node_port(self, faults: Faults, name: str) -> None:
        port = getattr(self, name)
        if port is None:
            return
        if self.service_type is not ServiceType.NODE_PORT:
            faults.require(False, name, port, "nothing, unless service_type is NODE_PORT")
        in_range = _MIN_NODE_PORT <= port <= _MAX_NODE_PORT
        faults.require(in_range, name, port, f"{_MIN_NODE_PORT} to {_MAX_NODE_PORT}")
