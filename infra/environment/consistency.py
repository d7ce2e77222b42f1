"""What is wrong between sections that are each well-formed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from infra.environment.arguments import is_absolute, token_issuers, uses_own_bucket
from infra.environment.identity import Access
from infra.environment.model import Environment, Layer
from infra.environment.section import Faults, path, repeated
from infra.environment.services import Network, Tenant, Voice
from voicemesh import contract
from voicemesh.arguments import DNS_LABEL, PRINCIPAL, URL
from voicemesh.issuers import KeySource
from voicemesh.tenancy.component import WORKLOAD_ACCOUNT

RESERVED_NAMESPACES: Final = frozenset(
    {"default", "kube-system", "kube-public", "kube-node-lease"}
    | {"istio-system", "istio-cni", contract.GATEWAY_NAMESPACE, contract.MONITORING_NAMESPACE}
    | {contract.GPU_SYSTEM_NAMESPACE, contract.CONTROLLER_NAMESPACE}
)
_OWN_MODEL: Final = re.compile(rf"{contract.MODELS_PREFIX}([^/]+/)+")

_SECTIONS_OF_LAYER: Final = {
    Layer.CLUSTER: ("eks", "registry"),
    Layer.PLATFORM: ("addons", "mesh", "identity", "gateway"),
    Layer.SERVICES: ("tenants", "voices"),
}


def contradictions(environment: Environment) -> Faults:
    """Every contradiction that can be seen without knowing what a component allows."""
    yield from _layer_faults(environment)
    yield from _cluster_faults(environment)
    yield from _aws_faults(environment)
    yield from _host_faults(environment)
    yield from _issuer_faults(environment)
    yield from _caller_faults(environment)
    yield from _name_faults(environment)
    yield from _data_faults(environment)


def _layer_faults(environment: Environment) -> Faults:
    if not environment.layers:
        yield f"{path('layers')}: names none of {', '.join(Layer)}"
        return
    owned = ", ".join(sorted(environment.layers))
    for layer, sections in _SECTIONS_OF_LAYER.items():
        for section in sections:
            if getattr(environment, section) and not environment.owns(layer):
                yield f"{path(section)}: belongs to the layer {layer}, but layers are {owned}"
    if environment.owns(Layer.SERVICES) and not environment.owns(Layer.PLATFORM):
        yield f"{path('layers')}: services need the layer platform in the same stack"
    if environment.owns(Layer.CLUSTER) and environment.eks is None:
        yield f"{path('eks')}: missing; the layer cluster makes what it says"
    if environment.owns(Layer.PLATFORM) and environment.gateway is None:
        yield f"{path('gateway')}: missing; the layer platform makes what it says"
    if environment.owns(Layer.PLATFORM) and environment.identity is None:
        yield f"{path('identity')}: missing; the gateway takes tokens of the issuers that it names"


def _cluster_faults(environment: Environment) -> Faults:
    given = environment.cluster is not None
    if environment.owns(Layer.CLUSTER) and given:
        yield f"{path('cluster')}: names another's cluster, but the layer cluster makes one"
    if not environment.owns(Layer.CLUSTER) and not given:
        yield f"{path('cluster')}: missing; name a kubeconfig, or the stack that owns the cluster"
    if environment.addons and given and not environment.runs_on_eks:
        yield f"{path('addons')}: are made on EKS only, not on a cluster with a kubeconfig"


def _aws_faults(environment: Environment) -> Faults:
    if environment.aws is not None:
        yield from _account_faults(environment, environment.aws.account_id)
        zones = environment.eks.availability_zones if environment.eks else ()
        region = environment.aws.region
        for index, zone in enumerate(zones):
            if zone[:-1] != region:
                where = path("eks", "availabilityZones", index)
                yield f"{where}: {zone!r} is not in {path('aws', 'region')}, {region!r}"
        return
    users = [name for name in ("eks", "registry", "storage") if getattr(environment, name)]
    if environment.runs_on_eks and any(map(uses_own_bucket, environment.voices)):
        users.append("roles for voices")
    if users:
        yield f"{path('aws')}: missing; without a region there can be no {' and no '.join(users)}"


def _account_faults(environment: Environment, account: str | None) -> Faults:
    administrators = (environment.eks and environment.eks.administrators) or ()
    for index, arn in enumerate(administrators):
        if account is not None and f"::{account}:" not in arn:
            where = path("eks", "administrators", index)
            yield f"{where}: {arn!r} is not of {path('aws', 'accountId')}, {account!r}"


def _name_faults(environment: Environment) -> Faults:
    tenants = [tenant.name for tenant in environment.tenants]
    groups = [group.name for group in environment.eks.node_groups] if environment.eks else []
    yield from _once("tenants", "tenant", tenants)
    yield from _once("eks.nodeGroups", "node group", groups)
    for index, name in enumerate(groups):
        if not DNS_LABEL.fullmatch(name):
            where = path("eks", "nodeGroups", index, "name")
            yield f"{where}: {name!r}; allowed: up to 63 of a-z, 0-9 and '-', as in 'online'"
    for index, name in enumerate(tenants):
        if name in RESERVED_NAMESPACES or name.startswith("kube-"):
            where = path("tenants", index, "name")
            yield f"{where}: {name!r} is a namespace of the cluster or the mesh"
    for index, voice in enumerate(environment.voices):
        if voice.tenant not in tenants:
            where = path("voices", index, "tenant")
            yield f"{where}: {voice.tenant!r} is none of the tenants: {', '.join(tenants)}"
        if voice.name == WORKLOAD_ACCOUNT:
            where = path("voices", index, "name")
            yield f"{where}: {voice.name!r} is the service account that each tenant has already"
    yield from _clashes(environment.voices)


def _once(section: str, what: str, names: Iterable[str]) -> Faults:
    for name in repeated(names):
        yield f"{path()}{section}: {what} {name!r} is there twice"


def _clashes(voices: Iterable[Voice]) -> Faults:
    """Voices of which the components, or the objects of their variants, would be called alike."""
    voices = list(voices)
    whose = [(voice.tenant, voice.name) for voice in voices]
    for tenant, name in repeated(whose):
        yield f"{path('voices')}: tenant {tenant!r} has voice {name!r} twice"
    names = {(tenant, name): f"{tenant}-{name}" for tenant, name in whose}
    for name in repeated(names.values()):
        alike = " and ".join(f"{t!r} with {v!r}" for (t, v), n in names.items() if n == name)
        yield f"{path('voices')}: tenants {alike} would both make {name!r}; rename one of them"


def _host_faults(environment: Environment) -> Faults:
    hosts = environment.gateway.hosts if environment.gateway else ()
    owners = {host.name: host.tenant for host in hosts}
    if environment.owns(Layer.SERVICES):
        tenants = {tenant.name for tenant in environment.tenants}
        for index, host in enumerate(hosts):
            if host.tenant not in tenants:
                where = path("gateway", "hosts", index, "tenant")
                yield f"{where}: {host.tenant!r} is none of the tenants"
    for name in repeated(host for voice in environment.voices for host in voice.hosts):
        yield f"{path('voices')}: host {name!r} leads to two voices"
    for index, voice in enumerate(environment.voices):
        for host_index, host in enumerate(voice.hosts):
            where = path("voices", index, "hosts", host_index)
            if host not in owners:
                yield f"{where}: {host!r} is none of the gateway's hosts"
            elif owners[host] != voice.tenant:
                yield f"{where}: {host!r} belongs to tenant {owners[host]!r}"
    gateway = environment.gateway
    if gateway and gateway.http_node_port and gateway.http_node_port == gateway.https_node_port:
        where = path("gateway", "httpsNodePort")
        yield f"{where}: {gateway.https_node_port} is httpNodePort already"


def _issuer_faults(environment: Environment) -> Faults:
    """Keys of issuers that the proxies of a tenant's pods could not fetch."""
    for issuer_index, issuer in enumerate(token_issuers(environment.identity)):
        if not URL.fullmatch(issuer.jwks_uri):
            continue
        where = path("identity", "issuers", issuer_index, "jwksUri")
        source = KeySource.of(issuer)
        # What is named by its address, tenants may reach without saying so.
        if source.is_address:
            continue
        for index, tenant in enumerate(environment.tenants):
            if source.port not in _ports_outside(tenant):
                egress = path("tenants", index, "network", "egress")
                yield f"{where}: port {source.port} of {source.host!r} is in no entry of {egress}"


