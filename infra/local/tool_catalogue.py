"""The Go programs of the embedded environment: what each is compiled from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from infra.local.paths import CHECKOUT
from infra.local.versions import (
    CORE_RULE_SET_VERSION,
    COREDNS_VERSION,
    HELM_VERSION,
    ISTIO_MODULE_VERSION,
    ISTIO_VERSION,
    KUBERNETES_VERSION,
    KWOK_VERSION,
    METRICS_SERVER_VERSION,
    NETWORK_POLICIES_VERSION,
    PULUMI_VERSION,
    RATELIMIT_VERSION,
)


@dataclass(frozen=True)
class Build:
    """One run of the Go compiler.

    Attributes:
        packages: import paths of the programs; `.` is the tool's own `main.go`.
        tags: build tags.
        tests: name of the program of the package's tests, which is made instead; empty for none.
    """

    packages: tuple[str, ...] = (".",)
    tags: tuple[str, ...] = ()
    # Not in the repr, of which the key is made: tools without tests stay what they are.
    tests: str = field(default="", repr=False)


@dataclass(frozen=True)
class ModuleFiles:
    """Files that a tool takes from a Go module as they are.

    Attributes:
        module: the module's path.
        source: a file or folder in it.
        target: where it goes in the tool's folder.
        replacements: text to be replaced in every YAML file at the top of it, with its new text.
    """

    module: str
    source: str
    target: str
    replacements: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Tool:
    """A Go module and what is made of it.

    Attributes:
        name: its folder in `tools/`, unless it has a source elsewhere.
        version: the version that its programs report.
        binaries: the programs that it provides.
        builds: how they are compiled.
        stamps: string variables set by the linker, with their values.
        multicall: the one program that all binaries are links to; empty if each is its own.
        files: what else it provides.
        source: its folder, where it is not in `tools/`: that of an image that is shipped.
    """

    name: str
    version: str
    binaries: tuple[str, ...]
    builds: tuple[Build, ...] = (Build(),)
    stamps: tuple[tuple[str, str], ...] = ()
    multicall: str = ""
    files: tuple[ModuleFiles, ...] = ()
    # Where it is compiled does not change what is made of it.
    source: Path | None = field(default=None, repr=False)

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"


def _kubernetes_stamps(version: str) -> tuple[tuple[str, str], ...]:
    major, minor, _ = version.split(".")
    return tuple(
        (f"{package}.{variable}", value)
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for variable, value in (
            ("gitVersion", f"v{version}"),
            ("gitMajor", major),
            ("gitMinor", minor),
        )
    )


def _istio_chart(source: str, name: str) -> ModuleFiles:
    """A chart as Istio's release process ships it: with the release's version in it."""
    return ModuleFiles(
        "istio.io/istio",
        f"manifests/charts/{source}",
        f"charts/{name}",
        replacements=(
            ("\nversion: 1.0.0\n", f"\nversion: {ISTIO_VERSION}\n"),
            ("\nappVersion: 1.0.0\n", f"\nappVersion: {ISTIO_VERSION}\n"),
            (" hub: registry.istio.io/testing\n", " hub: registry.istio.io/release\n"),
            (" tag: latest\n", f" tag: {ISTIO_VERSION}\n"),
        ),
    )


_ISTIO_STAMPS = tuple(
    (f"istio.io/istio/pkg/version.{variable}", value)
    for variable, value in (
        ("buildVersion", ISTIO_VERSION),
        ("buildTag", ISTIO_VERSION),
        ("buildGitRevision", ISTIO_MODULE_VERSION.rsplit("-", 1)[1]),
        ("buildStatus", "Clean"),
        ("buildHub", "registry.istio.io/release"),
    )
)

TOOLS = (
    Tool(
        "pulumi",
        PULUMI_VERSION,
        binaries=("pulumi", "pulumi-language-python-exec"),
        builds=(
            Build(("github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",), ("osusergo", "grpcnotrace")),
        ),
        stamps=(
            ("github.com/pulumi/pulumi/sdk/v3/go/common/version.Version", f"v{PULUMI_VERSION}"),
        ),
        files=(
            ModuleFiles(
                "github.com/pulumi/pulumi/sdk/v3",
                "python/cmd/pulumi-language-python-exec",
                "bin/pulumi-language-python-exec",
            ),
        ),
    ),
    Tool(
        "kubernetes",
        KUBERNETES_VERSION,
        binaries=(
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        ),
        stamps=_kubernetes_stamps(KUBERNETES_VERSION),
        multicall="kubernetes",
    ),
    Tool(
        "istio",
        ISTIO_VERSION,
        binaries=("pilot-discovery", "pilot-agent", "istio-cni", "install-cni"),
        # The tags are those of Istio's own Makefile.
        builds=(
            Build(("istio.io/istio/pilot/cmd/pilot-discovery",), ("vtprotobuf", "disable_pgv")),
            Build(
                (
                    "istio.io/istio/pilot/cmd/pilot-agent",
                    "istio.io/istio/cni/cmd/istio-cni",
                    "istio.io/istio/cni/cmd/install-cni",
                ),
                ("agent", "disable_pgv", "grpcnotrace", "retrynotrace"),
            ),
        ),
        stamps=_ISTIO_STAMPS,
        files=(
            _istio_chart("base", "base"),
            _istio_chart("istio-cni", "istio-cni"),
            _istio_chart("istio-control/istio-discovery", "istiod"),
            _istio_chart("gateway", "gateway"),
            ModuleFiles(
                "istio.io/istio",
                "tools/packaging/common/envoy_bootstrap.json",
                "envoy_bootstrap.json",
            ),
        ),
    ),
    Tool(
        "istioctl",
        ISTIO_VERSION,
        binaries=("istioctl",),
        builds=(Build(("istio.io/istio/istioctl/cmd/istioctl",), ("vtprotobuf", "disable_pgv")),),
        stamps=_ISTIO_STAMPS,
    ),
    Tool(
        "helm",
        HELM_VERSION,
        binaries=("helm",),
        builds=(Build(("helm.sh/helm/v3/cmd/helm",)),),
        stamps=(("helm.sh/helm/v3/internal/version.version", f"v{HELM_VERSION}"),),
    ),
    Tool("coredns", COREDNS_VERSION, binaries=("coredns",)),
    Tool(
        "metrics-server",
        METRICS_SERVER_VERSION,
        binaries=("metrics-server",),
        builds=(Build(("sigs.k8s.io/metrics-server/cmd/metrics-server",)),),
        stamps=(("k8s.io/client-go/pkg/version.gitVersion", f"v{METRICS_SERVER_VERSION}"),),
    ),
    Tool("network-policies", NETWORK_POLICIES_VERSION, binaries=("network-policies",)),
    Tool("ratelimit", RATELIMIT_VERSION, binaries=("ratelimit",)),
    Tool(
        "waf",
        CORE_RULE_SET_VERSION,
        binaries=("waf",),
        # Without it, the engine wants a folder to write to.
        builds=(Build(tags=("no_fs_access",)),),
        source=CHECKOUT / "infra" / "images" / "waf",
    ),
    Tool(
        "waf-tests",
        CORE_RULE_SET_VERSION,
        binaries=("waf-tests",),
        builds=(Build(tags=("no_fs_access",), tests="waf-tests"),),
        source=CHECKOUT / "infra" / "images" / "waf",
    ),
    Tool(
        "kwok",
        KWOK_VERSION,
        binaries=("kwok",),
        builds=(Build(("sigs.k8s.io/kwok/cmd/kwok",)),),
        stamps=(("sigs.k8s.io/kwok/pkg/consts.Version", f"v{KWOK_VERSION}"),),
        files=(ModuleFiles("sigs.k8s.io/kwok", "kustomize/stage", "stage"),),
    ),
    Tool("package-sdk", PULUMI_VERSION, binaries=("package-sdk",)),
)

NEEDED_FOR_UP = (
    "pulumi",
    "kubernetes",
    "istio",
    "helm",
    "coredns",
    "metrics-server",
    "network-policies",
    "ratelimit",
    "waf",
)
