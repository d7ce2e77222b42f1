"""What a `TtsVoiceService` is asked for."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pulumi

from voicemesh import contract
from voicemesh.arguments import LABEL_KEY, LABEL_VALUE, URL, Faults, is_known
from voicemesh.issuers import TokenIssuer, check_issuers
from voicemesh.service.access import VoiceAccess
from voicemesh.service.data import ModelWeights, ObjectStorage, OutputStorage
from voicemesh.service.scaling import Autoscaling, Scaler
from voicemesh.sizes import ComputeSize

FULL_WEIGHT: Final = 100
ORIGIN: Final = re.compile(r"https?://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:\d{1,5})?")
VARIANT_NAME: Final = re.compile(r"[a-z0-9]{1,32}")
SERVICE_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LONGEST_DEPLOYMENT: Final = 46
"""Characters in the name of a Deployment. Kubernetes cuts the name of a pod after 58, before its
random end; a dash, the ten digits of its ReplicaSet and another dash have to be among them, since
autoscaling tells a variant's pods by their names."""
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
IMAGE_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
SET_BY_ARGUMENTS: Final = {
    contract.DRAIN_VARIABLE: "max_stream_seconds",
    contract.MODEL_DIRECTORY_VARIABLE: "model",
    contract.OUTPUTS_VARIABLE: "outputs of the service",
    contract.GATEWAY_PRINCIPAL_VARIABLE: "gateway_principal of the service",
}
"""Variables of the speech server that have an argument of their own."""


def names_one_image(image: object) -> bool:
    """Whether it says which one it means: by digest, or by a tag that is not moved with each build.

    https://kubernetes.io/docs/concepts/containers/images/#image-names
    """
    if not isinstance(image, str) or re.search(r"\s", image):
        return False
    name, at, digest = image.partition("@")
    if at:
        return DIGEST.fullmatch(digest) is not None
    tag = name.rpartition("/")[2].partition(":")[2]
    return IMAGE_TAG.fullmatch(tag) is not None and tag != "latest"


