"""One fault for each rule, in resources that environments really declare.

A fault leaves the resource one that its API would take, and breaks nothing but the rule.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.policies.recorded import ABSENT, changed, environment, one
from voicemesh_policies.objects import Resource

VOICE: Final = "Deployment studio-narrator-stable"
REDIS: Final = "Deployment public-gateway-redis"
PUBLIC: Final = "VirtualService studio-narrator-public"
MESH: Final = "VirtualService studio-narrator-mesh"
RULE: Final = "DestinationRule studio-narrator"
ALLOW: Final = "AuthorizationPolicy studio-narrator"
FILTER: Final = "EnvoyFilter public-gateway-identity"
POD: Final = "spec.template.spec"
SERVER: Final = f"{POD}.containers[0]"
CONTEXT: Final = f"{SERVER}.securityContext"
ROUTE: Final = "spec.http[1]"
GROUP: Final = "NodeGroup online-on-demand"
SLICED: Final = "Deployment library-reader-stable"
IMAGE: Final = "123456789012.dkr.ecr.us-east-2.amazonaws.com/voicemesh-prod-cluster/speech-server"


@dataclass(frozen=True)
class Mutant:
    """A change of one resource that breaks one rule.

    Attributes:
        resource: kind and name.
        path: where it is changed; where it is unknown, too, unless `unknown` says otherwise.
        to: the value there, or a function that makes it of the property before.
        says: what the message has to have beside resource and fix: property and value above all.
        about: whom the message is about, where that is another resource; "" for the stack.
        unknown: where a value is unknown so that the rule cannot judge; "" where nothing can be.
        spares: kind and name of a resource that the rule judges and where the same change is none
            of its business.
    """

    rule: str
    resource: str
    path: str
    to: Any
    says: Sequence[str]
    stack: str = "prod"
    about: str | None = None
    unknown: str | None = None
    spares: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)

    def original(self) -> Resource:
        if self.rule == "jobs-get-no-requests":
            return _job()
        return one(environment(self.stack), self.resource)

    @property
    def value(self) -> Any:
        """What is put there."""
        return self.to(self.original().load()[self.path]) if callable(self.to) else self.to

    def applied(self, to: Any = None, path: str = "") -> list[Resource]:
        """The stack with the change, and the changed resource first."""
        original = self.original()
        mutant = changed(original, path or self.path, self.value if to is None else to)
        others = [it for it in environment(self.stack) if it.urn != original.urn]
        return [mutant, *others]


def _job() -> Resource:
    """A batch job that is all right: the pod of a voice, without its GPU and under other labels."""
    voice = one(environment("prod"), VOICE)
    spec = deepcopy(voice.load()["spec"])
    template = spec["template"]
    template["metadata"]["labels"] = {"app": "batch"}
    for amounts in template["spec"]["containers"][0]["resources"].values():
        amounts.pop("nvidia.com/gpu", None)
    properties = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "batch", "namespace": "studio"},
        "spec": {"template": template},
    }
    return replace(
        voice,
        type="kubernetes:batch/v1:Job",
        name="batch",
        urn=voice.urn.replace("Deployment", "Job"),
        load=lambda: properties,
    )


def _edited(change: Callable[[Any], None]) -> Callable[[str], str]:
    """Of a document as text, the same with a change."""

    def edit(text: str) -> str:
        document = json.loads(text)
        change(document)
        return json.dumps(document)

    return edit


def _widened(key: str, to: Any) -> Any:
    def change(document: Any) -> None:
        document["Statement"][0][key] = to

    return change


def _without_shield(document: Any) -> None:
    document["rules"] = [it for it in document["rules"] if it["rulePriority"] != 2]


def _only_denies_reading(document: Any) -> None:
    document["Statement"][0]["Action"] = "s3:GetObject"


WORKLOADS: Final = [
    Mutant(
        "image-is-exact",
        REDIS,
        f"{SERVER}.image",
        "docker.io/valkey/valkey:latest",
        [f"{SERVER}.image", "valkey:latest"],
    ),
    Mutant(
        "own-image-is-named-by-digest",
        VOICE,
        f"{SERVER}.image",
        f"{IMAGE}:1.4.2",
        [f"{SERVER}.image", "speech-server:1.4.2"],
        spares=REDIS,
    ),
    Mutant(
        "others-image-is-listed",
        REDIS,
        f"{SERVER}.image",
        "docker.io/somebody/valkey:8.1.4",
        [f"{SERVER}.image", "somebody/valkey:8.1.4"],
    ),
    Mutant(
        "cpu-and-memory-are-requested",
        VOICE,
        f"{SERVER}.resources.requests.cpu",
        ABSENT,
        [f"{SERVER}.resources.requests.cpu", "missing"],
    ),
    Mutant(
        "memory-is-limited",
        VOICE,
        f"{SERVER}.resources.limits.memory",
        ABSENT,
        [f"{SERVER}.resources.limits.memory", "missing"],
    ),
    Mutant(
        "readiness-is-probed",
        VOICE,
        f"{SERVER}.readinessProbe",
        ABSENT,
        [f"{SERVER}.readinessProbe", "missing"],
    ),
    Mutant(
        "loading-and-hanging-are-probed",
        VOICE,
        f"{SERVER}.startupProbe",
        ABSENT,
        [f"{SERVER}.startupProbe", "missing"],
    ),
    Mutant(
        "pods-do-not-run-as-root",
        VOICE,
        f"{POD}.securityContext.runAsUser",
        0,
        [f"{POD}.securityContext.runAsUser is 0"],
    ),
    Mutant(
        "privileges-do-not-grow",
        VOICE,
        f"{CONTEXT}.allowPrivilegeEscalation",
        True,
        [f"{CONTEXT}.allowPrivilegeEscalation is true"],
    ),
    Mutant(
        "capabilities-are-dropped",
        VOICE,
        f"{CONTEXT}.capabilities.drop",
        ["NET_RAW"],
        [f"{CONTEXT}.capabilities.drop", '["NET_RAW"]'],
    ),
    Mutant(
        "system-calls-are-filtered",
        VOICE,
        f"{POD}.securityContext.seccompProfile.type",
        "Unconfined",
        [f"{POD}.securityContext.seccompProfile.type", '"Unconfined"'],
    ),
    Mutant(
        "node-is-out-of-reach",
        VOICE,
        f"{POD}.hostNetwork",
        True,
        [f"{POD}.hostNetwork is true"],
    ),
    Mutant(
        "image-is-read-only",
        VOICE,
        f"{CONTEXT}.readOnlyRootFilesystem",
        False,
        [f"{CONTEXT}.readOnlyRootFilesystem is false"],
    ),
    Mutant(
        "namespace-is-named",
        "ConfigMap public-gateway-ratelimit",
        "metadata.namespace",
        "default",
        ["metadata.namespace", '"default"'],
        spares="Namespace studio",
    ),
    Mutant(
        "no-token-is-mounted",
        VOICE,
        f"{POD}.automountServiceAccountToken",
        True,
        [f"{POD}.automountServiceAccountToken is true"],
    ),
    Mutant(
        "pods-can-be-evicted",
        "PodDisruptionBudget studio-narrator-stable",
        "spec",
        {
            "minAvailable": 2,
            "selector": {"matchLabels": {"app": "narrator", "voicemesh.io/variant": "stable"}},
        },
        ["spec.minAvailable is 2"],
    ),
    Mutant(
        "pods-outlive-their-streams",
        VOICE,
        f"{POD}.terminationGracePeriodSeconds",
        30,
        [f"{POD}.terminationGracePeriodSeconds is 30", "600"],
        spares=REDIS,
    ),
    Mutant(
        "jobs-get-no-requests",
        "Job batch",
        "spec.template.metadata.labels",
        {"app": "narrator", "task-type": "batch"},
        ["spec.template.metadata.labels", "'narrator'"],
    ),
]

GPU: Final = [
    Mutant(
        "gpu-updates-need-no-spare-gpu",
        VOICE,
        "spec.strategy.rollingUpdate",
        {"maxSurge": 1, "maxUnavailable": 1},
        ["spec.strategy.rollingUpdate.maxSurge is 1"],
        spares=REDIS,
    ),
    Mutant(
        "gpu-pods-tolerate-their-nodes",
        VOICE,
        f"{POD}.tolerations[0].effect",
        "NoExecute",
        [f"{POD}.tolerations", '"NoExecute"'],
    ),
    Mutant(
        "gpu-pods-choose-their-nodes",
        VOICE,
        f"{POD}.nodeSelector.accelerator",
        ABSENT,
        [f"{POD}.nodeSelector", "accelerator"],
    ),
    Mutant(
        "gpus-are-requested-and-limited",
        VOICE,
        f"{SERVER}.resources.requests[nvidia.com/gpu]",
        ABSENT,
        [f'{SERVER}.resources.requests["nvidia.com/gpu"]', "missing"],
        unknown=f"{SERVER}.resources.limits[nvidia.com/gpu]",
    ),
    Mutant(
        "slice-holds-the-model",
        SLICED,
        f"{POD}.initContainers[0].resources",
        {
            "requests": {"cpu": "2", "memory": "12Gi", "nvidia.com/mig-1g.10gb": "1"},
            "limits": {"memory": "12Gi", "nvidia.com/mig-1g.10gb": "1"},
        },
        ["nvidia.com/mig-1g.10gb", "10 GB", "12"],
        spares=VOICE,
    ),
    Mutant(
        "gpu-nodes-are-tainted",
        GROUP,
        "taints[0].effect",
        "PREFER_NO_SCHEDULE",
        ["taints", '"PREFER_NO_SCHEDULE"'],
        stack="prod-cluster",
    ),
    Mutant(
        "batch-nodes-turn-voices-away",
        "NodeGroup offline",
        "taints[1]",
        {"key": "team", "value": "batch", "effect": "NO_SCHEDULE"},
        ["taints", '"team"'],
        stack="prod-cluster",
    ),
    Mutant(
        "gpu-nodes-are-labelled",
        GROUP,
        "labels[nvidia.com/gpu.present]",
        ABSENT,
        ["labels", "nvidia.com/gpu.present"],
        stack="prod-cluster",
    ),
    Mutant(
        "instance-types-fit-their-label",
        GROUP,
        "instanceTypes[0]",
        "p5en.48xlarge",
        ["instanceTypes[0]", '"p5en.48xlarge"', "h200"],
        stack="prod-cluster",
        config={"cost-is-within-budget": "disabled"},
    ),
    Mutant(
        "gpu-nodes-have-a-driver",
        GROUP,
        "amiType",
        "AL2023_x86_64_STANDARD",
        ["amiType", '"AL2023_x86_64_STANDARD"'],
        stack="prod-cluster",
    ),
    Mutant(
        "gpus-are-under-a-quota",
        "ResourceQuota captions",
        "spec.hard[requests.nvidia.com/gpu]",
        ABSENT,
        [f"{POD}.containers", "nvidia.com/gpu", "captions"],
        about="Deployment captions-live-stable",
        unknown="spec.hard",
    ),
    Mutant(
        "gpu-quotas-bound-requests",
        "ResourceQuota captions",
        "spec.hard[limits.nvidia.com/gpu]",
        "4",
        ['spec.hard["limits.nvidia.com/gpu"]', '"4"'],
        unknown="spec.hard",
    ),
]

MESH_RULES: Final = [
    Mutant(
        "istio-version-is-served",
        FILTER,
        "apiVersion",
        "networking.istio.io/v1beta1",
        ["apiVersion", "networking.istio.io/v1beta1", "v1alpha3"],
        unknown="",
    ),
    Mutant(
        "istio-fields-exist",
        RULE,
        "spec.subsets[0].trafficPolicy.outlierDetection.consecutive_5xx",
        3,
        ["outlierDetection.consecutive_5xx is 3"],
        unknown="spec.subsets",
    ),
    Mutant(
        "istio-values-fit",
        RULE,
        "spec.trafficPolicy.loadBalancer.simple",
        "FASTEST",
        ["spec.trafficPolicy.loadBalancer.simple", '"FASTEST"'],
    ),
    Mutant(
        "routes-name-their-gateways",
        MESH,
        "spec.gateways",
        ABSENT,
        ["spec.gateways", "missing"],
    ),
    Mutant(
        "hosts-are-named",
        "Gateway public-gateway",
        "spec.servers[0].hosts[+]",
        "captions/*",
        ["spec.servers[0].hosts", '"captions/*"'],
        unknown="spec.servers[0].hosts",
    ),
    Mutant(
        "weights-are-100-together",
        MESH,
        "spec.http[0].route[1].weight",
        20,
        ["spec.http[0].route", "110 %"],
    ),
    Mutant(
        "no-request-runs-twice",
        PUBLIC,
        f"{ROUTE}.retries.retryOn",
        "5xx,connect-failure",
        [f"{ROUTE}.retries.retryOn", '"5xx,connect-failure"'],
    ),
    Mutant(
        "routes-let-streams-finish",
        PUBLIC,
        f"{ROUTE}.timeout",
        "30s",
        [f"{ROUTE}.timeout", '"30s"', "600"],
    ),
    Mutant(
        "identity-headers-do-not-route",
        PUBLIC,
        "spec.http[0].match[0].headers",
        {"x-user-tier": {"exact": "vip"}},
        ["spec.http[0].match[0].headers.x-user-tier", '"vip"'],
    ),
    Mutant(
        "claims-route-at-gateways",
        MESH,
        "spec.http[0].match",
        [{"headers": {"@request.auth.claims.tier": {"exact": "vip"}}}],
        ["@request.auth.claims.tier", '"vip"'],
    ),
    Mutant(
        "operators-paths-stay-inside",
        PUBLIC,
        f"{ROUTE}.match[+]",
        {"uri": {"prefix": "/metrics"}},
        [f"{ROUTE}.match[", '"/metrics"'],
        unknown=f"{ROUTE}.match",
    ),
    Mutant(
        "routes-lead-to-subsets",
        MESH,
        "spec.http[0].route[1].destination.subset",
        "experimental",
        ["spec.http[0].route[1].destination.subset", '"experimental"'],
    ),
    Mutant(
        "subsets-have-pods",
        RULE,
        "spec.subsets[1].labels[node-type]",
        "online-inference",
        ["spec.subsets[1].labels", '"online-inference"'],
        unknown="spec.subsets[1].labels",
    ),
    Mutant(
        "one-pod-can-be-ejected",
        RULE,
        "spec.subsets[0].trafficPolicy.outlierDetection.maxEjectionPercent",
        ABSENT,
        ["spec.subsets[0].trafficPolicy.outlierDetection.maxEjectionPercent", "missing", "2 pods"],
    ),
    Mutant(
        "connections-are-used-again",
        RULE,
        "spec.trafficPolicy.connectionPool.http.maxRequestsPerConnection",
        1,
        ["spec.trafficPolicy.connectionPool.http.maxRequestsPerConnection is 1"],
    ),
    Mutant(
        "gateways-serve-their-routes",
        PUBLIC,
        "spec.hosts[0]",
        "books.tts.example.com",
        ["spec.hosts[0]", '"books.tts.example.com"', "istio-ingress/public-gateway"],
    ),
    Mutant(
        "gateways-encrypt",
        "Gateway public-gateway",
        "spec.servers[0].tls",
        ABSENT,
        ["spec.servers[0].tls.httpsRedirect", "missing"],
    ),
    Mutant(
        "mutual-tls-is-strict",
        "PeerAuthentication mesh-strict",
        "spec.mtls.mode",
        "PERMISSIVE",
        ["spec.mtls.mode", '"PERMISSIVE"'],
    ),
    Mutant(
        "callers-keep-mutual-tls",
        RULE,
        "spec.trafficPolicy.tls",
        {"mode": "DISABLE"},
        ["spec.trafficPolicy.tls.mode", '"DISABLE"'],
    ),
    Mutant(
        "tokens-are-required",
        "AuthorizationPolicy public-gateway-token",
        "spec.selector.matchLabels.istio",
        "another-gateway",
        ["spec.selector", '"public-gateway"'],
        about="RequestAuthentication public-gateway",
    ),
    Mutant(
        "tokens-name-their-audience",
        "RequestAuthentication studio-narrator",
        "spec.jwtRules[0].audiences",
        ABSENT,
        ["spec.jwtRules[0].audiences", "missing"],
    ),
    Mutant(
        "callers-are-named",
        "AuthorizationPolicy public-gateway-redis",
        "spec.rules[0].from",
        ABSENT,
        ["spec.rules[0].from", "missing"],
    ),
    Mutant(
        "principals-are-exact",
        ALLOW,
        "spec.rules[1].from[0].source.principals[0]",
        "cluster.local/ns/istio-ingress/sa/*",
        ["spec.rules[1].from[0].source.principals[0]", "sa/*"],
    ),
    Mutant(
        "public-paths-ask-for-a-scope",
        ALLOW,
        "spec.rules[2].when",
        ABSENT,
        ["spec.rules[2].to[0].operation.paths[0]", '"/v1/audio/voices"', "tts.premium"],
    ),
    Mutant(
        "scopes-fit-their-paths",
        ALLOW,
        "spec.rules[3].when[0].values",
        ["tts.basic", "tts.batch"],
        ["spec.rules[3].to[0].operation.paths[0]", '"/batch"', "tts.basic"],
    ),
    Mutant(
        "filters-are-for-named-pods",
        FILTER,
        "spec.workloadSelector",
        ABSENT,
        ["spec.workloadSelector", "missing"],
    ),
    Mutant(
        "envoy-fields-exist",
        FILTER,
        "spec.configPatches[1].patch.value.typed_config.flush_interval",
        "0.01s",
        ["typed_config.flush_interval", '"0.01s"', "HttpConnectionManager"],
        unknown="spec.configPatches[1].patch.value",
    ),
    Mutant(
        "filters-let-streams-finish",
        FILTER,
        "spec.configPatches[1].patch.value.typed_config.stream_idle_timeout",
        "30s",
        ["typed_config.stream_idle_timeout", '"30s"', "600"],
        unknown="spec.configPatches",
    ),
    Mutant(
        "one-owner-routes-a-host",
        "VirtualService captions-live-mesh",
        "spec.hosts[+]",
        "narrator.studio.svc.cluster.local",
        ["spec.hosts[", '"narrator.studio.svc.cluster.local"'],
        about="",
        unknown="spec.hosts",
    ),
]

AWS: Final = [
    Mutant(
        "buckets-encrypt-with-a-key",
        "BucketServerSideEncryptionConfiguration voices",
        "rules[0].applyServerSideEncryptionByDefault.sseAlgorithm",
        "AES256",
        ["rules[0].applyServerSideEncryptionByDefault.sseAlgorithm", '"AES256"'],
        stack="prod-cluster",
    ),
    Mutant(
        "buckets-refuse-plain-http",
        "BucketPolicy voices",
        "policy",
        _edited(_only_denies_reading),
        ["policy is", "Statement"],
        stack="prod-cluster",
    ),
    Mutant(
        "buckets-are-private",
        "BucketPublicAccessBlock voices",
        "blockPublicPolicy",
        False,
        ["blockPublicPolicy is false"],
        stack="prod-cluster",
    ),
    Mutant(
        "old-versions-expire-too",
        "BucketLifecycleConfiguration voices",
        "rules[0].noncurrentVersionExpiration",
        ABSENT,
        ["rules[0].noncurrentVersionExpiration", "missing"],
        stack="prod-cluster",
    ),
    Mutant(
        "unfinished-uploads-are-removed",
        "BucketLifecycleConfiguration voices",
        "rules[4]",
        {"id": "rest", "status": "Disabled", "filter": {"prefix": ""}},
        ["rules is", "a list of 5"],
        stack="prod-cluster",
    ),
    Mutant(
        "rollback-images-stay",
        "LifecyclePolicy images-speech-server",
        "policy",
        _edited(_without_shield),
        ["policy.rules[1]", "rollback-*"],
        stack="prod-cluster",
    ),
    Mutant(
        "image-tags-do-not-move",
        "Repository images-speech-server",
        "imageTagMutability",
        "MUTABLE",
        ["imageTagMutability", '"MUTABLE"'],
        stack="prod-cluster",
    ),
    Mutant(
        "iam-names-actions",
        "RolePolicy cluster-secrets-key",
        "policy",
        _edited(_widened("Action", "kms:*")),
        ["policy.Statement[0].Action", '"kms:*"'],
        stack="prod-cluster",
    ),
    Mutant(
        "iam-names-resources",
        "RolePolicy cluster-secrets-key",
        "policy",
        _edited(_widened("Resource", "*")),
        ["policy.Statement[0].Resource", '"*"', "kms:Encrypt"],
        stack="prod-cluster",
    ),
    Mutant(
        "nodes-require-imdsv2",
        "LaunchTemplate online-on-demand",
        "metadataOptions.httpTokens",
        "optional",
        ["metadataOptions.httpTokens", '"optional"'],
        stack="prod-cluster",
    ),
    Mutant(
        "volumes-are-encrypted",
        "LaunchTemplate online-on-demand",
        "blockDeviceMappings[0].ebs.encrypted",
        "false",
        ["blockDeviceMappings[0].ebs.encrypted", '"false"'],
        stack="prod-cluster",
    ),
    Mutant(
        "nodes-are-private",
        "Subnet cluster-private-us-east-2a",
        "mapPublicIpOnLaunch",
        True,
        ["mapPublicIpOnLaunch is true"],
        stack="prod-cluster",
        spares="Subnet cluster-public-us-east-2a",
    ),
    Mutant(
        "cluster-logs-everything",
        "Cluster cluster",
        "enabledClusterLogTypes",
        ["api", "audit"],
        ["enabledClusterLogTypes", '["api", "audit"]', "scheduler"],
        stack="prod-cluster",
    ),
    Mutant(
        "cluster-is-in-standard-support",
        "Cluster cluster",
        "upgradePolicy.supportType",
        "EXTENDED",
        ["upgradePolicy.supportType", '"EXTENDED"'],
        stack="prod-cluster",
    ),
    Mutant(
        "cluster-secrets-are-encrypted",
        "Cluster cluster",
        "encryptionConfig",
        ABSENT,
        ["encryptionConfig.resources", "missing"],
        stack="prod-cluster",
    ),
    Mutant(
        "api-server-is-not-public",
        "Cluster cluster",
        "vpcConfig.publicAccessCidrs",
        ["0.0.0.0/0"],
        ["vpcConfig.publicAccessCidrs", '["0.0.0.0/0"]'],
        stack="prod-cluster",
    ),
    Mutant(
        "state-is-protected",
        "Bucket voices",
        "options.protect",
        False,
        ["options.protect is false"],
        stack="prod-cluster",
        unknown="",
    ),
    Mutant(
        "cluster-refuses-deletion",
        "Cluster cluster",
        "deletionProtection",
        False,
        ["deletionProtection is false"],
        stack="prod-cluster",
    ),
    Mutant(
        "keys-rotate",
        "Key voices",
        "enableKeyRotation",
        False,
        ["enableKeyRotation is false"],
        stack="prod-cluster",
    ),
    Mutant(
        "tags-are-there",
        "Bucket voices",
        "tags.environment",
        "",
        ["tags is", "environment"],
        stack="prod-cluster",
        unknown="tags",
    ),
]

STACK: Final = [
    Mutant(
        "namespaces-have-a-quota",
        "ResourceQuota studio",
        "spec.hard.pods",
        ABSENT,
        ["ResourceQuota pods is missing", "studio"],
        about="Namespace studio",
        unknown="spec.hard",
    ),
    Mutant(
        "namespaces-have-limits",
        "LimitRange studio",
        "spec.limits[0].defaultRequest",
        ABSENT,
        ["LimitRange is missing", "studio"],
        about="Namespace studio",
    ),
    Mutant(
        "namespaces-deny-traffic",
        "NetworkPolicy studio-default-deny",
        "spec.policyTypes",
        ["Ingress"],
        ["NetworkPolicy for Egress is missing", "studio"],
        about="Namespace studio",
    ),
    Mutant(
        "namespaces-have-mutual-tls",
        "PeerAuthentication mesh-strict",
        "spec.selector",
        {"matchLabels": {"app": "istiod"}},
        ["PeerAuthentication is missing", "studio"],
        about="Namespace studio",
    ),
    Mutant(
        "namespaces-are-restricted",
        "Namespace studio",
        "metadata.labels[pod-security.kubernetes.io/enforce]",
        "baseline",
        ['metadata.labels["pod-security.kubernetes.io/enforce"]', '"baseline"'],
        spares="Namespace addons-gpu",
    ),
    Mutant(
        "gpus-fit-their-quota",
        "ResourceQuota studio",
        "spec.hard[requests.nvidia.com/gpu]",
        "7",
        ['spec.hard["requests.nvidia.com/gpu"]', '"7"', "8"],
    ),
    Mutant(
        "gpus-fit-their-nodes",
        "NodeGroup online",
        "scalingConfig.maxSize",
        3,
        ["maxSize of node groups", "3 nvidia.com/gpu"],
        stack="staging",
        about="Deployment studio-narrator-canary",
    ),
    Mutant(
        "cost-is-within-budget",
        "NodeGroup online-on-demand",
        "scalingConfig.maxSize",
        80,
        ["cost a month", "dollars", "160,000"],
        stack="prod-cluster",
        about="",
    ),
]

MUTANTS: Final = [*WORKLOADS, *GPU, *MESH_RULES, *AWS, *STACK]


def _variant(
    rule: str, resource: str, path: str, to: Any, *says: str, stack: str = "prod"
) -> Mutant:
    return Mutant(rule, resource, path, to, says, stack)


def _lifecycle(**selection: Any) -> Any:
    def change(document: Any) -> None:
        document["rules"][-1]["selection"] |= selection

    return change


def _document(**statement: Any) -> Callable[[str], str]:
    def change(document: Any) -> None:
        document["Statement"] = [{"Effect": "Allow", **statement}]

    return _edited(change)


_SECRETS_KEY: Final = "RolePolicy cluster-secrets-key"
_LIFECYCLE: Final = "LifecyclePolicy images-speech-server"
_HCM: Final = "spec.configPatches[1].patch.value.typed_config"
_GATEWAY: Final = "Gateway public-gateway"
_BUDGET: Final = "PodDisruptionBudget studio-narrator-stable"
_PROD_CLUSTER: Final = "prod-cluster"

VARIANTS: Final = [
    _variant("image-is-exact", REDIS, f"{SERVER}.image", "docker.io/valkey/valkey"),
    _variant("image-is-exact", REDIS, f"{SERVER}.image", "docker.io/valkey/valkey:edge"),
    _variant("own-image-is-named-by-digest", VOICE, f"{SERVER}.image", f"{IMAGE}:1@sha256:12"),
    _variant("cpu-and-memory-are-requested", VOICE, f"{SERVER}.resources.requests.memory", "0"),
    _variant("cpu-and-memory-are-requested", VOICE, f"{SERVER}.resources.requests.cpu", "much"),
    _variant("memory-is-limited", VOICE, f"{POD}.initContainers[0].resources.limits", ABSENT),
    _variant("loading-and-hanging-are-probed", VOICE, f"{SERVER}.livenessProbe", ABSENT),
    _variant("pods-do-not-run-as-root", VOICE, f"{POD}.securityContext.runAsNonRoot", False),
    _variant("pods-do-not-run-as-root", VOICE, f"{CONTEXT}.runAsNonRoot", False),
    _variant("privileges-do-not-grow", VOICE, f"{CONTEXT}.privileged", True),
    _variant("capabilities-are-dropped", VOICE, f"{CONTEXT}.capabilities.add", ["SYS_ADMIN"]),
    _variant("system-calls-are-filtered", VOICE, f"{CONTEXT}.seccompProfile.type", "Unconfined"),
    _variant("node-is-out-of-reach", VOICE, f"{POD}.hostPID", True),
    _variant("node-is-out-of-reach", VOICE, f"{SERVER}.ports[0].hostPort", 8080),
    _variant(
        *("node-is-out-of-reach", VOICE, f"{POD}.volumes[+]"),
        {"name": "node", "hostPath": {"path": "/"}},
    ),
    _variant("namespace-is-named", "ConfigMap public-gateway-ratelimit", "metadata.namespace", ""),
    _variant(
        *("no-token-is-mounted", "ServiceAccount studio-narrator"),
        *("automountServiceAccountToken", ABSENT),
    ),
    _variant("pods-can-be-evicted", _BUDGET, "spec.maxUnavailable", 0),
    _variant("pods-can-be-evicted", _BUDGET, "spec.maxUnavailable", "0%"),
    _variant("pods-can-be-evicted", _BUDGET, "spec.minAvailable", "100%"),
    _variant("pods-outlive-their-streams", VOICE, f"{POD}.terminationGracePeriodSeconds", ABSENT),
    _variant("gpu-updates-need-no-spare-gpu", VOICE, "spec.strategy", ABSENT),
    _variant(
        *("gpu-updates-need-no-spare-gpu", VOICE, "spec.strategy.rollingUpdate.maxUnavailable", 0)
    ),
    _variant("gpu-pods-tolerate-their-nodes", VOICE, f"{POD}.tolerations", ABSENT),
    _variant("gpu-pods-tolerate-their-nodes", VOICE, f"{POD}.tolerations[0].value", "false"),
    _variant(
        *("gpus-are-requested-and-limited", VOICE, f"{SERVER}.resources.limits[nvidia.com/gpu]"),
        ABSENT,
    ),
    _variant("gpu-nodes-are-tainted", GROUP, "taints", ABSENT, stack=_PROD_CLUSTER),
    _variant(
        "instance-types-fit-their-label", GROUP, "labels.accelerator", "l40s", stack=_PROD_CLUSTER
    ),
    _variant("istio-fields-exist", PUBLIC, "spec.http[0].mirrorShare", 10),
    _variant("istio-fields-exist", "PeerAuthentication mesh-strict", "spec.mtls.level", "high"),
    _variant("istio-values-fit", PUBLIC, "spec.http[0].route[0].destination.host", ABSENT),
    _variant("istio-values-fit", RULE, "spec.trafficPolicy.loadBalancer.warmup", 3),
    _variant("routes-name-their-gateways", MESH, "spec.gateways", []),
    _variant("hosts-are-named", _GATEWAY, "spec.servers[0].hosts", ["*"]),
    _variant("weights-are-100-together", MESH, "spec.http[0].route[0].weight", ABSENT),
    _variant("no-request-runs-twice", PUBLIC, f"{ROUTE}.retries", ABSENT),
    _variant("no-request-runs-twice", PUBLIC, f"{ROUTE}.retries.retryOn", "gateway-error"),
    _variant("routes-let-streams-finish", PUBLIC, f"{ROUTE}.retries.perTryTimeout", "1m"),
    _variant(
        *("identity-headers-do-not-route", PUBLIC, f"{ROUTE}.match[0].withoutHeaders"),
        {"X-Tenant": {"exact": "studio"}},
    ),
    _variant("operators-paths-stay-inside", PUBLIC, f"{ROUTE}.match[0].uri", {"exact": "/metrics"}),
    _variant("operators-paths-stay-inside", PUBLIC, f"{ROUTE}.match[0].uri", {"prefix": "/"}),
    _variant("operators-paths-stay-inside", PUBLIC, f"{ROUTE}.match[0].uri", {"regex": ".*"}),
    _variant("operators-paths-stay-inside", PUBLIC, f"{ROUTE}.match", ABSENT),
    _variant("routes-lead-to-subsets", RULE, "spec.subsets[1].name", "beta"),
    _variant(
        *("one-pod-can-be-ejected", RULE),
        *("spec.subsets[0].trafficPolicy.outlierDetection.maxEjectionPercent", 49),
    ),
    _variant(
        "one-pod-can-be-ejected",
        RULE,
        "spec.trafficPolicy.outlierDetection",
        {"consecutive5xxErrors": 3},
    ),
    _variant("gateways-encrypt", _GATEWAY, "spec.servers[1].tls.minProtocolVersion", "TLSV1_0"),
    _variant("mutual-tls-is-strict", "PeerAuthentication mesh-strict", "spec.mtls", ABSENT),
    _variant(
        *("mutual-tls-is-strict", "PeerAuthentication mesh-strict", "spec.portLevelMtls"),
        {"8080": {"mode": "DISABLE"}},
    ),
    _variant(
        "callers-keep-mutual-tls",
        RULE,
        "spec.trafficPolicy.portLevelSettings",
        [{"port": {"number": 8080}, "tls": {"mode": "DISABLE"}}],
    ),
    _variant(
        *("principals-are-exact", ALLOW, "spec.rules[1].from[0].source.namespaces"),
        ["*"],
    ),
    _variant(
        *("public-paths-ask-for-a-scope", ALLOW, "spec.rules[0].to[0].operation.paths"),
        ["/*"],
        "/*",
    ),
    _variant("public-paths-ask-for-a-scope", ALLOW, "spec.rules[0].to", ABSENT),
    _variant(
        *("scopes-fit-their-paths", ALLOW, "spec.rules[1].to[0].operation.paths[+]"),
        "/v1/audio/voices",
    ),
    _variant("filters-are-for-named-pods", FILTER, "spec.workloadSelector.labels", {}),
    _variant("envoy-fields-exist", FILTER, f"{_HCM}.flushInterval", "0.01s"),
    _variant("envoy-fields-exist", FILTER, f"{_HCM}.[@type]", "type.googleapis.com/envoy.Made.Up"),
    _variant("filters-let-streams-finish", FILTER, f"{_HCM}.request_timeout", "10s"),
    _variant(
        *("filters-let-streams-finish", FILTER, f"{_HCM}.common_http_protocol_options"),
        {"max_stream_duration": "1m"},
    ),
    _variant(
        *("old-versions-expire-too", "BucketLifecycleConfiguration voices"),
        *("rules[0].noncurrentVersionExpiration.noncurrentDays", 0),
        stack=_PROD_CLUSTER,
    ),
    _variant(
        *("rollback-images-stay", _LIFECYCLE, "policy"),
        _edited(_lifecycle(countNumber=7)),
        *("countNumber is 7", "14 days"),
        stack=_PROD_CLUSTER,
    ),
    _variant(
        *("rollback-images-stay", _LIFECYCLE, "policy"),
        _edited(_lifecycle(countType="imageCountMoreThan", countNumber=10)),
        "countNumber is 10",
        stack=_PROD_CLUSTER,
    ),
    _variant("rollback-images-stay", _LIFECYCLE, "policy", "{}", stack=_PROD_CLUSTER),
    _variant(
        *("image-tags-do-not-move", "Repository images-speech-server"),
        *("imageTagMutabilityExclusionFilters[0].filter", "*"),
        stack=_PROD_CLUSTER,
    ),
    _variant(
        *("iam-names-actions", _SECRETS_KEY, "policy"),
        _document(NotAction="iam:*", Resource="arn:aws:kms:::key/1"),
        stack=_PROD_CLUSTER,
    ),
    _variant(
        *("iam-names-actions", _SECRETS_KEY, "policy"),
        _document(Action="*", Resource="arn:aws:kms:::key/1"),
        stack=_PROD_CLUSTER,
    ),
    _variant(
        *("iam-names-resources", _SECRETS_KEY, "policy"),
        _document(Action=["kms:Decrypt"], NotResource="arn:aws:kms:::key/1"),
        stack=_PROD_CLUSTER,
    ),
    _variant(
        *("nodes-require-imdsv2", "LaunchTemplate online-on-demand"),
        *("metadataOptions.httpPutResponseHopLimit", 2),
        stack=_PROD_CLUSTER,
    ),
    _variant(
        *("nodes-are-private", "LaunchTemplate online-on-demand", "networkInterfaces"),
        [{"associatePublicIpAddress": "true"}],
        stack=_PROD_CLUSTER,
    ),
    _variant(
        *("api-server-is-not-public", "Cluster cluster", "vpcConfig.publicAccessCidrs"),
        ABSENT,
        stack=_PROD_CLUSTER,
    ),
    _variant("keys-rotate", "Key voices", "deletionWindowInDays", 7, stack=_PROD_CLUSTER),
    _variant(
        *("cost-is-within-budget", "NodeGroup cluster-system", "instanceTypes[0]", "z9.huge"),
        "no known price",
        stack=_PROD_CLUSTER,
    ),
    _variant(
        *("gpus-fit-their-quota", "ScaledObject studio-narrator-stable", "spec.maxReplicaCount"),
        9,
    ),
]
"""Other ways to break a rule, each of which breaks nothing else."""
