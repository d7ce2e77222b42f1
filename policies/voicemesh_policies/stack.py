"""What only a stack as a whole shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from voicemesh_policies.aws import CLUSTER
from voicemesh_policies.gpu import ACCELERATOR_LABEL, NODE_GROUP, NODE_TYPE_LABEL, quotas
from voicemesh_policies.instances import (
    CONTROL_PLANE_PRICE,
    GPUS,
    HOURS_PER_MONTH,
    NAT_GATEWAY_PRICE,
    PRICES,
    SLICES,
)
from voicemesh_policies.objects import LONG_RUNNING, Resource, Stack, judged
from voicemesh_policies.rule import Concern, Config, Severity
from voicemesh_policies.view import Finding
from voicemesh_policies.workloads import PRIVILEGED

CONCERN: Final = Concern("stack")

_TENANCY: Final = "EKS Best Practices, multi-tenancy"
_TENANCY_LINK: Final = "https://kubernetes.io/docs/concepts/security/multi-tenancy/"
_NAT_GATEWAY: Final = "aws:ec2/natGateway:NatGateway"
_ROOT_NAMESPACE: Final = "istio-system"
_LABEL: Final = {
    "namespaceLabel": {
        "type": "string",
        "default": "voicemesh.io/tenant",
        "description": "Label of the namespaces that this is asked of; empty: all of them",
    }
}


def _tenants(stack: Stack, config: Config) -> list[Resource]:
    label = config.text("namespaceLabel")
    every = stack.of("Namespace")
    return [it for it in every if not label or it.props.at("metadata.labels")[label].text]


def _missing(namespace: Resource, kind: str, problem: str) -> Finding:
    return namespace.found(Finding(kind, "missing", f"{problem} {namespace.object_name}"))


@CONCERN.stack_rule(
    kinds={"Namespace"},
    severity=Severity.HIGH,
    what="Every tenant's namespace has a quota of CPU, memory and pods.",
    why="One tenant could otherwise fill the cluster, by a loop in a pipeline for instance.",
    fix="declare a ResourceQuota in it with requests.cpu, requests.memory and pods",
    framework=_TENANCY,
    link=_TENANCY_LINK,
    config=_LABEL,
)
def namespaces_have_a_quota(stack: Stack, config: Config) -> Iterator[Finding]:
    def judge(namespace: Resource) -> Iterator[Finding]:
        found = stack.within(namespace.object_name, "ResourceQuota")
        bounded = {key for it in found for key, _ in it.spec["hard"].entries}
        bounded |= {f"requests.{key}" for key in bounded & {"cpu", "memory"}}
        for key in ("requests.cpu", "requests.memory", "pods"):
            if key not in bounded:
                yield _missing(namespace, f"ResourceQuota {key}", "bounds nothing in namespace")

    yield from judged(_tenants(stack, config), judge)


@CONCERN.stack_rule(
    kinds={"Namespace"},
    severity=Severity.MEDIUM,
    what="Every tenant's namespace has defaults for containers that name no resources.",
    why="With a quota but no LimitRange, the API server refuses the pods of anything that leaves "
    "its requests out, sidecars and debugging containers included.",
    fix="declare a LimitRange in it, of type Container with defaultRequest and default",
    framework=_TENANCY,
    link=_TENANCY_LINK,
    config=_LABEL,
)
def namespaces_have_limits(stack: Stack, config: Config) -> Iterator[Finding]:
    def judge(namespace: Resource) -> Iterator[Finding]:
        found = stack.within(namespace.object_name, "LimitRange")
        limits = [limit for it in found for limit in it.spec["limits"].items]
        if not any(it["defaultRequest"].entries for it in limits):
            yield _missing(namespace, "LimitRange", "gives no defaults in namespace")

    yield from judged(_tenants(stack, config), judge)


@CONCERN.stack_rule(
    kinds={"Namespace"},
    severity=Severity.HIGH,
    what="Every tenant's namespace denies traffic that nothing allows.",
    why="Without a policy every pod of every tenant may connect to every other.",
    fix="declare a NetworkPolicy in it with podSelector: {} and policyTypes: [Ingress, Egress]",
    framework="NSA and CISA Kubernetes Hardening Guide",
    link="https://kubernetes.io/docs/concepts/services-networking/network-policies/",
    config=_LABEL,
)
def namespaces_deny_traffic(stack: Stack, config: Config) -> Iterator[Finding]:
    def judge(namespace: Resource) -> Iterator[Finding]:
        denied: set[str] = set()
        for policy in stack.within(namespace.object_name, "NetworkPolicy"):
            spec = policy.spec
            everything = spec["podSelector"].present and not spec["podSelector"].entries
            for direction, key in (("Ingress", "ingress"), ("Egress", "egress")):
                if everything and direction in spec["policyTypes"].texts and not spec[key].items:
                    denied.add(direction)
        for direction in sorted({"Ingress", "Egress"} - denied):
            yield _missing(namespace, f"NetworkPolicy for {direction}", "isolates nothing in")

    yield from judged(_tenants(stack, config), judge)


@CONCERN.stack_rule(
    kinds={"Namespace"},
    severity=Severity.CRITICAL,
    what="Every tenant's namespace takes mutual TLS only, by a policy of its own or of the mesh.",
    why="Istio lets plain text in unless a PeerAuthentication says STRICT.",
    fix=f"declare a PeerAuthentication with mode STRICT in {_ROOT_NAMESPACE}, or in the namespace",
    framework="NIST SP 800-204B",
    link="https://istio.io/latest/docs/reference/config/security/peer_authentication/",
    config=_LABEL,
)
def namespaces_have_mutual_tls(stack: Stack, config: Config) -> Iterator[Finding]:
    root = [it for it in stack.of("Namespace") if it.object_name == _ROOT_NAMESPACE]
    if not root or _is_strict(stack, _ROOT_NAMESPACE):
        # Where the mesh is another stack's, so is its policy.
        return

    def judge(namespace: Resource) -> Iterator[Finding]:
        if not _is_strict(stack, namespace.object_name):
            yield _missing(namespace, "PeerAuthentication", "asks for no certificate in namespace")

    yield from judged(_tenants(stack, config), judge)


def _is_strict(stack: Stack, namespace: str) -> bool:
    """Whether a policy for all pods of a namespace is there; which mode it has is a rule's own."""
    found = stack.within(namespace, "PeerAuthentication")
    return any(not it.spec["selector"].entries for it in found)


