"""The fields of Istio's specs that the components write, under their names on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import pulumi

Text = pulumi.Input[str]


class Port(TypedDict):
    number: int
    name: str
    protocol: Literal["HTTP", "HTTPS"]


class ServerTls(TypedDict, total=False):
    mode: Literal["SIMPLE", "MUTUAL"]
    credentialName: Text
    minProtocolVersion: Literal["TLSV1_2", "TLSV1_3"]
    httpsRedirect: bool


class Server(TypedDict, total=False):
    port: Port
    hosts: Sequence[Text]
    tls: ServerTls


class GatewaySpec(TypedDict):
    selector: dict[str, Text]
    servers: Sequence[Server]


class StringMatch(TypedDict, total=False):
    exact: str
    prefix: str
    regex: str


class HttpMatch(TypedDict, total=False):
    uri: StringMatch
    method: StringMatch
    headers: dict[str, StringMatch]


class Destination(TypedDict):
    host: Text
    subset: str


class WeightedDestination(TypedDict):
    destination: Destination
    weight: int


class Retries(TypedDict):
    attempts: int
    retryOn: str
    retryIgnorePreviousHosts: bool


class Percentage(TypedDict):
    value: float


class Mirror(TypedDict):
    destination: Destination
    percentage: Percentage


class HeaderChanges(TypedDict, total=False):
    set: dict[str, str]
    remove: Sequence[str]


class HeaderOperations(TypedDict, total=False):
    request: HeaderChanges
    response: HeaderChanges


class CorsPolicy(TypedDict, total=False):
    allowOrigins: Sequence[StringMatch]
    allowMethods: Sequence[str]
    allowHeaders: Sequence[str]
    exposeHeaders: Sequence[str]
    maxAge: str
    unmatchedPreflights: Literal["FORWARD", "IGNORE"]


class HttpRoute(TypedDict, total=False):
    headers: HeaderOperations
    corsPolicy: CorsPolicy
    name: str
    match: Sequence[HttpMatch]
    route: Sequence[WeightedDestination]
    mirrors: Sequence[Mirror]
    retries: Retries


class VirtualServiceSpec(TypedDict):
    hosts: Sequence[Text]
    gateways: Sequence[Text]
    http: Sequence[HttpRoute]


class LocalityLoadBalancing(TypedDict, total=False):
    enabled: bool
    failoverPriority: Sequence[str]


class Warmup(TypedDict):
    duration: str


class Maglev(TypedDict):
    tableSize: int


class ConsistentHash(TypedDict):
    httpHeaderName: str
    maglev: Maglev


class LoadBalancer(TypedDict, total=False):
    simple: Literal["LEAST_REQUEST", "ROUND_ROBIN"]
    consistentHash: ConsistentHash
    localityLbSetting: LocalityLoadBalancing
    warmup: Warmup


class TcpKeepalive(TypedDict):
    time: str
    interval: str
    probes: int


class TcpConnectionPool(TypedDict):
    maxConnections: int
    connectTimeout: str
    tcpKeepalive: TcpKeepalive


class HttpConnectionPool(TypedDict, total=False):
    http1MaxPendingRequests: int
    http2MaxRequests: int
    maxRequestsPerConnection: int


class ConnectionPool(TypedDict):
    tcp: TcpConnectionPool
    http: HttpConnectionPool


class OutlierDetection(TypedDict):
    consecutive5xxErrors: int
    interval: str
    baseEjectionTime: str
    maxEjectionPercent: int
    minHealthPercent: int


class RetryBudget(TypedDict):
    percent: float
    minRetryConcurrency: int


class ClientTls(TypedDict, total=False):
    mode: Literal["SIMPLE"]
    caCertificates: str
    sni: str
    subjectAltNames: Sequence[str]


class PortNumber(TypedDict):
    number: int


class PortTrafficPolicy(TypedDict):
    port: PortNumber
    tls: ClientTls


class TrafficPolicy(TypedDict, total=False):
    portLevelSettings: Sequence[PortTrafficPolicy]
    loadBalancer: LoadBalancer
    connectionPool: ConnectionPool
    outlierDetection: OutlierDetection
    retryBudget: RetryBudget


class Subset(TypedDict):
    name: str
    labels: dict[str, str]
    trafficPolicy: TrafficPolicy


class DestinationRuleSpec(TypedDict):
    host: Text
    trafficPolicy: TrafficPolicy
    subsets: Sequence[Subset]


class MutualTls(TypedDict):
    mode: Literal["STRICT", "PERMISSIVE"]


class PeerAuthenticationSpec(TypedDict):
    mtls: MutualTls


class WorkloadSelector(TypedDict):
    matchLabels: dict[str, Text]


class JwtRule(TypedDict, total=False):
    issuer: str
    jwksUri: str
    audiences: Sequence[str]
    forwardOriginalToken: bool


class RequestAuthenticationSpec(TypedDict):
    selector: WorkloadSelector
    jwtRules: Sequence[JwtRule]


class RequestSource(TypedDict, total=False):
    principals: Sequence[Text]
    notPrincipals: Sequence[Text]
    requestPrincipals: Sequence[str]
    notRequestPrincipals: Sequence[str]


class Operation(TypedDict, total=False):
    hosts: Sequence[str]
    methods: Sequence[str]
    notMethods: Sequence[str]
    paths: Sequence[str]
    notPaths: Sequence[str]
    ports: Sequence[str]
    notPorts: Sequence[str]


class From(TypedDict):
    source: RequestSource


class To(TypedDict):
    operation: Operation


class Condition(TypedDict, total=False):
    key: str
    values: Sequence[str]
    notValues: Sequence[str]


# `from` is a keyword of Python.
AuthorizationRule = TypedDict(
    "AuthorizationRule",
    {"from": Sequence[From], "to": Sequence[To], "when": Sequence[Condition]},
    total=False,
)


class ExtensionProvider(TypedDict):
    name: str


class AuthorizationPolicySpec(TypedDict, total=False):
    selector: WorkloadSelector
    action: Literal["ALLOW", "DENY", "CUSTOM"]
    provider: ExtensionProvider
    rules: Sequence[AuthorizationRule]


class ServicePort(TypedDict, total=False):
    number: int
    name: str
    protocol: Literal["HTTP", "TLS"]
    targetPort: int


class Endpoint(TypedDict):
    address: str


class ServiceEntrySpec(TypedDict, total=False):
    hosts: Sequence[str]
    addresses: Sequence[str]
    ports: Sequence[ServicePort]
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"]
    resolution: Literal["NONE", "STATIC", "DNS"]
    endpoints: Sequence[Endpoint]
    exportTo: Sequence[str]


class EnvoyWorkloadSelector(TypedDict):
    labels: dict[str, Text]


class ConfigPatch(TypedDict):
    applyTo: Literal[
        "CLUSTER", "HTTP_FILTER", "HTTP_ROUTE", "LISTENER", "NETWORK_FILTER", "VIRTUAL_HOST"
    ]
    match: dict[str, Any]
    patch: dict[str, Any]


class EnvoyFilterSpec(TypedDict, total=False):
    workloadSelector: EnvoyWorkloadSelector
    configPatches: Sequence[ConfigPatch]
    priority: int
