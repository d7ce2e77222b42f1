"""`IstioMesh`: Istio by its own charts, with mutual TLS everywhere and time for long streams."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import pulumi
from pulumi_kubernetes.helm.v3 import Release
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from voicemesh.arguments import Faults
from voicemesh.charts import ISTIO_IMAGE_HUB, ISTIO_VERSION, ChartSource
from voicemesh.component import after, child_options
from voicemesh.identity import declare_sources
from voicemesh.issuers import TokenIssuer, check_issuers
from voicemesh.istio import PeerAuthentication
from voicemesh.namespaces import declare_namespace
from voicemesh.revisions import (
    DEFAULT_REVISION,
    INJECTION_LABELS,
    NO_INJECTION,
    THE_DEFAULT,
    MeshRevision,
    check_revisions,
    declare_tag,
    suffixed,
)
from voicemesh.sizes import DEFAULT_SIDECAR, ComputeSize
from voicemesh.waf_provider import WafProvider, extension_provider

TRUST_DOMAIN: Final = "cluster.local"
DRAIN_MARGIN_SECONDS: Final = 60
CHART_TIMEOUT_SECONDS: Final = 600

SYSTEM_NAMESPACE: Final = "istio-system"
CNI_NAMESPACE: Final = "istio-cni"

_RUNTIME_DEFAULT: Final = {"type": "RuntimeDefault"}
_RELEASE_NAMES: Final = {"base": "istio-base", "cni": "istio-cni"}
"""Releases that Istio's documentation names otherwise than their charts."""


class ProxyBuild(StrEnum):
    """Which Envoy the proxy image carries."""

    ISTIO = "istio"
    """Istio's own, with its filters for metadata exchange, ALPN and metrics."""

    UPSTREAM = "upstream"
    """Envoy as its project releases it. istiod then sends no configuration for Istio's filters,
    and metrics are Envoy's own."""


@dataclass(frozen=True)
class IstioMeshArgs:
    """Arguments of `IstioMesh`."""

    charts: ChartSource = field(default_factory=ChartSource)
    """Where the charts come from."""

    image_hub: str = ISTIO_IMAGE_HUB
    """Registry and path of the images pilot, proxyv2 and install-cni."""

    image_tag: str = ISTIO_VERSION
    """Tag of those images."""

    revisions: Sequence[MeshRevision] = ()
    """Control planes that run side by side, as during an upgrade; by default one, `default`."""

    current_revision: str = DEFAULT_REVISION
    """Name of the one that namespaces with `IstioMesh.injection_labels` follow. Their pods follow
    when they are made again: see `IstioMesh.revision`."""

    issuers: Sequence[TokenIssuer] = ()
    """Issuers of tokens outside the mesh, all that gateways and voices name: proxies can then fetch
    their keys."""

    proxy_build: ProxyBuild = ProxyBuild.ISTIO
    """Which Envoy the proxy image carries."""

    max_stream_seconds: int = 600
    """Longest stream, in seconds. Proxies keep the streams that they have for this long, and a
    margin, when their configuration changes or their pod ends."""

    istiod_replicas: int = 2
    """Pods of the control plane; from two on, a disruption budget keeps one running."""

    istiod: ComputeSize = field(default_factory=lambda: ComputeSize(0.5, 2))
    """What each pod of the control plane requests."""

    cni: ComputeSize = field(default_factory=lambda: ComputeSize(0.1, 0.125))
    """What the network plugin's pod on each node requests."""

    sidecar: ComputeSize = DEFAULT_SIDECAR
    """What each sidecar requests; it counts against its namespace's quota."""

    wafs: Sequence[WafProvider] = ()
    """The web application firewalls of the mesh's gateways, one for each gateway that has one."""

    def __post_init__(self) -> None:
        faults = Faults.of(self)
        self.charts.check(faults, "charts")
        check_issuers(faults, "issuers", self.issuers)
        check_revisions(faults, self.revisions, self.current_revision)
        faults.whole_number(1, "max_stream_seconds", self.max_stream_seconds)
        faults.whole_number(1, "istiod_replicas", self.istiod_replicas)
        faults.require(
            isinstance(self.proxy_build, ProxyBuild),
            "proxy_build",
            self.proxy_build,
            ", ".join(f"ProxyBuild.{build.name}" for build in ProxyBuild),
        )
        for name in ("istiod", "cni", "sidecar"):
            getattr(self, name).check(faults, name)
        for index, waf in enumerate(self.wafs):
            waf.check(faults, f"wafs[{index}]")
        faults.unique("wafs", [waf.namespace for waf in self.wafs], "namespace")
        faults.raise_any()