@dataclass(frozen=True)
class VoiceVariant:
    """One version of a voice, with its share of the requests."""

    name: str
    """Its part in a rollout, as in `stable` or `experimental`; it stays when the version changes.
    Renaming a variant replaces its pods. Without dashes, so that the objects of two services never
    have the same name."""

    version: str
    """Version of what it runs: a label of its pods, by which metrics tell versions apart."""

    image: pulumi.Input[str]
    """The speech server's image, with a tag other than `latest`, or with a digest."""

    weight: int = FULL_WEIGHT
    """Share of the requests in percent; the weights of all variants add up to 100. 0 for a variant
    that is reached in other ways only, as `vip_variant` is."""

    replicas: int | None = None
    """Pods; None for one, or for what `autoscaling` says, with which a number conflicts. A single
    pod's requests go to the variants that back it up (`backs_up`) while it is down or ejected."""

    autoscaling: Autoscaling | None = None
    """Bounds between which the number of pods follows the load; None for a fixed number. A variant
    that already runs with one falls to a single pod for a moment when it is first given these: the
    API server puts in one for a number that is no longer declared. Scale it by hand before, to one
    more (`kubectl scale`), and the number stays: it is nobody's but the autoscaler's then."""

    size: ComputeSize = field(default_factory=lambda: ComputeSize(2, 16))
    """CPU and memory of the speech server; its memory is limited to this."""

    accelerator: str | None = contract.H100
    """Nodes it may run on, by their label `accelerator`; None for any."""

    gpu_count: int = 1
    """GPUs, or slices, of each pod; 0 for an engine that runs on the CPU."""

    gpu_resource: str = contract.GPU_RESOURCE
    """The extended resource that they are, as in nvidia.com/mig-1g.20gb."""

    node_selector: Mapping[str, str] = field(default_factory=dict)
    """Further labels that its nodes have, besides `accelerator` and `node-type`."""

    backs_up: bool | None = None
    """Whether its pods answer for a variant whose single pod is down or ejected; by default yes,
    unless it is the `vip_variant` or gets the copies of `mirroring`. Changing it replaces its
    pods."""

    model: ModelWeights | None = None
    """Weights that are not in the image. They are fetched with `python -m speech_server.weights`
    of the variant's own image. Needs `object_storage`."""

    environment: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    """Further settings of the speech server: its `SPEECH_*` variables."""

    @property
    def minimum_replicas(self) -> int:
        """Pods that there are at any load."""
        return self.autoscaling.min_replicas if self.autoscaling else self.replicas or 1

    @property
    def maximum_replicas(self) -> int:
        """Pods that there are at the highest load."""
        return self.autoscaling.max_replicas if self.autoscaling else self.replicas or 1

    def check(self, faults: Faults, path: str) -> None:
        """Notes what no Deployment, route or subset could be made of."""
        allowed = "up to 32 of a-z and 0-9, as in 'stable'"
        faults.matches(VARIANT_NAME, f"{path}.name", self.name, allowed)
        allowed = "up to 63 letters, digits, '-', '_' and '.', as in '1.4.2'"
        faults.matches(LABEL_VALUE, f"{path}.version", self.version, allowed)
        allowed = "a tag other than 'latest', or a digest"
        pinned = not is_known(self.image) or names_one_image(self.image)
        faults.require(pinned, f"{path}.image", self.image, allowed)
        in_range = isinstance(self.weight, int) and 0 <= self.weight <= FULL_WEIGHT
        faults.require(in_range, f"{path}.weight", self.weight, "a whole number from 0 to 100")
        self._check_replicas(faults, path)
        self.size.check(faults, f"{path}.size")
        self._check_nodes(faults, path)
        if self.model is not None:
            self.model.check(faults, f"{path}.model")
        for name in sorted(SET_BY_ARGUMENTS.keys() & self.environment.keys()):
            faults.require(False, f"{path}.environment", name, f"{SET_BY_ARGUMENTS[name]} instead")

    def _check_replicas(self, faults: Faults, path: str) -> None:
        if self.autoscaling is not None:
            self.autoscaling.check(faults, f"{path}.autoscaling")
            allowed = "nothing, since autoscaling is given"
            faults.require(self.replicas is None, f"{path}.replicas", self.replicas, allowed)
        elif self.replicas is not None:
            faults.whole_number(1, f"{path}.replicas", self.replicas)

    def _check_nodes(self, faults: Faults, path: str) -> None:
        faults.whole_number(0, f"{path}.gpu_count", self.gpu_count)
        if self.accelerator is not None:
            allowed = "a label's value, as in 'h100'"
            faults.matches(LABEL_VALUE, f"{path}.accelerator", self.accelerator, allowed)
        has_domain = re.fullmatch(r"[a-z0-9.-]+/[A-Za-z0-9._-]+", self.gpu_resource) is not None
        allowed = "a name as in nvidia.com/gpu"
        faults.require(has_domain, f"{path}.gpu_resource", self.gpu_resource, allowed)
        own = {contract.ACCELERATOR_LABEL: "accelerator", contract.NODE_TYPE_LABEL: "node_type"}
        for label, value in self.node_selector.items():
            at = f"{path}.node_selector[{label}]"
            faults.matches(LABEL_KEY, at, label, "a label, as in 'example.com/pool'")
            faults.matches(LABEL_VALUE, at, value, "a label's value")
            faults.require(label not in own, at, value, f"{own.get(label)} instead")


def check_names(faults: Faults, path: str, service: str, variants: Sequence[VoiceVariant]) -> None:
    """Notes a name that no Service can have, or that is too long for Deployments and their pods."""
    allowed = "up to 63 of a-z, 0-9 and '-', a letter first, as in 'tts-a'"
    faults.matches(SERVICE_NAME, path, service, allowed)
    longest = max((len(str(variant.name)) for variant in variants), default=0)
    room = LONGEST_DEPLOYMENT - longest - 1
    allowed = f"up to {room} characters, beside the names of the variants"
    faults.require(len(str(service)) <= room, path, service, allowed)


