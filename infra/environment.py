"""The typed configuration of an environment: one loader for program, tests and command line.

What a stack's configuration says is checked here, before any resource is declared: unknown keys,
wrong types, and what contradicts itself, such as a quota that the tenant's own voices exceed. All
faults are reported together, each with the path of the key as `pulumi config` knows it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, get_args

import pulumi
from pulumi.runtime.config import CONFIG
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from voicemesh import contract
from voicemesh.arguments import DNS_LABEL, HOSTNAME, LABEL_VALUE
from voicemesh.service.arguments import FULL_WEIGHT
from voicemesh.sizes import DEFAULT_SIDECAR, ComputeSize

PROJECT: Final = "voicemesh"
RESERVED_NAMESPACES: Final = frozenset(
    {"default", "kube-system", "kube-public", "kube-node-lease"}
    | {"istio-system", "istio-cni", "istio-ingress"}
)


class FaultyEnvironmentError(Exception):
    """The configuration cannot be used; one line for each fault."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(["the configuration is faulty:", *self.faults]))


class Layer(StrEnum):
    """A part of an environment that one stack owns."""

    PLATFORM = "platform"
    """Mesh, gateway and storage."""

    SERVICES = "services"
    """Tenants and voices."""


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        hide_input_in_errors=True,
    )

    def given(self, *names: str) -> dict[str, Any]:
        """Those of the fields that the configuration sets; for the others defaults hold."""
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}


def _dns_label(value: str) -> str:
    if not DNS_LABEL.fullmatch(value):
        raise ValueError(f"{value!r} is no name: up to 63 of a-z, 0-9 and '-'")
    return value


def _hostname(value: str) -> str:
    if not HOSTNAME.fullmatch(value):
        raise ValueError(f"{value!r} is no host name in lower case, as in tts.example.com")
    return value


def _label_value(value: str) -> str:
    if not LABEL_VALUE.fullmatch(value):
        raise ValueError(f"{value!r} is no label: up to 63 letters, digits, '-', '_' and '.'")
    return value


def _tenant_name(value: str) -> str:
    if value in RESERVED_NAMESPACES or value.startswith("kube-"):
        raise ValueError(f"{value!r} is a namespace of the cluster or the mesh")
    return _dns_label(value)


def _or_none(value: Any) -> Any:
    return None if value == {} else value


DnsLabel = Annotated[str, AfterValidator(_dns_label)]
Hostname = Annotated[str, AfterValidator(_hostname)]
LabelValue = Annotated[str, AfterValidator(_label_value)]
TenantName = Annotated[str, AfterValidator(_tenant_name)]
Seconds = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
NodePort = Annotated[int, Field(ge=30000, le=32767)]


class Size(_Model):
    """CPU and memory of a container."""

    cpu_cores: float = Field(ge=0.001)
    memory_gib: float = Field(ge=0.001)

    @property
    def compute(self) -> ComputeSize:
        """As the components take it."""
        return ComputeSize(self.cpu_cores, self.memory_gib)


class Cluster(_Model):
    """The cluster that the stack is deployed to."""

    kubeconfig: str
    """Path of a kubeconfig, relative to the project; it is read when the program runs."""

    context: str | None = None
    """Context of the kubeconfig; by default its current one."""


class Aws(_Model):
    """The AWS account. Without keys, the usual chain of credentials is used."""

    region: str
    endpoint: str | None = None
    """URL of a server that stands in for S3 and KMS."""

    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None

    @model_validator(mode="after")
    def _has_both_keys(self) -> Aws:
        if (self.access_key is None) is not (self.secret_key is None):
            raise ValueError("accessKey and secretKey are given together, or neither is")
        return self


class Mesh(_Model):
    """Istio."""

    chart_directory: str | None = None
    """Directory with Istio's charts, relative to the project; conflicts with the next two."""

    chart_repository: str | None = None
    chart_version: str | None = None
    image_hub: str | None = None
    image_tag: str | None = None
    proxy_build: Literal["istio", "upstream"] = "istio"
    istiod_replicas: int = Field(default=2, ge=1)
    istiod: Size | None = None
    cni: Size | None = None
    sidecar: Size | None = None

    @property
    def sidecar_size(self) -> ComputeSize:
        """What each sidecar requests, which counts against the quotas."""
        return self.sidecar.compute if self.sidecar else DEFAULT_SIDECAR

    @model_validator(mode="after")
    def _has_one_source(self) -> Mesh:
        if self.chart_directory and (self.chart_repository or self.chart_version):
            raise ValueError("chartDirectory conflicts with chartRepository and chartVersion")
        return self


class Host(_Model):
    """A public host name, the tenant it belongs to, and its certificate."""

    name: Hostname
    tenant: DnsLabel
    secret_name: str | None = None
    """A Secret in the gateway's namespace; conflicts with the next two."""

    certificate: str | None = None
    """PEM."""

    private_key: SecretStr | None = None
    """PEM."""

    @model_validator(mode="after")
    def _has_certificate(self) -> Host:
        pair = [self.certificate is not None, self.private_key is not None]
        if any(pair) is not all(pair) or all(pair) is (self.secret_name is not None):
            raise ValueError("needs secretName, or certificate with privateKey")
        return self


