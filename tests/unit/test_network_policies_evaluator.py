"""The evaluator of NetworkPolicies says what Kubernetes' documentation says.

The examples are those of https://kubernetes.io/docs/concepts/services-networking/network-policies/,
each with what that page says about it; the properties are those that follow from policies being
additive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluators.network_policies import Cluster, Party, Protocol, selects

NAMESPACES = {
    "default": {},
    "mine": {"project": "myproject", "user": "alice"},
    "frontend": {"namespace": "frontend"},
    "backend": {"namespace": "backend"},
}
OUTSIDE = Party("203.0.113.7")


def pod(address: str, namespace: str = "default", **labels: str) -> Party:
    return Party(address, namespace, labels)


def cluster(*manifests: str) -> Cluster:
    return Cluster([yaml.safe_load(manifest) for manifest in manifests], NAMESPACES)


DB = pod("10.244.0.1", role="db")
WEB = pod("10.244.0.2", role="web")
FRONTEND = pod("10.244.0.3", role="frontend")
OF_PROJECT = pod("10.244.0.4", "mine", role="anything")

# "The NetworkPolicy resource"
TEST_NETWORK_POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: test-network-policy, namespace: default}
spec:
  podSelector: {matchLabels: {role: db}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}
    - namespaceSelector: {matchLabels: {project: myproject}}
    - podSelector: {matchLabels: {role: frontend}}
    ports: [{protocol: TCP, port: 6379}]
  egress:
  - to: [{ipBlock: {cidr: 10.0.0.0/24}}]
    ports: [{protocol: TCP, port: 5978}]
"""


@pytest.mark.parametrize(
    ("source", "target", "port", "allowed"),
    [
        # "any pod in the default namespace with the label role=frontend"
        (FRONTEND, DB, 6379, True),
        (replace(FRONTEND, namespace="backend"), DB, 6379, False),
        (WEB, DB, 6379, False),
        # "any pod in a namespace with the label project=myproject"
        (OF_PROJECT, DB, 6379, True),
        # "IP addresses in the ranges 172.17.0.0–172.17.0.255 and 172.17.2.0–172.17.255.255"
        (Party("172.17.0.0"), DB, 6379, True),
        (Party("172.17.0.255"), DB, 6379, True),
        (Party("172.17.1.0"), DB, 6379, False),
        (Party("172.17.1.255"), DB, 6379, False),
        (Party("172.17.2.0"), DB, 6379, True),
        (Party("172.17.255.255"), DB, 6379, True),
        (Party("172.18.0.0"), DB, 6379, False),
        # "allows connections ... to TCP port 6379"
        (FRONTEND, DB, 6380, False),
        # "allows connections from any pod ... with the label role=db to CIDR 10.0.0.0/24 on TCP
        # port 5978"
        (DB, Party("10.0.0.255"), 5978, True),
        (DB, Party("10.0.1.0"), 5978, False),
        (DB, Party("10.0.0.1"), 5979, False),
        # "isolates "role=db" pods", and no others
        (OUTSIDE, WEB, 80, True),
        (WEB, OUTSIDE, 80, True),
    ],
)
def test_the_policy_of_the_first_example(
    source: Party, target: Party, port: int, allowed: bool
) -> None:
    assert cluster(TEST_NETWORK_POLICY).allows(source, target, port) is allowed


def test_a_rule_for_tcp_says_nothing_for_udp() -> None:
    assert not cluster(TEST_NETWORK_POLICY).allows(FRONTEND, DB, 6379, "UDP")


# "Behavior of to and from selectors": "a single from element" against "two elements in the from
# array".
BOTH = """
metadata: {name: both, namespace: default}
spec:
  podSelector: {}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {user: alice}}
      podSelector: {matchLabels: {role: client}}
"""
EITHER = """
metadata: {name: either, namespace: default}
spec:
  podSelector: {}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {user: alice}}
    - podSelector: {matchLabels: {role: client}}
"""


@pytest.mark.parametrize(
    ("source", "both", "either"),
    [
        (pod("10.244.0.5", "mine", role="client"), True, True),
        (pod("10.244.0.5", "mine"), False, True),
        (pod("10.244.0.5", "default", role="client"), False, True),
        (pod("10.244.0.5", "backend", role="client"), False, False),
    ],
)
def test_one_entry_with_two_selectors_asks_for_both(
    source: Party, both: bool, either: bool
) -> None:
    assert cluster(BOTH).allows(source, WEB, 80) is both
    assert cluster(EITHER).allows(source, WEB, 80) is either


