"""What must hold for everything that a program declares, as functions that find what does not.

Each is a function of the recording, so that a test can show it a recording in which the fault is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from voicemesh import contract
from voicemesh.service.pod_storage import STORAGE_ROLE_ANNOTATION
from voicemesh.testing import Recording, Registration

DEPLOYMENT = "kubernetes:apps/v1:Deployment"
DESTINATION_RULE = "kubernetes:networking.istio.io/v1:DestinationRule"
VIRTUAL_SERVICE = "kubernetes:networking.istio.io/v1:VirtualService"
GATEWAY = "kubernetes:networking.istio.io/v1:Gateway"
AUTHENTICATION = "kubernetes:security.istio.io/v1:RequestAuthentication"
AUTHORIZATION = "kubernetes:security.istio.io/v1:AuthorizationPolicy"
QUOTA = "kubernetes:core/v1:ResourceQuota"
SERVICE = "kubernetes:core/v1:Service"
SCALED_OBJECT = "kubernetes:keda.sh/v1alpha1:ScaledObject"
POD_AUTOSCALER = "kubernetes:autoscaling/v2:HorizontalPodAutoscaler"
RELEASE = "kubernetes:helm.sh/v3:Release"
EKS = "aws:eks/cluster:Cluster"
POD_IDENTITY = "aws:eks/podIdentityAssociation:PodIdentityAssociation"

STATEFUL = {
    "aws:s3/bucket:Bucket",
    "aws:kms/key:Key",
    "aws:ecr/repository:Repository",
    EKS,
    "aws:cloudwatch/logGroup:LogGroup",
    "aws:ec2/capacityReservation:CapacityReservation",
    "kubernetes:core/v1:PersistentVolumeClaim",
}
"""What cannot be made again as it was."""

Rule = Callable[[Recording], Iterator[str]]


def is_provider(resource: Registration) -> bool:
    return resource.type.startswith("pulumi:providers:")


def every_resource_is_the_child_of_a_component(recording: Recording) -> Iterator[str]:
    components = {component.urn for component in recording.components()}
    for resource in recording.registrations:
        if resource.custom and not is_provider(resource) and resource.parent not in components:
            yield f"{resource.urn} has parent {resource.parent}"


def every_component_registers_outputs(recording: Recording) -> Iterator[str]:
    for component in recording.components():
        if not component.outputs:
            yield f"{component.urn} registers {component.outputs}"


def every_resource_uses_the_explicit_provider_of_its_package(recording: Recording) -> Iterator[str]:
    providers = {r.type.split(":")[-1]: r.urn for r in recording.registrations if is_provider(r)}
    for resource in recording.registrations:
        if resource.custom and not is_provider(resource):
            expected = providers.get(resource.type.split(":")[0])
            if expected is None or not resource.provider.startswith(f"{expected}::"):
                yield f"{resource.urn} uses provider {resource.provider!r}"


def no_option_of_a_component_reaches_its_children(recording: Recording) -> Iterator[str]:
    by_urn = {resource.urn: resource for resource in recording.registrations}
    for resource in recording.registrations:
        parent = by_urn.get(resource.parent)
        if parent is None or not resource.custom:
            continue
        if parent.protect and resource.protect:
            yield f"{resource.urn} is protected as its parent is"
        # A resource may have aliases of its own: the SDK gives it the types it had before.
        if any(alias in parent.aliases for alias in resource.aliases):
            yield f"{resource.urn} has aliases as its parent has"
        if parent.ignore_changes and resource.ignore_changes:
            yield f"{resource.urn} ignores changes as its parent does"


def no_object_is_declared_twice(recording: Recording) -> Iterator[str]:
    seen: dict[tuple[Any, ...], str] = {}
    for resource in recording.registrations:
        metadata = resource.inputs.get("metadata", {})
        identity = (resource.type, metadata.get("namespace"), metadata.get("name"))
        if metadata and identity in seen:
            yield f"{resource.urn} is the same object as {seen[identity]}"
        seen[identity] = resource.urn


def secrets_stay_secret(*secrets: str) -> Rule:
    def rule(recording: Recording) -> Iterator[str]:
        for resource in recording.registrations:
            for path, text in _texts(resource.inputs):
                hidden = any(path.startswith(secret) for secret in resource.secret_paths)
                if not hidden and any(secret in text for secret in secrets):
                    yield f"{resource.urn} shows a secret at {path}"
        for path, text in _texts(recording.exports):
            hidden = path.split(".")[0] in recording.secret_exports
            if not hidden and any(secret in text for secret in secrets):
                yield f"the stack's output {path} shows a secret"

    return rule


def stateful_resources_are_protected(recording: Recording) -> Iterator[str]:
    for resource in recording.registrations:
        if resource.type in STATEFUL and not resource.protect:
            yield f"{resource.urn} can be deleted"
    for cluster in recording.of_type(EKS):
        if cluster.inputs.get("deletionProtection") is not True:
            yield f"EKS lets {cluster.name} be deleted"


def nothing_is_protected(recording: Recording) -> Iterator[str]:
    for resource in recording.registrations:
        if resource.protect or resource.inputs.get("deletionProtection"):
            yield f"{resource.urn} cannot be deleted"


def no_name_is_in_use_already(*others: Recording) -> Rule:
    """Of all that AWS knows by a name that the program gives: neither in the same stack, nor in
    other stacks of the same account."""
    taken = {name: urn for other in others for name, urn in _names_in_aws(other)}

    def rule(recording: Recording) -> Iterator[str]:
        seen = dict(taken)
        for name, urn in _names_in_aws(recording):
            if name in seen:
                yield f"{urn} is called {name}, as {seen[name]}"
            seen[name] = urn

    return rule


def every_name_in_aws_is_known(recording: Recording) -> Iterator[str]:
    """What the previous rule compares is complete."""
    for resource in recording.registrations:
        named = {"name", "bucket"} & resource.inputs.keys()
        if resource.type.startswith("aws:") and named and resource.type not in _NAMED_BY:
            yield f"{resource.type} has {sorted(named)}, but no entry among the names"


def _names_in_aws(recording: Recording) -> Iterator[tuple[tuple[str, ...], str]]:
    """What AWS tells apart by name alone; where the program gives none, Pulumi makes one up."""
    for resource in recording.registrations:
        keys = _NAMED_BY.get(resource.type, ())
        given = tuple(str(resource.inputs[key]) for key in keys if key in resource.inputs)
        if keys and len(given) == len(keys):
            yield (resource.type, *given), resource.urn


_NAMED_BY: dict[str, tuple[str, ...]] = {
    "aws:cloudwatch/logGroup:LogGroup": ("name",),
    "aws:ec2/launchTemplate:LaunchTemplate": ("name",),
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": ("repository",),
    "aws:ecr/repository:Repository": ("name",),
    "aws:eks/accessEntry:AccessEntry": ("clusterName", "principalArn"),
    "aws:eks/accessPolicyAssociation:AccessPolicyAssociation": (
        *("clusterName", "principalArn", "policyArn"),
    ),
    "aws:eks/addon:Addon": ("clusterName", "addonName"),
    EKS: ("name",),
    "aws:eks/nodeGroup:NodeGroup": ("clusterName", "nodeGroupName"),
    POD_IDENTITY: (*("clusterName", "namespace", "serviceAccount"),),
    "aws:iam/role:Role": ("name",),
    "aws:iam/rolePolicy:RolePolicy": ("role", "name"),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": ("role", "policyArn"),
    "aws:kms/alias:Alias": ("name",),
    **{
        f"aws:s3/{type_[0].lower()}{type_[1:]}:{type_}": ("bucket",)
        for type_ in (
            "Bucket",
            "BucketLifecycleConfiguration",
            "BucketOwnershipControls",
            "BucketPolicy",
            "BucketPublicAccessBlock",
            "BucketServerSideEncryptionConfiguration",
            "BucketVersioning",
        )
    },
}


def voices(recording: Recording, type_: str) -> list[Registration]:
    """Resources of a type; Deployments and DestinationRules only if they are of voices."""
    found = recording.of_type(type_)
    if type_ == DEPLOYMENT:
        labels = [it.inputs["spec"]["template"]["metadata"]["labels"] for it in found]
        return [it for it, has in zip(found, labels, strict=True) if contract.VARIANT_LABEL in has]
    if type_ == DESTINATION_RULE:
        return [it for it in found if it.inputs["spec"].get("subsets")]
    return list(found)


def pods_wait_for_the_role_of_their_account(recording: Recording) -> Iterator[str]:
    """EKS gives a pod its credentials when it is made, or never."""
    roles = {
        (found.inputs["namespace"], found.inputs["serviceAccount"]): found.inputs["roleArn"]
        for found in recording.of_type(POD_IDENTITY)
    }
    for deployment in voices(recording, DEPLOYMENT):
        template = deployment.inputs["spec"]["template"]
        account = template["spec"]["serviceAccountName"]
        role = roles.get((deployment.inputs["metadata"]["namespace"], account))
        if template["metadata"]["annotations"].get(STORAGE_ROLE_ANNOTATION) != role:
            yield f"{deployment.name} does not wait for {role}"


def services_are_made_after_their_pods(recording: Recording) -> Iterator[str]:
    """Pulumi waits for a Service's endpoints, and makes only so many things at a time: Services
    that come first can keep the pods that they wait for from ever being made."""
    for service in recording.of_type(SERVICE):
        selector = service.inputs["spec"].get("selector") or {}
        for deployment in recording.of_type(DEPLOYMENT):
            labels = deployment.inputs["spec"]["template"]["metadata"]["labels"]
            is_near = namespace_of(deployment) == namespace_of(service)
            is_its = is_near and selector.items() <= labels.items()
            if is_its and deployment.urn not in service.depends_on:
                yield f"{service.urn} does not wait for {deployment.urn}"


def namespace_of(resource: Registration) -> str:
    return resource.inputs["metadata"]["namespace"]


def autoscalers_own_the_number_of_pods(recording: Recording) -> Iterator[str]:
    for deployment in voices(recording, DEPLOYMENT):
        scaled = _autoscaler(recording, deployment) is not None
        if scaled is ("replicas" in deployment.inputs["spec"]):
            yield f"{deployment.name}: replicas are given, and an autoscaler's, or neither"


def one_failing_pod_can_be_ejected(recording: Recording) -> Iterator[str]:
    for rule in voices(recording, DESTINATION_RULE):
        for subset in rule.inputs["spec"]["subsets"]:
            pods = sum(
                _replicas(recording, deployment)[0]
                for deployment in _selected(recording, rule, subset["labels"])
            )
            detection = subset["trafficPolicy"].get("outlierDetection", {})
            # What Istio does not say, Envoy decides: 10 %.
            percent = detection.get("maxEjectionPercent", 10)
            if pods and percent < 100 / pods:
                yield f"subset {subset['name']} ejects none of its {pods} pods at {percent} %"


def five_hundreds_in_a_row_eject(recording: Recording) -> Iterator[str]:
    for rule in voices(recording, DESTINATION_RULE):
        for subset in rule.inputs["spec"]["subsets"]:
            detection = subset["trafficPolicy"].get("outlierDetection", {})
            found = [
                detection.get(key)
                for key in ("consecutive5xxErrors", "interval", "baseEjectionTime")
            ]
            if found != [3, "30s", "300s"]:
                yield f"subset {subset['name']} ejects after {found}"


def failover_between_zones_is_off(recording: Recording) -> Iterator[str]:
    for rule in voices(recording, DESTINATION_RULE):
        balancer = rule.inputs["spec"]["trafficPolicy"].get("loadBalancer", {})
        if balancer.get("localityLbSetting", {}).get("enabled") is not False:
            yield f"{rule.name} leaves locality load balancing on"


def every_subset_has_pods(recording: Recording) -> Iterator[str]:
    for rule in voices(recording, DESTINATION_RULE):
        for subset in rule.inputs["spec"]["subsets"]:
            if not _selected(recording, rule, subset["labels"]):
                yield f"subset {subset['name']} selects no pod template"


def every_route_leads_to_a_subset(recording: Recording) -> Iterator[str]:
    known = {
        (rule.inputs["spec"]["host"], subset["name"])
        for rule in voices(recording, DESTINATION_RULE)
        for subset in rule.inputs["spec"]["subsets"]
    }
    for routes in recording.of_type(VIRTUAL_SERVICE):
        for route in routes.inputs["spec"]["http"]:
            if sum(part["weight"] for part in route["route"]) != 100:
                yield f"{routes.name} does not share 100 %"
            for part in [*route["route"], *route.get("mirrors", [])]:
                destination = part["destination"]
                if (destination["host"], destination["subset"]) not in known:
                    yield f"{routes.name} leads to {destination}"


def public_routes_are_bound_to_a_gateway_that_has_their_hosts(
    recording: Recording,
) -> Iterator[str]:
    served = {
        (f"{gateway.inputs['metadata']['namespace']}/{gateway.inputs['metadata']['name']}", host)
        for gateway in recording.of_type(GATEWAY)
        for server in gateway.inputs["spec"]["servers"]
        for host in server["hosts"]
    }
    for routes in recording.of_type(VIRTUAL_SERVICE):
        spec, namespace = routes.inputs["spec"], routes.inputs["metadata"]["namespace"]
        if spec.get("gateways") == ["mesh"]:
            continue
        for host in spec["hosts"]:
            for gateway in spec.get("gateways") or ["none"]:
                if (gateway, f"{namespace}/{host}") not in served:
                    yield f"{routes.name}: {host} is not served by {gateway}"


def clients_keep_their_addresses(recording: Recording) -> Iterator[str]:
    """Neither a node nor the load balancer puts its own in place of the client's."""
    addons = any(
        it.inputs.get("chart") == contract.LOAD_BALANCER_CONTROLLER
        for it in recording.of_type(RELEASE)
    )
    for release in recording.of_type(RELEASE):
        service = release.inputs["values"].get("service", {})
        if service.get("type") not in ("LoadBalancer", "NodePort"):
            continue
        if service.get("externalTrafficPolicy") != "Local":
            yield f"{release.name}: nodes pass on with their own address"
        prefix = "service.beta.kubernetes.io/aws-load-balancer-"
        annotations = service.get("annotations", {})
        # Of Services without it, EKS makes load balancers of its own that are older.
        if addons and annotations.get(f"{prefix}type") != "external":
            yield f"{release.name}: not the load balancer of the add-on"
        by_address = annotations.get(f"{prefix}nlb-target-type") == "ip"
        attributes = annotations.get(f"{prefix}target-group-attributes", "").split(",")
        # An NLB does it by default for instances only:
        # https://docs.aws.amazon.com/elasticloadbalancing/latest/network/edit-target-group-attributes.html
        if by_address and "preserve_client_ip.enabled=true" not in attributes:
            yield f"{release.name}: the load balancer passes on with its own address"