class Gateway(_Model):
    """The public gateway."""

    hosts: tuple[Host, ...] = Field(min_length=1)
    service_type: Literal["LoadBalancer", "NodePort"] = "LoadBalancer"
    http_node_port: NodePort | None = None
    https_node_port: NodePort | None = None
    service_annotations: dict[str, str] = {}
    replicas: int = Field(default=2, ge=1)
    size: Size | None = None

    @model_validator(mode="after")
    def _has_node_ports_by_type(self) -> Gateway:
        if self.service_type != "NodePort" and (self.http_node_port or self.https_node_port):
            raise ValueError("httpNodePort and httpsNodePort need serviceType NodePort")
        return self


class Storage(_Model):
    """The bucket for models, reference voices and outputs."""

    bucket: str | None = Field(default=None, min_length=3, max_length=63)
    output_days: int = Field(default=7, ge=1)
    deletion_protection: bool = True


class Quota(_Model):
    """What a tenant's pods together may request, sidecars included."""

    cpu_cores: float = Field(ge=0)
    memory_gib: float = Field(ge=0)
    pods: Count
    gpus: dict[str, Count] = {}


class Tenant(_Model):
    """A tenant: a namespace and its quota."""

    name: TenantName
    quota: Quota


class Variant(_Model):
    """A version of a voice with its share of the requests."""

    name: DnsLabel
    version: LabelValue
    image: str = Field(min_length=1)
    weight: int = Field(ge=0, le=FULL_WEIGHT)
    replicas: int = Field(default=1, ge=1)
    size: Size
    accelerator: LabelValue | None = contract.H100
    gpu_count: Count = 1
    gpu_resource: str = contract.GPU_RESOURCE
    environment: dict[str, str] = {}


class Voice(_Model):
    """A text-to-speech service."""

    name: DnsLabel
    tenant: DnsLabel
    hosts: tuple[Hostname, ...] = ()
    variants: tuple[Variant, ...] = Field(min_length=1)
    node_type: LabelValue | None = contract.ONLINE_NODE_TYPE
    startup_seconds: Seconds = 300
    image_pull_seconds: Seconds = 900

    @model_validator(mode="after")
    def _shares_everything(self) -> Voice:
        weights = [variant.weight for variant in self.variants]
        if sum(weights) != FULL_WEIGHT:
            total = " + ".join(map(str, weights))
            raise ValueError(f"weights add up to {total} = {sum(weights)}, not {FULL_WEIGHT}")
        for name in _repeated(variant.name for variant in self.variants):
            raise ValueError(f"variant {name!r} is there twice")
        return self


class Environment(_Model):
    """Everything that differs between environments."""

    layers: frozenset[Layer] = Field(min_length=1)
    cluster: Cluster
    aws: Annotated[Aws | None, BeforeValidator(_or_none)] = None
    mesh: Mesh
    gateway: Gateway
    storage: Annotated[Storage | None, BeforeValidator(_or_none)] = None
    tenants: tuple[Tenant, ...] = ()
    voices: tuple[Voice, ...] = ()
    max_stream_seconds: Seconds = 600


def load_from_pulumi() -> Environment:
    """The environment of the stack that the program runs for.

    Raises:
        FaultyEnvironmentError: with all that is wrong.
    """
    prefix = f"{pulumi.get_project()}:"
    return load(
        {
            key.removeprefix(prefix): _decoded(value)
            for key, value in CONFIG.get().items()
            if key.startswith(prefix)
        }
    )


def load(values: Mapping[str, Any]) -> Environment:
    """The environment that a configuration describes.

    Args:
        values: the configuration by top-level key, without the project's name.

    Raises:
        FaultyEnvironmentError: with all that is wrong.
    """
    try:
        # Through JSON, since that is what is strict about numbers and texts, not about tuples.
        environment = Environment.model_validate_json(json.dumps(values))
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise FaultyEnvironmentError(_described(fault, values) for fault in details) from None
    faults = list(contradictions(environment))
    if faults:
        raise FaultyEnvironmentError(faults)
    return environment


def contradictions(environment: Environment) -> Iterator[str]:
    """What is wrong between parts that are each well-formed."""
    yield from _layer_faults(environment)
    yield from _name_faults(environment)
    yield from _host_faults(environment)
    yield from _quota_faults(environment)


def _layer_faults(environment: Environment) -> Iterator[str]:
    if Layer.PLATFORM not in environment.layers:
        yield f"{_path('layers')}: services need the platform in the same stack"
    if Layer.SERVICES not in environment.layers and (environment.tenants or environment.voices):
        yield f"{_path('layers')}: tenants and voices are given, but not the layer services"
    if environment.storage is not None and environment.aws is None:
        yield f"{_path('aws')}: storage is given, but no AWS region"