DENY_INGRESS = """
metadata: {name: default-deny-ingress, namespace: default}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""
ALLOW_INGRESS = """
metadata: {name: allow-all-ingress, namespace: default}
spec: {podSelector: {}, ingress: [{}], policyTypes: [Ingress]}
"""
DENY_EGRESS = """
metadata: {name: default-deny-egress, namespace: default}
spec: {podSelector: {}, policyTypes: [Egress]}
"""
ALLOW_EGRESS = """
metadata: {name: allow-all-egress, namespace: default}
spec: {podSelector: {}, egress: [{}], policyTypes: [Egress]}
"""
DENY_ALL = """
metadata: {name: default-deny-all, namespace: default}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
"""


@pytest.mark.parametrize(
    ("manifests", "in_", "out"),
    [
        # "By default, if no policies exist in a namespace, then all ingress and egress traffic is
        # allowed"
        ([], True, True),
        # "This policy does not change the default egress isolation behavior."
        ([DENY_INGRESS], False, True),
        # "to allow all traffic [...] (even if policies are added that cause some pods to be treated
        # as isolated)"
        ([DENY_INGRESS, ALLOW_INGRESS], True, True),
        # "This policy does not change the default ingress isolation behavior."
        ([DENY_EGRESS], True, False),
        ([DENY_EGRESS, ALLOW_EGRESS], True, True),
        ([DENY_ALL], False, False),
        ([DENY_ALL, ALLOW_INGRESS], True, False),
    ],
)
def test_the_default_policies(manifests: list[str], in_: bool, out: bool) -> None:
    policies = cluster(*manifests)
    assert policies.allows(OUTSIDE, WEB, 80) is in_
    assert policies.allows(WEB, OUTSIDE, 80) is out
    # "in that namespace"
    assert policies.allows(OUTSIDE, OF_PROJECT, 80)


def test_both_ends_must_allow_a_connection() -> None:
    """The egress policies of the source and the ingress policies of the destination."""
    for closed in (DENY_INGRESS, DENY_EGRESS):
        assert not cluster(closed).allows(WEB, DB, 80)
    assert cluster(DENY_ALL, ALLOW_INGRESS, ALLOW_EGRESS).allows(WEB, DB, 80)


# "Targeting a range of ports"
PORT_RANGE = """
metadata: {name: multi-port-egress, namespace: default}
spec:
  podSelector: {matchLabels: {role: db}}
  policyTypes: [Egress]
  egress:
  - to: [{ipBlock: {cidr: 10.0.0.0/24}}]
    ports: [{protocol: TCP, port: 32000, endPort: 32768}]
"""


@pytest.mark.parametrize(
    ("port", "allowed"), [(31999, False), (32000, True), (32768, True), (32769, False)]
)
def test_a_range_of_ports_includes_both_ends(port: int, allowed: bool) -> None:
    assert cluster(PORT_RANGE).allows(DB, Party("10.0.0.9"), port) is allowed


# "Targeting multiple namespaces by label"
SEVERAL_NAMESPACES = """
metadata: {name: egress-namespaces, namespace: default}
spec:
  podSelector: {matchLabels: {role: web}}
  policyTypes: [Egress]
  egress:
  - to:
    - namespaceSelector:
        matchExpressions: [{key: namespace, operator: In, values: [frontend, backend]}]
