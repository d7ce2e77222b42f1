"""Objects as the API server takes them, or does not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import kubernetes.dynamic
from kubernetes.dynamic.exceptions import NotFoundError

from tests.e2e.environment import Environment, eventually
from tests.e2e.rendered import Object


def refusal(
    environment: Environment,
    manifest: Object,
    namespace: str,
    validation: str = "Strict",
) -> str:
    """Why the API server would not apply an object; empty if it would."""
    status, told, _ = submitted(environment, manifest, namespace, validation)
    return "" if status < 300 else told["message"]


def submitted(
    environment: Environment,
    manifest: Object,
    namespace: str,
    validation: str,
    dry_run: bool = True,
) -> tuple[int, Any, str]:
    """The API server's answer to applying an object: status, content, and its warning."""
    api = environment.core.api_client
    resource = _resource(api, manifest["apiVersion"], manifest["kind"])
    place = {"namespace": namespace} if resource.namespaced else {}
    sent = {**manifest, "metadata": {**manifest["metadata"], **place}}
    query = [("fieldManager", "tests"), ("force", "true"), ("fieldValidation", validation)]
    request = api.param_serialize(
        "PATCH",
        resource.path(name=sent["metadata"]["name"], **place),
        query_params=[*query, *([("dryRun", "All")] if dry_run else [])],
        header_params={"Content-Type": "application/apply-patch+yaml"},
        body=sent,
        auth_settings=["BearerToken"],
    )
    answer = api.call_api(*request)
    answer.read()
    return answer.status, json.loads(answer.data), answer.getheader("Warning") or ""


@cache
def _resource(api: Any, version: str, kind: str) -> Any:
    return kubernetes.dynamic.DynamicClient(api).resources.get(api_version=version, kind=kind)


@contextmanager
def own_namespace(
    environment: Environment, name: str, labels: Mapping[str, str] | None = None
) -> Iterator[str]:
    """A namespace that goes with all that is in it."""
    environment.core.create_namespace({"metadata": {"name": name, "labels": labels or {}}})
    try:
        yield name
    finally:
        environment.core.delete_namespace(name)
        eventually(lambda: name not in _names(environment), what=f"namespace {name} is gone")


def _names(environment: Environment) -> set[str]:
    return {it.metadata.name for it in environment.core.list_namespace().items}


def withdrawn(environment: Environment, manifest: Object, namespace: str) -> None:
    """Deletes an object, with what belongs to it, where there still is one."""
    api = environment.core.api_client
    resource = _resource(api, manifest["apiVersion"], manifest["kind"])
    with suppress(NotFoundError):
        resource.delete(
            name=manifest["metadata"]["name"],
            namespace=namespace,
            body={"propagationPolicy": "Background"},
        )
