"""What a program declares, as an engine tells it to a policy pack."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import struct_pb2
from google.protobuf.json_format import MessageToDict
from pulumi.runtime import rpc
from pulumi.runtime.proto import analyzer_pb2, resource_pb2

UNKNOWN: Final = rpc.UNKNOWN
"""In place of a value that is not known before deployment."""

PROVIDER_TYPE: Final = "pulumi:providers:"
"""What the types of providers begin with; their package follows."""

_SECONDS: Final = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|h|m|s)")


def declared(
    request: resource_pb2.RegisterResourceRequest, urn: str
) -> analyzer_pb2.AnalyzerResource:
    """The resource of a registration, still without its provider.

    An engine attaches aliases to resources only that were there under another name, and none is.
    """
    timeouts = request.customTimeouts
    resource = analyzer_pb2.AnalyzerResource(
        urn=urn,
        type=request.type,
        name=request.name,
        parent=request.parent,
        properties=request.object,
        dependencies=request.dependencies,
        propertyDependencies={
            key: analyzer_pb2.AnalyzerPropertyDependencies(urns=dependencies.urns)
            for key, dependencies in request.propertyDependencies.items()
            if dependencies.urns
        },
        options=analyzer_pb2.AnalyzerResourceOptions(
            protect=request.protect,
            ignoreChanges=request.ignoreChanges,
            deleteBeforeReplace=request.deleteBeforeReplace,
            deleteBeforeReplaceDefined=request.deleteBeforeReplaceDefined,
            additionalSecretOutputs=request.additionalSecretOutputs,
            customTimeouts=analyzer_pb2.AnalyzerResourceOptions.CustomTimeouts(
                create=seconds(timeouts.create),
                update=seconds(timeouts.update),
                delete=seconds(timeouts.delete),
                read=seconds(timeouts.read),
            ),
            parent=request.parent,
        ),
    )
    if request.type.startswith(PROVIDER_TYPE):
        resource.properties.update(plugin(request.version, request.pluginDownloadURL))
    return resource


def plugin(version: str, download_url: str = "") -> dict[str, str]:
    """What an engine adds to the inputs of a provider."""
    given = {"version": version, "pluginDownloadURL": download_url}
    return {key: value for key, value in given.items() if value}


def as_provider(
    resource: analyzer_pb2.AnalyzerResource,
) -> analyzer_pb2.AnalyzerProviderResource:
    """A provider as the resources that it makes refer to it."""
    return analyzer_pb2.AnalyzerProviderResource(
        urn=resource.urn, type=resource.type, name=resource.name, properties=resource.properties
    )


def struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    """Properties in the form in which they travel."""
    properties = struct_pb2.Struct()
    properties.update(values)
    return properties


def secret(value: Any) -> dict[str, Any]:
    """A secret in the form in which it travels."""
    return {rpc._special_sig_key: rpc._special_secret_sig, "value": value}


def revealed(properties: struct_pb2.Struct) -> dict[str, Any]:
    """Properties as plain values, secrets included."""
    return {key: _revealed(value) for key, value in MessageToDict(properties).items()}


def secret_names(properties: struct_pb2.Struct) -> list[str]:
    """Those of the properties that are secret, or contain a secret."""
    return [key for key, value in MessageToDict(properties).items() if _revealed(value) != value]


def seconds(duration: str) -> float:
    """Seconds of a duration such as `1h30m`; 0 for none."""
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(duration))


def _revealed(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get(rpc._special_sig_key) == rpc._special_secret_sig:
            return _revealed(value.get("value"))
        return {key: _revealed(entry) for key, entry in value.items()}
    return [_revealed(entry) for entry in value] if isinstance(value, list) else value
