"""The components as a Pulumi package for every language, served by `python -m voicemesh`.

Pulumi infers the package's schema from annotations, and passes arguments as nested dictionaries.
What it does not do for frozen dataclasses is done here: what has a default may be left out, and
the dictionaries become the classes that the components take, so that a fault is reported to the
caller under the name that the caller wrote.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import cache
from importlib import metadata
from typing import Any, Final, get_args

import pulumi
import pulumi.provider
from pulumi.output import Unknown
from pulumi.provider.experimental import analyzer
from pulumi.provider.experimental.component import ComponentProvider
from pulumi.provider.experimental.util import camel_case

import voicemesh
from voicemesh.arguments import ArgumentsError

NAME: Final = "voicemesh"

_SIMPLE_TYPES: Final[Mapping[Any, tuple[type | tuple[type, ...], str]]] = {
    str: (str, "a string"),
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
}
_SNAKE_CASE: Final = re.compile(r"\b[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b")
_KEY_OR_SNAKE_CASE: Final = re.compile(rf"\[[^\]]*\]|{_SNAKE_CASE.pattern}")

Component = type[pulumi.ComponentResource]


def components() -> list[Component]:
    """All components that the library exports."""
    exported: list[Any] = [getattr(voicemesh, name) for name in voicemesh.__all__]
    classes = [value for value in exported if inspect.isclass(value)]
    return [class_ for class_ in classes if issubclass(class_, pulumi.ComponentResource)]


def arguments_class(component: Component) -> type:
    """The class of a component's argument `args`."""
    return inspect.get_annotations(component.__init__)["args"]


def schema() -> dict[str, Any]:
    """The package's schema, which Pulumi's SDK generators read.

    https://www.pulumi.com/docs/iac/guides/building-extending/packages/schema/
    """
    inferred = ComponentProvider(components(), NAME, None, metadata.version(NAME)).schema
    result = json.loads(str(inferred))
    for component in components():
        resource = result["resources"][_token(component)]
        _note_defaults(arguments_class(component), resource["inputProperties"])
        resource["requiredInputs"] = _required(arguments_class(component))
    for class_ in _nested_classes():
        type_ = result["types"][_token(class_)]
        _note_defaults(class_, type_["properties"])
        type_["required"] = _required(class_)
    _spell_descriptions(result, _wire_names())
    return result


class VoicemeshProvider(pulumi.provider.Provider):
    """Constructs components for programs in other languages."""

    def __init__(self) -> None:
        described = schema()
        super().__init__(described["version"], json.dumps(described))

    def construct(
        self,
        name: str,
        resource_type: str,
        inputs: Mapping[str, Any],
        options: pulumi.ResourceOptions | None = None,
    ) -> pulumi.provider.ConstructResult:
        """Makes a component from inputs under their wire names.

        Raises:
            ArgumentsError: the inputs are refused; paths and reasons are in wire names.
        """
        component = next(c for c in components() if _token(c) == resource_type)
        arguments = read_arguments(component, inputs)
        make: Any = component
        with _faults_in_wire_names(component):
            made = make(name, arguments, options)
        state = {camel_case(name): _to_wire(getattr(made, name)) for name in _outputs(component)}
        return pulumi.provider.ConstructResult(made.urn, state)


def read_arguments(component: Component, inputs: Mapping[str, Any]) -> Any:
    """The arguments of a component from inputs under their wire names.

    Raises:
        ArgumentsError: inputs are missing, unknown or of a wrong type, or the class of the
            arguments refuses them; paths and reasons are in wire names.
    """
    reader = _Reader()
    with _faults_in_wire_names(component):
        arguments = reader.instance(arguments_class(component), inputs, "")
    if reader.faults:
        raise _refusal(component, reader.faults)
    return arguments


def main() -> None:
    """Serves the package to the engine, whose address is the first argument."""
    pulumi.provider.main(VoicemeshProvider(), sys.argv[1:])