@CONCERN.rule(
    kinds={"Namespace"},
    severity=Severity.HIGH,
    what="Namespaces enforce the restricted Pod Security Standard.",
    why="What keeps a privileged pod out is the namespace's label, not the good will of manifests.",
    fix="set the label pod-security.kubernetes.io/enforce: restricted",
    framework="Kubernetes Pod Security Standards, restricted",
    link="https://kubernetes.io/docs/concepts/security/pod-security-admission/",
    config=PRIVILEGED,
)
def namespaces_are_restricted(resource: Resource, config: Config) -> Iterator[Finding]:
    enforced = resource.props.at("metadata.labels")["pod-security.kubernetes.io/enforce"]
    if resource.object_name not in config.texts("privileged") and enforced.text != "restricted":
        yield enforced.wrong("lets in pods that the standard refuses")


@CONCERN.stack_rule(
    kinds={"ResourceQuota"},
    severity=Severity.HIGH,
    what="Workloads at their largest fit into the quota of GPUs of their namespace.",
    why="An autoscaler that runs into the quota leaves requests waiting, with GPUs idle beside it.",
    fix="raise the quota, or lower maxReplicas",
    framework=_TENANCY,
    link="https://kubernetes.io/docs/concepts/policy/resource-quotas/",
)
def gpus_fit_their_quota(stack: Stack, config: Config) -> Iterator[Finding]:
    del config

    def judge(quota: Resource) -> Iterator[Finding]:
        needed = _needed(stack, stack.workloads(quota.namespace))
        for name, amount in quotas(stack, quota.namespace).items():
            most = amount.quantity or 0.0
            is_its = quota.spec["hard"][f"requests.{name}"].quantity == most
            if is_its and needed.get(name, 0.0) > most:
                yield amount.wrong(f"is less than the {needed[name]:g} that its workloads can use")

    yield from judged(stack.of("ResourceQuota"), judge)


def _needed(stack: Stack, workloads: list[Resource]) -> dict[str, float]:
    """GPUs of some workloads at their largest, by resource."""
    needed: dict[str, float] = defaultdict(float)
    for workload in workloads:
        for name, count in workload.gpus.items():
            needed[name] += count * stack.most_pods(workload)
    return needed


