"""The configuration of an environment: what is refused, with which words, and what is accepted."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import voicemesh
from infra.environment import (
    Environment,
    FaultyEnvironmentError,
    cluster,
    identity,
    load,
    mesh,
    services,
)
from infra.environment.section import Section, Size
from tests.stacks import (
    ENCRYPTED,
    PRIVATE_KEY,
    ROOT,
    STACKS,
    changed,
    local_values,
    stack_values,
    without,
)

LOCAL = local_values()
DEV, STAGING, CLUSTER, PROD = map(stack_values, STACKS[1:])
GROUPS = ("eks", "nodeGroups")
VOICE = ("voices", 0)
VARIANT = (*VOICE, "variants", 0)
AT = "voicemesh:voices[0].variants[0]"
ABSENT = "(absent)"
"""Stands for a key that is not there."""

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Mistake:
    """One value of an environment that is refused, and its permitted twin."""

    base: dict[str, Any]
    path: Path
    wrong: Any
    faults: list[str]
    right: Any = None
    """What is accepted in its place; None for what `base` has."""

    @property
    def values(self) -> dict[str, Any]:
        """The environment with the mistake."""
        return _with(self.base, self.path, self.wrong)

    @property
    def twin(self) -> dict[str, Any]:
        """The environment without it."""
        return self.base if self.right is None else _with(self.base, self.path, self.right)


def _with(base: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    return without(base, *path) if value == ABSENT else changed(base, *path, to=value)


def _second(values: dict[str, Any], *path: str | int, **other: Any) -> list[Any]:
    """A list of the configuration with its first entry repeated, changed in some keys."""
    found: Any = values
    for part in path:
        found = found[part]
    return [*found, {**found[0], **other}]


PLAIN: list[Mistake] = [
    Mistake(
        LOCAL,
        ("layer",),
        ["platform"],
        [
            "voicemesh:layer: unknown key; known ones here are addons, aws, cluster, eks, gateway, "
            "identity, layers, maxStreamSeconds, mesh, registry, storage, tenants, voices"
        ],
    ),
    Mistake(
        STAGING,
        (*VARIANT, "autoscaling", "max_replicas"),
        3,
        [
            "voicemesh:voices[0].variants[0].autoscaling.max_replicas: unknown key; known ones "
            "here are cpuPercent, gpuUtilizationPercent, maxReplicas, minReplicas, "
            "queueDepthPerReplica, scaleDownStabilizationSeconds"
        ],
    ),
    Mistake(LOCAL, (*VARIANT, "image"), ABSENT, ["voicemesh:voices[0].variants[0].image: missing"]),
    Mistake(
        LOCAL,
        (*VARIANT, "weight"),
        "90",
        ["voicemesh:voices[0].variants[0].weight: Input should be a valid integer, not '90'"],
    ),
    Mistake(
        LOCAL,
        (*VARIANT, "version"),
        1.0,
        ["voicemesh:voices[0].variants[0].version: Input should be a valid string, not 1.0"],
        right="1.0",
    ),
    Mistake(
        DEV,
        ("eks", "kubernetesVersion"),
        1.35,
        ["voicemesh:eks.kubernetesVersion: Input should be a valid string, not 1.35"],
        right="1.35",
    ),
    Mistake(
        PROD,
        ("gateway", "serviceType"),
        "ClusterIP",
        [
            "voicemesh:gateway.serviceType: Input should be 'LoadBalancer' or 'NodePort', "
            "not 'ClusterIP'"
        ],
        right="LoadBalancer",
    ),
    Mistake(
        LOCAL,
        ("layers",),
        ["services", "everything"],
        [
            "voicemesh:layers[1]: Input should be 'cluster', 'platform' or 'services', "
            "not 'everything'"
        ],
    ),
    Mistake(
        LOCAL,
        ("maxStreamSeconds",),
        0,
        ["voicemesh:maxStreamSeconds: Input should be greater than or equal to 1, not 0"],
        right=1,
    ),
]
"""Types, unknown keys, and choices."""

LAYERS: list[Mistake] = [
    Mistake(
        LOCAL, ("layers",), [], ["voicemesh:layers: names none of cluster, platform, services"]
    ),
    Mistake(
        LOCAL,
        ("layers",),
        ["services"],
        [
            "voicemesh:mesh: belongs to the layer platform, but layers are services",
            "voicemesh:identity: belongs to the layer platform, but layers are services",
            "voicemesh:gateway: belongs to the layer platform, but layers are services",
            "voicemesh:layers: services need the layer platform in the same stack",
        ],
    ),
    Mistake(
        LOCAL,
        ("layers",),
        ["platform"],
        [
            "voicemesh:tenants: belongs to the layer services, but layers are platform",
            "voicemesh:voices: belongs to the layer services, but layers are platform",
        ],
    ),
    Mistake(DEV, ("eks",), {}, ["voicemesh:eks: missing; the layer cluster makes what it says"]),
    Mistake(
        PROD,
        ("registry",),
        {"repositories": ["speech-server"]},
        ["voicemesh:registry: belongs to the layer cluster, but layers are platform, services"],
        right={},
    ),
    Mistake(
        PROD,
        ("cluster",),
        {},
        ["voicemesh:cluster: missing; name a kubeconfig, or the stack that owns the cluster"],
    ),
    Mistake(
        DEV,
        ("cluster",),
        {"stack": "organization/voicemesh/prod-cluster"},
        ["voicemesh:cluster: names another's cluster, but the layer cluster makes one"],
        right={},
    ),
    Mistake(
        PROD,
        ("cluster", "stack"),
        "prod-cluster",
        [
            "voicemesh:cluster.stack: 'prod-cluster' is not as in "
            "organization/voicemesh/prod-cluster"
        ],
    ),
    Mistake(
        PROD,
        ("cluster", "kubeconfig"),
        "kubeconfig",
        ["voicemesh:cluster: needs kubeconfig, or stack, and not both"],
    ),
    Mistake(
        PROD,
        ("cluster", "context"),
        "prod",
        ["voicemesh:cluster: context belongs to a kubeconfig; a stack has one cluster"],
    ),
    Mistake(
        LOCAL,
        ("addons",),
        {"versions": {"dcgmExporter": "4.6.0"}},
        ["voicemesh:addons: are made on EKS only, not on a cluster with a kubeconfig"],
        right={},
    ),
]

AWS: list[Mistake] = [
    Mistake(
        LOCAL, ("aws",), {}, ["voicemesh:aws: missing; without a region there can be no storage"]
    ),
    Mistake(
        PROD,
        ("aws",),
        {},
        ["voicemesh:aws: missing; without a region there can be no roles for voices"],
    ),
    Mistake(
        LOCAL,
        ("aws", "accessKey"),
        ABSENT,
        ["voicemesh:aws: accessKey and secretKey are given together, or neither is"],
    ),
    Mistake(
        DEV,
        ("aws", "region"),
        "us-east-2a",
        ["voicemesh:aws: region 'us-east-2a' is none of AWS, as in eu-west-1"],
    ),
    Mistake(
        PROD,
        ("aws", "accountId"),
        "1234-5678-9012",
        ["voicemesh:aws.accountId: '1234-5678-9012' is not the 12 digits of an AWS account"],
        right="123456789012",
    ),
    Mistake(
        DEV,
        ("aws", "accountId"),
        "210987654321",
        [
            "voicemesh:eks.administrators[0]: 'arn:aws:iam::123456789012:role/voicemesh-dev-deploy'"
            " is not of voicemesh:aws.accountId, '210987654321'"
        ],
        right="123456789012",
    ),
    Mistake(
        LOCAL,
        ("aws", "accountId"),
        "123456789012",
        ["voicemesh:aws: accountId conflicts with endpoint, which stands in for any account"],
    ),
    Mistake(
        CLUSTER,
        ("aws", "region"),
        "us-east-1",
        [
            f"voicemesh:eks.availabilityZones[{place}]: 'us-east-2{zone}' is not in "
            "voicemesh:aws.region, 'us-east-1'"
            for place, zone in enumerate("abc")
        ],
    ),
]

EKS: list[Mistake] = [
    Mistake(
        STAGING,
        ("eks", "availabilityZones"),
        ["us-east-2a"],
        [
            "voicemesh:eks.availabilityZones: ['us-east-2a']; allowed: two zones, which EKS asks "
            "for, to 6"
        ],
    ),
    Mistake(
        STAGING,
        ("eks", "availabilityZones"),
        ["us-east-2a", "us-east-2a"],
        ["voicemesh:eks.availabilityZones: 'us-east-2a'; allowed: each zone once"],
        right=["us-east-2a", "us-east-2c"],
    ),
    Mistake(
        DEV,
        ("eks", "kubernetesVersion"),
        "1.35.2",
        ["voicemesh:eks.kubernetesVersion: '1.35.2'; allowed: as in '1.35'"],
        right="1.35",
    ),
    Mistake(
        DEV,
        ("eks", "vpcCidr"),
        "198.18.0.0/15",
        [
            "voicemesh:eks.vpcCidr: '198.18.0.0/15'; allowed: a private IPv4 range from /16 to "
            "/20, as in '10.0.0.0/16'"
        ],
        right="10.20.0.0/18",
    ),
    Mistake(
        DEV,
        ("eks", "publicAccessCidrs"),
        ["0.0.0.0/0"],
        [
            "voicemesh:eks.publicAccessCidrs[0]: '0.0.0.0/0'; allowed: an IPv4 range, as in "
            "'198.51.100.0/24'; not the whole Internet"
        ],
        right=["203.0.113.7/32"],
    ),
    Mistake(
        DEV,
        ("eks", "administrators"),
        [],
        [
            "voicemesh:eks.administrators: []; allowed: at least one IAM role or user; nobody else "
            "gets into the cluster"
        ],
    ),
    Mistake(
        DEV,
        ("eks", "administrators"),
        ["voicemesh-dev-deploy"],
        [
            "voicemesh:eks.administrators[0]: 'voicemesh-dev-deploy'; allowed: the ARN of a role "
            "or user, as in 'arn:aws:iam::123456789012:role/deploy'"
        ],
    ),
    Mistake(
        DEV,
        ("eks", "systemNodes", "minSize"),
        5,
        ["voicemesh:eks.systemNodes.maxSize: 3; allowed: at least minSize, 5"],
    ),
    Mistake(
        DEV,
        GROUPS,
        _second(DEV, *GROUPS),
        ["voicemesh:eks.nodeGroups: node group 'online' is there twice"],
        right=_second(DEV, *GROUPS, name="more"),
    ),
    Mistake(
        DEV,
        (*GROUPS, 0, "name"),
        "On_line",
        [
            "voicemesh:eks.nodeGroups[0].name: 'On_line'; allowed: up to 63 of a-z, 0-9 and '-', "
            "as in 'online'"
        ],
    ),
    Mistake(
        DEV,
        (*GROUPS, 0, "minSize"),
        2,
        ["voicemesh:eks.nodeGroups[0].maxSize: 1; allowed: at least minSize, 2"],
    ),
    Mistake(
        CLUSTER,
        (*GROUPS, 0, "availabilityZones"),
        ["us-east-2a", "us-east-2b"],
        [
            "voicemesh:eks.nodeGroups[0].availabilityZones: ['us-east-2a', 'us-east-2b']; allowed: "
            "exactly one of us-east-2a, us-east-2b, us-east-2c, since a reservation holds in one "
            "zone"
        ],
    ),
    Mistake(
        CLUSTER,
        (*GROUPS, 0, "availabilityZones"),
        ["us-east-2d"],
        [
            "voicemesh:eks.nodeGroups[0].availabilityZones[0]: 'us-east-2d'; allowed: a zone of "
            "subnets: us-east-2a, us-east-2b, us-east-2c"
        ],
    ),
    Mistake(
        CLUSTER,
        (*GROUPS, 0, "maxSize"),
        6,
        [
            "voicemesh:eks.nodeGroups[0].maxSize: 6; allowed: at most reservation.instanceCount, "
            "4: its nodes launch nowhere else"
        ],
    ),
    Mistake(
        CLUSTER,
        (*GROUPS, 0, "reservation"),
        {"reservationId": "reserved"},
        [
            "voicemesh:eks.nodeGroups[0].reservation.reservationId: 'reserved'; allowed: the ID of "
            "a capacity reservation, as in 'cr-0123456789abcdef0'"
        ],
        right={"reservationId": "cr-0123456789abcdef0"},
    ),
    Mistake(
        CLUSTER,
        (*GROUPS, 0, "capacityType"),
        "SPOT",
        ["voicemesh:eks.nodeGroups[0].capacityType: 'SPOT'; allowed: ON_DEMAND with a reservation"],
        right="ON_DEMAND",
    ),
    Mistake(
        CLUSTER,
        (*GROUPS, 0, "instanceTypes"),
        ["p5.4xlarge", "p5.48xlarge"],
        [
            "voicemesh:eks.nodeGroups[0].instanceTypes: ['p5.4xlarge', 'p5.48xlarge']; allowed: "
            "one type only with reservation"
        ],
        right=["p5.4xlarge"],
    ),
    Mistake(
        CLUSTER,
        (*GROUPS, 2, "migProfile"),
        "1g.12gb",
        [
            "voicemesh:eks.nodeGroups[2].migProfile: '1g.12gb'; allowed: a profile of h100: "
            "1g.10gb, 1g.20gb, 2g.20gb, 3g.40gb, 4g.40gb, 7g.80gb"
        ],
    ),
    Mistake(
        DEV,
        (*GROUPS, 0),
        {**DEV["eks"]["nodeGroups"][0], "instanceTypes": ["g6e.xlarge"], "migProfile": "1g.20gb"},
        [
            "voicemesh:eks.nodeGroups[0].migProfile: '1g.20gb'; allowed: nothing, since l40s "
            "cannot be divided; h100, h200, b200 can"
        ],
    ),
    Mistake(
        CLUSTER,
        (*GROUPS, 1, "instanceTypes"),
        ["p5.4xlarge", "g6e.xlarge"],
        [
            "voicemesh:eks.nodeGroups[1].instanceTypes[1]: 'g6e.xlarge'; allowed: types with the "
            "accelerator 'h100'; this one has 'l40s'"
        ],
        right=["p5.4xlarge", "p5.48xlarge"],
    ),
    Mistake(
        CLUSTER,
        (*GROUPS, 1, "nodeType"),
        "batch",
        [
            "voicemesh:eks.nodeGroups[1].nodeType: 'batch'; allowed: online-inference or "
            "offline-inference"
        ],
        right="offline-inference",
    ),
    Mistake(
        CLUSTER,
        ("registry", "rollbackDays"),
        7,
        ["voicemesh:registry.rollbackDays: 7; allowed: a whole number ≥ 14"],
        right=14,
    ),
    Mistake(
        CLUSTER,
        ("storage", "outputDays"),
        0,
        ["voicemesh:storage.outputDays: 0; allowed: a whole number ≥ 1"],
    ),
    Mistake(
        LOCAL,
        ("storage", "bucketName"),
        "ab",
        ["voicemesh:storage.bucketName: 'ab'; allowed: 3 to 63 characters"],
    ),
]

PLATFORM: list[Mistake] = [
    Mistake(
        LOCAL,
        ("mesh", "charts", "version"),
        "1.31.0",
        [
            "voicemesh:mesh.charts.version: '1.31.0'; allowed: nothing, since charts.directory is "
            "given"
        ],
    ),
    Mistake(
        PROD,
        ("gateway", "hosts", 1, "name"),
        "studio.tts.example.com",
        [
            "voicemesh:voices[0].hosts[0]: 'studio.tts.example.com' belongs to tenant 'captions'",
            "voicemesh:voices[1].hosts[0]: 'captions.tts.example.com' is none of the gateway's "
            "hosts",
            "voicemesh:gateway.hosts: 'studio.tts.example.com'; allowed: each host name once",
        ],
    ),
    Mistake(
        PROD,
        ("gateway", "hosts", 0, "name"),
        "*.tts.example.com",
        [
            "voicemesh:voices[0].hosts[0]: 'studio.tts.example.com' is none of the gateway's hosts",
            "voicemesh:gateway.hosts[0].name: '*.tts.example.com'; allowed: a host name in lower "
            "case, as in 'tts.example.com'",
        ],
    ),
    Mistake(
        PROD,
        ("gateway", "hosts", 0, "secretName"),
        ABSENT,
        [
            "voicemesh:gateway.hosts[0].secretName: None; allowed: one of issuer, secretName, "
            "and certificate with privateKey"
        ],
    ),
    Mistake(
        LOCAL,
        ("gateway", "hosts", 0, "privateKey"),
        "hunter2",
        ["voicemesh:gateway.hosts[0].privateKey: '(not shown)'; allowed: PEM text"],
    ),
    Mistake(
        LOCAL,
        ("gateway", "httpsNodePort"),
        443,
        ["voicemesh:gateway.httpsNodePort: 443; allowed: 30000 to 32767"],
    ),
    Mistake(
        LOCAL,
        ("gateway", "httpsNodePort"),
        30080,
        ["voicemesh:gateway.httpsNodePort: 30080 is httpNodePort already"],
    ),
    Mistake(
        LOCAL,
        ("gateway", "serviceType"),
        "LoadBalancer",
        [
            "voicemesh:gateway.httpNodePort: 30080; allowed: nothing, unless serviceType is "
            "NodePort",
            "voicemesh:gateway.httpsNodePort: 30043; allowed: nothing, unless serviceType is "
            "NodePort",
        ],
    ),
]

IDENTITY: list[Mistake] = [
    Mistake(
        PROD,
        ("identity",),
        {},
        ["voicemesh:identity: missing; the gateway takes tokens of the issuers that it names"],
    ),
    Mistake(
        PROD,
        ("identity", "issuers", 0, "audiences"),
        [],
        [
            "voicemesh:identity.issuers[0].audiences: []; allowed: at least one audience: without, "
            "tokens for other services would count"
        ],
    ),
    Mistake(
        PROD,
        ("identity", "issuers", 0, "issuer"),
        " ",
        [
            "voicemesh:identity.issuers[0].issuer: ' '; allowed: the claim `iss` of its tokens, as "
            "in 'https://login.example.com/'"
        ],
    ),
    Mistake(
        PROD,
        ("identity", "issuers", 0, "jwksUri"),
        "login.example.com/keys",
        [
            "voicemesh:identity.issuers[0].jwksUri: 'login.example.com/keys'; allowed: a URL as in "
            "'https://login.example.com/jwks.json'"
        ],
    ),
    Mistake(
        STAGING,
        ("identity", "issuers", 0, "jwksUri"),
        "https://login.staging.example.com:8443/keys",
        [
            "voicemesh:identity.issuers[0].jwksUri: port 8443 of 'login.staging.example.com' is in "
            "no entry of voicemesh:tenants[0].network.egress"
        ],
        right="https://login.staging.example.com:443/keys",
    ),
    Mistake(
        STAGING,
        ("tenants", 0, "network"),
        {"httpsCidrs": []},
        [
            "voicemesh:identity.issuers[0].jwksUri: port 443 of 'login.staging.example.com' is in "
            "no entry of voicemesh:tenants[0].network.egress"
        ],
        right={"httpsCidrs": [], "egress": [{"cidr": "203.0.113.0/24", "ports": [443]}]},
    ),
    Mistake(
        STAGING,
        ("voices", 0, "access"),
        {"callers": ["cluster.local/ns/editor/sa/studio"]},
        [
            "voicemesh:voices[0].access.callers[0]: namespace 'editor' is not in "
            "voicemesh:tenants[0].network.callerNamespaces"
        ],
        right={"callers": ["cluster.local/ns/studio/sa/editor"]},
    ),
    Mistake(
        STAGING,
        ("voices", 0, "access"),
        {"callers": ["editor"]},
        [
            "voicemesh:voices[0].access.callers[0]: 'editor'; allowed: an identity as in "
            "'cluster.local/ns/studio/sa/editor'"
        ],
    ),
    Mistake(
        STAGING,
        ("voices", 0, "access"),
        {"speechScopes": ["tts.*"]},
        [
            "voicemesh:voices[0].access.speechScopes[0]: 'tts.*'; allowed: a name without blanks "
            "and wildcards"
        ],
        right={"speechScopes": ["speech"]},
    ),
    Mistake(
        STAGING,
        ("gateway", "quota"),
        {"requests": 0},
        ["voicemesh:gateway.quota.requests: 0; allowed: a whole number ≥ 1"],
        right={"requests": 600, "unit": "hour", "whenUnavailable": "deny"},
    ),
    Mistake(
        STAGING,
        ("gateway", "quota"),
        {"requests": 600, "unit": "week"},
        [
            "voicemesh:gateway.quota.unit: Input should be 'second', 'minute', 'hour' or 'day', "
            "not 'week'"
        ],
        right={"requests": 600, "tenants": {"acme": 60}, "requestsWithoutTenant": 1},
    ),
]
"""Whose tokens count, what they allow, and how often."""

TENANTS: list[Mistake] = [
    Mistake(
        LOCAL,
        ("tenants",),
        _second(LOCAL, "tenants", name="istio-system"),
        ["voicemesh:tenants[1].name: 'istio-system' is a namespace of the cluster or the mesh"],
        right=_second(LOCAL, "tenants", name="istio-users"),
    ),
    Mistake(
        LOCAL,
        ("tenants",),
        _second(LOCAL, "tenants"),
        ["voicemesh:tenants: tenant 'tts' is there twice"],
        right=_second(LOCAL, "tenants", name="second"),
    ),
    Mistake(
        PROD,
        ("tenants", 0, "quota", "gpus"),
        {"gpu": 8},
        ["voicemesh:tenants[0].quota.gpus: 'gpu'; allowed: a name as in nvidia.com/gpu"],
    ),
    Mistake(
        PROD,
        ("tenants", 0, "quota", "gpus", "nvidia.com/gpu"),
        7,
        [
            'voicemesh:tenants[0].quota.gpus["nvidia.com/gpu"]: allows 7 nvidia.com/gpu, but its '
            "voices need 8"
        ],
        right=8,
    ),
    Mistake(
        PROD,
        ("tenants", 2, "quota", "gpus"),
        {"nvidia.com/gpu": 6},
        [
            "voicemesh:tenants[2].quota.gpus: allows no nvidia.com/mig-1g.20gb, but its voices "
            "need 6"
        ],
    ),
    Mistake(
        PROD,
        ("tenants", 0, "quota", "pods"),
        7,
        ["voicemesh:tenants[0].quota.pods: allows 7 pods, but its voices need 8"],
        right=8,
    ),
    Mistake(
        PROD,
        ("tenants", 0, "quota", "cpuCores"),
        16,
        ["voicemesh:tenants[0].quota.cpuCores: allows 16000 millicores, but its voices need 16800"],
        right=16.8,
    ),
    Mistake(
        PROD,
        ("tenants", 0, "quota", "memoryGib"),
        128,
        [
            "voicemesh:tenants[0].quota.memoryGib: allows 131072 MiB, but its voices need 132096",
        ],
        right=129,
    ),
    Mistake(
        PROD,
        ("tenants", 0, "administrators"),
        ["system:masters"],
        [
            "voicemesh:tenants[0].administrators[0]: 'system:masters'; allowed: a group of your "
            "own, not one of Kubernetes (system:…)"
        ],
    ),
    Mistake(
        PROD,
        ("tenants", 0, "network"),
        {"httpsCidrs": ["169.254.169.254/32"]},
        [
            "voicemesh:tenants[0].network.httpsCidrs[0]: '169.254.169.254/32'; allowed: addresses "
            "that are not link-local"
        ],
        right={"httpsCidrs": ["10.0.0.0/16"]},
    ),
    Mistake(
        PROD,
        ("tenants", 0, "network"),
        {"egress": [{"cidr": "10.1.0.0/16", "ports": [70000]}]},
        ["voicemesh:tenants[0].network.egress[0].ports[0]: 70000; allowed: 1 to 65535"],
        right={"egress": [{"cidr": "10.1.0.0/16", "ports": [7000]}]},
    ),
    Mistake(
        PROD,
        ("tenants", 0, "volume"),
        {"storageClass": "", "cleanupImage": "speech-server:1.4.2"},
        ["voicemesh:tenants[0].volume.storageClass: ''; allowed: a name"],
        right={"storageClass": "efs", "cleanupImage": "speech-server:1.4.2"},
    ),
]

VOICES: list[Mistake] = [
    Mistake(
        LOCAL,
        ("voices",),
        _second(LOCAL, "voices", name="more", hosts=[], tenant="nobody"),
        ["voicemesh:voices[1].tenant: 'nobody' is none of the tenants: tts"],
    ),
    Mistake(
        changed(LOCAL, "tenants", 0, "quota", "gpus", "nvidia.com/gpu", to=6),
        ("voices",),
        _second(LOCAL, "voices", hosts=[]),
        ["voicemesh:voices: tenant 'tts' has voice 'speech' twice"],
        right=_second(LOCAL, "voices", hosts=[], name="second"),
    ),
    Mistake(
        changed(
            LOCAL,
            "tenants",
            to=[*_second(LOCAL, "tenants", name="tts-a")],
        ),
        ("voices",),
        [
            {**LOCAL["voices"][0], "name": "a-b"},
            {**LOCAL["voices"][0], "name": "b", "tenant": "tts-a", "hosts": []},
        ],
        [
            "voicemesh:voices: tenants 'tts' with 'a-b' and 'tts-a' with 'b' would both make "
            "'tts-a-b'; rename one of them"
        ],
        right=[
            {**LOCAL["voices"][0], "name": "a-b"},
            {**LOCAL["voices"][0], "name": "c", "tenant": "tts-a", "hosts": []},
        ],
    ),
    Mistake(
        LOCAL,
        (*VOICE, "name"),
        "tenant-workload",
        [
            "voicemesh:voices[0].name: 'tenant-workload' is the service account that each tenant "
            "has already"
        ],
    ),
    Mistake(
        LOCAL,
        (*VOICE, "name"),
        "TTS",
        [
            "voicemesh:voices[0].name: 'TTS'; allowed: up to 63 of a-z, 0-9 and '-', "
            "a letter first, as in 'tts-a'"
        ],
    ),
    Mistake(
        PROD,
        (*VOICE, "hosts"),
        ["other.example.com"],
        ["voicemesh:voices[0].hosts[0]: 'other.example.com' is none of the gateway's hosts"],
    ),
    Mistake(
        PROD,
        (*VOICE, "hosts"),
        ["captions.tts.example.com"],
        [
            "voicemesh:voices: host 'captions.tts.example.com' leads to two voices",
            "voicemesh:voices[0].hosts[0]: 'captions.tts.example.com' belongs to tenant 'captions'",
        ],
    ),
    Mistake(
        PROD,
        (*VOICE, "vipVariant"),
        "gold",
        ["voicemesh:voices[0].vipVariant: 'gold'; allowed: one of stable, canary, premium"],
    ),
    Mistake(
        PROD,
        (*VOICE, "nodeType"),
        "offline-inference",
        [
            "voicemesh:voices[0].nodeType: 'offline-inference'; allowed: a type whose nodes voices "
            "may run on, as 'online-inference'"
        ],
        right="online-inference",
    ),
    Mistake(
        PROD,
        (*VOICE, "prometheusUrl"),
        "prometheus:9090",
        [
            "voicemesh:voices[0].prometheusUrl: 'prometheus:9090'; allowed: a URL as in "
            "'http://prometheus.example:9090'"
        ],
        right="http://prometheus.example:9090",
    ),
    Mistake(
        PROD,
        (*VOICE, "outputs"),
        "volume",
        ["voicemesh:voices[0].outputs: 'volume', but tenant 'studio' has no volume"],
    ),
    Mistake(
        LOCAL,
        (*VOICE, "outputs"),
        "bucket",
        [
            "voicemesh:voices[0].objectStorage: missing; without it, pods reach the bucket on EKS "
            "only"
        ],
    ),
    Mistake(
        without(DEV, "storage"),
        (*VOICE, "outputs"),
        "bucket",
        ["voicemesh:storage: missing; voice 'speech' keeps models or outputs there"],
    ),
    Mistake(
        PROD,
        (*VARIANT, "weight"),
        80,
        ["voicemesh:voices[0].variants: '80 + 10 + 0'; allowed: weights that add up to 100"],
    ),
    Mistake(
        PROD,
        (*VARIANT, "name"),
        "canary",
        ["voicemesh:voices[0].variants: 'canary'; allowed: each name once"],
    ),
    Mistake(
        PROD,
        (*VARIANT, "version"),
        "1.4.2+gpu",
        [
            "voicemesh:voices[0].variants[0].version: '1.4.2+gpu'; allowed: up to 63 letters, "
            "digits, '-', '_' and '.', as in '1.4.2'"
        ],
    ),
    Mistake(
        PROD,
        (*VARIANT, "image"),
        "registry.example.com/speech-server:latest",
        [
            "voicemesh:voices[0].variants[0].image: 'registry.example.com/speech-server:latest'; "
            "allowed: a tag other than 'latest', or a digest"
        ],
        right=f"registry.example.com/speech-server@sha256:{'0' * 64}",
    ),
    Mistake(
        PROD,
        (*VARIANT, "replicas"),
        2,
        [f"{AT}.replicas: 2; allowed: nothing, since autoscaling is given"],
    ),
    Mistake(
        PROD,
        (*VARIANT, "autoscaling", "maxReplicas"),
        1,
        ["voicemesh:voices[0].variants[0].autoscaling.maxReplicas: 1; allowed: a whole number ≥ 2"],
        right=2,
    ),
    Mistake(
        PROD,
        (*VARIANT, "model", "uri"),
        "models/glm-tts",
        [
            "voicemesh:voices[0].variants[0].model.uri: 'models/glm-tts' is not 'models/…/' in the "
            "own bucket, nor 's3://…/'"
        ],
        right="models/glm-tts/",
    ),
    Mistake(
        PROD,
        (*VARIANT, "model", "uri"),
        "s3://weights/glm-tts/",
        [
            "voicemesh:voices[0].variants[0].model.uri: 's3://weights/glm-tts/' is in another "
            "bucket, which needs objectStorage; in the own one it begins with 'models/'"
        ],
    ),
    Mistake(
        PROD,
        (*VARIANT, "model", "sha256"),
        "1.4.2",
        [
            "voicemesh:voices[0].variants[0].model.sha256: '1.4.2'; allowed: the 64 hexadecimal "
            "digits of the SHA-256 of SHA256SUMS"
        ],
    ),
    Mistake(
        PROD,
        (*VARIANT, "environment"),
        {"SPEECH_DRAIN_SECONDS": "10"},
        [
            "voicemesh:voices[0].variants[0].environment: 'SPEECH_DRAIN_SECONDS'; allowed: "
            "maxStreamSeconds instead"
        ],
        right={"SPEECH_MAX_QUEUE": "10"},
    ),
]

_ONLY = (
    "there are online (online-inference l40s, 1 nvidia.com/gpu on each node); "
    "offline (offline-inference l40s, 1 nvidia.com/gpu on each node)"
)

PLACEMENT: list[Mistake] = [
    Mistake(
        STAGING,
        (*VARIANT, "accelerator"),
        "h100",
        [
            "voicemesh:voices[0].variants[0]: no node group has node-type=online-inference, "
            f"accelerator=h100, 1 nvidia.com/gpu on one node; {_ONLY}"
        ],
        right=None,
    ),
    Mistake(
        STAGING,
        (*VARIANT, "nodeSelector"),
        {"example.com/pool": "fast"},
        [
            "voicemesh:voices[0].variants[0]: no node group has node-type=online-inference, "
            f"accelerator=l40s, example.com/pool=fast, 1 nvidia.com/gpu on one node; {_ONLY}"
        ],
        right={},
    ),
    Mistake(
        changed(STAGING, "tenants", 0, "quota", "gpus", to={"nvidia.com/gpu": 8}),
        (*VARIANT, "gpuCount"),
        2,
        [
            "voicemesh:voices[0].variants[0]: no node group has node-type=online-inference, "
            f"accelerator=l40s, 2 nvidia.com/gpu on one node; {_ONLY}"
        ],
        right=1,
    ),
    Mistake(
        changed(STAGING, "tenants", 0, "quota", "gpus", "nvidia.com/mig-1g.20gb", to=3),
        (*VARIANT, "gpuResource"),
        "nvidia.com/mig-1g.20gb",
        [
            "voicemesh:voices[0].variants[0]: no node group has node-type=online-inference, "
            f"accelerator=l40s, 1 nvidia.com/mig-1g.20gb on one node; {_ONLY}"
        ],
        right="nvidia.com/gpu",
    ),
    Mistake(
        STAGING,
        (*GROUPS, 0, "maxSize"),
        3,
        [
            "voicemesh:voices: need up to 4 nvidia.com/gpu on online, which have at most 3; "
            "raise maxSize, or lower replicas"
        ],
        right=4,
    ),
    Mistake(
        DEV,
        (*VARIANT, "accelerator"),
        "l40s",
        [
            "voicemesh:voices[0].variants[0]: with gpuCount 0 it tolerates no node with GPUs, but "
            "accelerator 'l40s' asks for one; set accelerator to null"
        ],
    ),
]

MISTAKES = [*PLAIN, *LAYERS, *AWS, *EKS, *PLATFORM, *IDENTITY, *TENANTS, *VOICES, *PLACEMENT]


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.faults[0][:70] for mistake in MISTAKES])
def test_a_mistake_is_refused_with_these_words_and_its_permitted_twin_is_not(
    mistake: Mistake,
) -> None:
    assert _faults(mistake.values) == mistake.faults
    assert _faults(mistake.twin) == []


def test_at_least_fifty_mistakes_are_told_apart_and_few_of_them_are_of_plain_type() -> None:
    assert len({tuple(mistake.faults) for mistake in MISTAKES}) == len(MISTAKES) >= 50
    assert len(PLAIN) <= 10


@pytest.mark.parametrize("stack", STACKS[1:])
def test_what_is_committed_of_a_stack_is_an_environment(stack: str) -> None:
    assert _faults(stack_values(stack)) == []


def test_the_embedded_environment_is_one_once_up_has_added_its_secrets() -> None:
    assert _faults(LOCAL) == []
    assert _faults(stack_values("local")) == [
        "voicemesh:gateway.hosts[0].secretName: None; allowed: one of issuer, secretName, and "
        "certificate with privateKey"
    ]


def test_a_secret_in_the_clear_is_refused_with_the_command_that_encrypts_it() -> None:
    with pytest.raises(FaultyEnvironmentError) as refusal:
        load(LOCAL, encrypted=())
    assert list(refusal.value.faults) == [
        f"voicemesh:{path}: in the clear; encrypt it: "
        f"pulumi config set --secret --path 'voicemesh:{path}'"
        for path in ("aws.secretKey", "gateway.hosts[0].privateKey")
    ]
    assert load(LOCAL, encrypted=("aws", "gateway"))


def test_several_mistakes_are_reported_together() -> None:
    values = changed(PROD, *VARIANT, "weight", to=80)
    values = changed(values, "gateway", "replicas", to=0)
    values = changed(values, "tenants", 0, "name", to="studios")
    assert {fault.split(": ")[0] for fault in _faults(values)} == {
        "voicemesh:voices[0].variants",
        "voicemesh:voices[0].tenant",
        "voicemesh:gateway.replicas",
        "voicemesh:gateway.hosts[0].tenant",
    }


def test_a_quota_that_its_voices_fill_exactly_is_accepted() -> None:
    exact = {"cpuCores": 0.36, "memoryGib": 2.4375, "pods": 3, "gpus": {"nvidia.com/gpu": 3}}
    assert _faults(changed(LOCAL, "tenants", 0, "quota", to=exact)) == []


def test_a_quota_counts_the_pod_that_cleans_up_the_tenants_volume() -> None:
    volume = {"storageClass": "efs", "cleanupImage": "speech-server:1.4.2"}
    values = changed(LOCAL, "tenants", 0, "volume", to=volume)
    assert _faults(changed(values, "tenants", 0, "quota", "pods", to=4)) == []
    assert _faults(changed(values, "tenants", 0, "quota", "pods", to=3)) == [
        "voicemesh:tenants[0].quota.pods: allows 3 pods, but its voices need 4"
    ]


def test_a_secret_of_the_wrong_type_does_not_show_in_the_refusal() -> None:
    faults = _faults(changed(LOCAL, "aws", "secretKey", to=271828))
    assert faults == ["voicemesh:aws.secretKey: Input should be a valid string"]


def test_a_secret_does_not_show_in_an_environment() -> None:
    assert PRIVATE_KEY.splitlines()[1] not in repr(load(LOCAL, ENCRYPTED))


@given(replicas=st.integers(1, 50), gpus=st.integers(0, 8), allowed=st.integers(0, 500))
def test_voices_are_accepted_exactly_if_their_gpus_fit_the_quota(
    replicas: int, gpus: int, allowed: int
) -> None:
    values = changed(LOCAL, *VARIANT, "replicas", to=replicas)
    values = changed(values, *VARIANT, "gpuCount", to=gpus)
    roomy = {"cpuCores": 10**6, "memoryGib": 10**6, "pods": 10**6}
    quota = {**roomy, "gpus": {"nvidia.com/gpu": allowed}}
    fits = not _faults(changed(values, "tenants", 0, "quota", to=quota))
    assert fits is (replicas * gpus + 1 <= allowed)


@given(least=st.integers(1, 9), more=st.integers(0, 9), nodes=st.integers(1, 30))
def test_voices_are_accepted_exactly_if_their_most_pods_fit_the_nodes(
    least: int, more: int, nodes: int
) -> None:
    scaling = {"minReplicas": least, "maxReplicas": least + more}
    values = changed(STAGING, *VARIANT, "autoscaling", to=scaling)
    roomy = {"cpuCores": 10**6, "memoryGib": 10**6, "pods": 10**6, "gpus": {"nvidia.com/gpu": 99}}
    values = changed(values, "tenants", 0, "quota", to=roomy)
    fits = not _faults(changed(values, *GROUPS, 0, "maxSize", to=nodes))
    assert fits is (least + more + 1 <= nodes)


def test_every_key_of_an_environment_is_declared_in_the_project_with_its_type() -> None:
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    assert {key: entry["type"] for key, entry in declared.items()} == {
        key: _pulumi_type(entry) for key, entry in _json_schema()["properties"].items()
    }
    for key, entry in declared.items():
        is_required = key in _json_schema()["required"]
        assert ("default" not in entry) is is_required, key


def test_every_key_of_an_environment_is_documented() -> None:
    page = (ROOT / "docs" / "environments.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert documented == list(_json_schema()["properties"])


def test_what_the_project_declares_as_defaults_is_an_empty_environment() -> None:
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    defaults = {key: entry["default"] for key, entry in declared.items() if "default" in entry}
    given = ("cluster", "identity", "gateway")
    only = {"layers": ["platform"], **{key: LOCAL[key] for key in given}}
    assert load({**defaults, **only}, ENCRYPTED) == load(only, ENCRYPTED)


NOT_CONFIGURED: dict[type[Section], tuple[str, set[str], set[str]]] = {
    Size: ("ComputeSize", set(), set()),
    cluster.Eks: ("GpuClusterArgs", {"cluster_name"}, {"node_groups"}),
    cluster.SystemNodes: ("SystemNodes", set(), set()),
    cluster.NodeGroup: (
        "GpuNodeGroupArgs",
        {"cluster_name", "node_role_arn", "subnets", "kubernetes_version"},
        {"name"},
    ),
    cluster.Reservation: ("ReservedCapacity", set(), set()),
    cluster.Registry: ("ImageRegistryArgs", {"name_prefix"}, set()),
    cluster.Storage: ("VoiceStorageArgs", set(), set()),
    mesh.AddonVersions: ("AddonVersions", set(), set()),
    mesh.Charts: ("ChartSource", set(), set()),
    mesh.Revision: ("MeshRevision", set(), set()),
    mesh.Mesh: ("IstioMeshArgs", {"issuers", "max_stream_seconds", "wafs"}, set()),
    mesh.Gateway: (
        "PublicGatewayArgs",
        {"namespace", "charts", "issuers", "injection_labels"}
        | {"mesh_revision", "max_stream_seconds"},
        set(),
    ),
    mesh.RequestQuota: ("RequestQuota", set(), set()),
    mesh.Waf: (
        "WebApplicationFirewall",
        set(),
        {"fail_open", "timeout_milliseconds", "max_body_kib"},
    ),
    mesh.Issuer: ("CertificateIssuer", set(), set()),
    mesh.Host: ("GatewayHost", {"namespace"}, {"tenant"}),
    identity.TokenIssuer: ("TokenIssuer", set(), set()),
    identity.Access: ("VoiceAccess", set(), set()),
    services.Mirroring: ("Mirroring", set(), set()),
    services.Quota: ("TenantQuota", set(), set()),
    services.Egress: ("Egress", set(), set()),
    services.Network: ("TenantNetwork", {"gateway_namespace"}, set()),
    services.Tenant: ("TenantNamespaceArgs", {"injection_labels"}, {"volume"}),
    services.Volume: ("VoiceVolumeArgs", {"namespace", "claim_name"}, set()),
    services.Autoscaling: ("Autoscaling", set(), set()),
    services.Model: ("ModelWeights", set(), set()),
    services.Variant: ("VoiceVariant", set(), set()),
    services.ConnectionLimits: ("ConnectionLimits", set(), set()),
    services.Ejection: ("Ejection", set(), set()),
    services.ObjectStorage: ("ObjectStorage", {"role_arn"}, set()),
    services.Voice: (
        "TtsVoiceServiceArgs",
        {"namespace", "service_name", "issuers", "gateway_ref", "gateway_principal"}
        | {"mesh_revision", "max_stream_seconds"},
        {"name", "tenant"},
    ),
}
"""Of each section: the arguments that it configures, which of them the program supplies, and which
keys the program reads itself."""


@pytest.mark.parametrize("section", NOT_CONFIGURED, ids=lambda section: section.__name__)
def test_a_section_has_the_arguments_of_its_component(section: type[Section]) -> None:
    name, supplied, own = NOT_CONFIGURED[section]
    arguments = {field.name for field in dataclasses.fields(getattr(voicemesh, name))}
    assert set(section.model_fields) - own == arguments - supplied


def test_an_environment_without_aws_does_not_load_its_sdk() -> None:
    program = (
        "import sys; from infra.environment import load; from tests.stacks import local_values; "
        "values = local_values(); values['aws'] = values['storage'] = {}; "
        "load(values, ['gateway']); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = done.stdout.split()
    assert "infra.environment" in loaded
    assert "pulumi_kubernetes" in loaded
    assert "pulumi_aws" not in loaded


def _faults(values: dict[str, Any]) -> list[str]:
    try:
        load(values, ENCRYPTED)
    except FaultyEnvironmentError as refusal:
        return list(refusal.faults)
    return []


def _json_schema() -> dict[str, Any]:
    return Environment.model_json_schema()


def _pulumi_type(entry: dict[str, Any]) -> str:
    """How `Pulumi.yaml` calls the type of a key: for sections, JSON Schema has a reference."""
    return entry.get("type", "object")
