"""Pods that use GPUs, and the nodes that have them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from voicemesh_policies.instances import GPUS
from voicemesh_policies.objects import WORKLOADS, Resource, Stack, is_gpu, judged
from voicemesh_policies.rule import Concern, Config, Severity
from voicemesh_policies.view import Finding, View

CONCERN: Final = Concern("gpu")

NODE_GROUP: Final = "aws:eks/nodeGroup:NodeGroup"
ACCELERATOR_LABEL: Final = "accelerator"
NODE_TYPE_LABEL: Final = "node-type"
OFFLINE: Final = "offline-inference"
TAINT: Final = "nvidia.com/gpu"
OFFLINE_TAINT: Final = "workload"

_FRAMEWORK: Final = "EKS Best Practices, AI and ML"
_MIG_PROFILE: Final = re.compile(r"(\d{1,3})g\.(\d{1,4})gb", re.ASCII)
_GPU_FAMILY: Final = re.compile(r"(p|g|gr)\d+[a-z]*(-[a-z0-9]+)?\..*", re.ASCII)
_ALLOCATION: Final = "https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/"
_TAINTS: Final = (
    "https://docs.aws.amazon.com/eks/latest/userguide/node-taints-managed-node-groups.html"
)


def has_gpus(group: Resource) -> bool:
    """Whether the nodes of a group have GPUs."""
    types = group.props["instanceTypes"].texts
    by_type = any(it in GPUS or _GPU_FAMILY.fullmatch(it) for it in types)
    return by_type or "NVIDIA" in group.props["amiType"].text


def slice_memory(profile: str) -> int | None:
    """GiB of one slice of a MIG profile, as `1g.20gb`."""
    part = _MIG_PROFILE.fullmatch(profile)
    return int(part[2]) if part else None


@CONCERN.rule(
    kinds={"Deployment"},
    severity=Severity.HIGH,
    what="Updates of GPU workloads need no spare GPU.",
    why="A surge pod waits for the GPU that the old pod holds, and the old pod for the surge pod.",
    fix="set strategy.rollingUpdate to {maxSurge: 0, maxUnavailable: 1}, or type: Recreate",
    framework=_FRAMEWORK,
    link="https://kubernetes.io/docs/concepts/workloads/controllers/deployment/",
)
def gpu_updates_need_no_spare_gpu(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    strategy = resource.spec["strategy"]
    if not resource.gpus or strategy["type"].text == "Recreate":
        return
    surge = strategy["rollingUpdate"]["maxSurge"]
    if surge.number != 0 and surge.text != "0%":
        yield surge.wrong("starts pods for which there is no GPU")
    unavailable = strategy["rollingUpdate"]["maxUnavailable"]
    if unavailable.number == 0 or unavailable.text == "0%":
        yield unavailable.wrong("lets no pod give up its GPU")


@CONCERN.rule(
    kinds=WORKLOADS,
    severity=Severity.HIGH,
    what="Pods that use GPUs tolerate the taint of GPU nodes.",
    why="Without the toleration they wait for ever, since every node that has GPUs turns them "
    "away. The taint is NO_SCHEDULE in EKS, and NoSchedule in a toleration.",
    fix="add the toleration {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}",
    framework=_FRAMEWORK,
    link="https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/",
)
def gpu_pods_tolerate_their_nodes(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    tolerations = resource.pod.at("spec.tolerations")
    if resource.gpus and not any(map(_tolerates, tolerations.items)):
        yield tolerations.wrong("does not tolerate nvidia.com/gpu=true:NoSchedule")


def _tolerates(toleration: View) -> bool:
    anything = toleration["operator"].text == "Exists"
    key, value = toleration["key"].text, toleration["value"].text
    is_its = key == TAINT and (anything or value == "true")
    return (is_its or (anything and not key)) and toleration["effect"].text in ("", "NoSchedule")


@CONCERN.rule(
    kinds=WORKLOADS,
    severity=Severity.HIGH,
    what="Pods that use GPUs choose their nodes by accelerator and kind of work.",
    why="Otherwise a voice that was measured on one GPU runs on another, or online speech on the "
    "spot nodes of batch work.",
    fix="set nodeSelector with accelerator and node-type, or a required node affinity for them",
    framework=_FRAMEWORK,
    link="https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/",
    config={
        "nodeLabels": {
            "type": "array",
            "items": {"type": "string"},
            "default": [ACCELERATOR_LABEL, NODE_TYPE_LABEL],
            "description": "Labels of nodes that a pod has to choose by",
        }
    },
)
def gpu_pods_choose_their_nodes(resource: Resource, config: Config) -> Iterator[Finding]:
    if not resource.gpus:
        return
    selector = resource.pod.at("spec.nodeSelector")
    chosen = {key for key, value in selector.labels.items() if value} | _required_by_affinity(
        resource
    )
    for label in config.texts("nodeLabels"):
        if label not in chosen:
            yield selector.wrong(f"does not choose nodes by {label}")


def _required_by_affinity(resource: Resource) -> set[str]:
    """Labels that every term of the pod's required node affinity names."""
    affinity = resource.pod.at("spec.affinity.nodeAffinity")
    terms = affinity.at("requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms").items
    named = [{it["key"].text for it in term["matchExpressions"].items} for term in terms]
    return set.intersection(*named) if named else set()


