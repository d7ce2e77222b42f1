"""Sections about tenants and their voices."""

from __future__ import annotations

from typing import Literal

from infra.environment.identity import Access
from infra.environment.section import LEFT_OUT, Section, Size


class Quota(Section):
    """What a tenant's pods together may request, sidecars included."""

    cpu_cores: float
    memory_gib: float
    pods: int
    gpus: dict[str, int] = LEFT_OUT


class Egress(Section):
    """Addresses that a tenant's pods may connect to."""

    cidr: str
    ports: tuple[int, ...]


class Network(Section):
    """Who reaches a tenant's pods, and what they reach."""

    caller_namespaces: tuple[str, ...] = LEFT_OUT
    monitoring_namespace: str = LEFT_OUT
    telemetry_namespace: str = LEFT_OUT
    https_cidrs: tuple[str, ...] = LEFT_OUT
    egress: tuple[Egress, ...] = LEFT_OUT


class Volume(Section):
    """A shared file system for the tenant's reference voices and outputs."""

    storage_class: str
    cleanup_image: str
    size_gib: int = LEFT_OUT
    output_days: int = LEFT_OUT
    cleanup_size: Size = LEFT_OUT
    deletion_protection: bool = LEFT_OUT


class Tenant(Section):
    """A tenant: a namespace, its quota, and who may do what there."""

    name: str
    quota: Quota
    container_default: Size = LEFT_OUT
    network: Network = LEFT_OUT
    administrators: tuple[str, ...] = LEFT_OUT
    viewers: tuple[str, ...] = LEFT_OUT
    volume: Volume | None = None


class Autoscaling(Section):
    """Bounds and goals of a variant's number of pods."""

    min_replicas: int
    max_replicas: int
    queue_depth_per_replica: int = LEFT_OUT
    gpu_utilization_percent: int | None = LEFT_OUT
    cpu_percent: int = LEFT_OUT
    scale_down_stabilization_seconds: int = LEFT_OUT


class Model(Section):
    """Weights that are not in the image."""

    uri: str
    """`models/…/` in the environment's own bucket, or `s3://…/` for any other."""

    sha256: str
    size_gib: float


class Variant(Section):
    """A version of a voice with its share of the requests."""

    name: str
    version: str
    image: str
    weight: int = LEFT_OUT
    replicas: int = LEFT_OUT
    autoscaling: Autoscaling = LEFT_OUT
    size: Size = LEFT_OUT
    accelerator: str | None = LEFT_OUT
    gpu_count: int = LEFT_OUT
    gpu_resource: str = LEFT_OUT
    node_selector: dict[str, str] = LEFT_OUT
    backs_up: bool | None = LEFT_OUT
    model: Model | None = None
    environment: dict[str, str] = LEFT_OUT


class ConnectionLimits(Section):
    """How much one proxy sends to one variant."""

    max_connections: int = LEFT_OUT
    max_pending_requests: int = LEFT_OUT
    max_requests: int = LEFT_OUT
    max_requests_per_connection: int = LEFT_OUT


class Ejection(Section):
    """When a proxy leaves a failing pod alone, and for how long."""

    consecutive_errors: int = LEFT_OUT
    base_seconds: int = LEFT_OUT
    interval_seconds: int = LEFT_OUT
    max_percent: int | None = LEFT_OUT


class Mirroring(Section):
    """Copies of requests for speech, made for a variant that nobody hears."""

    variant: str
    percent: float


class ObjectStorage(Section):
    """Object storage that is not the environment's own, or is reached with keys."""

    region: str
    endpoint_url: str = LEFT_OUT
    credentials_secret: str


class Voice(Section):
    """A text-to-speech service."""

    name: str
    tenant: str
    hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = LEFT_OUT
    access: Access = LEFT_OUT
    variants: tuple[Variant, ...]
    node_type: str | None = LEFT_OUT
    startup_seconds: int = LEFT_OUT
    image_pull_seconds: int = LEFT_OUT
    connection_limits: ConnectionLimits = LEFT_OUT
    ejection: Ejection = LEFT_OUT
    warmup_seconds: int = LEFT_OUT
    vip_variant: str | None = None
    experiments: tuple[str, ...] = LEFT_OUT
    voice_affinity: bool = LEFT_OUT
    mirroring: Mirroring = LEFT_OUT
    scaler: Literal["keda", "cpu"] = LEFT_OUT
    prometheus_url: str = LEFT_OUT
    object_storage: ObjectStorage | None = None
    outputs: Literal["bucket", "volume"] | None = None
    """Where audio that outlives its request is put: the environment's bucket, or the tenant's
    volume; None for nowhere."""