"""
# "Targeting a Namespace by its name": the label is there without anyone setting it.
BY_NAME = """
metadata: {name: by-name, namespace: default}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: backend}}}]
"""


def test_namespaces_are_selected_by_expression_and_by_name() -> None:
    reached = {
        name: [
            cluster(manifest).allows(WEB, pod("10.244.1.1", name), 80)
            for manifest in (SEVERAL_NAMESPACES, BY_NAME)
        ]
        for name in NAMESPACES
    }
    assert reached == {
        "default": [False, False],
        "mine": [False, False],
        "frontend": [True, False],
        "backend": [True, True],
    }


@pytest.mark.parametrize(
    ("operator", "values", "selected"),
    [
        ("In", ["a"], ["a"]),
        ("NotIn", ["a"], ["b", "none"]),
        ("Exists", None, ["a", "b"]),
        ("DoesNotExist", None, ["none"]),
    ],
)
def test_expressions_select(operator: str, values: list[str] | None, selected: list[str]) -> None:
    """NotIn selects what has no such label as well.
    https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/"""
    expression = {"key": "env", "operator": operator, "values": values}
    labels = {"a": {"env": "a"}, "b": {"env": "b"}, "none": {}}
    found = [name for name in labels if selects({"matchExpressions": [expression]}, labels[name])]
    assert found == selected


# "If no policyTypes are specified on a NetworkPolicy then by default Ingress will always be set and
# Egress will be set if the NetworkPolicy has any egress rules."
@pytest.mark.parametrize(
    ("spec", "in_", "out"),
    [
        ({"podSelector": {}}, False, True),
        ({"podSelector": {}, "ingress": [{}]}, True, True),
        ({"podSelector": {}, "egress": [{}]}, False, True),
        (
            {"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
            False,
            False,
        ),
        # An empty section is no section: Kubernetes' own defaults ask for its length.
        ({"podSelector": {}, "egress": []}, False, True),
    ],
)
def test_policy_types_that_are_not_said_are_derived(
    spec: Mapping[str, Any], in_: bool, out: bool
) -> None:
    policies = Cluster([{"metadata": {"namespace": "default"}, "spec": spec}], NAMESPACES)
    assert policies.allows(OUTSIDE, WEB, 80) is in_
    assert policies.allows(WEB, OUTSIDE, 80) is out


NAMED_PORT = """
metadata: {name: named, namespace: default}
spec:
  podSelector: {}
  ingress: [{ports: [{port: http}]}]
"""


def test_a_named_port_is_the_target_pods_own() -> None:
    server = replace(WEB, ports={"http": ("TCP", 8080)})
    assert cluster(NAMED_PORT).allows(OUTSIDE, server, 8080)
    assert not cluster(NAMED_PORT).allows(OUTSIDE, server, 80)
    assert not cluster(NAMED_PORT).allows(OUTSIDE, WEB, 8080)
    over_udp = replace(WEB, ports={"http": ("UDP", 8080)})
    assert not cluster(NAMED_PORT).allows(OUTSIDE, over_udp, 8080)


def test_what_no_policy_can_deny() -> None:
    """A pod's access to itself, and traffic to and from the node on which it runs."""
    here = replace(WEB, node="one")
    policies = cluster(DENY_ALL)
    assert policies.allows(here, here, 80)
    assert policies.allows(Party("192.168.0.1", node="one"), here, 80)
    assert policies.allows(here, Party("192.168.0.1", node="one"), 80)
    assert not policies.allows(Party("192.168.0.2", node="two"), here, 80)
    assert not policies.allows(replace(DB, node="one"), here, 80)


@pytest.mark.parametrize(
    "spec",
    [
        {"podSelector": {}, "egres": [{}]},
        {"podSelector": {"matchLabel": {}}},
        {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}},
        {"podSelector": {}, "ingress": [{"from": [{"serviceAccountSelector": {}}]}]},
        {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "::/0", "not": []}}]}]},
        {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {}, "podSelector": {}}]}]},
        {"podSelector": {}, "ingress": [{"ports": [{"portRange": "1-2"}]}]},
        {"podSelector": {}, "ingress": [{"form": []}]},
    ],
)
def test_what_is_not_understood_is_refused(spec: Mapping[str, Any]) -> None:
    policies = Cluster([{"metadata": {"namespace": "default"}, "spec": spec}], NAMESPACES)
    with pytest.raises(ValueError, match=r"not among|is none of"):
        policies.allows(WEB, DB, 80)