def tokens_are_verified_at_the_gateway_and_again_at_each_voice(
    recording: Recording,
) -> Iterator[str]:
    """By the same issuers, and only the voice takes the token off the request."""
    rules_at: dict[bool, list[Any]] = {True: [], False: []}
    for where, labels, is_gateway in _doors(recording):
        found = _applied(recording, AUTHENTICATION, where, labels)
        if not found:
            yield f"{labels} in {where} verify no tokens"
        for spec in found:
            for rule in spec["jwtRules"]:
                if rule.get("forwardOriginalToken", False) is not is_gateway:
                    yield f"{labels} in {where} do with tokens what is not theirs to do"
                if not rule.get("audiences"):
                    yield f"{labels} in {where} take tokens for other services"
                said = {key: it for key, it in rule.items() if key != "forwardOriginalToken"}
                rules_at[is_gateway].append(said)
    for rule in rules_at[False]:
        if rule not in rules_at[True]:
            yield f"the gateway does not know {rule['issuer']} as the voices do"


def nobody_comes_in_without_a_token_or_a_name(recording: Recording) -> Iterator[str]:
    """The gateway refuses who has no token; a voice lets in whom it names, and for what."""
    for where, labels, is_gateway in _doors(recording):
        policies = _applied(recording, AUTHORIZATION, where, labels)
        wanted = "DENY" if is_gateway else "ALLOW"
        if wanted not in {policy["action"] for policy in policies}:
            yield f"{labels} in {where} have no policy that says {wanted}"
        for policy in policies:
            for rule in policy.get("rules", []):
                if policy["action"] == "ALLOW" and not rule.get("from"):
                    yield f"{labels} in {where} let in anybody"


