"""The images of the environment, and what each is made of."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from infra.local.paths import CHECKOUT
from infra.local.versions import (
    CORE_RULE_SET_VERSION,
    COREDNS_VERSION,
    ISTIO_VERSION,
    METRICS_SERVER_VERSION,
    RATELIMIT_COMMIT,
    REDIS_VERSION,
)

REPOSITORY = "localhost/voicemesh"
SPEECH_UPDATE_TAG = "0.1.1"
"""A second tag of the speech server, the same but for its version label, to try an update with."""

_HERE = Path(__file__).resolve().parent
_SPEECH_PROJECT = CHECKOUT / "inference_image"
_SCRIPTED_UPSTREAM = CHECKOUT / "tests" / "e2e" / "scripted_upstream"


@dataclass(frozen=True)
class Image:
    """One image and what it is built from.

    Attributes:
        name: last part of its reference.
        tags: its tags; each is written into the label `org.opencontainers.image.version`.
        containerfile: how it is built; takes the build argument `BASE`.
        base: the image that it is built on; None for the first of all.
        files: names of the tools and files in its build context.
        context: the folder that is its build context, in place of `files`.
    """

    name: str
    tags: tuple[str, ...]
    containerfile: Path
    base: Image | None
    files: tuple[str, ...] = ()
    context: Path | None = None

    @property
    def references(self) -> tuple[str, ...]:
        return tuple(f"{REPOSITORY}/{self.name}:{tag}" for tag in self.tags)

    @property
    def lineage(self) -> tuple[Image, ...]:
        """The images that it is built on, the first of all first, and itself."""
        return (*(self.base.lineage if self.base else ()), self)


def _ours(name: str, tag: str, base: Image | None, *files: str) -> Image:
    return Image(name, (tag,), _HERE / name / "Containerfile", base, files)


def _speech_version() -> str:
    return tomllib.loads((_SPEECH_PROJECT / "pyproject.toml").read_text())["project"]["version"]


DEBIAN = _ours("debian", "bookworm", None, "base.tar")
IPTABLES = _ours("iptables", "bookworm", DEBIAN)
PAUSE = _ours("pause", "1", DEBIAN)
PILOT = _ours("pilot", ISTIO_VERSION, DEBIAN, "pilot-discovery")
PROXY = _ours("proxyv2", ISTIO_VERSION, IPTABLES, "envoy", "envoy_bootstrap.json", "pilot-agent")
INSTALL_CNI = _ours("install-cni", ISTIO_VERSION, IPTABLES, "install-cni", "istio-cni")
COREDNS = _ours("coredns", COREDNS_VERSION, DEBIAN, "coredns")
METRICS_SERVER = _ours("metrics-server", METRICS_SERVER_VERSION, DEBIAN, "metrics-server")
RATELIMIT = _ours("ratelimit", RATELIMIT_COMMIT, DEBIAN, "ratelimit")
REDIS = _ours("redis", REDIS_VERSION, DEBIAN)
WAF = Image(
    name="waf",
    tags=(CORE_RULE_SET_VERSION,),
    containerfile=CHECKOUT / "infra" / "images" / "waf" / "Containerfile",
    base=None,
    files=("waf",),
)
SPEECH_SERVER = Image(
    name="speech-server",
    tags=(_speech_version(), SPEECH_UPDATE_TAG),
    containerfile=_SPEECH_PROJECT / "Containerfile",
    base=DEBIAN,
    context=CHECKOUT,
)

SCRIPTED_UPSTREAM = Image(
    name="scripted-upstream",
    tags=("1",),
    containerfile=_SCRIPTED_UPSTREAM / "Containerfile",
    base=DEBIAN,
    context=_SCRIPTED_UPSTREAM,
)
"""Answers as each request asks it to, where a test needs that of a voice."""

IMAGES = (
    PAUSE,
    PROXY,
    PILOT,
    INSTALL_CNI,
    COREDNS,
    METRICS_SERVER,
    RATELIMIT,
    REDIS,
    WAF,
    SPEECH_SERVER,
    SCRIPTED_UPSTREAM,
)
"""What the nodes run; the images that these are built on are not among them."""


def reference(name: str) -> str:
    """The full reference of an image by its name, with its first tag.

    Raises:
        KeyError: no image has this name.
    """
    return {image.name: image.references[0] for image in IMAGES}[name]
