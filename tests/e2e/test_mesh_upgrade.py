"""A mesh that is upgraded: a second control plane beside the first, and everything moves to it.

Only one version of Istio is compiled here, so that the second control plane is the same build under
another revision and another tag of its images. What is shown is the way from one to the other, not
that two versions get along.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import kubernetes.client
import pytest
import yaml

from infra.local import stack
from infra.local.node import ctr
from infra.local.topology import NODES, SYSTEM
from tests.e2e.environment import NAMESPACE, eventually
from tests.e2e.figures import note
from tests.e2e.lab import Caller, Lab, caller_pod
from tests.e2e.load import Answer, Request, Target
from voicemesh.contract import GATEWAY_NAMESPACE, HEALTH_PATH, SPEECH_PATH
from voicemesh.mesh import SYSTEM_NAMESPACE

NEXT: Final = "next"
TAG: Final = "1.31.0-next"
HTTPS_NODE_PORT: Final = 30043
IMAGES: Final = ("pilot", "proxyv2")


class Mesh:
    """The environment's mesh, as a configuration of its own says."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def up(self, current: str, *revisions: dict[str, str]) -> float:
        """Runs `pulumi up` with these revisions; how long it took, in seconds."""
        config = yaml.safe_load(stack.CONFIG_FILE.read_text())
        mesh = config["config"]["voicemesh:mesh"]
        if revisions:
            mesh |= {"revisions": list(revisions), "currentRevision": current}
        self._file.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        began = time.monotonic()
        chosen = ("--stack", stack.STACK, "--config-file", str(self._file))
        stack.pulumi("up", "--yes", "--skip-preview", *chosen)
        return time.monotonic() - began


FIRST: Final = {"name": "default"}
SECOND: Final = {"name": NEXT, "imageTag": TAG}


@pytest.fixture
def mesh(lab: Lab, tmp_path: Path) -> Iterator[Mesh]:
    """The mesh, with images for a second control plane; as it was in the end."""
    hub = yaml.safe_load(stack.CONFIG_FILE.read_text())["config"]["voicemesh:mesh"]["imageHub"]
    for node in NODES:
        for image in IMAGES:
            ctr(node, "images", "tag", "--force", f"{hub}/{image}:1.31.0", f"{hub}/{image}:{TAG}")
    mesh = Mesh(tmp_path / "Pulumi.local.yaml")
    yield mesh
    mesh.up("default")
    for node in NODES:
        for image in IMAGES:
            ctr(node, "images", "rm", f"{hub}/{image}:{TAG}")


def test_no_request_is_lost_when_a_mesh_moves_to_another_revision(lab: Lab, mesh: Mesh) -> None:
    load = _load(lab)
    try:
        check_injection(lab, "default")
        adding = mesh.up("default", FIRST, SECOND)
        check_injection(lab, "default")
        moving = mesh.up(NEXT, FIRST, SECOND)
        check_injection(lab, NEXT)
        removing = mesh.up(NEXT, SECOND)
        check_injection(lab, NEXT)
        check_everything_follows(lab, NEXT)
        check_validation(lab)
        back = mesh.up("default")
        check_injection(lab, "default")
        check_everything_follows(lab, "default")
    finally:
        answers = [answer for each in load for answer in each.stop()]
    check_no_loss(answers)
    note("upgrade", "requests while the mesh moved there and back", len(answers))
    note("upgrade", "adding a revision", adding, "s")
    note("upgrade", "moving to it", moving, "s")
    note("upgrade", "removing the one before", removing, "s")
    note("upgrade", "moving back in one step", back, "s")


def check_no_loss(answers: Sequence[Answer]) -> None:
    lost = [it for it in answers if it.status != 200 or it.outcome != "complete"]
    told = [f"{it.tag} {it.status} {it.outcome} {it.error} {it.text[:80]}" for it in lost]
    assert not lost, f"{len(lost)} of {len(answers)} requests were lost: {told[:5]}"


def check_injection(lab: Lab, revision: str) -> None:
    """A new pod would get a sidecar of this revision."""
    try:
        pod = lab.core.create_namespaced_pod(
            NAMESPACE, caller_pod("upgrade", "default"), dry_run="All"
        )
    except kubernetes.client.ApiException as error:
        raise AssertionError(f"no pod is made: {error.body}") from None
    assert _revision(pod) == revision


