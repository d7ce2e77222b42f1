"""What a `TtsVoiceService` is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pulumi

from voicemesh import contract
from voicemesh.arguments import LABEL_VALUE, Faults
from voicemesh.sizes import ComputeSize

FULL_WEIGHT: Final = 100
DRAIN_VARIABLE: Final = "SPEECH_DRAIN_SECONDS"


@dataclass(frozen=True)
class VoiceVariant:
    """One version of a voice, with its share of the requests."""

    name: str
    """Its part in a rollout, as in `stable` or `experimental`; it stays when the version changes.
    Renaming a variant replaces its pods."""

    version: str
    """Version of what it runs: a label of its pods, by which metrics tell versions apart."""

    image: pulumi.Input[str]
    """The speech server's image, with tag or digest."""

    weight: int
    """Share of the requests in percent; the weights of all variants add up to 100."""

    replicas: int = 1
    """Pods. A single pod's requests go to the other variants while it is down or ejected."""

    size: ComputeSize = field(default_factory=lambda: ComputeSize(2, 16))
    """CPU and memory of the speech server; its memory is limited to this."""

    accelerator: str | None = contract.H100
    """Nodes it may run on, by their label `accelerator`; None for any."""

    gpu_count: int = 1
    """GPUs, or slices, of each pod; 0 for an engine that runs on the CPU."""

    gpu_resource: str = contract.GPU_RESOURCE
    """The extended resource that they are, as in nvidia.com/mig-1g.20gb."""

    environment: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    """Further settings of the speech server: its `SPEECH_*` variables."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes what no Deployment, route or subset could be made of."""
        faults.dns_label(f"{path}.name", self.name)
        allowed = "up to 63 letters, digits, '-', '_' and '.', as in '1.4.2'"
        faults.matches(LABEL_VALUE, f"{path}.version", self.version, allowed)
        in_range = isinstance(self.weight, int) and 0 <= self.weight <= FULL_WEIGHT
        faults.require(in_range, f"{path}.weight", self.weight, "a whole number from 0 to 100")
        faults.at_least(1, f"{path}.replicas", self.replicas)
        faults.at_least(0, f"{path}.gpu_count", self.gpu_count)
        self.size.check(faults, f"{path}.size")
        free = DRAIN_VARIABLE not in self.environment
        faults.require(free, f"{path}.environment", DRAIN_VARIABLE, "max_stream_seconds instead")


@dataclass(frozen=True)
class ConnectionLimits:
    """How much one proxy sends to one variant before it answers 503 by itself.

    They are the last resort: the speech server sheds load earlier and politely, with 429. Set them
    above what all pods of a variant take in, running and queued.
    """

    max_connections: int = 256
    """TCP connections; over HTTP/1.1 each stream holds one."""

    max_pending_requests: int = 64
    """Requests that wait for a connection."""

    max_requests: int = 256
    """Concurrent requests over HTTP/2."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes limits that would let nothing through."""
        for name in ("max_connections", "max_pending_requests", "max_requests"):
            faults.at_least(1, f"{path}.{name}", getattr(self, name))


@dataclass(frozen=True)
class TtsVoiceServiceArgs:
    """Arguments of `TtsVoiceService`."""

    namespace: pulumi.Input[str]
    """Namespace of the tenant: `TenantNamespace.namespace`."""

    variants: Sequence[VoiceVariant]
    """Versions that run side by side."""

    service_name: str | None = None
    """Name of Service, account and routes; by default the component's name."""

    hosts: Sequence[str] = ()
    """Public host names that lead here; none for a voice that only the mesh can reach."""

    gateway_ref: pulumi.Input[str] | None = None
    """The gateway that serves these hosts: `PublicGateway.gateway_ref`. Needed with `hosts`."""

    node_type: str | None = contract.ONLINE_NODE_TYPE
    """Nodes it may run on, by their label `node-type`; None for any."""

    max_stream_seconds: int = 600
    """Longest stream, in seconds: a pod that ends may take this long to finish its streams."""

    startup_seconds: int = 300
    """Time from a container's start until the voice has spoken its first words, at most: loading
    and warming the model. A container that takes longer is restarted."""

    image_pull_seconds: int = 900
    """Time that pulling the image onto a new node may take; images with weights are large."""

    connection_limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    """How much each proxy sends to one variant."""

    def __post_init__(self) -> None:
        faults = Faults("TtsVoiceService")
        faults.dns_label("namespace", self.namespace)
        if self.service_name is not None:
            faults.dns_label("service_name", self.service_name)
        self._check_variants(faults)
        self._check_hosts(faults)
        for name in ("max_stream_seconds", "startup_seconds", "image_pull_seconds"):
            faults.at_least(1, name, getattr(self, name))
        self.connection_limits.check(faults, "connection_limits")
        faults.raise_any()

    def _check_variants(self, faults: Faults) -> None:
        faults.require(len(self.variants) > 0, "variants", self.variants, "at least one variant")
        for index, variant in enumerate(self.variants):
            variant.check(faults, f"variants[{index}]")
        faults.unique("variants", [variant.name for variant in self.variants], "name")
        weights = [variant.weight for variant in self.variants]
        faults.require(
            not weights or sum(weights) == FULL_WEIGHT,
            "variants",
            " + ".join(map(str, weights)),
            f"weights that add up to {FULL_WEIGHT}",
        )

    def _check_hosts(self, faults: Faults) -> None:
        for index, host in enumerate(self.hosts):
            faults.hostname(f"hosts[{index}]", host)
        faults.unique("hosts", list(self.hosts), "host name")
        has_gateway = self.gateway_ref is not None or not self.hosts
        faults.require(has_gateway, "gateway_ref", None, "a gateway, since hosts are given")
