"""Whether NetworkPolicies let one party connect to another, by what their specification says.

https://kubernetes.io/docs/concepts/services-networking/network-policies/ and the API reference of
NetworkPolicySpec. Where both leave it open, this decides as kube-network-policies and the policy
agent of Amazon's VPC CNI do: an ipBlock matches by address alone, pods included. A policy sees a
pod's address, not a Service's; the VPC CNI sees that of a Service, which is no party here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Literal

Protocol = Literal["TCP", "UDP", "SCTP"]
Object = Mapping[str, Any]

_NAME_LABEL = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class Party:
    """One end of a connection: a pod, a node, or an address outside the cluster."""

    address: str
    namespace: str | None = None
    """The pod's; None for what is no pod."""

    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, tuple[Protocol, int]] = field(default_factory=dict)
    """The pod's container ports that have names."""

    node: str | None = None
    """The node that it is, or on which the pod runs."""


@dataclass(frozen=True)
class Cluster:
    """NetworkPolicies, and the namespaces that they speak of."""

    policies: Sequence[Object]
    """As the API server gives them, or as they were sent to it."""

    namespaces: Mapping[str, Mapping[str, str]]
    """Labels of each namespace, besides the one with its name that Kubernetes adds."""

    def allows(self, source: Party, target: Party, port: int, protocol: Protocol = "TCP") -> bool:
        """Whether a connection comes about: the source may go out, and the target let it in."""
        is_itself = source.address == target.address
        return is_itself or (
            self._permits("Egress", source, target, target, port, protocol)
            and self._permits("Ingress", target, source, target, port, protocol)
        )

    def _permits(
        self,
        direction: Literal["Ingress", "Egress"],
        subject: Party,
        peer: Party,
        target: Party,
        port: int,
        protocol: Protocol,
    ) -> bool:
        policies = [
            policy
            for policy in self.policies
            if direction in _policy_types(policy) and self._selects(policy, subject)
        ]
        is_own_node = peer.namespace is None and peer.node is not None and peer.node == subject.node
        if not policies or is_own_node:
            return True
        section, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
        return any(
            self._matches_any(rule.get(peers) or [], peer, _namespace(policy))
            and _opens(rule.get("ports") or [], target, port, protocol)
            for policy in policies
            for rule in _rules(policy, section, peers)
        )

    def _selects(self, policy: Object, pod: Party) -> bool:
        here = pod.namespace is not None and pod.namespace == _namespace(policy)
        return here and selects(policy["spec"].get("podSelector") or {}, pod.labels)

    def _matches_any(self, peers: Sequence[Object], party: Party, namespace: str) -> bool:
        return not peers or any(self._matches(peer, party, namespace) for peer in peers)

    def _matches(self, peer: Object, party: Party, namespace: str) -> bool:
        _refuse_unknown(peer, "podSelector", "namespaceSelector", "ipBlock")
        if "ipBlock" in peer:
            _refuse_unknown(peer, "ipBlock")
            return _contains(peer["ipBlock"], party.address)
        if party.namespace is None:
            return False
        if "namespaceSelector" in peer:
            in_namespace = selects(peer["namespaceSelector"], self._labels_of(party.namespace))
        else:
            in_namespace = party.namespace == namespace
        return in_namespace and selects(peer.get("podSelector", {}), party.labels)

    def _labels_of(self, namespace: str) -> dict[str, str]:
        return {**self.namespaces[namespace], _NAME_LABEL: namespace}


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector selects something with certain labels; an empty one selects all."""
    _refuse_unknown(selector, "matchLabels", "matchExpressions")
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []
    return wanted.items() <= labels.items() and all(_holds(it, labels) for it in expressions)


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case other:
            raise ValueError(f"operator: {other!r} is none of a LabelSelector's")


def _policy_types(policy: Object) -> Iterable[str]:
    spec = policy["spec"]
    _refuse_unknown(spec, "podSelector", "policyTypes", "ingress", "egress")
    derived = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    return spec.get("policyTypes") or derived


def _rules(policy: Object, section: str, peers: str) -> Sequence[Object]:
    rules = policy["spec"].get(section) or []
    for rule in rules:
        _refuse_unknown(rule, peers, "ports")
    return rules


def _namespace(policy: Object) -> str:
    return policy["metadata"].get("namespace", "default")


def _contains(block: Object, address: str) -> bool:
    _refuse_unknown(block, "cidr", "except")
    ip = ip_address(address)
    excepted = block.get("except") or []
    return ip in ip_network(block["cidr"]) and not any(ip in ip_network(it) for it in excepted)


def _opens(ports: Sequence[Object], target: Party, port: int, protocol: Protocol) -> bool:
    return not ports or any(_is_port(it, target, port, protocol) for it in ports)


def _is_port(entry: Object, target: Party, port: int, protocol: Protocol) -> bool:
    _refuse_unknown(entry, "port", "endPort", "protocol")
    if entry.get("protocol", "TCP") != protocol:
        return False
    first = entry.get("port")
    if first is None:
        return True
    if isinstance(first, str):
        return target.ports.get(first) == (protocol, port)
    return first <= port <= entry.get("endPort", first)


def _refuse_unknown(thing: Object, *known: str) -> None:
    """What this does not know must not be taken for nothing."""
    unknown = sorted(thing.keys() - set(known))
    if unknown:
        raise ValueError(f"{unknown[0]}: not among {', '.join(known)}")