@dataclass(frozen=True)
class ConnectionLimits:
    """How much one proxy sends to one variant before it answers 503 by itself.

    They are the last resort: the speech server sheds load earlier and politely, with 429. Set them
    above what all pods of a variant take in, running and queued. Every replica of a gateway and
    every sidecar that calls counts for itself: together they let through this much, times their
    number.
    """

    max_connections: int = 256
    """TCP connections; over HTTP/1.1 each stream holds one."""

    max_pending_requests: int = 256
    """Requests that wait for a connection, those among them for which one is being opened: a burst
    after a quiet time needs as many."""

    max_requests: int = 256
    """Concurrent requests, those that wait not counted."""

    max_requests_per_connection: int = 0
    """Requests after which a connection is closed; 0 for no such number. A small one spreads
    requests over new pods sooner. 1 takes a handshake of mutual TLS for each request."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes limits that would let nothing through."""
        for name in ("max_connections", "max_pending_requests", "max_requests"):
            faults.whole_number(1, f"{path}.{name}", getattr(self, name))
        name = "max_requests_per_connection"
        faults.whole_number(0, f"{path}.{name}", getattr(self, name))


@dataclass(frozen=True)
class Ejection:
    """When a proxy leaves a failing pod alone, and for how long.

    Each proxy judges by its own requests. While all pods that a request may go to are ejected, it
    is answered 503 at once: a pod that fails gets no rest from requests that are bound to fail.
    https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier
    """

    consecutive_errors: int = 3
    """Failures in a row that eject a pod: answers 5xx, resets and refused connections. 429 is none,
    nor is the 503 of a proxy that reached its `connection_limits`."""

    base_seconds: int = 300
    """How long a pod stays out the first time. Each further time in short succession adds as much,
    up to five minutes, or to this if it is longer."""

    interval_seconds: int = 30
    """How often proxies look for pods whose time is over: one comes back this much later at
    most."""

    max_percent: int | None = None
    """Share of a pool that may be out at the same time, in percent of its pods; always at least one
    pod of the fewest that there may be. None for half of it: a fault that hits every pod then never
    empties a pool of two or more, and ends for its callers when it ends. 100 to answer 503 at once
    when every pod fails, until `base_seconds` are over."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes what Envoy could not follow."""
        for name in ("consecutive_errors", "base_seconds", "interval_seconds"):
            faults.whole_number(1, f"{path}.{name}", getattr(self, name))
        share = self.max_percent
        fits = share is None or (isinstance(share, int) and 1 <= share <= 100)
        faults.require(fits, f"{path}.max_percent", share, "None, or a whole number from 1 to 100")


@dataclass(frozen=True)
class Mirroring:
    """Copies of requests for speech, made for a variant that nobody hears.

    Of the requests that are shared by weight, those that only speak: `POST /v1/audio/speech` and
    `POST /tts`. The copy has the caller's headers, token and text, its answer is thrown away, and
    what becomes of it changes nothing for the caller. A limit on requests at the gateway counts a
    request once; the server that gets the copy synthesises it like any other, so copies cost GPU
    time, and whatever a server counts by tenant.
    """

    variant: str
    """Name of the variant that gets the copies. Its weight is 0, so that none of its own requests
    comes twice. No other variant answers for it while its pods are down, nor it for others."""

    percent: float
    """How many of the requests are copied, in percent: above 0, and up to 100."""

    def check(self, faults: Faults, path: str, variants: Sequence[VoiceVariant]) -> None:
        """Notes copies that nobody could make, or that would come back to those who answer."""
        weights = {variant.name: variant.weight for variant in variants}
        unweighted = [name for name, weight in weights.items() if weight == 0]
        allowed = f"a variant of weight 0: {', '.join(unweighted) or 'there is none'}"
        faults.require(self.variant in unweighted, f"{path}.variant", self.variant, allowed)
        number = isinstance(self.percent, (int, float)) and not isinstance(self.percent, bool)
        fits = number and 0 < self.percent <= FULL_WEIGHT
        faults.require(fits, f"{path}.percent", self.percent, "a number above 0, and up to 100")


