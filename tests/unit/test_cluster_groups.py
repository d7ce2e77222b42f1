"""Control groups: which hierarchies there are, how a group is made, who is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local import cgroups
from infra.local.cgroups import Hierarchy
from infra.local.errors import LocalEnvironmentError

VERSION_1 = """\
sysfs /sys sysfs rw 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
"""
VERSION_2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime 0 0\n"


def test_each_mounted_hierarchy_is_found_with_its_version() -> None:
    found = {str(h.root): h.version for h in cgroups.hierarchies(VERSION_1)}
    assert found == {
        "/sys/fs/cgroup/cpu,cpuacct": 1,
        "/sys/fs/cgroup/memory": 1,
        "/sys/fs/cgroup/unified": 2,
    }
    assert [h.version for h in cgroups.hierarchies(VERSION_2)] == [2]


def test_a_hierarchy_that_is_mounted_twice_counts_once() -> None:
    assert len(cgroups.hierarchies(VERSION_2 * 2)) == 1


def test_other_file_systems_are_no_hierarchies() -> None:
    assert cgroups.hierarchies("sysfs /sys sysfs rw 0 0\n") == []


def test_the_controllers_of_version_1_are_the_options_of_its_mounts() -> None:
    found = [h for h in cgroups.hierarchies(VERSION_1) if h.version == 1]
    assert {"cpu", "cpuacct", "memory"} <= cgroups.controllers(found)
    assert "pids" not in cgroups.controllers(found)


def test_the_controllers_of_version_2_are_in_its_root(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    assert cgroups.controllers([Hierarchy(tmp_path, 2)]) == {"cpu", "memory", "pids"}


@pytest.mark.parametrize(
    ("proc_cgroup", "group"),
    [
        ("3:cpuset:/\n0::/voicemesh/daemons/etcd\n", "daemons/etcd"),
        ("4:memory:/voicemesh/online/kubepods/pod1\n0::/\n", "online/kubepods/pod1"),
        ("0::/voicemesh\n", ""),
        ("0::/user.slice/voicemesh\n", None),
        ("0::/voicemesh-other/daemons\n", None),
        ("0::/\n", None),
    ],
)
def test_a_process_is_a_member_by_its_path_from_the_root(
    proc_cgroup: str, group: str | None
) -> None:
    assert cgroups.parse_group(proc_cgroup) == group


def test_a_version_1_cpuset_is_usable_as_soon_as_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("cpuset.cpus", "0-1\n"), ("cpuset.mems", "0\n")):
        (tmp_path / name).write_text(value)
    _make_interface_files(monkeypatch, {"cpuset.cpus": "\n", "cpuset.mems": "\n"})
    _use(monkeypatch, Hierarchy(tmp_path, 1, frozenset({"cpuset"})))
    (folder,) = cgroups.ensure_group("daemons/etcd")
    assert folder == tmp_path / "voicemesh/daemons/etcd"
    assert (folder / "cpuset.cpus").read_text() == "0-1\n"
    assert (folder / "cpuset.mems").read_text() == "0\n"


def test_a_version_2_group_gets_every_controller_of_its_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"cgroup.controllers": "cpu memory\n", "cgroup.subtree_control": "\n"}
    for name, value in files.items():
        (tmp_path / name).write_text(value)
    _make_interface_files(monkeypatch, files)
    _use(monkeypatch, Hierarchy(tmp_path, 2))
    (folder,) = cgroups.ensure_group("daemons/etcd")
    for parent in (tmp_path, tmp_path / "voicemesh", tmp_path / "voicemesh/daemons"):
        assert (parent / "cgroup.subtree_control").read_text() == "+cpu +memory"
    # A group that holds processes must not pass anything on.
    assert (folder / "cgroup.subtree_control").read_text() == "\n"


def test_a_version_2_root_that_cannot_delegate_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
    real = Path.write_text

    def busy(path: Path, text: str) -> int:
        if path.name == "cgroup.subtree_control":
            raise OSError(16, "Device or resource busy")
        return real(path, text)

    monkeypatch.setattr(Path, "write_text", busy)
    _use(monkeypatch, Hierarchy(tmp_path, 2))
    with pytest.raises(LocalEnvironmentError, match="cannot pass on memory"):
        cgroups.ensure_group("daemons/etcd")


def test_a_version_2_root_beside_version_1_delegates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Hierarchy(tmp_path / "cpu", 1), Hierarchy(tmp_path / "unified", 2)
    for hierarchy in (first, second):
        hierarchy.root.mkdir()
    (second.root / "cgroup.controllers").write_text("hugetlb\n")
    (second.root / "cgroup.subtree_control").write_text("\n")
    _use(monkeypatch, first, second)
    assert len(cgroups.ensure_group("daemons/etcd")) == 2
    assert (second.root / "cgroup.subtree_control").read_text() == "\n"


def test_the_members_of_a_group_are_those_of_all_hierarchies_and_of_all_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = Hierarchy(tmp_path / "cpu", 1), Hierarchy(tmp_path / "memory", 1)
    for folder, pids in (
        (one.folder("daemons/etcd"), "11\n12\n"),
        (other.folder("online/kubepods/pod1"), "13\n"),
        # Processes of a foreign process namespace have no id here.
        (other.folder("online/kubepods/pod2"), "0\n"),
        (one.root / "else", "99\n"),
    ):
        folder.mkdir(parents=True)
        (folder / "cgroup.procs").write_text(pids)
    _use(monkeypatch, one, other)
    assert cgroups.members() == {11, 12, 13}
    assert cgroups.members("daemons") == {11, 12}
    assert cgroups.members("offline") == set()


def _use(monkeypatch: pytest.MonkeyPatch, *found: Hierarchy) -> None:
    monkeypatch.setattr(cgroups, "hierarchies", lambda: list(found))


def _make_interface_files(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    """Makes the files that the kernel makes in each new group."""
    real = Path.mkdir

    def mkdir(path: Path, exist_ok: bool = False) -> None:
        real(path, exist_ok=exist_ok)
        for name, value in files.items():
            (path / name).write_text(value)

    monkeypatch.setattr(Path, "mkdir", mkdir)