def _doors(recording: Recording) -> Iterator[tuple[str, dict[str, str], bool]]:
    """Pods that requests from outside come to: their namespace, their labels, and whether they are
    a gateway's."""
    for gateway in recording.of_type(GATEWAY):
        yield gateway.inputs["metadata"]["namespace"], gateway.inputs["spec"]["selector"], True
    for routes in recording.of_type(VIRTUAL_SERVICE):
        if routes.inputs["spec"].get("gateways") == ["mesh"]:
            continue
        where = routes.inputs["metadata"]["namespace"]
        hosts = {
            part["destination"]["host"]
            for route in routes.inputs["spec"]["http"]
            for part in route["route"]
        }
        for host in sorted(hosts):
            yield where, {contract.APP_LABEL: host.split(".")[0]}, False


def _applied(
    recording: Recording, type_: str, namespace: str, labels: Mapping[str, str]
) -> list[Any]:
    """Specs of policies that apply to the pods with certain labels."""
    return [
        found.inputs["spec"]
        for found in recording.of_type(type_)
        if found.inputs["metadata"]["namespace"] == namespace
        and found.inputs["spec"]["selector"]["matchLabels"] == labels
    ]


def no_metrics_in_public(recording: Recording) -> Iterator[str]:
    for routes in recording.of_type(VIRTUAL_SERVICE):
        spec = routes.inputs["spec"]
        if spec.get("gateways") == ["mesh"]:
            continue
        for route in spec["http"]:
            matches = route.get("match") or [{"uri": {"prefix": "/"}}]
            if any(_matches(match["uri"], contract.METRICS_PATH) for match in matches):
                yield f"{routes.name} routes {contract.METRICS_PATH}"


