"""Debian's programs, unpacked into the cache instead of installed.

Installing etcd or containerd would start services on the user's machine; unpacking them touches
nothing. A package that is installed already is used as it is. Each unpacked package is a folder
`CACHE/debian/<package>_<version>`, complete or absent; their programs are in one folder of links,
where one that needs an unpacked library is a small script that says where the libraries are.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.local.commands import run_command
from infra.local.errors import LocalEnvironmentError
from infra.local.paths import CACHE
from infra.local.progress import Progress, silent

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "buildah": ("buildah",),
    "containerd": ("containerd", "containerd-shim-runc-v2", "ctr"),
    "containernetworking-plugins": (),
    "etcd-server": ("etcd",),
    "iproute2": ("ip",),
    "iptables": ("iptables", "iptables-restore", "iptables-save"),
    "mmdebstrap": ("mmdebstrap",),
    "mount": ("mount", "umount"),
    "nftables": ("nft",),
    "runc": ("runc",),
    "util-linux": ("nsenter", "unshare"),
}
"""The packages that the environment needs, with the commands that it needs of each."""

_PROGRAM_FOLDERS = ("usr/bin", "usr/sbin", "bin", "sbin")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CNI_PLUGINS = Path("usr/lib/cni")

# Debian makes these links when iptables is installed, by update-alternatives.
_ALTERNATIVES = {
    f"{family}tables{action}": f"{family}tables-nft{action}"
    for family in ("ip", "ip6")
    for action in ("", "-restore", "-save")
}

_UNFINISHED = ".unfinished-"
_DOWNLOAD_TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class Debian:
    """The packages of one Debian release in one cache.

    Attributes:
        folder: holds the unpacked packages.
        release: the machine's release and architecture: what is unpacked for one is not used by
            another.
    """

    folder: Path
    release: str

    @property
    def programs(self) -> Path:
        """The folder of links to all unpacked programs."""
        return self.folder / f"programs-{self.release}"

    @property
    def _manifest(self) -> Path:
        return self.folder / f"manifest-{self.release}.json"

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the packages that are neither unpacked nor installed."""
        unpacked = self.unpacked()
        absent = [name for name in names if name not in unpacked]
        installed = _installed(absent) if absent else set()
        return [name for name in absent if name not in installed]

    def ensure(self, names: Sequence[str], progress: Progress = silent) -> None:
        """Unpacks those of the packages that are neither unpacked nor installed.

        Raises:
            LocalEnvironmentError: a package cannot be had; names it and what apt said.
        """
        if not self.missing(names):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder / ".lock"):
                if missing := self.missing(names):
                    self._unpack_all(missing, progress)
        except OSError as error:
            raise LocalEnvironmentError(
                f"unpacking Debian packages in {self.folder}: {error}",
                fix="make room or check the rights there, then run the same command again",
            ) from error

    def unpacked(self) -> dict[str, Path]:
        """The folders of the unpacked packages, what they depend on included, by package."""
        try:
            recorded = json.loads(self._manifest.read_text())
        except FileNotFoundError:
            return {}
        folders = {name: self.folder / folder for name, folder in recorded.items()}
        return {name: folder for name, folder in folders.items() if folder.is_dir()}

    def root(self, name: str) -> Path:
        """Where the files of a package are: `/` if it is installed.

        Raises:
            LocalEnvironmentError: the package is neither unpacked nor installed.
        """
        if folder := self.unpacked().get(name):
            return folder
        if _installed([name]):
            return Path("/")
        raise LocalEnvironmentError(
            f"the Debian package {name} is neither installed nor unpacked", fix="run `make up`"
        )

    def search_path(self, machine_path: str) -> str:
        """A PATH on which the unpacked programs come before the machine's own."""
        return os.pathsep.join((str(self.programs), machine_path, _SYSTEM_PATH))

    def _unpack_all(self, names: Sequence[str], progress: Progress) -> None:
        for remains in self.folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(remains)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=_UNFINISHED) as temporary:
            archives = _download(names, Path(temporary), progress)
            for number, archive in enumerate(archives, start=1):
                progress(f"{number}/{len(archives)} Debian packages: unpacking {_stem(archive)}")
                self._unpack(archive)
        folders = {
            **self.unpacked(),
            **{_name(path): self.folder / _stem(path) for path in archives},
        }
        self._link(folders.values())
        _write(
            self._manifest,
            json.dumps({name: path.name for name, path in sorted(folders.items())}, indent=2),
        )

    def _unpack(self, archive: Path) -> None:
        folder = self.folder / _stem(archive)
        if folder.is_dir():
            return
        unfinished = archive.with_suffix(".unpacked")
        run_command(
            ["dpkg-deb", "--extract", str(archive), str(unfinished)],
            f"unpacking {archive.name}",
            timeout_seconds=_DOWNLOAD_TIMEOUT_SECONDS,
        )
        unfinished.rename(folder)

    def _link(self, folders: Collection[Path]) -> None:
        """Makes the folder of links to all unpacked programs."""
        self.programs.mkdir(exist_ok=True)
        libraries = _library_folders(folders)
        programs = {path.name: path for folder in folders for path in _programs(folder)}
        for alternative, target in _ALTERNATIVES.items():
            if target in programs:
                programs[alternative] = programs[target]
        for name, path in programs.items():
            environment = _needed_environment(path, libraries)
            if environment:
                _write(self.programs / name, _script(path, environment), mode=0o755)
            else:
                (self.programs / f".{name}.new").unlink(missing_ok=True)
                (self.programs / f".{name}.new").symlink_to(path)
                (self.programs / f".{name}.new").replace(self.programs / name)


