"""From the configuration that the engine passes to an `Environment` that has been checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import pulumi
from pulumi.runtime.config import CONFIG, is_config_secret
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from infra.environment import arguments
from infra.environment.capacity import (
    GpuNodes,
    Share,
    gpu_nodes,
    placement_faults,
    quota_faults,
)
from infra.environment.consistency import contradictions
from infra.environment.model import Environment
from infra.environment.refusals import refusals, voice_args
from infra.environment.section import Faults, path
from voicemesh.sizes import DEFAULT_SIDECAR


class FaultyEnvironmentError(Exception):
    """The configuration cannot be used; one line for each fault."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(dict.fromkeys(faults))
        super().__init__("\n".join(["the configuration is faulty:", *self.faults]))


def load_from_pulumi() -> Environment:
    """The environment of the stack that the program runs for.

    Raises:
        FaultyEnvironmentError: with all that is wrong.
    """
    prefix = f"{pulumi.get_project()}:"
    config = CONFIG.get()
    keys = {key.removeprefix(prefix): key for key in config if key.startswith(prefix)}
    return load(
        {name: _decoded(config[key]) for name, key in keys.items()},
        encrypted={name for name, key in keys.items() if is_config_secret(key)},
    )


def load(values: Mapping[str, Any], encrypted: Iterable[str] = ()) -> Environment:
    """The environment that a configuration describes.

    Args:
        values: the configuration by top-level key, without the project's name.
        encrypted: those of the top-level keys in which something is encrypted.

    Raises:
        FaultyEnvironmentError: with all that is wrong.
    """
    # `Pulumi.yaml` declares optional sections with the default {}.
    given = {key: value for key, value in values.items() if value != {}}
    try:
        # Through JSON, since that is what is strict about numbers and texts, not about tuples.
        environment = Environment.model_validate_json(json.dumps(given))
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise FaultyEnvironmentError(_described(fault, values) for fault in details) from None
    _raise_any(
        *contradictions(environment),
        *refusals(environment),
        *_secrets_in_the_clear(environment, encrypted),
    )
    _raise_any(*_quota_faults(environment), *_faults_of_own_nodes(environment))
    return environment


def refuse_misplaced_voices(environment: Environment, groups: Iterable[GpuNodes]) -> None:
    """Checks the voices against the nodes of a cluster that another stack owns.

    Raises:
        FaultyEnvironmentError: naming voices that no node can run.
    """
    _raise_any(*_misplaced(environment, groups))


def own_nodes(environment: Environment) -> list[GpuNodes]:
    """The nodes with GPUs that this stack makes."""
    if environment.eks is None:
        return []
    return [
        gpu_nodes(group.name, arguments.planned_node_group_args(environment.eks, group))
        for group in environment.eks.node_groups
    ]


def _raise_any(*faults: str) -> None:
    if faults:
        raise FaultyEnvironmentError(faults)


def _faults_of_own_nodes(environment: Environment) -> Faults:
    if environment.eks is not None:
        yield from _misplaced(environment, own_nodes(environment))


def _misplaced(environment: Environment, groups: Iterable[GpuNodes]) -> Faults:
    voices = {
        index: voice_args(voice, environment.max_stream_seconds)
        for index, voice in enumerate(environment.voices)
    }
    yield from placement_faults(voices, list(groups))


def _quota_faults(environment: Environment) -> Faults:
    seconds = environment.max_stream_seconds
    sidecar = DEFAULT_SIDECAR
    if environment.mesh is not None:
        sidecar = arguments.mesh_args(environment.mesh, seconds).sidecar
    for index, tenant in enumerate(environment.tenants):
        share = Share(
            index=index,
            quota=arguments.tenant_args(tenant).quota,
            voices=[voice_args(v, seconds) for v in environment.voices if v.tenant == tenant.name],
            volume=arguments.volume_args(tenant.volume) if tenant.volume else None,
        )
        yield from quota_faults(share, sidecar)


def _secrets_in_the_clear(environment: Environment, encrypted: Iterable[str]) -> Faults:
    for name, field in Environment.model_fields.items():
        key = field.alias or name
        if key in encrypted:
            continue
        for location in _secrets(getattr(environment, name), (key,)):
            where = path(*location)
            command = f"pulumi config set --secret --path '{where}'"
            yield f"{where}: in the clear; encrypt it: {command}"


def _secrets(value: Any, location: tuple[str | int, ...]) -> Iterable[tuple[str | int, ...]]:
    if isinstance(value, SecretStr):
        yield location
    elif isinstance(value, tuple):
        for index, entry in enumerate(value):
            yield from _secrets(entry, (*location, index))
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            yield from _secrets(getattr(value, name), (*location, field.alias or name))


def _described(fault: ErrorDetails, values: Mapping[str, Any]) -> str:
    location = fault["loc"]
    where = path(*location)
    if fault["type"] == "extra_forbidden":
        known = ", ".join(_known_keys(Environment, location[:-1]))
        return f"{where}: unknown key; known ones here are {known}"
    if fault["type"] == "missing":
        return f"{where}: missing"
    message = fault["msg"].removeprefix("Value error, ")
    found = _at(values, location)
    is_scalar = isinstance(found, (str, int, float, bool)) and not _is_secret(location)
    shown = f", not {found!r}" if is_scalar and fault["type"] != "value_error" else ""
    return f"{where}: {message}{shown}"


def _at(values: Any, location: tuple[str | int, ...]) -> Any:
    for part in location:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def _is_secret(location: tuple[str | int, ...]) -> bool:
    return bool(location) and location[-1] in {"secretKey", "privateKey"}


def _known_keys(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    for part in location:
        fields = {field.alias: field for field in model.model_fields.values()}
        if isinstance(part, str) and part in fields:
            model = _model_within(fields[part].annotation) or model
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _model_within(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_within, get_args(annotation))), None)


def _decoded(value: Any) -> Any:
    """A value as the engine passes it: objects and numbers as JSON, texts as they are."""
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value