def no_request_is_run_twice(recording: Recording) -> Iterator[str]:
    harmless = {"connect-failure", "refused-stream", "reset-before-request"}
    for routes in recording.of_type(VIRTUAL_SERVICE):
        for route in routes.inputs["spec"]["http"]:
            retries = route.get("retries", {"retryOn": "istio's own: unavailable, cancelled"})
            if not set(retries["retryOn"].split(",")) <= harmless:
                yield f"{routes.name} retries on {retries['retryOn']}"


def pods_meet_the_restricted_standard(recording: Recording) -> Iterator[str]:
    for deployment in recording.of_type(DEPLOYMENT):
        pod = _pod(deployment)
        context = pod.get("securityContext", {})
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{deployment.name} has no seccomp profile for its whole pod"
        if not context.get("runAsNonRoot"):
            yield f"{deployment.name} may run as root"
        for container in [*(pod.get("initContainers") or []), *pod["containers"]]:
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False:
                yield f"{deployment.name} allows privilege escalation"
            if own.get("capabilities", {}).get("drop") != ["ALL"]:
                yield f"{deployment.name} keeps capabilities"
            if not own.get("readOnlyRootFilesystem"):
                yield f"{deployment.name} can write to its image"
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{deployment.name} carries a token of the API server"


def rollouts_need_no_spare_gpu(recording: Recording) -> Iterator[str]:
    for deployment in voices(recording, DEPLOYMENT):
        strategy = deployment.inputs["spec"].get("strategy", {}).get("rollingUpdate", {})
        if (strategy.get("maxSurge"), strategy.get("maxUnavailable")) != (0, 1):
            yield f"{deployment.name} surges"


