"""Facts and decisions about Kubernetes objects that need no cluster."""

from __future__ import annotations

import base64
import copy
import random
import secrets
from collections.abc import Mapping
from typing import Any

from infra.local.adapters.property_values import (
    UNKNOWN,
    Properties,
    Secret,
    has_unknown,
    plain,
)
from infra.local.adapters.provider_base import Autoname, CheckFailedError

Object = dict[str, Any]

AUTONAMED = "pulumi.com/autonamed"
SKIP_AWAIT = "pulumi.com/skipAwait"
TIMEOUT_SECONDS = "pulumi.com/timeoutSeconds"
WAIT_FOR = "pulumi.com/waitFor"
PATCH_FORCE = "pulumi.com/patchForce"
DELETION_PROPAGATION = "pulumi.com/deletionPropagationPolicy"

_SERVER_METADATA = (
    "creationTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
)
# The groups that every API server of this release serves itself; kinds of any other come by CRD.
_BUILTIN_GROUPS = frozenset(
    {
        "",
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "apiregistration.k8s.io",
        "apps",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "autoscaling",
        "batch",
        "certificates.k8s.io",
        "coordination.k8s.io",
        "core",
        "discovery.k8s.io",
        "events.k8s.io",
        "flowcontrol.apiserver.k8s.io",
        "networking.k8s.io",
        "node.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "resource.k8s.io",
        "scheduling.k8s.io",
        "storage.k8s.io",
    }
)
_NAME_HEX_DIGITS = 8
_MAX_NAME_LENGTH = 253


def api_version_and_kind(token: str) -> tuple[str, str]:
    """`kubernetes:apps/v1:Deployment` is `apps/v1`, `Deployment`; the core group has no name."""
    _, group_version, kind = token.split(":")
    return group_version.removeprefix("core/"), kind


def is_builtin(api_version: str) -> bool:
    """Whether the API server serves this group without any CRD."""
    return api_version.rpartition("/")[0] in _BUILTIN_GROUPS


def identity(obj: Mapping[str, Any]) -> str:
    """`namespace/name`, or `name` where the object has no namespace: Pulumi's id for it."""
    metadata = plain(obj["metadata"])
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else metadata["name"]


def parse_identity(id_: str) -> tuple[str, str]:
    """Namespace (empty where there is none) and name of an id."""
    namespace, _, name = id_.rpartition("/")
    return namespace, name


def annotation(obj: Mapping[str, Any], name: str) -> str | None:
    """The annotation's text, if the object has it."""
    metadata = plain(obj.get("metadata")) or {}
    return (metadata.get("annotations") or {}).get(name) if isinstance(metadata, dict) else None


def is_true(obj: Mapping[str, Any], name: str) -> bool:
    """Whether the annotation says `true`."""
    return annotation(obj, name) == "true"


def without_nulls(value: Any) -> Any:
    """The value without null members: Pulumi sends them for what the program left out."""
    if isinstance(value, Secret):
        return Secret(without_nulls(value.value))
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def normalised(inputs: Properties) -> Properties:
    """The inputs in the form in which the server answers.

    A Secret's `stringData`, which is write-only, moves into `data`; `data` is marked secret.
    """
    result = without_nulls(inputs)
    if is_kind(result, "v1", "Secret"):
        result = _secret_with_data(result)
    return result


def is_kind(obj: Mapping[str, Any], api_version: str, kind: str) -> bool:
    """Whether the object is of this kind."""
    return obj.get("apiVersion") == api_version and obj.get("kind") == kind


def _secret_with_data(secret: Properties) -> Properties:
    texts = plain(secret.get("stringData"))
    data = plain(secret.get("data"))
    result = {key: value for key, value in secret.items() if key not in ("stringData", "data")}
    if texts is UNKNOWN or data is UNKNOWN:
        return {**result, "data": Secret(UNKNOWN)}
    encoded = {
        key: value if value is UNKNOWN else base64.b64encode(str(value).encode()).decode()
        for key, value in (texts or {}).items()
    }
    merged = {**(data or {}), **encoded}
    return {**result, "data": Secret(merged)} if merged else result


