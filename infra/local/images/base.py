"""The Debian that the images are built on, made from the mirrors that this machine uses."""

from __future__ import annotations

import hashlib
from pathlib import Path

from infra.local.commands import run_command
from infra.local.errors import LocalEnvironmentError
from infra.local.images.workshop import Workshop

_SUITE = "bookworm"
_SUITES = (_SUITE, f"{_SUITE}-updates", f"{_SUITE}-security")

# usr-is-merged stands in for usrmerge, which would bring all of Perl.
_PACKAGES = ("ca-certificates", "usr-is-merged")
_LEFT_OUT = ("doc", "info", "lintian", "locale", "man")
_OPTIONS = (
    "--mode=root",
    "--variant=minbase",
    f"--include={','.join(_PACKAGES)}",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in _LEFT_OUT),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)

_INDEX_FORMAT = "$(ORIGIN)\t$(RELEASE)\t$(COMPONENT)\t$(REPO_URI)"


def base_key() -> str:
    """What decides the content of the base, apart from the day on which it is made."""
    return hashlib.sha256("\0".join((_SUITE, *_OPTIONS)).encode()).hexdigest()[:16]


def make_base(archive: Path, workshop: Workshop) -> None:
    """Makes the base and writes it as a tar file.

    Raises:
        LocalEnvironmentError: apt knows no mirror of this Debian, or the mirror does not answer.
    """
    indexes = run_command(
        ["apt-get", "indextargets", "--format", _INDEX_FORMAT, "Created-By: Packages"],
        "asking apt for this machine's mirrors",
    )
    proxy = run_command(
        [
            *("apt-config", "dump", "--no-empty", "--format", '%F "%v";%n'),
            *("Acquire::http", "Acquire::https"),
        ],
        "asking apt for its proxy",
    )
    sources = workshop.folder / "sources.list"
    sources.write_text("".join(f"{source}\n" for source in sources_of(indexes)))
    workshop.run(
        [
            *("mmdebstrap", *_OPTIONS),
            *(f"--aptopt={line}" for line in proxy.splitlines()),
            *(_SUITE, str(archive), str(sources)),
        ],
        f"making Debian {_SUITE}",
        environment={"TMPDIR": str(workshop.folder)},
    )


def sources_of(indexes: str) -> list[str]:
    """The lines of a sources.list for the base, from the package indexes that apt knows.

    Args:
        indexes: a line for each: origin, release, component and address, with tabs between.

    Raises:
        LocalEnvironmentError: none of them is Debian's own of this release.
    """
    rows = [line.split("\t") for line in indexes.splitlines()]
    sources = [
        f"deb {address} {release} {component}"
        for origin, release, component, address in rows
        if origin == "Debian" and release in _SUITES and component == "main"
    ]
    if not any(line.split()[2] == _SUITE for line in sources):
        raise LocalEnvironmentError(
            f"apt knows no mirror of Debian {_SUITE}, on which the images are built",
            f"add {_SUITE} to /etc/apt/sources.list.d and run: apt-get update",
        )
    return sources