def pods_outlive_their_streams(max_stream_seconds: int) -> Rule:
    def rule(recording: Recording) -> Iterator[str]:
        for deployment in voices(recording, DEPLOYMENT):
            if _pod(deployment).get("terminationGracePeriodSeconds", 30) <= max_stream_seconds:
                yield f"{deployment.name} kills streams"

    return rule


def gpus_are_requested_and_limited_alike(recording: Recording) -> Iterator[str]:
    for deployment in recording.of_type(DEPLOYMENT):
        for container in _pod(deployment)["containers"]:
            resources = container["resources"]
            requested, limited = (
                {name: count for name, count in resources.get(kind, {}).items() if "/" in name}
                for kind in ("requests", "limits")
            )
            if requested != limited:
                yield f"{deployment.name} requests {requested} and is limited to {limited}"


def pods_run_on_these_nodes_only(nodes: Mapping[str, Any], expected: set[str]) -> Rule:
    """Nodes have `labels`, and `taints` as key=value:Effect."""

    def rule(recording: Recording) -> Iterator[str]:
        for deployment in voices(recording, DEPLOYMENT):
            fitting = {name for name, node in nodes.items() if _fits(_pod(deployment), node)}
            if fitting != expected:
                yield f"{deployment.name} fits {sorted(fitting)}"

    return rule


def workloads_fit_their_quota(recording: Recording) -> Iterator[str]:
    (istiod,) = [release for release in recording.of_type(RELEASE) if release.name == "mesh-istiod"]
    sidecar = istiod.inputs["values"]["global"]["proxy"]["resources"]["requests"]
    for quota in recording.of_type(QUOTA):
        namespace = quota.inputs["metadata"]["namespace"]
        needs: Counter[str] = Counter()
        for deployment in recording.of_type(DEPLOYMENT):
            if deployment.inputs["metadata"]["namespace"] == namespace:
                _, most = _replicas(recording, deployment)
                one = _amounts(sidecar) + Counter({"pods": 1}) + _requested(_pod(deployment))
                needs += Counter({name: most * amount for name, amount in one.items()})
        hard = quota.inputs["spec"]["hard"]
        allowed = _amounts({key.removeprefix("requests."): v for key, v in hard.items()})
        for name, amount in needs.items():
            # What a quota does not name, it does not bound; GPUs it has to.
            bounded = name in allowed or "/" in name
            if bounded and amount > allowed[name]:
                yield f"{namespace} needs {amount} of {name}, may have {allowed[name]}"