def ensure_packages(progress: Progress = silent, names: Sequence[str] = tuple(PACKAGES)) -> None:
    """Makes the programs of Debian packages available; those installed are used as they are.

    Args:
        progress: gets a line per package.
        names: the packages; all that the environment needs by default.

    Raises:
        LocalEnvironmentError: a package cannot be had; without apt, names the missing commands.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg-query") is None:
        _check_commands(names)
    else:
        _debian().ensure(names, progress)


def binary(command: str) -> Path:
    """The path of a program: of an unpacked package, else the machine's own.

    Raises:
        LocalEnvironmentError: there is neither.
    """
    found = shutil.which(command, path=search_path())
    if found is None:
        raise LocalEnvironmentError(f"the command {command} is missing", fix="run `make up`")
    return Path(found)


def search_path() -> str:
    """A PATH on which programs find the unpacked ones, such as containerd its runc."""
    return _debian().search_path(os.environ.get("PATH", ""))


def package_root(name: str) -> Path:
    """The folder under which a package's files are, at their usual paths; `/` if it is installed.

    Raises:
        LocalEnvironmentError: the package is neither installed nor unpacked.
    """
    return _debian().root(name)


def unpacked_roots() -> list[Path]:
    """The folders of all unpacked packages, those that others depend on included."""
    return list(_debian().unpacked().values())


def cni_plugins() -> Path:
    """The folder of the container networking plugins."""
    return package_root("containernetworking-plugins") / _CNI_PLUGINS


def closure_of(simulation: str) -> list[str]:
    """What to download, as `package=version`, from what `apt-get --simulate install` prints.

    Packages that would only be upgraded are left out: the machine's own will do.
    """
    found = re.findall(r"^Inst (\S+) (\[\S+\] )?\((\S+) ", simulation, re.MULTILINE)
    return [f"{name}={version}" for name, installed, version in found if not installed]


def _debian() -> Debian:
    return Debian(CACHE / "debian", f"{_codename()}-{platform.machine()}")


def _codename() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return "unknown"
    return release.get("VERSION_CODENAME") or release.get("ID", "unknown")


def _check_commands(names: Sequence[str]) -> None:
    missing = [
        command
        for name in names
        for command in PACKAGES.get(name, ())
        if shutil.which(command, path=search_path()) is None
    ]
    if missing:
        raise LocalEnvironmentError(
            f"these commands are missing, and there is no apt to get them: {', '.join(missing)}",
            fix="install them with this system's own package manager, or use Debian 12",
        )


def _installed(names: Sequence[str]) -> set[str]:
    if shutil.which("dpkg-query") is None:
        return set()
    status = run_command(
        ["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev} ${Package}\n"],
        "asking dpkg what is installed",
    )
    installed = {line[3:].strip() for line in status.splitlines() if line.startswith("ii")}
    return installed & set(names)


def _download(names: Sequence[str], folder: Path, progress: Progress) -> list[Path]:
    """Downloads packages and what they depend on, as far as it is not installed."""
    progress(f"Debian packages: downloading {', '.join(names)}")
    try:
        return _try_download(names, folder)
    except LocalEnvironmentError:
        # The lists of packages are absent, or so old that the mirrors have moved on.
        progress("Debian packages: asking the mirrors for their lists")
        _update()
        return _try_download(names, folder)


def _try_download(names: Sequence[str], folder: Path) -> list[Path]:
    simulation = run_command(
        [
            *("env", "LC_ALL=C", "apt-get", "--simulate", "--no-install-recommends"),
            *("install", *names),
        ],
        f"looking for the Debian packages {', '.join(names)}",
    )
    run_command(
        [
            # apt downloads into the current folder, which its own user cannot enter.
            *("env", "-C", str(folder), "apt-get", "-o", "APT::Sandbox::User=root"),
            *("--quiet", "download", *closure_of(simulation)),
        ],
        f"downloading the Debian packages {', '.join(names)}",
        timeout_seconds=_DOWNLOAD_TIMEOUT_SECONDS,
    )
    return sorted(folder.glob("*.deb"))


def _update() -> None:
    run_command(
        ["apt-get", "--quiet", "update"],
        "updating apt's lists of packages",
        timeout_seconds=_DOWNLOAD_TIMEOUT_SECONDS,
    )


def _programs(folder: Path) -> Iterator[Path]:
    for programs in _PROGRAM_FOLDERS:
        for path in sorted((folder / programs).glob("*")):
            if path.is_file() and os.access(path, os.X_OK):
                yield path


def _library_folders(folders: Iterable[Path]) -> list[str]:
    libraries = [path for folder in folders for path in folder.glob("**/*.so.*")]
    return sorted({str(path.parent) for path in libraries})


def _needed_environment(program: Path, libraries: Sequence[str]) -> dict[str, str]:
    """What a program needs to find its unpacked libraries and extensions; empty if nothing."""
    environment = {}
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    if "not found" in linked.stdout:
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    for extensions in program.parents[2].glob("usr/lib/*/xtables"):
        environment["XTABLES_LIBDIR"] = str(extensions)
    return environment


def _script(program: Path, environment: Mapping[str, str]) -> str:
    settings = "".join(f"export {name}='{value}'\n" for name, value in environment.items())
    return f"#!/bin/sh\n{settings}exec '{program}' \"$@\"\n"


def _name(archive: Path) -> str:
    return archive.name.partition("_")[0]


def _stem(archive: Path) -> str:
    """An archive's name without its architecture, such as runc_1.1.5."""
    return archive.name.rpartition("_")[0]


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.chmod(mode)
    new.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock that the system releases when its holder ends, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