def with_name(
    inputs: Properties,
    olds: Properties,
    resource_name: str,
    autoname: Autoname | None,
    seed: bytes,
) -> Properties:
    """The inputs with `metadata.name`: the program's, the one it had, or a new automatic one.

    Raises:
        CheckFailedError: automatic names are disabled and the program gives none.
    """
    metadata = inputs.get("metadata") or {}
    if isinstance(metadata, Secret):
        metadata = metadata.value
    if metadata is UNKNOWN or metadata.get("name") or metadata.get("generateName"):
        return inputs
    old_name = (plain(olds.get("metadata")) or {}).get("name")
    if old_name and is_true(olds, AUTONAMED):
        return _named(inputs, metadata, old_name)
    return _named(inputs, metadata, automatic_name(resource_name, autoname, seed))


def automatic_name(resource_name: str, autoname: Autoname | None, seed: bytes) -> str:
    """`<resource>-<8 hex digits>`, or what the engine's `pulumi:autonaming` demands."""
    if autoname and autoname.mode == "DISABLE":
        raise CheckFailedError(
            [("metadata.name", "automatic naming is disabled for this resource; set the name")]
        )
    if autoname and autoname.proposed:
        return autoname.proposed
    prefix = resource_name[: _MAX_NAME_LENGTH - _NAME_HEX_DIGITS - 1]
    return f"{prefix}-{_hex_digits(seed)}"


def _hex_digits(seed: bytes) -> str:
    if not seed:
        return secrets.token_hex(_NAME_HEX_DIGITS // 2)
    # The engine's seed makes a name repeatable between preview and update.
    return f"{random.Random(seed).getrandbits(4 * _NAME_HEX_DIGITS):0{_NAME_HEX_DIGITS}x}"  # noqa: S311


def _named(inputs: Properties, metadata: Properties, name: str) -> Properties:
    annotations = {**(metadata.get("annotations") or {}), AUTONAMED: "true"}
    return {**inputs, "metadata": {**metadata, "name": name, "annotations": annotations}}


def manifest(inputs: Properties) -> Object:
    """What is sent to the server: plain, without nulls."""
    return copy.deepcopy(plain(without_nulls(inputs)))


def live_outputs(live: Object) -> Properties:
    """The live object as Pulumi keeps it: without bookkeeping, a Secret's data marked secret."""
    result = copy.deepcopy(live)
    result["metadata"].pop("managedFields", None)
    if is_kind(result, "v1", "Secret") and result.get("data"):
        result["data"] = Secret(result["data"])
    return result


def planned_outputs(dry_run: Object, inputs: Properties, *, new: bool) -> Properties:
    """The outputs that a preview may promise: without what the server decides on storing.

    Args:
        dry_run: the server's answer to a dry run.
        inputs: what was asked for.
        new: whether the object does not exist yet.
    """
    result = live_outputs(dry_run)
    metadata = result["metadata"]
    undecided = ["resourceVersion", "generation"]
    if new:
        result.pop("status", None)
        undecided += ["uid", "creationTimestamp"]
    metadata.update({name: UNKNOWN for name in undecided if name in metadata})
    if new and is_kind(result, "v1", "Service"):
        chosen, spec = plain(inputs.get("spec")) or {}, result.get("spec", {})
        addresses = ("clusterIP", "clusterIPs")
        spec.update({n: UNKNOWN for n in addresses if n in spec and n not in chosen})
    return result


def imported_inputs(live: Object) -> Properties:
    """The inputs that would make the live object: what the server did not add as bookkeeping."""
    result = {key: value for key, value in live_outputs(live).items() if key != "status"}
    metadata = {k: v for k, v in result["metadata"].items() if k not in _SERVER_METADATA}
    annotations = {
        key: value
        for key, value in (metadata.pop("annotations", None) or {}).items()
        if key
        not in (
            "deployment.kubernetes.io/revision",
            "kubectl.kubernetes.io/last-applied-configuration",
        )
    }
    if annotations:
        metadata["annotations"] = annotations
    return {**result, "metadata": metadata}


def is_complete(inputs: Properties) -> bool:
    """Whether every value is known, so that the server can judge the object."""
    return not has_unknown(inputs)