@dataclass(frozen=True)
class TtsVoiceServiceArgs:
    """Arguments of `TtsVoiceService`."""

    namespace: pulumi.Input[str]
    """Namespace of the tenant: `TenantNamespace.namespace`."""

    variants: Sequence[VoiceVariant]
    """Versions that run side by side."""

    service_name: str | None = None
    """Name of Service, account and routes; by default the component's name. With a dash and the
    name of any variant, at most 46 characters."""

    hosts: Sequence[str] = ()
    """Public host names that lead here; none for a voice that only the mesh can reach."""

    allowed_origins: Sequence[str] = ()
    """Origins of web pages whose scripts may call these hosts, as in `https://studio.example.com`;
    none by default. The page of the voice itself needs none."""

    gateway_ref: pulumi.Input[str] | None = None
    """The gateway that serves these hosts: `PublicGateway.gateway_ref`. Needed with `hosts`."""

    gateway_principal: pulumi.Input[str] | None = None
    """Identity of that gateway: `PublicGateway.principal`. Needed with `hosts`."""

    issuers: Sequence[TokenIssuer] = ()
    """Whose tokens count: the same as the gateway's, since each pod verifies them again. Needed
    with `hosts`."""

    access: VoiceAccess = field(default_factory=VoiceAccess)
    """Who may call, and what their tokens must allow. By default everybody with a token of the
    right scope, through the gateway, and nobody else: without `hosts` and `access.callers`, nobody
    can call at all."""

    mesh_revision: pulumi.Input[str] | None = None
    """The control plane that its proxies follow: `IstioMesh.revision`. When it changes, the pods
    are made again, one after the other. None for pods that somebody else restarts then."""

    node_type: str | None = contract.ONLINE_NODE_TYPE
    """Nodes it may run on, by their label `node-type`; None for any. Never those for offline
    work: their taint keeps voices away."""

    max_stream_seconds: int = 600
    """Longest stream, in seconds: a pod that ends may take this long to finish its streams."""

    startup_seconds: int = 300
    """Time from a container's start until the voice has spoken its first words, at most: loading
    and warming the model. A container that takes longer is restarted."""

    image_pull_seconds: int = 900
    """Time that pulling the image onto a new node may take; images with weights are large."""

    connection_limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    """How much each proxy sends to one variant."""

    ejection: Ejection = field(default_factory=Ejection)
    """When proxies leave a failing pod alone, and for how long."""

    warmup_seconds: int = 60
    """For this long a new pod's share of the requests grows, from a tenth to its full one; 0 to
    send it as many as the others from the start."""

    vip_variant: str | None = None
    """Name of the variant that callers are led to whose verified token claims `tier: vip`; None for
    no such way. It holds at the public gateway only, and its weight may be 0."""

    experiments: Sequence[str] = ()
    """Names of the variants that a request may ask for by the header `x-voice-variant`, at the
    public gateway and in the mesh; the header goes before tier and weights, and with any other
    value is ignored. None by default: whoever may call the voice may send it, and could lead all
    requests to a small canary, or to the `vip_variant` past its tier."""

    voice_affinity: bool = False
    """Whether requests with the same header `x-voice-id` go to the same pod of their variant, which
    then has the voice at hand; those without it go to the less busy of two pods, as all do
    otherwise. How busy the pod is does not count, so a voice in great demand is bound to one pod.
    Pods that come or go move about one voice in as many as there are pods."""

    mirroring: Mirroring | None = None
    """Copies of requests for a variant whose answers nobody hears; None for none."""

    scaler: Scaler = Scaler.KEDA
    """What scales the variants that have `autoscaling`."""

    prometheus_url: pulumi.Input[str] = contract.PROMETHEUS_URL
    """Prometheus, as KEDA reaches it; the pods' metrics have labels `namespace` and `pod` there."""

    object_storage: ObjectStorage | None = None
    """How pods reach S3; needed for a `model`, and for `outputs` in a bucket."""

    outputs: OutputStorage | None = None
    """Where audio that outlives its request is put; None for nowhere."""

    def __post_init__(self) -> None:
        faults = Faults.of(self)
        faults.dns_label("namespace", self.namespace)
        if self.service_name is not None:
            check_names(faults, "service_name", self.service_name, self.variants)
        self._check_variants(faults)
        self._check_hosts(faults)
        check_issuers(faults, "issuers", self.issuers)
        self.access.check(faults, "access")
        for name in ("max_stream_seconds", "startup_seconds", "image_pull_seconds"):
            faults.whole_number(1, name, getattr(self, name))
        self.connection_limits.check(faults, "connection_limits")
        self.ejection.check(faults, "ejection")
        faults.whole_number(0, "warmup_seconds", self.warmup_seconds)
        self._check_placement(faults)
        self._check_data(faults)
        faults.raise_any()

    def _check_variants(self, faults: Faults) -> None:
        faults.require(len(self.variants) > 0, "variants", self.variants, "at least one variant")
        for index, variant in enumerate(self.variants):
            variant.check(faults, f"variants[{index}]")
        faults.unique("variants", [variant.name for variant in self.variants], "name")
        weights = [variant.weight for variant in self.variants]
        whole = all(isinstance(weight, int) for weight in weights)
        faults.require(
            not weights or not whole or sum(weights) == FULL_WEIGHT,
            "variants",
            " + ".join(map(str, weights)),
            f"weights that add up to {FULL_WEIGHT}",
        )
        names = [variant.name for variant in self.variants]
        known = self.vip_variant is None or self.vip_variant in names
        faults.require(known, "vip_variant", self.vip_variant, f"one of {', '.join(names)}")
        for index, name in enumerate(self.experiments):
            allowed = f"one of {', '.join(names)}"
            faults.require(name in names, f"experiments[{index}]", name, allowed)
        faults.unique("experiments", list(self.experiments), "variant")
        if self.mirroring is not None:
            self.mirroring.check(faults, "mirroring", self.variants)

    def _check_placement(self, faults: Faults) -> None:
        offline = self.node_type == contract.OFFLINE_NODE_TYPE
        allowed = f"a type whose nodes voices may run on, as {contract.ONLINE_NODE_TYPE!r}"
        faults.require(not offline, "node_type", self.node_type, allowed)
        if self.node_type is not None:
            faults.matches(LABEL_VALUE, "node_type", self.node_type, "a label's value")
        scalers = ", ".join(f"Scaler.{scaler.name}" for scaler in Scaler)
        faults.require(isinstance(self.scaler, Scaler), "scaler", self.scaler, scalers)
        allowed = "a URL as in 'http://prometheus.example:9090'"
        faults.matches(URL, "prometheus_url", self.prometheus_url, allowed)

    def _check_data(self, faults: Faults) -> None:
        if self.object_storage is not None:
            self.object_storage.check(faults, "object_storage")
        if self.outputs is not None:
            self.outputs.check(faults, "outputs")
        users = [f"variants[{i}].model" for i, v in enumerate(self.variants) if v.model is not None]
        if self.outputs is not None and self.outputs.bucket is not None:
            users.append("outputs.bucket")
        reachable = self.object_storage is not None or not users
        allowed = f"a way to reach S3, for {' and '.join(users)}"
        faults.require(reachable, "object_storage", None, allowed)

    def _check_hosts(self, faults: Faults) -> None:
        for index, host in enumerate(self.hosts):
            faults.hostname(f"hosts[{index}]", host)
        faults.unique("hosts", list(self.hosts), "host name")
        allowed = "an origin as in 'https://studio.example.com'"
        for index, origin in enumerate(self.allowed_origins):
            faults.matches(ORIGIN, f"allowed_origins[{index}]", origin, allowed)
        if self.hosts:
            given = self.gateway_ref is not None
            faults.require(given, "gateway_ref", None, "a gateway, since hosts are given")
            given = self.gateway_principal is not None
            allowed = "the gateway's identity, since hosts are given"
            faults.require(given, "gateway_principal", None, allowed)
            allowed = "at least one issuer of tokens, since hosts are given"
            faults.require(len(self.issuers) > 0, "issuers", self.issuers, allowed)
