"""What the components would refuse, said before any of them is made.

Each component's arguments are built with `LATER` for what only the running program knows. What they
refuse is reported under the path of the configuration, in its own spelling.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from pydantic.alias_generators import to_camel

from infra.environment import arguments
from infra.environment.arguments import LATER
from infra.environment.cluster import Eks
from infra.environment.identity import Identity
from infra.environment.mesh import Waf
from infra.environment.model import Environment
from infra.environment.section import Faults, path
from infra.environment.services import Voice
from voicemesh import (
    ArgumentsError,
    ChartSource,
    IstioMeshArgs,
    ObjectStorage,
    ServiceType,
    TtsVoiceServiceArgs,
)
from voicemesh.arguments import Faults as ArgumentFaults

_KEY_OR_PYTHON_NAME: Final = re.compile(r"\[[^\]]*\]|\b[a-z]+(_[a-z0-9]+)+\b")

_KEYS_NAMED_OTHERWISE: Final = {"service_name": "name"}
_CHOICES: Final = {kind.name: kind.value for kind in ServiceType}

Attempt = tuple[tuple[str | int, ...], Callable[[], object]]
"""A place in the configuration, and what builds the arguments that it describes."""


def refusals(environment: Environment) -> Faults:
    """Every fault that a component finds in its arguments."""
    for place, build in _attempts(environment):
        try:
            build()
        except ArgumentsError as error:
            for fault in error.errors or []:
                yield _translated(path(*place), fault["property_path"], fault["reason"])


def voice_args(voice: Voice, max_stream_seconds: int) -> TtsVoiceServiceArgs:
    """The arguments of a voice as far as they are known before anything exists."""
    storage = ObjectStorage(region=LATER)
    data = arguments.VoiceData(bucket=LATER, object_storage=storage, claim_name=LATER)
    return arguments.voice_args(voice, max_stream_seconds, data)


def _attempts(environment: Environment) -> Iterator[Attempt]:
    if environment.eks is not None:
        yield from _eks(environment.eks)
    if environment.registry is not None:
        yield ("registry",), partial(arguments.registry_args, environment.registry, "prefix")
    if environment.storage is not None:
        bucket = environment.storage.bucket_name or LATER
        yield ("storage",), partial(arguments.storage_args, environment.storage, bucket)
    if environment.addons is not None:
        yield ("addons",), partial(arguments.addons_args, environment.addons)
    yield from _platform(environment)
    yield from _services(environment)


def _eks(eks: Eks) -> Iterator[Attempt]:
    yield ("eks",), partial(arguments.cluster_args, eks, "cluster")
    for index, group in enumerate(eks.node_groups):
        place = ("eks", "nodeGroups", index)
        yield place, partial(arguments.planned_node_group_args, eks, group)


def _platform(environment: Environment) -> Iterator[Attempt]:
    seconds = environment.max_stream_seconds
    if environment.identity is not None:
        yield ("identity",), partial(_identity_args, environment.identity)
    if environment.mesh is not None:
        yield ("mesh",), partial(arguments.mesh_args, environment.mesh, seconds)
    if environment.gateway is not None:
        gateway = environment.gateway
        yield ("gateway",), partial(arguments.gateway_args, gateway, ChartSource(), seconds)
        if gateway.waf is not None:
            yield ("gateway",), partial(_check_waf_provider, gateway.waf)


def _check_waf_provider(waf: Waf) -> None:
    faults = ArgumentFaults("IstioMesh")
    arguments.waf_provider(waf).check(faults, "waf")
    faults.raise_any()


def _identity_args(identity: Identity) -> IstioMeshArgs:
    """The issuers alone: whoever gets them checks them alike."""
    return IstioMeshArgs(issuers=arguments.token_issuers(identity))


def _services(environment: Environment) -> Iterator[Attempt]:
    for index, tenant in enumerate(environment.tenants):
        yield ("tenants", index), partial(arguments.tenant_args, tenant)
        if tenant.volume is not None:
            yield ("tenants", index, "volume"), partial(arguments.volume_args, tenant.volume)
    for index, voice in enumerate(environment.voices):
        yield ("voices", index), partial(voice_args, voice, environment.max_stream_seconds)


def _translated(place: str, property_path: str, reason: str) -> str:
    found, separator, allowed = reason.removeprefix("is ").partition("; allowed: ")
    key = _KEYS_NAMED_OTHERWISE.get(property_path, _in_camel_case(property_path))
    return f"{place}.{key}: {found}{separator}{_in_camel_case(allowed)}"


def _in_camel_case(text: str) -> str:
    """Names of arguments, and of their choices, as the configuration spells them."""
    for name, value in _CHOICES.items():
        text = text.replace(name, value)
    return _KEY_OR_PYTHON_NAME.sub(_camel_unless_key, text)


def _camel_unless_key(match: re.Match[str]) -> str:
    return match.group() if match.group().startswith("[") else to_camel(match.group())
