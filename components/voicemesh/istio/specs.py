"""The fields of Istio's specs that the components write, under their names on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

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


class HttpMatch(TypedDict, total=False):
    uri: StringMatch
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


class HttpRoute(TypedDict, total=False):
    match: Sequence[HttpMatch]
    route: Sequence[WeightedDestination]
    retries: Retries


class VirtualServiceSpec(TypedDict):
    hosts: Sequence[Text]
    gateways: Sequence[Text]
    http: Sequence[HttpRoute]


class LocalityLoadBalancing(TypedDict, total=False):
    enabled: bool
    failoverPriority: Sequence[str]


class LoadBalancer(TypedDict):
    simple: Literal["LEAST_REQUEST", "ROUND_ROBIN"]
    localityLbSetting: LocalityLoadBalancing


class TcpConnectionPool(TypedDict):
    maxConnections: int
    connectTimeout: str


class HttpConnectionPool(TypedDict):
    http1MaxPendingRequests: int
    http2MaxRequests: int


class ConnectionPool(TypedDict):
    tcp: TcpConnectionPool
    http: HttpConnectionPool


class OutlierDetection(TypedDict):
    consecutive5xxErrors: int
    interval: str
    baseEjectionTime: str
    maxEjectionPercent: int


class TrafficPolicy(TypedDict, total=False):
    loadBalancer: LoadBalancer
    connectionPool: ConnectionPool
    outlierDetection: OutlierDetection


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
