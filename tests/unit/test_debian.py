"""Debian packages unpacked into a cache, with stand-ins for apt and dpkg."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from infra.local import debian
from infra.local.debian import Debian, closure_of
from infra.local.errors import LocalEnvironmentError

# runc is in the mirror; containerd too, and needs runc; nft needs a library; mount is installed.
APT_GET = """\
#!/bin/sh
echo "apt-get $*" >> "$CALLS"
case "$*" in
  *update*) touch "$FRESH_LISTS";;
  *--simulate*)
    [ -e "$FRESH_LISTS" ] || { echo 'E: Unable to locate package' >&2; exit 100; }
    for name; do
      case $name in
        runc) echo 'Inst runc (1.1 Debian:12 [amd64])';;
        containerd) echo 'Inst runc (1.1 Debian:12 [amd64])'
                    echo 'Inst containerd (1:1.6 Debian:12 [amd64])';;
        nftables) echo 'Inst libnftables1 (1.0 Debian:12 [amd64])'
                  echo 'Inst nftables (1.0 Debian:12 [amd64])';;
        none) echo 'E: Unable to locate package none' >&2; exit 100;;
      esac
    done;;
  *download*)
    shift $(($# > 4 ? 4 : $#))
    for item; do
      echo "${item%%=*}" > "${item%%=*}_$(echo "${item#*=}" | sed s/:/%3a/)_amd64.deb"
    done;;
esac
"""
DPKG_DEB = """\
#!/bin/sh
echo "dpkg-deb $*" >> "$CALLS"
name=$(cat "$2")
case $name in
  lib*) mkdir -p "$3/usr/lib/x86_64-linux-gnu"; : > "$3/usr/lib/x86_64-linux-gnu/$name.so.1";;
  *) mkdir -p "$3/usr/bin"; printf '#!/bin/sh\\necho "$LD_LIBRARY_PATH"' > "$3/usr/bin/$name"
     chmod +x "$3/usr/bin/$name";;
esac
"""
DPKG_QUERY = """\
#!/bin/sh
echo "dpkg-query $*" >> "$CALLS"
echo 'ii  mount'
echo 'rc  runc'
"""
LDD = """\
#!/bin/sh
case $1 in *nftables) echo 'libnftables.so.1 => not found';; esac
"""


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the stand-ins; each run of one is a line of its file `calls`."""
    folder = tmp_path / "stand-ins"
    folder.mkdir()
    scripts = {"apt-get": APT_GET, "dpkg-deb": DPKG_DEB, "dpkg-query": DPKG_QUERY, "ldd": LDD}
    for name, script in scripts.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    (folder / "calls").touch()
    (folder / "fresh").touch()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("CALLS", str(folder / "calls"))
    monkeypatch.setenv("FRESH_LISTS", str(folder / "fresh"))
    return folder


@pytest.fixture
def packages(tmp_path: Path, stand_ins: Path) -> Debian:
    return Debian(tmp_path / "cache", "testing")


def calls(stand_ins: Path) -> str:
    return (stand_ins / "calls").read_text()


def test_a_package_is_unpacked_with_what_it_needs(packages: Debian) -> None:
    packages.ensure(["containerd"])

    assert packages.root("containerd") == packages.folder / "containerd_1%3a1.6"
    assert packages.root("runc") == packages.folder / "runc_1.1"
    assert os.access(packages.programs / "containerd", os.X_OK)
    assert not list(packages.folder.glob(".unfinished*"))


def test_an_installed_package_is_used_as_it_is(packages: Debian, stand_ins: Path) -> None:
    packages.ensure(["mount"])

    assert packages.root("mount") == Path("/")
    assert "apt-get" not in calls(stand_ins)


def test_a_package_that_was_removed_and_left_its_configuration_is_not_installed(
    packages: Debian,
) -> None:
    assert packages.missing(["runc", "mount"]) == ["runc"]


def test_what_is_unpacked_needs_neither_apt_nor_dpkg(packages: Debian, stand_ins: Path) -> None:
    packages.ensure(["containerd"])
    before = calls(stand_ins)

    packages.ensure(["containerd", "runc"])

    assert calls(stand_ins) == before


def test_a_package_whose_folder_is_gone_is_unpacked_again(packages: Debian) -> None:
    packages.ensure(["containerd"])
    shutil.rmtree(packages.root("runc"))

    packages.ensure(["runc"])

    assert (packages.root("runc") / "usr/bin/runc").exists()


def test_packages_of_another_release_are_not_used(packages: Debian) -> None:
    packages.ensure(["runc"])

    assert Debian(packages.folder, "older").missing(["runc"]) == ["runc"]


def test_lists_are_updated_when_apt_does_not_know_the_package(
    packages: Debian, stand_ins: Path
) -> None:
    (stand_ins / "fresh").unlink()

    packages.ensure(["runc"])

    assert packages.root("runc").is_dir()
    assert "update" in calls(stand_ins)


def test_a_package_that_no_mirror_has_is_named_with_what_apt_said(packages: Debian) -> None:
    with pytest.raises(LocalEnvironmentError, match="Unable to locate package none"):
        packages.ensure(["none"])

    assert packages.missing(["none"]) == ["none"]
    assert not list(packages.folder.glob(".unfinished*"))


def test_what_a_killed_run_left_is_removed(packages: Debian) -> None:
    remains = packages.folder / ".unfinished-abc" / "runc_1.1"
    remains.mkdir(parents=True)

    packages.ensure(["runc"])

    assert not remains.parent.exists()


def test_a_program_finds_its_unpacked_library_and_others_are_left_alone(packages: Debian) -> None:
    packages.ensure(["nftables", "runc"])

    library = packages.root("libnftables1") / "usr/lib/x86_64-linux-gnu"
    assert printed(packages.programs / "nftables") == str(library)
    assert printed(packages.programs / "runc") == ""
    assert (packages.programs / "runc").readlink() == packages.root("runc") / "usr/bin/runc"


def test_upgrades_of_installed_packages_are_not_downloaded() -> None:
    simulation = """\
Inst login [1:4.13-1] (1:4.13-2 Debian:12.15/oldstable [amd64])
Inst libsubid4 (1:4.13-2 Debian:12.15/oldstable [amd64])
Conf libsubid4 (1:4.13-2 Debian:12.15/oldstable [amd64])
"""
    assert closure_of(simulation) == ["libsubid4=1:4.13-2"]


def test_unpacked_programs_come_before_the_machines_own(packages: Debian) -> None:
    folders = packages.search_path("/opt/bin:/usr/bin").split(os.pathsep)

    assert folders[0] == str(packages.programs)
    assert folders.index("/opt/bin") < folders.index("/usr/sbin")


def test_without_apt_the_missing_commands_are_listed(
    stand_ins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "search_path", lambda: str(stand_ins))
    monkeypatch.setenv("PATH", str(stand_ins))
    for name in ("apt-get", "dpkg-query", "dpkg-deb", "ldd"):
        (stand_ins / name).unlink()
    (stand_ins / "etcd").write_text("")
    (stand_ins / "etcd").chmod(0o755)

    debian.ensure_packages(names=["etcd-server"])
    with pytest.raises(LocalEnvironmentError, match="there is no apt to get them: runc, nft"):
        debian.ensure_packages(names=["etcd-server", "runc", "nftables"])


def printed(program: Path) -> str:
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout.strip()