class IstioMesh(pulumi.ComponentResource):
    """Istio's CRDs, control plane and CNI plugin; every workload accepts mutual TLS only.

    The CNI plugin redirects traffic on the node, so that pods need no privilege of their own and
    injected pods pass the Pod Security Standard `restricted`. It has a namespace to itself, the
    only one that allows privileged pods.

    Istio's charts keep their CRDs when they are removed, and with them every Istio resource of the
    cluster: `pulumi destroy` leaves them behind.
    """

    version: pulumi.Output[str]
    """Tag of the images of the current control plane."""

    namespace: pulumi.Output[str]
    """Namespace of the control plane, and of mesh-wide policies."""

    revision: pulumi.Output[str]
    """Name of the current control plane, once it injects pods. Workloads with it in an annotation
    of their pods, as `PublicGateway` and `TtsVoiceService` have it, are rolled out anew when it
    changes."""

    injection_labels: pulumi.Output[Mapping[str, str]]
    """Labels of a namespace whose pods get sidecars; they exist once pods can be injected. They
    stay the same from one control plane to the next."""

    def __init__(
        self, name: str, args: IstioMeshArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("voicemesh:index:IstioMesh", name, {}, opts)
        system = declare_namespace(
            f"{name}-system", SYSTEM_NAMESPACE, "restricted", child_options(self)
        )
        node = declare_namespace(
            f"{name}-cni", CNI_NAMESPACE, "privileged", child_options(self), NO_INJECTION
        )
        base = self._release(name, args, "base", base_values(args), [system])
        cni = self._release(name, args, "cni", cni_values(args), [node, base])
        istiods = {
            revision.name: self._istiod(name, args, revision, [system, base])
            for revision in args.revisions or [THE_DEFAULT]
        }
        istiod = istiods[args.current_revision]
        after_istiod = child_options(self, pulumi.ResourceOptions(depends_on=[istiod]))
        tag = declare_tag(f"{name}-tag", SYSTEM_NAMESPACE, args.current_revision, after_istiod)
        strict = PeerAuthentication(
            f"{name}-strict",
            ObjectMetaArgs(name="default", namespace=SYSTEM_NAMESPACE),
            {"mtls": {"mode": "STRICT"}},
            after_istiod,
        )
        sources = declare_sources(name, SYSTEM_NAMESPACE, args.issuers, after_istiod)
        self.version = pulumi.Output.from_input(current_tag(args))
        self.namespace = after(SYSTEM_NAMESPACE, istiod, strict)
        self.revision = after(args.current_revision, tag, cni, strict)
        self.injection_labels = after(INJECTION_LABELS, tag, cni, strict, *sources)
        self.register_outputs(
            {
                "version": self.version,
                "namespace": self.namespace,
                "revision": self.revision,
                "injection_labels": self.injection_labels,
            }
        )

    def _release(
        self,
        name: str,
        args: IstioMeshArgs,
        chart: str,
        values: dict[str, Any],
        depends_on: list[pulumi.Resource],
    ) -> Release:
        return Release(
            f"{name}-{chart}",
            name=_RELEASE_NAMES.get(chart, chart),
            namespace=CNI_NAMESPACE if chart == "cni" else SYSTEM_NAMESPACE,
            values=values,
            timeout=CHART_TIMEOUT_SECONDS,
            opts=child_options(self, pulumi.ResourceOptions(depends_on=depends_on)),
            **args.charts.release_arguments(chart),
        )

    def _istiod(
        self,
        name: str,
        args: IstioMeshArgs,
        revision: MeshRevision,
        depends_on: list[pulumi.Resource],
    ) -> Release:
        return Release(
            suffixed(f"{name}-istiod", revision.name),
            name=suffixed("istiod", revision.name),
            namespace=SYSTEM_NAMESPACE,
            values=istiod_values(args, revision),
            timeout=CHART_TIMEOUT_SECONDS,
            opts=child_options(self, pulumi.ResourceOptions(depends_on=depends_on)),
            **(revision.charts or args.charts).release_arguments("istiod"),
        )


def current_tag(args: IstioMeshArgs) -> str:
    """Tag of the images of the current control plane, and of the proxies that follow it."""
    tags = {revision.name: revision.image_tag for revision in args.revisions}
    return tags.get(args.current_revision) or args.image_tag


def image_values(args: IstioMeshArgs, tag: str | None = None) -> dict[str, Any]:
    """Chart values that say which images to run."""
    return {"hub": args.image_hub, "tag": tag or args.image_tag, "imagePullPolicy": "IfNotPresent"}


def base_values(args: IstioMeshArgs) -> dict[str, Any]:
    """Values of the chart `base`: who checks what is written for Istio."""
    return {"defaultRevision": args.current_revision}


def cni_values(args: IstioMeshArgs) -> dict[str, Any]:
    """Values of the chart `cni`. Its own tolerations already cover tainted GPU nodes."""
    return {"global": image_values(args), "resources": {"requests": args.cni.requests}}


def istiod_values(args: IstioMeshArgs, revision: MeshRevision = THE_DEFAULT) -> dict[str, Any]:
    """Values of the chart `istiod` for one revision."""
    name = {} if revision.name == DEFAULT_REVISION else {"revision": revision.name}
    return {
        **name,
        "global": {
            **image_values(args, revision.image_tag),
            "proxy": {
                "resources": {"requests": args.sidecar.requests},
                "seccompProfile": _RUNTIME_DEFAULT,
            },
        },
        "pilot": {
            "cni": {"enabled": True},
            "autoscaleEnabled": False,
            "replicaCount": args.istiod_replicas,
            "resources": {"requests": args.istiod.requests},
            "seccompProfile": _RUNTIME_DEFAULT,
            "env": pilot_environment(args.proxy_build),
        },
        "telemetry": {"enabled": args.proxy_build is ProxyBuild.ISTIO},
        "meshConfig": mesh_config(args.max_stream_seconds, args.wafs),
    }


def pilot_environment(build: ProxyBuild) -> dict[str, str]:
    """Switches of istiod. https://istio.io/latest/docs/reference/commands/pilot-discovery/"""
    # With keys inlined by istiod, each rotation rebuilds listeners and cuts long streams.
    switches = {
        "PILOT_JWT_ENABLE_REMOTE_JWKS": "envoy",
        # Whoever may write a RequestAuthentication has istiod ask the URL in it: not for the
        # credentials of its node.
        "BLOCKED_CIDRS_IN_JWKS_URIS": "169.254.0.0/16,fd00:ec2::/32",
    }
    if build is ProxyBuild.UPSTREAM:
        switches |= {
            "PILOT_ENABLE_METADATA_EXCHANGE": "false",
            "PILOT_ENABLE_ALPN_FILTER": "false",
            "PILOT_ENABLE_TELEMETRY_LABEL": "false",
        }
    return switches


def mesh_config(max_stream_seconds: int, wafs: Sequence[WafProvider] = ()) -> dict[str, Any]:
    """Mesh-wide defaults of the proxies.

    https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/
    """
    drain = f"{max_stream_seconds + DRAIN_MARGIN_SECONDS}s"
    return {
        "pathNormalization": {"normalization": "DECODE_AND_MERGE_SLASHES"},
        **({"extensionProviders": [extension_provider(waf) for waf in wafs]} if wafs else {}),
        "defaultConfig": {
            "holdApplicationUntilProxyStarts": True,
            "drainDuration": drain,
            "terminationDrainDuration": drain,
            "proxyMetadata": {"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "true"},
            # Without this, the bootstrap drops what outlier detection and canaries are judged by.
            "proxyStatsMatcher": {"inclusionPrefixes": ["cluster.outbound"]},
        },
    }