PARTIES = [
    Party(f"10.244.{number}.{len(role)}", namespace, {"role": role}, {role: ("TCP", 80)})
    for number, namespace in enumerate(NAMESPACES)
    for role in ("db", "web")
]
parties = st.sampled_from([*PARTIES, OUTSIDE, Party("10.244.0.99")])
port_numbers = st.sampled_from([79, 80, 81])
protocols: st.SearchStrategy[Protocol] = st.sampled_from(("TCP", "UDP"))
pod_selectors = st.one_of(
    st.just({}),
    st.builds(lambda role: {"matchLabels": {"role": role}}, st.sampled_from(["db", "web"])),
    st.just({"matchExpressions": [{"key": "role", "operator": "NotIn", "values": ["db"]}]}),
)
namespace_selectors = st.sampled_from([{}, {"matchLabels": {"user": "alice"}}])
blocks = st.builds(
    lambda cidr, hole: {
        "ipBlock": {"cidr": cidr, **({"except": ["10.244.0.0/24"]} if hole else {})}
    },
    st.sampled_from(["0.0.0.0/0", "10.0.0.0/8"]),
    st.booleans(),
)
peers = st.one_of(
    blocks,
    st.fixed_dictionaries({"podSelector": pod_selectors}),
    st.fixed_dictionaries(
        {"namespaceSelector": namespace_selectors}, optional={"podSelector": pod_selectors}
    ),
)
port_entries = st.one_of(
    st.fixed_dictionaries({"protocol": protocols}),
    st.fixed_dictionaries({"port": port_numbers, "protocol": protocols}),
    st.just({"port": 79, "endPort": 80}),
    st.just({"port": "db"}),
)


def rules(peers_key: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    rule = st.fixed_dictionaries(
        {},
        optional={
            peers_key: st.lists(peers, max_size=2),
            "ports": st.lists(port_entries, max_size=2),
        },
    )
    return st.lists(rule, max_size=2)


policies = st.builds(
    lambda namespace, spec: {"metadata": {"namespace": namespace}, "spec": spec},
    st.sampled_from(list(NAMESPACES)),
    st.fixed_dictionaries(
        {"podSelector": pod_selectors},
        optional={
            "ingress": rules("from"),
            "egress": rules("to"),
            "policyTypes": st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
        },
    ),
)
several = st.lists(policies, max_size=4)
DENY_EVERYWHERE = [
    {
        "metadata": {"namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }
    for namespace in NAMESPACES
]


def allowed(given_policies: list[Any], *connection: Any) -> bool:
    return Cluster(given_policies, NAMESPACES).allows(*connection)


@given(several, policies, parties, parties, port_numbers, protocols)
def test_where_everything_is_denied_a_further_policy_never_takes_access_away(
    some: list[Any], further: Any, source: Party, target: Party, port: int, protocol: Protocol
) -> None:
    before = [*DENY_EVERYWHERE, *some]
    if allowed(before, source, target, port, protocol):
        assert allowed([*before, further], source, target, port, protocol)


@given(several, policies, parties, parties, port_numbers, protocols)
def test_a_policy_gives_nothing_that_no_policy_would_not_give(
    some: list[Any], denying: Any, source: Party, target: Party, port: int, protocol: Protocol
) -> None:
    closed = {**denying, "spec": {**denying["spec"], "ingress": [], "egress": []}}
    if allowed([*some, closed], source, target, port, protocol):
        assert allowed(some, source, target, port, protocol)


@given(several, st.randoms(), parties, parties, port_numbers, protocols)
def test_order_and_repetition_do_not_matter(
    some: list[Any], order: Any, source: Party, target: Party, port: int, protocol: Protocol
) -> None:
    shuffled = [*some, *some]
    order.shuffle(shuffled)
    connection = (source, target, port, protocol)
    assert allowed(shuffled, *connection) is allowed(some, *connection)


@given(several, parties, parties, port_numbers, protocols)
def test_rules_of_one_policy_may_as_well_be_policies_of_their_own(
    some: list[Any], source: Party, target: Party, port: int, protocol: Protocol
) -> None:
    apart = [part for policy in some for part in split(policy)]
    connection = (source, target, port, protocol)
    assert allowed(apart, *connection) is allowed(some, *connection)


def split(policy: Any) -> list[Any]:
    """One policy for each rule, and one that isolates as the whole did."""
    spec = policy["spec"]
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    base = {"podSelector": spec["podSelector"], "policyTypes": types}
    parts = [
        {**base, section: [rule]}
        for section in ("ingress", "egress")
        for rule in spec.get(section, [])
    ]
    return [{"metadata": policy["metadata"], "spec": part} for part in [base, *parts]]