def _ports_outside(tenant: Tenant) -> set[int]:
    network = tenant.network or Network()
    ports = {port for entry in network.egress or () for port in entry.ports}
    # By default, any address may be reached there.
    return ports if network.https_cidrs == () else {443, *ports}


def _caller_faults(environment: Environment) -> Faults:
    """Callers in the mesh that a policy of the network would keep away all the same."""
    places = {tenant.name: index for index, tenant in enumerate(environment.tenants)}
    let_in = {
        tenant.name: {tenant.name, *((tenant.network or Network()).caller_namespaces or ())}
        for tenant in environment.tenants
    }
    for index, voice in enumerate(environment.voices):
        for caller_index, caller in enumerate((voice.access or Access()).callers or ()):
            if voice.tenant not in places or not PRINCIPAL.fullmatch(caller):
                continue
            namespace = caller.split("/")[2]
            if namespace not in let_in[voice.tenant]:
                where = path("voices", index, "access", "callers", caller_index)
                callers = path("tenants", places[voice.tenant], "network", "callerNamespaces")
                yield f"{where}: namespace {namespace!r} is not in {callers}"


def _data_faults(environment: Environment) -> Faults:
    with_volume = {tenant.name for tenant in environment.tenants if tenant.volume is not None}
    # What a cluster of another stack comes with, only the running program sees.
    has_bucket = environment.storage is not None or environment.cluster_stack is not None
    has_cluster = environment.cluster is not None or environment.eks is not None
    for index, voice in enumerate(environment.voices):
        yield from _model_faults(index, voice)
        if voice.outputs == "volume" and voice.tenant not in with_volume:
            where = path("voices", index, "outputs")
            yield f"{where}: 'volume', but tenant {voice.tenant!r} has no volume"
        if not has_cluster or not uses_own_bucket(voice):
            continue
        if not has_bucket:
            yield f"{path('storage')}: missing; voice {voice.name!r} keeps models or outputs there"
        if voice.object_storage is None and not environment.runs_on_eks:
            where = path("voices", index, "objectStorage")
            yield f"{where}: missing; without it, pods reach the bucket on EKS only"


def _model_faults(index: int, voice: Voice) -> Faults:
    for place, variant in enumerate(voice.variants):
        model = variant.model
        where = path("voices", index, "variants", place, "model", "uri")
        if model is None:
            continue
        if not is_absolute(model) and not _OWN_MODEL.fullmatch(model.uri):
            yield f"{where}: {model.uri!r} is not 'models/…/' in the own bucket, nor 's3://…/'"
        elif is_absolute(model) and voice.object_storage is None:
            yield (
                f"{where}: {model.uri!r} is in another bucket, which needs objectStorage; "
                "in the own one it begins with 'models/'"
            )
