"""Pods and what runs them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from voicemesh_policies.objects import (
    CLUSTER_SCOPED,
    LONG_RUNNING,
    WORKLOADS,
    Resource,
    Stack,
    is_injected,
    judged,
    selects,
)
from voicemesh_policies.rule import Concern, Config, Severity
from voicemesh_policies.view import Finding, View

CONCERN: Final = Concern("workloads")

_RESTRICTED: Final = "Kubernetes Pod Security Standards, restricted"
_PSS_LINK: Final = "https://kubernetes.io/docs/concepts/security/pod-security-standards/"
_OWN: Final = {
    "type": "array",
    "items": {"type": "string"},
    "default": ["*.dkr.ecr.*.amazonaws.com/*", "localhost/voicemesh/*"],
    "description": "Repositories of images that we build; `*` stands for any characters",
}
_IMAGES_LINK: Final = "https://kubernetes.io/docs/concepts/containers/images/"
_MOVING: Final = frozenset(
    {"", "latest", "main", "master", "edge", "nightly", "dev", "stable", "canary", "rolling"}
)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


PRIVILEGED: Final = {
    "privileged": {
        "type": "array",
        "items": {"type": "string"},
        "default": ["gpu-system", "istio-cni"],
        "description": "Namespaces of what has to change nodes: the standard does not hold there",
    }
}


def _restricted(resource: Resource, config: Config) -> list[View]:
    """The containers to which the restricted standard applies."""
    containers = resource.containers
    return containers if resource.namespace not in config.texts("privileged") else []


def _parts(image: str) -> tuple[str, str, str]:
    """Repository, tag and digest of an image's reference."""
    rest, _, digest = image.partition("@")
    folder, slash, last = rest.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{folder}{slash}{name}", tag, digest


def _is_own(repository: str, config: Config) -> bool:
    return any(fnmatchcase(repository, pattern) for pattern in config.texts("ownImages"))