@CONCERN.stack_rule(
    kinds={NODE_GROUP} | LONG_RUNNING,
    severity=Severity.HIGH,
    what="Workloads at their largest fit onto the GPU nodes that they choose.",
    why="Pods for which no node group is large enough wait for ever; the autoscaler cannot help.",
    fix="raise maxSize of the node group, or lower maxReplicas",
    framework="EKS Best Practices, AI and ML",
    link="https://docs.aws.amazon.com/eks/latest/userguide/managed-node-groups.html",
)
def gpus_fit_their_nodes(stack: Stack, config: Config) -> Iterator[Finding]:
    del config
    groups = stack.of(NODE_GROUP)
    if not groups:
        # The nodes are another stack's.
        return
    pools: dict[tuple[str, str, str], list[Resource]] = defaultdict(list)

    def collect(workload: Resource) -> Iterator[Finding]:
        selector = workload.pod.at("spec.nodeSelector")
        chosen = (selector[key].text for key in (ACCELERATOR_LABEL, NODE_TYPE_LABEL))
        accelerator, node_type = chosen
        for name in workload.gpus:
            pools[name, accelerator, node_type].append(workload)
        yield from ()

    yield from judged(stack.of(*sorted(LONG_RUNNING)), collect)
    for (name, accelerator, node_type), workloads in pools.items():
        wanted = {ACCELERATOR_LABEL: accelerator, NODE_TYPE_LABEL: node_type}
        there = sum(_offered(it, name) for it in groups if _has(it, wanted))
        needed = _needed(stack, workloads)[name]
        if needed > there:
            first = workloads[0]
            problem = f"{needed:g} {name} can be wanted of {accelerator} {node_type} nodes"
            yield first.found(Finding("maxSize of node groups", f"for {there:g} {name}", problem))


def _has(group: Resource, wanted: dict[str, str]) -> bool:
    labels = group.props["labels"].labels
    return all(not value or labels.get(key) == value for key, value in wanted.items())


def _offered(group: Resource, name: str) -> float:
    """How many of a GPU resource a group offers at its largest, on its smallest instance type."""
    counts = [GPUS.get(it, ("", 0))[1] for it in group.props["instanceTypes"].texts]
    nodes = group.props["scalingConfig"]["maxSize"].number or 0.0
    profile = group.props["labels"]["nvidia.com/mig.config"].text.removeprefix("all-")
    sliced = profile in SLICES
    if sliced != name.startswith("nvidia.com/mig-"):
        return 0.0
    if sliced and name != f"nvidia.com/mig-{profile}":
        return 0.0
    return nodes * min(counts, default=0) * (SLICES[profile] if sliced else 1)


@CONCERN.stack_rule(
    kinds={NODE_GROUP},
    severity=Severity.MEDIUM,
    what="A cluster at its largest costs no more than the environment's budget.",
    why="One digit in maxSize is thousands of dollars a month, and shows on the bill only.",
    fix="lower maxSize, choose smaller instance types, or have the budget raised in `monthlyUsd`",
    framework="AWS Well-Architected, cost",
    link="https://aws.amazon.com/ec2/pricing/on-demand/",
    config={
        "monthlyUsd": {
            "type": "number",
            "minimum": 0,
            "default": 0,
            "description": "Dollars a month of 730 hours, with all node groups at maxSize and on "
            "demand; 0 for no budget",
        },
        "prices": {
            "type": "object",
            "additionalProperties": {"type": "number"},
            "default": {},
            "description": "Dollars an hour by instance type, for types or regions not known here",
        },
    },
)
def cost_is_within_budget(stack: Stack, config: Config) -> Iterator[Finding]:
    budget = config.number("monthlyUsd")
    if not budget:
        return
    prices = {**PRICES, **{key: it.number or 0.0 for key, it in config.mapping("prices")}}
    hourly = {
        "control plane": CONTROL_PLANE_PRICE * len(stack.of(CLUSTER)),
        "NAT gateways": NAT_GATEWAY_PRICE * len(stack.of(_NAT_GATEWAY)),
    }

    def price(group: Resource) -> Iterator[Finding]:
        types = group.props["instanceTypes"]
        for instance_type in types.items:
            if instance_type.text not in prices:
                yield instance_type.wrong("has no known price; add it to `prices`")
        dearest = max((prices.get(it, 0.0) for it in types.texts), default=0.0)
        hourly[group.name] = dearest * (group.props["scalingConfig"]["maxSize"].number or 0.0)

    yield from judged(stack.of(NODE_GROUP), price)
    monthly = {name: cost * HOURS_PER_MONTH for name, cost in hourly.items()}
    total = sum(monthly.values())
    if total > budget:
        parts = ", ".join(f"{name} {cost:,.0f}" for name, cost in sorted(monthly.items()) if cost)
        problem = f"is over the budget of {budget:,.0f} dollars ({parts})"
        yield Finding("cost a month", f"up to {total:,.0f} dollars", problem)
