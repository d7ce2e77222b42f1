"""Who may reach whom: the table that every tenant's NetworkPolicies must come to.

The evaluator holds recorded policies to it, and the end-to-end tests what is enforced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.evaluators.network_policies import Cluster, Party, Protocol

TENANT = "tts"
OTHER_TENANT = "other"


@dataclass(frozen=True)
class Row:
    """One connection, between parties by their names, and whether it comes about."""

    source: str
    target: str
    port: int
    allowed: bool
    protocol: Protocol = "TCP"

    def __str__(self) -> str:
        verb = "reaches" if self.allowed else "does not reach"
        port = f"{self.port}/UDP" if self.protocol == "UDP" else str(self.port)
        return f"{self.source} {verb} {self.target}:{port}"


VOICE_PORTS: Mapping[str, tuple[Protocol, int]] = {"http": ("TCP", 8080)}

PARTIES: Mapping[str, Party] = {
    "voice": Party("10.244.2.1", TENANT, {"app": "speech"}, VOICE_PORTS, "online"),
    "neighbour": Party("10.244.2.2", TENANT, {"app": "second"}, VOICE_PORTS, "online"),
    "other tenant": Party("10.244.2.3", OTHER_TENANT, {"app": "speech"}, VOICE_PORTS, "online"),
    "stranger": Party("10.244.1.1", "somewhere", {"app": "speech"}, node="system"),
    "gateway": Party("10.244.1.2", "istio-ingress", {"istio": "public-gateway"}, node="system"),
    "istiod": Party("10.244.1.3", "istio-system", {"app": "istiod"}, node="system"),
    "mesh dashboard": Party("10.244.1.7", "istio-system", {"app": "kiali"}, node="system"),
    "dns": Party("10.244.1.4", "kube-system", {"k8s-app": "kube-dns"}, node="system"),
    "metrics server": Party("10.244.1.5", "kube-system", {"k8s-app": "metrics-server"}),
    "monitoring": Party("10.244.1.6", "monitoring", {"app": "anything"}, node="system"),
    "own node": Party("10.245.0.12", node="online"),
    "other node": Party("10.245.0.11", node="system"),
    "api server": Party("10.245.0.11", node="system"),
    "pod identity agent": Party("169.254.170.23"),
    "instance metadata": Party("169.254.169.254"),
    "outside": Party("203.0.113.10"),
    "local s3": Party("10.245.0.1"),
}
"""`outside` is S3, KMS, the token issuer, and any other host that is not the cluster's."""

TABLE = (
    # What a voice needs.
    Row("voice", "dns", 53, True, "UDP"),
    Row("voice", "dns", 53, True),
    Row("voice", "istiod", 15012, True),
    Row("voice", "pod identity agent", 80, True),
    Row("voice", "monitoring", 4317, True),
    Row("voice", "monitoring", 4318, True),
    Row("voice", "outside", 443, True),
    Row("voice", "local s3", 4566, True),
    Row("voice", "neighbour", 8080, True),
    Row("voice", "neighbour", 9090, True),
    # What it does not.
    Row("voice", "dns", 9153, False),
    Row("voice", "metrics server", 10250, False),
    Row("voice", "istiod", 15014, False),
    Row("voice", "mesh dashboard", 15012, False),
    Row("voice", "monitoring", 9090, False),
    Row("voice", "gateway", 8080, False),
    Row("voice", "other tenant", 8080, False),
    Row("voice", "other tenant", 443, False),
    Row("voice", "stranger", 8080, False),
    Row("voice", "instance metadata", 80, False),
    Row("voice", "instance metadata", 443, False),
    Row("voice", "pod identity agent", 443, False),
    Row("voice", "api server", 6443, False),
    Row("voice", "other node", 10250, False),
    Row("voice", "outside", 80, False),
    Row("voice", "outside", 53, False, "UDP"),
    Row("voice", "local s3", 22, False),
    # Who reaches a voice.
    Row("gateway", "voice", 8080, True),
    Row("monitoring", "voice", 15020, True),
    Row("own node", "voice", 15021, True),
    Row("own node", "voice", 15020, True),
    # And who does not.
    Row("gateway", "voice", 15020, False),
    Row("gateway", "voice", 15000, False),
    Row("monitoring", "voice", 8080, False),
    Row("istiod", "voice", 8080, False),
    Row("other tenant", "voice", 8080, False),
    Row("stranger", "voice", 8080, False),
    Row("stranger", "voice", 15020, False),
    Row("other node", "voice", 8080, False),
    Row("outside", "voice", 8080, False),
)


def differences(cluster: Cluster, parties: Mapping[str, Party] = PARTIES) -> Iterator[str]:
    """Where a cluster's policies do not come to the table, for the parties that there are."""
    for row in TABLE:
        if row.source in parties and row.target in parties:
            source, target = parties[row.source], parties[row.target]
            if cluster.allows(source, target, row.port, row.protocol) is not row.allowed:
                yield f"not so: {row}"