@CONCERN.rule(
    kinds=WORKLOADS,
    severity=Severity.HIGH,
    what="Every container names the exact tag or the digest of its image.",
    why="What `latest` means changes under a pod, so that two replicas can run two programs.",
    fix="name the tag of one version, or a digest",
    framework="NIST SP 800-190",
    link=_IMAGES_LINK,
)
def image_is_exact(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    for container in resource.containers:
        image = container["image"]
        _, tag, digest = _parts(image.text)
        if not digest and tag in _MOVING and not is_injected(container):
            yield image.wrong("has no tag that stays what it is")


@CONCERN.rule(
    kinds=WORKLOADS,
    severity=Severity.HIGH,
    what="Images that we build are named by digest.",
    why="A digest is what was tested and what a rollback brings back, even where a tag can move.",
    fix="append @sha256:… of the image that was pushed",
    framework="SLSA, NIST SP 800-190",
    link=_IMAGES_LINK,
    config={"ownImages": _OWN},
)
def own_image_is_named_by_digest(resource: Resource, config: Config) -> Iterator[Finding]:
    for container in resource.containers:
        image = container["image"]
        repository, _, digest = _parts(image.text)
        if _is_own(repository, config) and not _DIGEST.fullmatch(digest):
            yield image.wrong("is an image of ours without a digest")


@CONCERN.rule(
    kinds=WORKLOADS,
    severity=Severity.HIGH,
    what="Images of others are on the list of those that have been looked at.",
    why="Whatever is in an image runs beside customers' texts and voices.",
    fix="use an image from the list, or have this one reviewed and add its repository to `images`",
    framework="NIST SP 800-190",
    link=_IMAGES_LINK,
    config={
        "ownImages": _OWN,
        "images": {
            "type": "array",
            "items": {"type": "string"},
            "default": [
                "docker.io/envoyproxy/ratelimit",
                "docker.io/valkey/valkey",
                "registry.istio.io/release/*",
                "registry.k8s.io/*",
                "nvcr.io/nvidia/*",
            ],
            "description": "Repositories, with registry; `*` stands for any characters",
        },
    },
)
def others_image_is_listed(resource: Resource, config: Config) -> Iterator[Finding]:
    for container in resource.containers:
        image = container["image"]
        repository, _, _ = _parts(image.text)
        listed = any(fnmatchcase(repository, it) for it in config.texts("images"))
        if not (listed or _is_own(repository, config) or is_injected(container)):
            yield image.wrong("comes from a repository that is not listed")


@CONCERN.rule(
    kinds=WORKLOADS,
    severity=Severity.HIGH,
    what="Every container requests CPU and memory.",
    why="Without requests the scheduler packs nodes until the pods beside a voice starve it.",
    fix="set resources.requests.cpu and resources.requests.memory",
    framework="EKS Best Practices, reliability",
    link="https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/",
)
def cpu_and_memory_are_requested(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    for container in resource.containers:
        for name in ("cpu", "memory"):
            amount = container["resources"]["requests"][name]
            if not amount.quantity:
                yield amount.wrong("is no amount that the scheduler can count")


@CONCERN.rule(
    kinds=WORKLOADS,
    severity=Severity.HIGH,
    what="Every container has a limit of memory.",
    why="One leak takes the node's memory, and the kernel then ends the pods of other tenants. "
    "A limit of CPU is not asked for: it throttles synthesis on idle nodes.",
    fix="set resources.limits.memory",
    framework="EKS Best Practices, reliability",
    link="https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/",
)
def memory_is_limited(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    for container in resource.containers:
        amount = container["resources"]["limits"]["memory"]
        if not amount.quantity:
            yield amount.wrong("leaves the container without a limit")


@CONCERN.rule(
    kinds=LONG_RUNNING,
    severity=Severity.MEDIUM,
    what="Every container that serves has a readiness probe.",
    why="A pod without one gets requests before its model is loaded, and answers them with errors.",
    fix="set readinessProbe to what is true only after a real synthesis",
    framework="EKS Best Practices, reliability",
    link="https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/",
)
def readiness_is_probed(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    for container in resource.pod.at("spec.containers").items:
        if not container["readinessProbe"].entries and not is_injected(container):
            yield container["readinessProbe"].wrong("makes a pod ready as soon as it runs")


@CONCERN.rule(
    kinds=LONG_RUNNING,
    severity=Severity.MEDIUM,
    what="Containers with GPUs have a startup probe and a liveness probe.",
    why="Loading weights takes minutes: without a startup probe liveness ends a pod that loads, "
    "and without liveness a hung GPU is paid for and serves nobody.",
    fix="set startupProbe with time for the weights to load, and livenessProbe",
    framework="EKS Best Practices, reliability",
    link="https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/",
)
def loading_and_hanging_are_probed(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    if not resource.gpus:
        return
    for container in resource.pod.at("spec.containers").items:
        for probe in (container["startupProbe"], container["livenessProbe"]):
            if not probe.entries:
                yield probe.wrong("is not probed in a container that uses GPUs")


@CONCERN.rule(
    kinds=WORKLOADS,
    severity=Severity.HIGH,
    what="Pods do not run as root.",
    why="Root in a container is root on the node as soon as the kernel has one more fault.",
    fix="set securityContext.runAsNonRoot: true, and no runAsUser of 0",
    framework=_RESTRICTED,
    link=_PSS_LINK,
    config=PRIVILEGED,
)
def pods_do_not_run_as_root(resource: Resource, config: Config) -> Iterator[Finding]:
    of_pod, containers = resource.pod.at("spec.securityContext"), _restricted(resource, config)
    for context in (of_pod, *(it["securityContext"] for it in containers)) if containers else ():
        if context["runAsUser"].number == 0:
            yield context["runAsUser"].wrong("is root")
    for container in containers:
        own = container["securityContext"]["runAsNonRoot"]
        if not (own if own.present else of_pod["runAsNonRoot"]).flag:
            yield own.wrong("lets the container run as root")


@CONCERN.rule(
    kinds=WORKLOADS,
    severity=Severity.HIGH,
    what="Containers are not privileged and cannot gain privileges.",
    why="A program that is run as another user can become root in the container.",
    fix="set securityContext.allowPrivilegeEscalation: false, and no privileged",
    framework=_RESTRICTED,
    link=_PSS_LINK,
    config=PRIVILEGED,
)
def privileges_do_not_grow(resource: Resource, config: Config) -> Iterator[Finding]:
    for container in _restricted(resource, config):
        context = container["securityContext"]
        if context["allowPrivilegeEscalation"].flag is not False:
            yield context["allowPrivilegeEscalation"].wrong("must be false")
        if context["privileged"].flag:
            yield context["privileged"].wrong("must be false")


@CONCERN.rule(
    kinds=WORKLOADS,
    severity=Severity.HIGH,
    what="Containers drop all capabilities, and add none but NET_BIND_SERVICE.",
    why="Capabilities are parts of what root may do, and a speech server needs none of them.",
    fix="set securityContext.capabilities to {drop: [ALL]}",
    framework=_RESTRICTED,
    link=_PSS_LINK,
    config=PRIVILEGED,
)
def capabilities_are_dropped(resource: Resource, config: Config) -> Iterator[Finding]:
    for container in _restricted(resource, config):
        capabilities = container["securityContext"]["capabilities"]
        if "ALL" not in capabilities["drop"].texts:
            yield capabilities["drop"].wrong("keeps capabilities")
        if not set(capabilities["add"].texts) <= {"NET_BIND_SERVICE"}:
            yield capabilities["add"].wrong("adds capabilities")


@CONCERN.rule(
    kinds=WORKLOADS,
    severity=Severity.MEDIUM,
    what="Pods have a seccomp profile.",
    why="Without one every system call of the kernel is open to whatever runs in the pod.",
    fix="set securityContext.seccompProfile to {type: RuntimeDefault}",
    framework=_RESTRICTED,
    link=_PSS_LINK,
    config=PRIVILEGED,
)
def system_calls_are_filtered(resource: Resource, config: Config) -> Iterator[Finding]:
    of_pod = resource.pod.at("spec.securityContext.seccompProfile.type")
    for container in _restricted(resource, config):
        own = container["securityContext"]["seccompProfile"]["type"]
        profile = own if own.present else of_pod
        if profile.text not in ("RuntimeDefault", "Localhost"):
            yield profile.wrong("leaves all system calls open")


@CONCERN.rule(
    kinds=WORKLOADS,
    severity=Severity.CRITICAL,
    what="Pods share no namespace, folder or port with their node.",
    why="A pod with the node's network or files can read what other tenants send and store.",
    fix="remove hostNetwork, hostPID, hostIPC, hostPort and hostPath",
    framework=_RESTRICTED,
    link=_PSS_LINK,
    config=PRIVILEGED,
)
def node_is_out_of_reach(resource: Resource, config: Config) -> Iterator[Finding]:
    spec, containers = resource.pod["spec"], _restricted(resource, config)
    if not containers:
        return
    shared: list[View] = [spec[key] for key in ("hostNetwork", "hostPID", "hostIPC")]
    yield from (it.wrong("shares a namespace of the node") for it in shared if it.flag)
    for volume in spec["volumes"].items:
        if volume["hostPath"].present:
            yield volume["hostPath"].wrong("is a folder of the node")
    for container in containers:
        for port in container["ports"].items:
            if port["hostPort"].number:
                yield port["hostPort"].wrong("is a port of the node")


@CONCERN.rule(
    kinds=WORKLOADS,
    severity=Severity.MEDIUM,
    what="Containers cannot write to their image.",
    why="What breaks into a speech server could otherwise leave a program there for the next one.",
    fix="set securityContext.readOnlyRootFilesystem: true, and mount an emptyDir where it writes",
    framework="NSA and CISA Kubernetes Hardening Guide",
    link="https://kubernetes.io/docs/tasks/configure-pod-container/security-context/",
    config=PRIVILEGED,
)
def image_is_read_only(resource: Resource, config: Config) -> Iterator[Finding]:
    for container in _restricted(resource, config):
        view = container["securityContext"]["readOnlyRootFilesystem"]
        if not view.flag:
            yield view.wrong("must be true")


@CONCERN.rule(
    severity=Severity.MEDIUM,
    what="Objects name a namespace other than `default`.",
    why="In `default` there is no quota, no network policy and no sidecar.",
    fix="set metadata.namespace to the tenant's",
    framework="CIS Kubernetes Benchmark",
    link="https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/",
)
def namespace_is_named(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    if not resource.is_object or resource.kind in CLUSTER_SCOPED:
        return
    namespace = resource.props.at("metadata.namespace")
    if namespace.text in ("", "default"):
        yield namespace.wrong("puts it into the namespace `default`")


@CONCERN.rule(
    kinds=WORKLOADS | {"ServiceAccount"},
    severity=Severity.MEDIUM,
    what="Pods carry no token for the API server unless they say so.",
    why="A speech server never calls the API server; a stolen token would.",
    fix="set automountServiceAccountToken: false",
    framework="CIS Kubernetes Benchmark",
    link="https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/",
    config={
        "callers": {
            "type": "array",
            "items": {"type": "string"},
            "default": [
                "istio-system/istiod",
                "istio-system/istio-reader-service-account",
                "istio-cni/istio-cni",
            ],
            "description": "Accounts, with their namespaces, of what does call the API server",
        }
    },
)
def no_token_is_mounted(resource: Resource, config: Config) -> Iterator[Finding]:
    is_account = resource.kind == "ServiceAccount"
    of = resource.props if is_account else resource.pod["spec"]
    account = resource.object_name if is_account else of["serviceAccountName"].text
    if f"{resource.namespace}/{account}" in config.texts("callers"):
        return
    token = of["automountServiceAccountToken"]
    if token.flag is not False:
        yield token.wrong("must be false")


@CONCERN.stack_rule(
    kinds={"PodDisruptionBudget"},
    severity=Severity.HIGH,
    what="A disruption budget lets at least one pod go.",
    why="With one that never does, no node can be drained: updates of the cluster wait for ever.",
    fix="set maxUnavailable: 1, or minAvailable below the fewest pods there are",
    framework="EKS Best Practices, reliability",
    link="https://kubernetes.io/docs/tasks/run-application/configure-pdb/",
)
def pods_can_be_evicted(stack: Stack, config: Config) -> Iterator[Finding]:
    del config

    def judge(budget: Resource) -> Iterator[Finding]:
        most, least = budget.spec["maxUnavailable"], budget.spec["minAvailable"]
        if most.present and (most.number == 0 or most.text == "0%"):
            yield most.wrong("lets no pod go")
        if least.text == "100%":
            yield least.wrong("lets no pod go")
        selector = budget.spec.at("selector.matchLabels").labels
        selected = stack.selected(budget.namespace, selector)
        pods = sum(stack.fewest_pods(it) for it in selected)
        if selected and least.number is not None and least.number >= pods:
            yield least.wrong(f"lets no pod go while there are {pods:g}")

    yield from judged(stack.of("PodDisruptionBudget"), judge)


@CONCERN.stack_rule(
    kinds=LONG_RUNNING,
    severity=Severity.HIGH,
    what="Pods that are routed to have as long to end as the longest stream takes.",
    why="Kubernetes kills what is still speaking when the time is over, in the middle of a word.",
    fix="set terminationGracePeriodSeconds to at least the longest stream's seconds",
    framework="Voice serving",
    link="https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/",
    config={
        "maxStreamSeconds": {
            "type": "number",
            "minimum": 0,
            "default": 600,
            "description": "Longest audio stream, in seconds",
        }
    },
)
def pods_outlive_their_streams(stack: Stack, config: Config) -> Iterator[Finding]:
    longest = config.number("maxStreamSeconds")
    workloads: dict[str, Resource] = {}

    def routed(routes: Resource) -> Iterator[Finding]:
        for destination in destinations(routes):
            service = stack.service(destination["host"].text, routes.namespace)
            workloads.update({it.urn: it for it in stack.behind(service)} if service else {})
        yield from ()

    def judge(workload: Resource) -> Iterator[Finding]:
        grace = workload.pod.at("spec.terminationGracePeriodSeconds")
        if (30.0 if grace.number is None else grace.number) < longest:
            yield grace.wrong(f"is shorter than a stream of {longest:g} seconds")

    yield from judged(stack.of("VirtualService"), routed)
    yield from judged(workloads.values(), judge)


def destinations(routes: Resource) -> Iterator[View]:
    """Where a VirtualService leads requests, mirrored ones included."""
    for route in routes.spec["http"].items:
        mirrors = [route["mirror"], *(it["destination"] for it in route["mirrors"].items)]
        for destination in (*(it["destination"] for it in route["route"].items), *mirrors):
            if destination.present:
                yield destination


@CONCERN.stack_rule(
    kinds={"Job", "CronJob"},
    severity=Severity.CRITICAL,
    what="No Service selects the pods of a job.",
    why="Labels are all that a Service looks at: online requests would be led to a batch job.",
    fix="give the job's pods labels of their own, with another `app`",
    framework="Voice serving",
    link="https://kubernetes.io/docs/concepts/services-networking/service/",
)
def jobs_get_no_requests(stack: Stack, config: Config) -> Iterator[Finding]:
    del config

    def judge(job: Resource) -> Iterator[Finding]:
        labels = job.pod.at("metadata.labels")
        for service in stack.within(job.namespace, "Service"):
            selector = service.spec["selector"].labels
            if selects(selector, labels.labels):
                yield labels.wrong(f"is selected by the Service {service.object_name!r}")

    yield from judged(stack.of("Job", "CronJob"), judge)
