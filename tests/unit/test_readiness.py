"""Whether objects are ready."""

from __future__ import annotations

from typing import Any

import pytest

from infra.local.adapters.kubernetes_provider import readiness
from infra.local.adapters.kubernetes_provider.waiting import custom_verdict
from infra.local.adapters.provider_base import ProviderError


def workload(spec: dict[str, Any], status: dict[str, Any], generation: int = 2) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "x", "namespace": "n", "generation": generation},
        "spec": spec,
        "status": {"observedGeneration": 2, **status},
    }


ROLLED_OUT = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
REFUSED = {
    "type": "ReplicaFailure",
    "status": "True",
    "reason": "FailedCreate",
    "message": 'pods "x" is forbidden: exceeded quota: gpus',
}
STUCK = {
    "type": "Progressing",
    "status": "False",
    "reason": "ProgressDeadlineExceeded",
    "message": "timed out",
}


@pytest.mark.parametrize(
    ("status", "ready", "hopeless", "named"),
    [
        (ROLLED_OUT, True, False, ""),
        ({**ROLLED_OUT, "observedGeneration": 1}, False, False, "has not seen"),
        ({**ROLLED_OUT, "availableReplicas": 1}, False, False, "1 available"),
        ({**ROLLED_OUT, "updatedReplicas": 1}, False, False, "1 of 2 replicas updated"),
        ({**ROLLED_OUT, "replicas": 3}, False, False, "2 of 2"),
        ({"conditions": [REFUSED]}, False, True, "exceeded quota: gpus"),
        ({**ROLLED_OUT, "availableReplicas": 1, "conditions": [REFUSED]}, False, False, "quota"),
        ({"updatedReplicas": 1, "conditions": [STUCK]}, False, True, "ProgressDeadlineExceeded"),
    ],
)
def test_a_deployment(status: dict[str, Any], ready: bool, hopeless: bool, named: str) -> None:
    verdict = readiness.deployment(workload({"replicas": 2}, status))
    assert (verdict.ready, verdict.hopeless) == (ready, hopeless)
    assert named in "; ".join(verdict.waiting_for)
    assert bool(verdict.waiting_for) is not ready


def test_a_stateful_set_waits_for_its_new_revision() -> None:
    status = {"readyReplicas": 1, "currentRevision": "a", "updateRevision": "b"}
    assert not readiness.stateful_set(workload({"replicas": 1}, status)).ready
    by_hand = {"replicas": 1, "updateStrategy": {"type": "OnDelete"}}
    assert readiness.stateful_set(workload(by_hand, status)).ready
    assert readiness.stateful_set(
        workload({"replicas": 1}, {**status, "updateRevision": "a"})
    ).ready


def test_a_daemon_set_waits_for_every_node() -> None:
    status = {"desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberReady": 2}
    assert not readiness.daemon_set(workload({}, status)).ready
    assert readiness.daemon_set(workload({}, {**status, "numberReady": 3})).ready


@pytest.mark.parametrize(
    ("spec", "status", "endpoints", "ready"),
    [
        ({"selector": {"a": "b"}}, {}, True, True),
        ({"selector": {"a": "b"}}, {}, False, False),
        ({}, {}, False, True),
        ({"selector": {"a": "b"}, "clusterIP": "None"}, {}, False, True),
        ({"selector": {"a": "b"}, "type": "ExternalName"}, {}, False, True),
        ({"selector": {"a": "b"}, "type": "LoadBalancer"}, {}, True, False),
        (
            {"selector": {"a": "b"}, "type": "LoadBalancer"},
            {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}},
            True,
            True,
        ),
    ],
)
def test_a_service(spec: dict, status: dict, endpoints: bool, ready: bool) -> None:
    slices = [{"endpoints": [{}] if endpoints else None}]
    verdict = readiness.service({"spec": spec, "status": status}, slices)
    assert verdict.ready is ready


def test_a_claim_is_not_awaited_where_its_class_waits_for_a_pod() -> None:
    claim = {"spec": {"storageClassName": "local"}, "status": {"phase": "Pending"}}
    late = {"metadata": {"name": "local"}, "volumeBindingMode": "WaitForFirstConsumer"}
    at_once = {"metadata": {"name": "local"}, "volumeBindingMode": "Immediate"}
    assert readiness.claim(claim, [late]).ready
    assert not readiness.claim(claim, [at_once]).ready
    assert not readiness.claim(claim, []).ready
    assert readiness.claim({**claim, "status": {"phase": "Bound"}}, []).ready


