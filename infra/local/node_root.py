"""A node's own file system: the machine's programs and devices, and everything else private.

The kubelet, containerd and DaemonSets that use hostPath write below /etc, /var, /run and /opt. Each
node has its own of these, so they work with their ordinary paths on several nodes at once, and
nothing they do reaches the machine's files.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.local.commands import run_command
from infra.local.errors import LocalEnvironmentError
from infra.local.mounts import mount_points
from infra.local.network import MOUNT_NAMESPACES, NAMESPACES, mount_namespace
from infra.local.paths import CACHE, STATE
from infra.local.topology import Node

# What the kubelet wants of the whole machine's kernel. The node has files with these values in
# place of the kernel's, so that it finds them as it wants them and the machine is left as it is.
_KERNEL_SETTINGS: Mapping[str, str] = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}

_SHARED_FOLDERS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_COPIED_ETC = (
    "group",
    "ld.so.cache",
    "localtime",
    "nsswitch.conf",
    "passwd",
    "protocols",
    "services",
)
_OWN_FOLDERS = (
    "dev",
    "etc/cni/net.d",
    "etc/kubernetes/manifests",
    "opt/cni/bin",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "var/lib/cni",
    "var/lib/kubelet",
    "var/log/containers",
    "var/log/pods",
)


def node_root(node: Node) -> Path:
    """The folder that is `/` to the node."""
    return STATE / "nodes" / node.name / "root"


def ensure_root(node: Node) -> None:
    """Makes the node's files and its mount namespace where they are missing or incomplete.

    Raises:
        LocalEnvironmentError: a mount was refused; carries the command's message.
    """
    held = mount_namespace(node)
    complete = held.with_suffix(".complete")
    if complete.exists() and held in mount_points():
        return
    delete_root_mounts(node)
    _make_files(node)
    held.touch()
    script = "\n".join(mount_commands(node_root(node), _read_only_folders()))
    unshare = ["unshare", f"--mount={held}", "--propagation=private", "sh", "-euc", script]
    _run_on_some_processor(
        ["nsenter", f"--net={NAMESPACES / node.network_namespace}", "--", *unshare],
        f"making the mount namespace of the node {node.name}",
    )
    complete.touch()


def delete_root_mounts(node: Node) -> None:
    """Lets go of the node's mount namespace; it ends with the last process inside."""
    held = mount_namespace(node)
    held.with_suffix(".complete").unlink(missing_ok=True)
    while held in mount_points():
        run_command(["umount", str(held)], f"unmounting the namespace of the node {node.name}")
    held.unlink(missing_ok=True)


def mount_commands(root: Path, read_only: Sequence[Path]) -> list[str]:
    """The shell commands that turn a fresh mount namespace into the node's.

    Args:
        root: the folder that becomes `/`.
        read_only: folders of the machine that the node sees at their own path.
    """
    at = shlex.quote(str(root))
    commands = [f"mount --bind {at} {at}"]
    for folder in read_only:
        source, target = shlex.quote(str(folder)), shlex.quote(f"{root}{folder}")
        # Submounts come along, so the remount makes only the top one read-only.
        commands.append(f"mount --rbind {source} {target}")
        commands.append(f"mount -o remount,bind,ro {target}")
    commands += [
        f"mount --rbind /dev {at}/dev",
        f"mount --rbind /proc {at}/proc",
        f"mount -t sysfs sysfs {at}/sys",
        f"mount --rbind /sys/fs/cgroup {at}/sys/fs/cgroup",
        f"mount -t tmpfs -o mode=755 tmpfs {at}/run",
        f"mkdir -p {at}/run/lock {at}/run/netns",
    ]
    for key in _KERNEL_SETTINGS:
        source = f"{at}/etc/kernel-settings/{key.replace('/', '.')}"
        commands.append(
            f"if [ -e {at}/proc/sys/{key} ]; then mount --bind {source} {at}/proc/sys/{key}; fi"
        )
    commands += [
        f"cd {at}",
        "mkdir -p .machine",
        "pivot_root . .machine",
        "umount -l /.machine",
        "rmdir /.machine",
        "mount --make-rshared /",
    ]
    return commands


def _make_files(node: Node) -> None:
    root = node_root(node)
    for folder in (*_OWN_FOLDERS, *(str(path)[1:] for path in _read_only_folders())):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    for link, target in (("var/run", "/run"), *_machine_links()):
        if not (root / link).is_symlink():
            (root / link).symlink_to(target)
    for name in _COPIED_ETC:
        if (Path("/etc") / name).exists():
            shutil.copyfile(Path("/etc") / name, root / "etc" / name)
    settings = root / "etc" / "kernel-settings"
    settings.mkdir(exist_ok=True)
    for key, value in _KERNEL_SETTINGS.items():
        (settings / key.replace("/", ".")).write_text(f"{value}\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{node.address} {node.name}\n")
    (root / "etc/hostname").write_text(f"{node.name}\n")
    # Pods inherit it where they do not use the cluster's DNS; there is no name server to offer.
    (root / "etc/resolv.conf").write_text("")
    (root / "etc/machine-id").write_text(f"{node.number:032x}\n")


def _read_only_folders() -> list[Path]:
    shared = (Path("/") / name for name in _SHARED_FOLDERS)
    folders = [folder for folder in shared if folder.is_dir() and not folder.is_symlink()]
    CACHE.mkdir(parents=True, exist_ok=True)
    return [*folders, CACHE.absolute()]


def _machine_links() -> list[tuple[str, str]]:
    """Links such as /bin -> usr/bin, which the machine may have in place of folders."""
    links = (Path("/") / name for name in _SHARED_FOLDERS)
    return [(link.name, str(link.readlink())) for link in links if link.is_symlink()]


def ensure_namespaces_folder() -> None:
    """Makes the folder in which the mount namespaces of all nodes are kept.

    The kernel keeps a mount namespace only where mounts are not passed on.
    """
    folder = MOUNT_NAMESPACES
    folder.mkdir(parents=True, exist_ok=True)
    if folder not in mount_points():
        run_command(["mount", "--bind", str(folder), str(folder)], f"mounting {folder}")
    run_command(["mount", "--make-private", str(folder)], f"making {folder} private")


def _run_on_some_processor(argv: Sequence[str], what: str) -> None:
    """Runs `unshare --mount=FILE` where the kernel lets it.

    A mount namespace may be kept only by an older one. Linux 6.18 tells their ages by ids of which
    each processor has its own supply, so within a container, which is not the first namespace,
    it takes those of one processor for older than they are.
    """
    processors = sorted(os.sched_getaffinity(0))
    for processor in processors:
        try:
            run_command(["taskset", "--cpu-list", str(processor), *argv], what)
            return
        except LocalEnvironmentError:
            if processor == processors[-1]:
                raise