def _name_faults(environment: Environment) -> Iterator[str]:
    tenants = [tenant.name for tenant in environment.tenants]
    for name in _repeated(tenants):
        yield f"{_path('tenants')}: tenant {name!r} is there twice"
    for tenant, name in _repeated((voice.tenant, voice.name) for voice in environment.voices):
        yield f"{_path('voices')}: tenant {tenant!r} has voice {name!r} twice"
    for index, voice in enumerate(environment.voices):
        if voice.tenant not in tenants:
            yield f"{_path('voices', index, 'tenant')}: {voice.tenant!r} is none of the tenants"


def _host_faults(environment: Environment) -> Iterator[str]:
    owners = {host.name: host.tenant for host in environment.gateway.hosts}
    for name in _repeated(host.name for host in environment.gateway.hosts):
        yield f"{_path('gateway', 'hosts')}: {name!r} is there twice"
    for name in _repeated(host for voice in environment.voices for host in voice.hosts):
        yield f"{_path('voices')}: host {name!r} leads to two voices"
    for index, voice in enumerate(environment.voices):
        for host_index, host in enumerate(voice.hosts):
            path = _path("voices", index, "hosts", host_index)
            if host not in owners:
                yield f"{path}: {host!r} is none of the gateway's hosts"
            elif owners[host] != voice.tenant:
                yield f"{path}: {host!r} belongs to tenant {owners[host]!r}"


def _quota_faults(environment: Environment) -> Iterator[str]:
    for index, tenant in enumerate(environment.tenants):
        need = _needs(environment, tenant.name)
        for key, (resource, has) in _allowances(tenant.quota).items():
            if need[resource] > has:
                path = _path("tenants", index, "quota", *key)
                yield f"{path}: allows {has} {resource}, but its voices need {need[resource]}"
        allowed = {resource for resource, _ in _allowances(tenant.quota).values()}
        for resource in sorted(need.keys() - allowed):
            path = _path("tenants", index, "quota", "gpus")
            yield f"{path}: allows no {resource}, but its voices need {need[resource]}"


def _allowances(quota: Quota) -> dict[tuple[str, ...], tuple[str, int]]:
    size = ComputeSize(quota.cpu_cores, quota.memory_gib)
    return {
        ("cpuCores",): ("millicores", size.millicores),
        ("memoryGib",): ("MiB", size.mebibytes),
        ("pods",): ("pods", quota.pods),
        **{("gpus", name): (name, count) for name, count in quota.gpus.items()},
    }


def _needs(environment: Environment, tenant: str) -> Counter[str]:
    sidecar = environment.mesh.sidecar_size
    need: Counter[str] = Counter()
    for voice in environment.voices:
        if voice.tenant == tenant:
            for variant in voice.variants:
                need += _variant_needs(variant, sidecar)
    return need


def _variant_needs(variant: Variant, sidecar: ComputeSize) -> Counter[str]:
    size = variant.size.compute
    return Counter(
        {
            "millicores": variant.replicas * (size.millicores + sidecar.millicores),
            "MiB": variant.replicas * (size.mebibytes + sidecar.mebibytes),
            "pods": variant.replicas,
            variant.gpu_resource: variant.replicas * variant.gpu_count,
        }
    )


def _repeated(values: Iterable[Any]) -> list[Any]:
    return sorted(value for value, count in Counter(values).items() if count > 1)


def _path(*parts: str | int) -> str:
    """A key as `pulumi config set --path` takes it."""
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.replace("-", "").replace("_", "").isalnum():
            path += f".{part}"
        else:
            path += f'["{part}"]'
    return f"{PROJECT}:{path.lstrip('.')}"


def _described(fault: ErrorDetails, values: Mapping[str, Any]) -> str:
    location = fault["loc"]
    path = _path(*location)
    if fault["type"] == "extra_forbidden":
        known = ", ".join(_known_keys(Environment, location[:-1]))
        return f"{path}: unknown key; known ones here are {known}"
    if fault["type"] == "missing":
        return f"{path}: missing"
    message = fault["msg"].removeprefix("Value error, ")
    found = _at(values, location)
    is_scalar = isinstance(found, (str, int, float, bool)) and not _is_secret(location)
    shown = f", not {found!r}" if is_scalar and fault["type"] != "value_error" else ""
    return f"{path}: {message}{shown}"


def _at(values: Any, location: tuple[str | int, ...]) -> Any:
    for part in location:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def _is_secret(location: tuple[str | int, ...]) -> bool:
    return bool(location) and location[-1] in {"accessKey", "secretKey", "privateKey"}


def _known_keys(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    for part in location:
        fields = {field.alias: field for field in model.model_fields.values()}
        if isinstance(part, str) and part in fields:
            model = _model_within(fields[part].annotation) or model
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _model_within(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_within, get_args(annotation))), None)


def _decoded(value: Any) -> Any:
    """A value as the engine passes it: objects and numbers as JSON, texts as they are."""
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value
