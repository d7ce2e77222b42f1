"""The web application firewall of a gateway: OWASP's Core Rule Set before anything else.

The gateway's proxies show each request, and a bounded part of its body, to a service of pods beside
them (`infra/images/waf`, around Coraza) and go on only if it agrees. Texts to speak may be about
anything, SQL and shells included: no rule sees them, but limits of their own do. Responses are
never looked at. docs/waf.md says what is inspected, and what is not.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import pulumi
from pulumi_kubernetes.core.v1 import (
    ContainerArgs,
    ContainerPortArgs,
    HTTPGetActionArgs,
    Namespace,
    ProbeArgs,
    ServicePortArgs,
)
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from voicemesh import contract
from voicemesh.arguments import Faults
from voicemesh.component import after, child_options
from voicemesh.gateway.authentication import REDIRECTING_PORT
from voicemesh.gateway.internal_service import (
    ANSWERING_ON,
    CONFINED,
    InternalService,
    principal,
    resources,
    scraped,
)
from voicemesh.istio import AuthorizationPolicy
from voicemesh.istio.specs import AuthorizationPolicySpec, Operation
from voicemesh.sizes import ComputeSize
from voicemesh.waf_provider import WAF, WAF_PORT, provider_name

HEALTH_PORT: Final = 8081
SPOKEN_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    contract.SPEECH_PATH: ("input", "instructions"),
    contract.TTS_PATH: ("input", "text", "instructions"),
    contract.BATCH_PATH: ("input", "instructions", "requests.*.input", "requests.*.instructions"),
}
"""By path, the fields of a JSON body that are spoken; `*` stands for each element of a list."""

_PINNED: Final = re.compile(r"\S+(?::[\w][\w.-]{0,127}|@sha256:[0-9a-f]{64})")
_MAX_PARANOIA_LEVEL: Final = 4


@dataclass(frozen=True)
class WebApplicationFirewall:
    """What the firewall refuses, and the pods that decide it.

    The mesh has to know it too, by a `WafProvider` of the gateway's namespace in
    `IstioMeshArgs.wafs`: without one, the gateway refuses everything.
    """

    image: pulumi.Input[str]
    """Image of the service with its tag or digest, built from infra/images/waf. Rules are in it:
    a newer image has newer rules."""

    replicas: int = 2
    """Pods of the service."""

    size: ComputeSize = field(default_factory=lambda: ComputeSize(0.25, 0.25))
    """What each pod requests; its memory is its limit. A request takes a millisecond of a core or
    two, and the rules 70 MiB."""

    paranoia_level: int = 1
    """Which of the Core Rule Set's rules count, 1 to 4. Those of level 2 on refuse good requests
    too, until exceptions are made for them."""

    anomaly_threshold: int = 5
    """A request is refused if the scores of the rules that it matches add up to this. One critical
    rule has 5."""

    detection_only: bool = False
    """Refuses nothing, and logs and counts what would be."""

    max_spoken_characters: int = 100_000
    """Longest text to speak, in characters. What a voice speaks at a time is its own limit."""

    max_upload_mib: int = 32
    """Largest upload of audio, in MiB."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes an image that may change by itself, and settings that the rules do not know."""
        allowed = "an image with tag or digest, as in 'registry.example.com/waf:4.25.0'"
        faults.matches(_PINNED, f"{path}.image", self.image, allowed)
        level = self.paranoia_level
        faults.whole_number(1, f"{path}.paranoia_level", level)
        known = not isinstance(level, int) or level <= _MAX_PARANOIA_LEVEL
        faults.require(known, f"{path}.paranoia_level", level, f"at most {_MAX_PARANOIA_LEVEL}")
        for name in ("replicas", "anomaly_threshold", "max_spoken_characters", "max_upload_mib"):
            faults.whole_number(1, f"{path}.{name}", getattr(self, name))
        self.size.check(faults, f"{path}.size")


def declare_waf(
    parent: pulumi.Resource,
    name: str,
    namespace: Namespace,
    namespace_name: str,
    waf: WebApplicationFirewall,
    annotations: Mapping[str, pulumi.Input[str]],
) -> AuthorizationPolicy:
    """The pods that decide, and the policy by which the gateway asks them, once they are ready.

    Args:
        parent: the gateway.
        name: its name, with which those of all resources begin.
        namespace: its namespace, where everything goes.
        namespace_name: name of that.
        waf: what is refused.
        annotations: further ones of the pods.
    """
    within = after(namespace_name, namespace)
    ready = firewall(name, namespace_name, waf, annotations).declare(parent, name, within)
    check = f"{name}-{WAF}-check"
    return AuthorizationPolicy(
        check,
        ObjectMetaArgs(name=check, namespace=within),
        check_policy(name, namespace_name),
        child_options(parent, pulumi.ResourceOptions(depends_on=ready)),
    )


def check_policy(gateway: str, namespace: str) -> AuthorizationPolicySpec:
    """Has the gateway ask about each request, but for health and what is only redirected."""
    closed: Operation = {"notPaths": [contract.HEALTH_PATH], "notPorts": [REDIRECTING_PORT]}
    return {
        "selector": {"matchLabels": {"istio": gateway}},
        "action": "CUSTOM",
        "provider": {"name": provider_name(namespace)},
        "rules": [{"to": [{"operation": closed}]}],
    }


def service_options(waf: WebApplicationFirewall) -> list[str]:
    """Options of the service; see infra/images/waf/settings.go."""
    return [
        f"-grpc=:{WAF_PORT}",
        f"-http=:{HEALTH_PORT}",
        f"-paranoia-level={waf.paranoia_level}",
        f"-anomaly-threshold={waf.anomaly_threshold}",
        f"-max-spoken-characters={waf.max_spoken_characters}",
        f"-upload-path={contract.VOICES_PATH}",
        f"-max-upload-bytes={waf.max_upload_mib << 20}",
        *(["-detection-only"] if waf.detection_only else []),
        *(f"-spoken={path}={','.join(fields)}" for path, fields in SPOKEN_FIELDS.items()),
    ]


def firewall(
    gateway: str,
    namespace: str,
    waf: WebApplicationFirewall,
    annotations: Mapping[str, pulumi.Input[str]],
) -> InternalService:
    """The pods that decide, and the Service that the mesh's configuration names."""
    return InternalService(
        WAF,
        _container(waf),
        ServicePortArgs(name="grpc", port=WAF_PORT, app_protocol="grpc"),
        caller=principal(namespace, gateway),
        caller_labels={"istio": gateway},
        replicas=waf.replicas,
        annotations={**scraped(HEALTH_PORT, contract.METRICS_PATH), **annotations},
    )


def _container(waf: WebApplicationFirewall) -> ContainerArgs:
    return ContainerArgs(
        name=WAF,
        image=waf.image,
        image_pull_policy="IfNotPresent",
        args=service_options(waf),
        ports=[
            ContainerPortArgs(name="grpc", container_port=WAF_PORT),
            ContainerPortArgs(name="health", container_port=HEALTH_PORT),
        ],
        readiness_probe=_probe(contract.READY_PATH, period_seconds=2),
        liveness_probe=_probe(contract.HEALTH_PATH, period_seconds=10),
        lifecycle=ANSWERING_ON,
        resources=resources(waf.size),
        security_context=CONFINED,
        termination_message_policy="FallbackToLogsOnError",
    )


def _probe(path: str, period_seconds: int) -> ProbeArgs:
    return ProbeArgs(
        http_get=HTTPGetActionArgs(path=path, port="health"),
        period_seconds=period_seconds,
        timeout_seconds=5,
    )