def test_a_failed_job_is_hopeless() -> None:
    def job(type_: str) -> dict[str, Any]:
        condition = {"type": type_, "status": "True", "reason": "R", "message": "M"}
        return {"spec": {}, "status": {"conditions": [condition]}}

    assert readiness.job(job("Complete")).ready
    failed = readiness.job(job("Failed"))
    assert (failed.ready, failed.hopeless, failed.waiting_for) == (False, True, ("[R] M",))


def pod(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    container = {"name": "main", "state": state, "ready": False, **more}
    return {
        "metadata": {"name": "p"},
        "status": {"phase": "Pending", "containerStatuses": [container]},
    }


@pytest.mark.parametrize(
    ("item", "named", "hopeless"),
    [
        (pod({"waiting": {"reason": "ImagePullBackOff", "message": "no image"}}), "no image", True),
        (
            pod(
                {"waiting": {"reason": "CrashLoopBackOff"}},
                lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            ),
            "pod p, container main: [CrashLoopBackOff] (last exit code 137, OOMKilled)",
            True,
        ),
        (
            pod(
                {"waiting": {"reason": "CrashLoopBackOff"}},
                lastState={
                    "terminated": {
                        "exitCode": 1,
                        "reason": "Error",
                        "message": "a log\nno weights\n",
                    }
                },
            ),
            "[CrashLoopBackOff] (last exit code 1, Error) no weights",
            True,
        ),
        (pod({"waiting": {"reason": "ErrImagePull", "message": "m"}}), "[ErrImagePull] m", False),
        (pod({"terminated": {"reason": "Error", "exitCode": 3}}), "exit code 3", False),
        (pod({"running": {}}), "not ready", False),
    ],
)
def test_what_is_wrong_with_a_pod_is_named(item: dict, named: str, hopeless: bool) -> None:
    problems = readiness.pod_problems([item])
    assert named in problems.texts[0]
    assert problems.hopeless is hopeless


def test_a_pod_that_is_only_starting_or_ready_has_no_problem() -> None:
    starting = pod({"waiting": {"reason": "ContainerCreating"}})
    ready = pod({"waiting": {"reason": "ImagePullBackOff"}})
    ready["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    assert readiness.pod_problems([starting, ready]).texts == ()


def test_warnings_about_an_object_are_told_once_and_newest_last() -> None:
    def event(name: str, message: str, time: str, type_: str = "Warning") -> dict[str, Any]:
        return {
            "type": type_,
            "reason": "R",
            "message": message,
            "lastTimestamp": time,
            "involvedObject": {"kind": "ReplicaSet", "name": name},
        }

    events = [
        event("x-1", "second", "2"),
        event("x-1", "first", "1"),
        event("x-1", "second", "3"),
        event("x-1", "fine", "4", "Normal"),
        event("other", "foreign", "5"),
    ]
    told = readiness.warning_texts(events, ["x"])
    assert told == ("ReplicaSet x-1: [R] first", "ReplicaSet x-1: [R] second")


CONDITIONED = {"status": {"conditions": [{"type": "Ready", "status": "True"}], "size": 3}}


@pytest.mark.parametrize(
    ("wanted", "ready"),
    [
        ("condition=Ready", True),
        ("condition=Ready=False", False),
        ("condition=Synced", False),
        ("jsonpath={.status.size}", True),
        ("jsonpath={.status.size}=3", True),
        ("jsonpath={.status.size}=4", False),
        ("jsonpath={.status.conditions[0].type}=Ready", True),
        ("jsonpath={.status.phase}", False),
        ('["condition=Ready", "jsonpath={.status.size}=4"]', False),
    ],
)
def test_an_object_can_say_itself_what_ready_means(wanted: str, ready: bool) -> None:
    assert custom_verdict(CONDITIONED, wanted).ready is ready


def test_a_wish_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ProviderError, match=r"pulumi\.com/waitFor is 'soon'"):
        custom_verdict(CONDITIONED, "soon")
