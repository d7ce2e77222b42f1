"""Images on the nodes: a containerd store is filled once, and every node starts from a copy of it.

The copy is made of links, so a file of an image is the same file on every node: stored, read and
held in memory once. Containers never write to it, for their overlay copies what they change.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.local import debian, processes
from infra.local.commands import run_command
from infra.local.paths import CACHE, RUN
from infra.local.processes import Daemon
from infra.local.progress import Progress
from infra.local.waiting import wait_until

_STORES = CACHE / "image-stores"
_LOADED = "voicemesh-archives.json"
_COMPLETE = "[!.]*"
_STATE = RUN / "image-store"
_SOCKET = _STATE / "containerd.sock"
_DAEMON = "image-store"
_CONFIG = """\
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
"""
_IMPORT_SECONDS = 300.0
_START_SECONDS = 30.0
_AT_ONCE = 2
"""Archives imported at once: one waits for the disk while the other is unpacked."""


def ensure_store(archives: Sequence[Path], progress: Progress) -> Path:
    """A containerd store with the images of these archives, filled where there is none.

    Args:
        archives: OCI archives whose names change with their content.
        progress: told what is being imported.

    Raises:
        LocalEnvironmentError: containerd could not import an archive; carries its message.
    """
    store = _STORES / store_key(archives)
    if store.is_dir():
        return store
    processes.stop_daemon(_DAEMON)  # an `up` that was killed may have left it
    _STORES.mkdir(parents=True, exist_ok=True)
    for abandoned in _STORES.glob(".new-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    new = _unused(store.with_name(".new"))
    earlier = list(_STORES.glob(_COMPLETE))
    if earlier:  # most images are as they were
        copy_store(earlier[0], new)
    else:
        new.mkdir()
    present = read_loaded(new)
    _fill(new, [archive for archive in archives if archive.name not in present], progress)
    write_loaded(new, (archive.name for archive in archives))
    for store_before in earlier:
        shutil.rmtree(store_before)
    new.rename(store)
    return store


def is_filled() -> bool:
    """Whether this machine's cache has a store, and so everything that went into it."""
    return any(_STORES.glob(_COMPLETE))


def store_key(archives: Iterable[Path]) -> str:
    """The name of the store that holds these archives."""
    names = sorted(archive.name for archive in archives)
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]


def is_seeded(root: Path) -> bool:
    """Whether the containerd at `root` has a store."""
    return (root / _LOADED).exists()


def seed(root: Path, store: Path) -> None:
    """Gives a containerd that was never started a copy of a store, at its `root`."""
    root.parent.mkdir(parents=True, exist_ok=True)
    new = _unused(root)
    copy_store(store, new)
    shutil.rmtree(root, ignore_errors=True)
    new.rename(root)


def copy_store(store: Path, target: Path) -> None:
    """Copies a store: its databases truly, all other files as links where they can be linked."""
    linked = subprocess.run(["cp", "-al", store, target], capture_output=True, check=False)
    if linked.returncode:  # the cache may be on another file system than the checkout
        shutil.rmtree(target, ignore_errors=True)
        argv = ["cp", "-a", "--reflink=auto", str(store), str(target)]
        run_command(argv, f"copying the image store {store}", timeout_seconds=_IMPORT_SECONDS)
    for file in (*target.glob("*/*.db"), target / _LOADED):
        copy = file.with_name(f"{file.name}.copy")
        shutil.copy2(file, copy)
        copy.replace(file)


def read_loaded(root: Path) -> set[str]:
    """Names of the archives that a store was filled with."""
    try:
        return set(json.loads((root / _LOADED).read_text()))
    except OSError:
        return set()


def write_loaded(root: Path, names: Iterable[str]) -> None:
    """Records the archives that a store was filled with."""
    new = root / f"{_LOADED}.new"
    new.write_text(json.dumps(sorted(names)))
    new.replace(root / _LOADED)


def _fill(root: Path, archives: Sequence[Path], progress: Progress) -> None:
    """Runs a containerd on `root`, in a mount namespace of its own, until it has every archive."""
    _STATE.mkdir(parents=True, exist_ok=True)
    (_STATE / "config.toml").write_text(_CONFIG)
    argv = ["unshare", "--mount", "--propagation=private", str(debian.binary("containerd"))]
    argv += [f"--config={_STATE / 'config.toml'}", f"--address={_SOCKET}"]
    argv += [f"--root={root}", f"--state={_STATE / 'state'}"]
    containerd = Daemon(_DAEMON, argv)
    processes.ensure_daemon(containerd)
    try:
        wait_until(
            lambda: _unready(containerd),
            "containerd to listen",
            _START_SECONDS,
            containerd.log,
        )
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for name in pool.map(_import, sorted(archives)):
                progress(f"imported {name}")
    finally:
        processes.stop_daemon(containerd.name)
        shutil.rmtree(_STATE, ignore_errors=True)
    # It names the machine to containerd's clients, and is not to be the same on every node.
    shutil.rmtree(root / "io.containerd.grpc.v1.introspection", ignore_errors=True)


def _unused(path: Path) -> Path:
    """A name beside `path` that no command of a killed `up` can still be writing to."""
    return path.with_name(f"{path.name}-{uuid.uuid4().hex}")


def _unready(containerd: Daemon) -> str | None:
    pid = processes.still_running(containerd).pid
    listening = processes.listens_on_socket(pid, str(_SOCKET))
    return None if listening else f"nothing listens on {_SOCKET}"


def _import(archive: Path) -> str:
    ctr_command = [str(debian.binary("ctr")), f"--address={_SOCKET}", "--namespace=k8s.io"]
    run_command(
        [*ctr_command, "images", "import", str(archive)],
        f"importing {archive}",
        timeout_seconds=_IMPORT_SECONDS,
    )
    return archive.stem