class _Reader:
    """Makes instances of the arguments' classes from wire values, and collects all faults."""

    def __init__(self) -> None:
        self.faults: list[tuple[str, str]] = []

    def instance(self, class_: Any, value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            return self._refuse(path, value, "an object")
        already = len(self.faults)
        fields = {camel_case(field.name): field for field in dataclasses.fields(class_)}
        for name in sorted(value.keys() - fields.keys()):
            self._note(_joined(path, name), f"is no argument; there are {', '.join(fields)}")
        given = {
            field.name: self._field(class_, field, value[name], _joined(path, name))
            for name, field in fields.items()
            if value.get(name) is not None
        }
        for name, field in fields.items():
            if field.name not in given and is_required(field):
                self._note(_joined(path, name), "is missing")
        # The class would find the same faults again, and others in their wake.
        return class_(**given) if len(self.faults) == already else None

    def _field(self, class_: Any, field: dataclasses.Field[Any], value: Any, path: str) -> Any:
        if none_has_its_own_meaning(class_, field) and value in ("", 0):
            return None
        return self._value(annotations_of(class_)[field.name], value, path)

    def _value(self, annotation: Any, value: Any, path: str) -> Any:
        if analyzer.is_input(annotation):
            if isinstance(value, pulumi.Output) or pulumi.contains_unknowns(value):
                return pulumi.Output.from_input(value)
            return self._value(analyzer.unwrap_input(annotation), value, path)
        if analyzer.is_optional(annotation):
            return self._value(analyzer.unwrap_optional(annotation), value, path)
        if isinstance(value, (pulumi.Output, Unknown)):
            self._note(path, "is an output; allowed: what is known when the program runs")
            return None
        if analyzer.is_list(annotation):
            return self._sequence(annotation, value, path)
        if analyzer.is_dict(annotation):
            return self._mapping(annotation, value, path)
        if dataclasses.is_dataclass(annotation):
            return self.instance(annotation, value, path)
        if issubclass(annotation, Enum):
            return self._member(annotation, value, path)
        return self._simple(annotation, value, path)

    def _sequence(self, annotation: Any, value: Any, path: str) -> Any:
        if not isinstance(value, Sequence) or isinstance(value, str):
            return self._refuse(path, value, "a list")
        (entry,) = get_args(annotation)
        return [self._value(entry, item, f"{path}[{index}]") for index, item in enumerate(value)]

    def _mapping(self, annotation: Any, value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            return self._refuse(path, value, "an object")
        _, entry = get_args(annotation)
        return {key: self._value(entry, item, f"{path}[{key}]") for key, item in value.items()}

    def _member(self, annotation: type[Enum], value: Any, path: str) -> Any:
        allowed = [member.value for member in annotation]
        if value not in allowed:
            return self._refuse(path, value, ", ".join(map(repr, allowed)))
        return annotation(value)

    def _simple(self, annotation: Any, value: Any, path: str) -> Any:
        if annotation is int and isinstance(value, float) and value.is_integer():
            # All numbers are floating-point ones on the wire.
            return int(value)
        types, words = _SIMPLE_TYPES[annotation]
        fits = isinstance(value, types) and (annotation is bool or not isinstance(value, bool))
        return value if fits else self._refuse(path, value, words)

    def _refuse(self, path: str, value: Any, allowed: str) -> None:
        self._note(path, f"is {value!r}; allowed: {allowed}")

    def _note(self, path: str, reason: str) -> None:
        self.faults.append((path, reason))


def annotations_of(class_: Any) -> dict[str, Any]:
    """The annotations of a class and of those it derives from."""
    return {k: v for c in reversed(class_.__mro__) for k, v in inspect.get_annotations(c).items()}


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Whether an argument has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def default_of(field: dataclasses.Field[Any]) -> Any:
    """An argument's default; None where it has none."""
    if field.default is not dataclasses.MISSING:
        return field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory()


def none_has_its_own_meaning(class_: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether None is something else than the default. Other languages cannot send it."""
    is_optional = analyzer.is_optional(annotations_of(class_)[field.name])
    return is_optional and default_of(field) is not None


def nested_class(annotation: Any) -> Any:
    """The dataclass or enumeration in an annotation, without inputs, lists and what is optional."""
    if analyzer.is_input(annotation):
        return nested_class(analyzer.unwrap_input(annotation))
    if analyzer.is_optional(annotation):
        return nested_class(analyzer.unwrap_optional(annotation))
    arguments = get_args(annotation)
    return nested_class(arguments[-1]) if arguments else annotation


def _nested_classes() -> list[Any]:
    found: dict[Any, None] = {}

    def visit(class_: Any) -> None:
        for field in dataclasses.fields(class_):
            nested = nested_class(annotations_of(class_)[field.name])
            if dataclasses.is_dataclass(nested) and nested not in found:
                found[nested] = None
                visit(nested)

    for component in components():
        visit(arguments_class(component))
    return list(found)


def _required(class_: Any) -> list[str]:
    return sorted(camel_case(f.name) for f in dataclasses.fields(class_) if is_required(f))


def _note_defaults(class_: Any, properties: dict[str, Any]) -> None:
    for field in dataclasses.fields(class_):
        described = properties[camel_case(field.name)]
        text = [inspect.cleandoc(described.get("description", ""))]
        default = _given(default_of(field))
        if default not in (None, {}, []):
            text.append(f"Default: {json.dumps(default)}.")
        if none_has_its_own_meaning(class_, field):
            empty = '""' if described.get("type") == "string" else "0"
            text.append(f"{empty} stands for None.")
        described["description"] = "\n".join(text)


def _spell_descriptions(described: Any, names: Mapping[str, str]) -> None:
    """Puts wire names into all descriptions; those of a list's entries repeat the list's own."""
    if isinstance(described, list):
        for entry in described:
            _spell_descriptions(entry, names)
    if not isinstance(described, dict):
        return
    for entries in ("items", "additionalProperties"):
        if isinstance(described.get(entries), dict):
            described[entries].pop("description", None)
    if isinstance(described.get("description"), str):
        described["description"] = _spelled(inspect.cleandoc(described["description"]), names)
    for value in described.values():
        _spell_descriptions(value, names)


@cache
def _wire_names() -> dict[str, str]:
    """The wire name of each argument and output of two words or more, by its Python name."""
    classes = [*map(arguments_class, components()), *_nested_classes()]
    names = [field.name for class_ in classes for field in dataclasses.fields(class_)]
    names += [name for component in components() for name in _outputs(component)]
    return {name: camel_case(name) for name in names if "_" in name}


def _outputs(component: Component) -> list[str]:
    return [name for name in inspect.get_annotations(component) if not name.startswith("_")]


def _token(class_: Any) -> str:
    return f"{NAME}:index:{class_.__name__}"


def _to_wire(value: Any) -> Any:
    """An output, or a part of one, as other languages see it."""
    if isinstance(value, pulumi.Output):
        return value.apply(_to_wire)
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {camel_case(field.name): _to_wire(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {key: _to_wire(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_wire(entry) for entry in value]
    return value


def _given(default: Any) -> Any:
    """A default as other languages would write it: without what is itself a default in it."""
    if not dataclasses.is_dataclass(default):
        return _to_wire(default)
    return {
        camel_case(field.name): _given(getattr(default, field.name))
        for field in dataclasses.fields(default)
        if is_required(field) or getattr(default, field.name) != default_of(field)
    }


def _spelled(text: str, names: Mapping[str, str]) -> str:
    return _SNAKE_CASE.sub(lambda found: names.get(found[0], found[0]), text)


def _wire_path(path: str) -> str:
    """A path in wire names; keys in brackets stay as they are."""
    return _KEY_OR_SNAKE_CASE.sub(
        lambda found: found[0] if found[0].startswith("[") else camel_case(found[0]), path
    )


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


@contextmanager
def _faults_in_wire_names(component: Component) -> Iterator[None]:
    try:
        yield
    except pulumi.InputPropertiesError as error:
        faults = [
            (_wire_path(fault["property_path"]), _spelled(fault["reason"], _wire_names()))
            for fault in error.errors or []
        ]
        raise _refusal(component, faults) from error


def _refusal(component: Component, faults: Sequence[tuple[str, str]]) -> ArgumentsError:
    return ArgumentsError(
        "\n".join(f"{component.__name__}: {path} {reason}" for path, reason in faults),
        [{"property_path": path, "reason": reason} for path, reason in faults],
    )
