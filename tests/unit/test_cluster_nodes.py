"""What the nodes, the control plane and the add-ons are told, and when they count as ready."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infra.local import addons, control_plane, image_store, node, node_root
from infra.local.certificates import Authority
from infra.local.control_plane import Credentials
from infra.local.topology import NODES, OFFLINE, ONLINE, SYSTEM, Node

STARTED = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC).timestamp()
READY = {
    "status": {
        "conditions": [
            {"type": "MemoryPressure", "status": "False"},
            {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-11-22T12:00:01Z"},
        ]
    }
}


def changed(valid: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    result = copy.deepcopy(valid)
    change(result)
    return result


def test_a_node_is_ready_when_its_kubelet_says_so() -> None:
    assert node.unready_reason(READY, STARTED) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda it: it["status"]["conditions"][1].update(status="False", message="no CNI"), "CNI"),
        (lambda it: it["status"]["conditions"].pop(), "not reported"),
        (lambda it: it.pop("status"), "not reported"),
        (
            lambda it: it["status"]["conditions"][1].update(
                lastHeartbeatTime="2026-11-22T11:59:50Z"
            ),
            "not reported",
        ),
    ],
    ids=["not ready", "no such condition", "no status", "said by an earlier kubelet"],
)
def test_a_node_is_not_ready_and_the_reason_is_told(
    change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    assert reason in (node.unready_reason(changed(READY, change), STARTED) or "")


def test_a_node_that_is_not_registered_is_not_ready() -> None:
    assert node.unready_reason(None, STARTED) == "it has not registered"


def test_a_kubelet_registers_the_taints_of_its_node() -> None:
    gpu = {"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}
    offline = {"key": "workload", "value": "offline", "effect": "NoSchedule"}
    taints = {each.name: node.kubelet_config(each)["registerWithTaints"] for each in NODES}
    assert taints == {"system": [], "online": [gpu], "offline": [gpu, offline]}


def test_a_kubelet_lets_nobody_in_without_a_name() -> None:
    authentication = node.kubelet_config(ONLINE)["authentication"]
    assert authentication["anonymous"] == {"enabled": False}
    assert node.kubelet_config(ONLINE)["authorization"] == {"mode": "Webhook"}


def test_nobody_reaches_the_api_without_a_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "a.crt", tmp_path / "a.key")
    credentials = Credentials(authority, authority, (tmp_path / "s.key", tmp_path / "s.pub"))
    pair = (tmp_path / "p.crt", tmp_path / "p.key")
    names = ("server", "kubelet-client", "front-proxy-client")
    flags = control_plane.api_server_flags(credentials, dict.fromkeys(names, pair))
    assert "--anonymous-auth=false" in flags
    assert "--authorization-mode=Node,RBAC" in flags
    assert "--requestheader-allowed-names=front-proxy-client" in flags


@pytest.mark.parametrize("each", NODES, ids=lambda each: each.name)
def test_the_pods_of_a_node_get_addresses_of_its_range(each: Node) -> None:
    (plugin,) = node.cni_config(each)["plugins"]
    assert plugin["ipam"]["ranges"] == [[{"subnet": each.pod_range}]]
    assert json.dumps(node.cni_config(each))


def test_a_node_changes_no_setting_of_the_whole_machine() -> None:
    conntrack = node.kube_proxy_config(ONLINE)["conntrack"]
    assert (conntrack["maxPerCore"], conntrack["min"]) == (0, 0)
    commands = node_root.mount_commands(Path("/root of it"), [])
    for key in ("vm/overcommit_memory", "kernel/panic", "kernel/keys/root_maxkeys"):
        (mount,) = (line for line in commands if line.count(f"/proc/sys/{key}; ") == 1)
        assert "mount --bind" in mount


def test_what_a_node_shares_of_the_machine_it_cannot_change() -> None:
    commands = node_root.mount_commands(Path("/r"), [Path("/usr"), Path("/opt/cache")])
    for folder in ("/r/usr", "/r/opt/cache"):
        assert f"mount -o remount,bind,ro {folder}" in commands


def test_the_machine_s_files_are_gone_from_a_node_before_anything_starts_in_it() -> None:
    commands = node_root.mount_commands(Path("/r"), [Path("/usr")])
    pivot, gone = commands.index("pivot_root . .machine"), commands.index("umount -l /.machine")
    assert pivot < gone
    assert not [line for line in commands[pivot:] if "/r/" in line]


def test_a_checkout_with_a_blank_in_its_path_is_quoted() -> None:
    commands = node_root.mount_commands(Path("/my files/root"), [Path("/usr")])
    assert "mount --bind '/my files/root' '/my files/root'" in commands
    assert "mount --rbind /usr '/my files/root/usr'" in commands


def test_a_volume_is_on_its_node_alone_and_outlives_its_claim() -> None:
    spec = addons.volume_manifest(ONLINE, 2)["spec"]
    (term,) = spec["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["values"] == ["online"]
    assert spec["persistentVolumeReclaimPolicy"] == "Retain"
    assert spec["local"]["path"] == "/var/lib/voicemesh/volumes/2"


def test_no_two_volumes_have_one_name() -> None:
    names = [
        addons.volume_manifest(each, number)["metadata"]["name"]
        for each in (SYSTEM, ONLINE, OFFLINE)
        for number in range(1, each.volumes + 1)
    ]
    assert len(set(names)) == len(names) == 8


@pytest.mark.parametrize(
    ("phase", "released"), [("Released", True), ("Bound", False), ("Available", False)]
)
def test_only_a_volume_whose_claim_is_gone_is_emptied(phase: str, released: bool) -> None:
    assert addons.is_released({"status": {"phase": phase}}) is released


def test_a_volume_that_does_not_exist_is_not_emptied() -> None:
    assert addons.is_released(None) is False


AVAILABLE = {
    "metadata": {"generation": 2},
    "spec": {"replicas": 1},
    "status": {"observedGeneration": 2, "availableReplicas": 1, "conditions": []},
}


def test_a_deployment_serves_when_all_replicas_are_available() -> None:
    assert addons.unavailable_reason(AVAILABLE) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda it: it["status"].update(observedGeneration=1), "not looked at yet"),
        (lambda it: it["status"].update(availableReplicas=0), "not ready"),
        (lambda it: it.pop("status"), "not looked at yet"),
        (
            lambda it: it["status"].update(
                availableReplicas=0, conditions=[{"status": "False", "message": "no image"}]
            ),
            "no image",
        ),
    ],
)
def test_a_deployment_that_does_not_serve_says_why(
    change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    assert reason in (addons.unavailable_reason(changed(AVAILABLE, change)) or "")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store like containerd's: a database, and a file of an image."""
    root = tmp_path / "store"
    (root / "io.containerd.metadata.v1.bolt").mkdir(parents=True)
    (root / "io.containerd.metadata.v1.bolt/meta.db").write_text("images")
    (root / "snapshots/1/fs").mkdir(parents=True)
    (root / "snapshots/1/fs/envoy").write_text("binary")
    image_store.write_loaded(root, ["proxyv2-1.tar"])
    return root