def mutated(recording: Recording, type_: str, change: Callable[[dict[str, Any]], Any]) -> Recording:
    """The recording with the inputs of all resources of a type changed, in place, by `change`.

    Of types that not voices alone have: those of voices.
    """
    mine = {resource.urn for resource in voices(recording, type_)}

    def changed(resource: Registration) -> Registration:
        if resource.urn not in mine:
            return resource
        inputs = json.loads(json.dumps(resource.inputs))
        change(inputs)
        return replace(resource, inputs=inputs)

    return replace(recording, registrations=tuple(map(changed, recording.registrations)))


def with_options(recording: Recording, type_: str, **options: Any) -> Recording:
    """The recording with other options, or outputs, of all resources of a type."""
    changed = [replace(r, **options) if r.type == type_ else r for r in recording.registrations]
    return replace(recording, registrations=tuple(changed))


def _pod(deployment: Registration) -> Any:
    return deployment.inputs["spec"]["template"]["spec"]


def _selected(
    recording: Recording, rule: Registration, labels: Mapping[str, str]
) -> list[Registration]:
    """Deployments with pods of a subset: those of the rule's service that have its labels."""
    service = {contract.APP_LABEL: rule.inputs["spec"]["host"].split(".")[0]}
    return [
        deployment
        for deployment in recording.of_type(DEPLOYMENT)
        if deployment.inputs["metadata"]["namespace"] == rule.inputs["metadata"]["namespace"]
        and {**service, **labels}.items()
        <= deployment.inputs["spec"]["template"]["metadata"]["labels"].items()
    ]


def _autoscaler(recording: Recording, deployment: Registration) -> Registration | None:
    target = deployment.inputs["metadata"]
    for autoscaler in recording.of_type(SCALED_OBJECT) + recording.of_type(POD_AUTOSCALER):
        same = autoscaler.inputs["metadata"]["namespace"] == target["namespace"]
        if same and autoscaler.inputs["spec"]["scaleTargetRef"]["name"] == target["name"]:
            return autoscaler
    return None


def _replicas(recording: Recording, deployment: Registration) -> tuple[int, int]:
    """Fewest and most pods."""
    autoscaler = _autoscaler(recording, deployment)
    if autoscaler is None:
        fixed = deployment.inputs["spec"]["replicas"]
        return fixed, fixed
    spec = autoscaler.inputs["spec"]
    if autoscaler.type == SCALED_OBJECT:
        return spec["minReplicaCount"], spec["maxReplicaCount"]
    return spec["minReplicas"], spec["maxReplicas"]


def _requested(pod: Mapping[str, Any]) -> Counter[str]:
    """What counts is what runs at the same time: all containers, or one before they start."""
    together: Counter[str] = Counter()
    for container in pod["containers"]:
        together += _amounts(container["resources"]["requests"])
    for container in pod.get("initContainers") or []:
        together |= _amounts(container["resources"]["requests"])
    return together


def _amounts(quantities: Mapping[str, str]) -> Counter[str]:
    read = {"cpu": _millicores, "memory": _mebibytes, "ephemeral-storage": _mebibytes}
    return Counter({name: read.get(name, int)(text) for name, text in quantities.items()})


def _matches(uri: Mapping[str, str], path: str) -> bool:
    return path == uri.get("exact") or ("prefix" in uri and path.startswith(uri["prefix"]))


def _fits(pod: Mapping[str, Any], node: Any) -> bool:
    tolerated = {
        f"{toleration['key']}={toleration.get('value', '')}:{toleration['effect']}"
        for toleration in pod.get("tolerations", [])
    }
    return pod.get("nodeSelector", {}).items() <= node.labels.items() and tolerated >= {
        *node.taints
    }


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _texts(entry, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _texts(entry, f"{path}[{index}]")


def _millicores(quantity: str) -> int:
    return int(quantity[:-1]) if quantity.endswith("m") else int(quantity) * 1000


def _mebibytes(quantity: str) -> int:
    return int(quantity[:-2]) * (1024 if quantity.endswith("Gi") else 1)