def check_everything_follows(lab: Lab, revision: str) -> None:
    """All pods of gateway and voices are of this revision."""
    for namespace in (NAMESPACE, GATEWAY_NAMESPACE):
        pods = lab.core.list_namespaced_pod(namespace).items
        running = [pod for pod in pods if not pod.metadata.deletion_timestamp]
        behind = [pod.metadata.name for pod in running if _revision(pod) not in (revision, None)]
        assert not behind, f"{behind} do not follow {revision}"


def check_validation(lab: Lab) -> None:
    """What is written for Istio is still checked, and taken where it is in order."""
    for hosts, expected in ((["*/ok.example.com"], 201), ([], 400)):
        status = _write_gateway(lab, hosts)
        assert status == expected, f"a Gateway with hosts {hosts} was answered {status}"


def _write_gateway(lab: Lab, hosts: list[str]) -> int:
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": hosts}
    manifest = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "upgrade"},
        "spec": {"servers": [server]},
    }
    kind = ("networking.istio.io", "v1", NAMESPACE, "gateways")
    try:
        lab.custom.create_namespaced_custom_object(*kind, manifest, dry_run="All")
    except kubernetes.client.ApiException as error:
        return error.status or 0
    return 201


def _revision(pod: Any) -> str | None:
    status = (pod.metadata.annotations or {}).get("sidecar.istio.io/status")
    return json.loads(status)["revision"] if status else None


def _load(lab: Lab) -> list[Any]:
    door = lab.environment.door
    caller = Caller(
        lab.public().namespace,
        Target(SYSTEM.address, HTTPS_NODE_PORT, door.host, str(door.authority)),
    )
    token = lab.token(tenant=NAMESPACE)
    spoken = Request(
        SPEECH_PATH,
        headers={"authorization": f"Bearer {token}"},
        body=json.dumps({"input": "Hi.", "response_format": "pcm"}),
        tag="speech",
    )
    health = Request(HEALTH_PATH, method="GET", tag="health")
    return [
        caller.start(health, concurrency=4, per_second=10, seconds=900),
        caller.start(spoken, concurrency=2, per_second=1, seconds=900, timeout_seconds=60),
    ]


def test_a_pod_is_refused_while_nobody_could_inject_it(lab: Lab) -> None:
    check_injection(lab, "default")
    with _without_istiod(lab), pytest.raises(AssertionError, match="no pod is made"):
        check_injection(lab, "default")
    eventually(lambda: check_injection(lab, "default") is None, 60, "pods are injected again")


@contextmanager
def _without_istiod(lab: Lab) -> Iterator[None]:
    apps: Any = kubernetes.client.AppsV1Api(lab.core.api_client)
    scale = apps.read_namespaced_deployment_scale("istiod", SYSTEM_NAMESPACE)
    apps.patch_namespaced_deployment_scale("istiod", SYSTEM_NAMESPACE, {"spec": {"replicas": 0}})
    try:
        eventually(
            lambda: not lab.core.list_namespaced_pod(SYSTEM_NAMESPACE).items, 60, "istiod is gone"
        )
        yield
    finally:
        wanted = {"spec": {"replicas": scale.spec.replicas}}
        apps.patch_namespaced_deployment_scale("istiod", SYSTEM_NAMESPACE, wanted)


def test_a_gateway_that_is_killed_loses_requests(lab: Lab) -> None:
    load = _load(lab)
    try:
        for pod in lab.ready_pods(GATEWAY_NAMESPACE, istio="public-gateway"):
            lab.core.delete_namespaced_pod(
                pod.metadata.name, GATEWAY_NAMESPACE, grace_period_seconds=0
            )
        eventually(
            lambda: lab.ready_pods(GATEWAY_NAMESPACE, istio="public-gateway"), 90, "a gateway runs"
        )
    finally:
        answers = [answer for each in load for answer in each.stop()]
    with pytest.raises(AssertionError, match="were lost"):
        check_no_loss(answers)