@CONCERN.rule(
    kinds=WORKLOADS,
    severity=Severity.HIGH,
    what="GPUs are requested and limited alike, in whole numbers.",
    why="The API server refuses pods whose limit of a GPU differs from the request, and quotas "
    "count requests only.",
    fix="write the same whole number under resources.requests and resources.limits",
    framework="Kubernetes",
    link=_ALLOCATION,
)
def gpus_are_requested_and_limited(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    for container in resource.containers:
        requests, limits = (container["resources"][key] for key in ("requests", "limits"))
        names = {name for amounts in (requests, limits) for name, _ in amounts.entries}
        for name in sorted(filter(is_gpu, names)):
            wanted, most = requests[name], limits[name]
            if wanted.quantity is None or wanted.quantity != most.quantity:
                yield wanted.wrong(f"is not the limit, which is {most.shown}")
            elif wanted.quantity % 1:
                yield wanted.wrong("is no whole number")


@CONCERN.rule(
    kinds=WORKLOADS,
    severity=Severity.HIGH,
    what="A MIG slice is large enough for the model.",
    why="A model that does not fit fails when it is loaded, after the node was paid for; an H100's "
    "smallest slice has 10 GB, and GLM-TTS takes 12.",
    fix="ask for a larger slice, as nvidia.com/mig-1g.20gb",
    framework=_FRAMEWORK,
    link="https://docs.nvidia.com/datacenter/tesla/mig-user-guide/supported-mig-profiles.html",
    config={
        "modelGib": {
            "type": "number",
            "minimum": 0,
            "default": 12,
            "description": "GPU memory that the smallest model takes, in GiB",
        }
    },
)
def slice_holds_the_model(resource: Resource, config: Config) -> Iterator[Finding]:
    needed = config.number("modelGib")
    for container in resource.containers:
        for name, amount in container["resources"]["requests"].entries:
            memory = slice_memory(name.removeprefix("nvidia.com/mig-"))
            if memory is not None and memory < needed:
                yield amount.wrong(
                    f"asks for slices of {memory} GB, and the model takes {needed:g}"
                )


@CONCERN.rule(
    kinds={NODE_GROUP},
    severity=Severity.HIGH,
    what="GPU nodes are tainted.",
    why="Without the taint any pod fills a node that costs fifty times what the pod needs.",
    fix="add the taint {key: nvidia.com/gpu, value: true, effect: NO_SCHEDULE}",
    framework=_FRAMEWORK,
    link=_TAINTS,
)
def gpu_nodes_are_tainted(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    if has_gpus(resource) and (TAINT, "NO_SCHEDULE") not in _taints(resource):
        yield resource.props["taints"].wrong("lets in pods that use no GPU")


def _taints(group: Resource) -> set[tuple[str, str]]:
    return {(it["key"].text, it["effect"].text) for it in group.props["taints"].items}


@CONCERN.rule(
    kinds={NODE_GROUP},
    severity=Severity.HIGH,
    what="Nodes for batch work have a taint of their own.",
    why="They are spot nodes, with two minutes' notice: no online voice may land there.",
    fix="add the taint {key: workload, value: offline, effect: NO_SCHEDULE}",
    framework="Voice serving",
    link=_TAINTS,
)
def batch_nodes_turn_voices_away(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    offline = resource.props["labels"][NODE_TYPE_LABEL].text == OFFLINE
    if offline and (OFFLINE_TAINT, "NO_SCHEDULE") not in _taints(resource):
        yield resource.props["taints"].wrong("lets online voices in")


@CONCERN.rule(
    kinds={NODE_GROUP},
    severity=Severity.MEDIUM,
    what="GPU nodes say which GPU they have and what work they are for.",
    why="Voices choose nodes by these labels; on nodes without them nothing is ever scheduled, and "
    "NVIDIA's DaemonSets run only where there are GPUs by label.",
    fix="set the labels accelerator, node-type and nvidia.com/gpu.present",
    framework=_FRAMEWORK,
    link="https://docs.aws.amazon.com/eks/latest/userguide/managed-node-groups.html",
    config={
        "nodeLabels": {
            "type": "array",
            "items": {"type": "string"},
            "default": [ACCELERATOR_LABEL, NODE_TYPE_LABEL, "nvidia.com/gpu.present"],
            "description": "Labels that nodes with GPUs have to have",
        }
    },
)
def gpu_nodes_are_labelled(resource: Resource, config: Config) -> Iterator[Finding]:
    if not has_gpus(resource):
        return
    labels = resource.props["labels"]
    for label in config.texts("nodeLabels"):
        if not labels[label].text:
            yield labels.wrong(f"has no {label}")


@CONCERN.rule(
    kinds={NODE_GROUP},
    severity=Severity.HIGH,
    what="The instance types of a node group have the GPU that its label names.",
    why="A voice that asks for an H100 by label would get whatever the group starts.",
    fix="choose instance types with that GPU, or correct the label",
    framework=_FRAMEWORK,
    link="https://docs.aws.amazon.com/ec2/latest/instancetypes/ac.html",
)
def instance_types_fit_their_label(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    label = resource.props["labels"][ACCELERATOR_LABEL].text
    for instance_type in resource.props["instanceTypes"].items if label else []:
        accelerator, _ = GPUS.get(instance_type.text, ("no GPU that is known here", 0))
        if accelerator != label:
            yield instance_type.wrong(f"has {accelerator}, and the label says {label}")


@CONCERN.rule(
    kinds={NODE_GROUP},
    severity=Severity.HIGH,
    what="GPU nodes start from an image with NVIDIA's driver.",
    why="On the standard image the GPU is there and nothing can use it.",
    fix="set amiType to AL2023_x86_64_NVIDIA, or to one of Bottlerocket's with NVIDIA",
    framework=_FRAMEWORK,
    link="https://docs.aws.amazon.com/eks/latest/userguide/ml-eks-optimized-ami.html",
)
def gpu_nodes_have_a_driver(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    image = resource.props["amiType"]
    if has_gpus(resource) and image.text != "CUSTOM" and "NVIDIA" not in image.text:
        yield image.wrong("has no driver for GPUs")


@CONCERN.stack_rule(
    kinds=WORKLOADS,
    severity=Severity.HIGH,
    what="Where pods use GPUs, a quota says how many.",
    why="One tenant's autoscaler could otherwise take every GPU that the others pay for.",
    fix="add requests.<the GPU resource> to the hard limits of the namespace's ResourceQuota",
    framework="EKS Best Practices, multi-tenancy",
    link="https://kubernetes.io/docs/concepts/policy/resource-quotas/",
)
def gpus_are_under_a_quota(stack: Stack, config: Config) -> Iterator[Finding]:
    del config

    def judge(workload: Resource) -> Iterator[Finding]:
        for name in sorted(workload.gpus):
            if name not in quotas(stack, workload.namespace):
                container = workload.pod.at("spec.containers")
                problem = f"uses {name}, of which namespace {workload.namespace} has no quota"
                yield Finding(container.path, f"a list of {len(container.items)}", problem)

    yield from judged(stack.of(*sorted(WORKLOADS)), judge)


def quotas(stack: Stack, namespace: str) -> Mapping[str, View]:
    """What a namespace may request, by GPU resource; the least where there are more quotas."""
    found: dict[str, View] = {}
    for quota in stack.within(namespace, "ResourceQuota"):
        for key, amount in quota.spec["hard"].entries:
            name = key.removeprefix("requests.")
            if is_gpu(name) and name != key:
                known = found.get(name, amount)
                found[name] = min(known, amount, key=lambda it: it.quantity or 0.0)
    return found


@CONCERN.rule(
    kinds={"ResourceQuota"},
    severity=Severity.HIGH,
    what="Quotas of GPUs bound requests.",
    why="For extended resources Kubernetes refuses every other prefix in a quota.",
    fix="write requests.nvidia.com/gpu",
    framework="Kubernetes",
    link="https://kubernetes.io/docs/concepts/policy/resource-quotas/",
)
def gpu_quotas_bound_requests(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    for key, amount in resource.spec["hard"].entries:
        if "nvidia.com/" in key and not key.startswith("requests.nvidia.com/"):
            yield amount.wrong("has a name that no quota can have")
