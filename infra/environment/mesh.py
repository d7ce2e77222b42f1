"""Sections about what every cluster gets: Istio, the public gateway, and the add-ons of EKS."""

from __future__ import annotations

from typing import Literal

from pydantic import SecretStr

from infra.environment.section import LEFT_OUT, Section, Size


class Charts(Section):
    """Where Istio's charts come from."""

    directory: str | None = None
    """A directory that holds them, relative to the project."""

    repository: str = LEFT_OUT
    version: str = LEFT_OUT


class Revision(Section):
    """A control plane of Istio beside others."""

    name: str
    image_tag: str = LEFT_OUT
    charts: Charts = LEFT_OUT


class Mesh(Section):
    """Istio."""

    charts: Charts = LEFT_OUT
    image_hub: str = LEFT_OUT
    image_tag: str = LEFT_OUT
    revisions: tuple[Revision, ...] = LEFT_OUT
    current_revision: str = LEFT_OUT
    proxy_build: Literal["istio", "upstream"] = LEFT_OUT
    istiod_replicas: int = LEFT_OUT
    istiod: Size = LEFT_OUT
    cni: Size = LEFT_OUT
    sidecar: Size = LEFT_OUT


class AddonVersions(Section):
    """Versions of the charts of the add-ons."""

    nvidia_device_plugin: str = LEFT_OUT
    dcgm_exporter: str = LEFT_OUT
    load_balancer_controller: str = LEFT_OUT
    cluster_autoscaler: str = LEFT_OUT


class Addons(Section):
    """What a cluster of EKS gets for GPUs, load balancers and the number of its nodes."""

    versions: AddonVersions


class Issuer(Section):
    """An issuer of cert-manager."""

    name: str
    kind: Literal["ClusterIssuer", "Issuer"] = LEFT_OUT


class Host(Section):
    """A public host name, the tenant it belongs to, and its certificate."""

    name: str
    tenant: str
    issuer: Issuer = LEFT_OUT
    secret_name: str = LEFT_OUT
    certificate: str = LEFT_OUT
    private_key: SecretStr = LEFT_OUT


class RequestQuota(Section):
    """Requests that each tenant may make at the gateway."""

    requests: int
    unit: Literal["second", "minute", "hour", "day"] = LEFT_OUT
    tenants: dict[str, int] = LEFT_OUT
    requests_without_tenant: int | None = LEFT_OUT
    when_unavailable: Literal["allow", "deny"] = LEFT_OUT
    timeout_seconds: float = LEFT_OUT
    ratelimit_image: str = LEFT_OUT
    redis_image: str = LEFT_OUT
    replicas: int = LEFT_OUT
    ratelimit: Size = LEFT_OUT
    redis: Size = LEFT_OUT


class Waf(Section):
    """A web application firewall: what it refuses, and how the gateway's proxies ask it."""

    image: str
    replicas: int = LEFT_OUT
    size: Size = LEFT_OUT
    paranoia_level: int = LEFT_OUT
    anomaly_threshold: int = LEFT_OUT
    detection_only: bool = LEFT_OUT
    max_spoken_characters: int = LEFT_OUT
    max_upload_mib: int = LEFT_OUT
    fail_open: bool = LEFT_OUT
    timeout_milliseconds: int = LEFT_OUT
    max_body_kib: int = LEFT_OUT


class Gateway(Section):
    """The public gateway."""

    hosts: tuple[Host, ...]
    service_type: Literal["LoadBalancer", "NodePort"] = LEFT_OUT
    http_node_port: int | None = None
    https_node_port: int | None = None
    service_annotations: dict[str, str] = LEFT_OUT
    replicas: int = LEFT_OUT
    size: Size = LEFT_OUT
    quota: RequestQuota | None = None
    waf: Waf | None = None