def test_a_seeded_node_has_the_images_and_shares_their_files(store: Path, tmp_path: Path) -> None:
    root = tmp_path / "node"
    image_store.seed(root, store)
    assert image_store.is_seeded(root)
    assert image_store.read_loaded(root) == {"proxyv2-1.tar"}
    assert (root / "snapshots/1/fs/envoy").samefile(store / "snapshots/1/fs/envoy")


def test_what_a_node_writes_to_its_databases_reaches_no_other(store: Path, tmp_path: Path) -> None:
    root = tmp_path / "node"
    image_store.seed(root, store)
    (root / "io.containerd.metadata.v1.bolt/meta.db").write_text("changed")
    image_store.write_loaded(root, ["another.tar"])
    assert (store / "io.containerd.metadata.v1.bolt/meta.db").read_text() == "images"
    assert image_store.read_loaded(store) == {"proxyv2-1.tar"}


def test_a_store_on_another_disk_is_copied(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = image_store.subprocess.run

    def no_links(argv: list[Any], **options: Any) -> Any:
        return run(["false"] if "-al" in argv else argv, **options)

    monkeypatch.setattr(image_store.subprocess, "run", no_links)
    image_store.copy_store(store, tmp_path / "copy")
    assert (tmp_path / "copy/snapshots/1/fs/envoy").read_text() == "binary"
    assert not (tmp_path / "copy/snapshots/1/fs/envoy").samefile(store / "snapshots/1/fs/envoy")


def test_a_node_without_a_store_has_nothing(tmp_path: Path) -> None:
    assert not image_store.is_seeded(tmp_path)
    assert image_store.read_loaded(tmp_path) == set()


def test_a_store_is_named_by_its_archives_in_any_order() -> None:
    one, other = Path("/images/a-1.tar"), Path("/images/b-1.tar")
    assert image_store.store_key([one, other]) == image_store.store_key([other, one])
    assert image_store.store_key([one]) != image_store.store_key([one, other])
