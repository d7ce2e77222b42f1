"""What is wrong with a resource's inputs, found before any call, by AWS's own service model.

Unknown values are taken for right. Every problem names the property as the program wrote it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from botocore.model import ServiceModel, Shape, StructureShape
from botocore.validate import ParamValidator

from infra.local.adapters.aws_provider.mapping import Field, Spec, to_aws
from infra.local.adapters.property_values import UNKNOWN, Path, Properties, has_unknown, path_text

Problem = tuple[Path, str]


def problems(spec: Spec, model: ServiceModel, inputs: Properties) -> list[tuple[str, str]]:
    """Pairs of property path and reason; `inputs` without secrets' wrappers."""
    found = [
        *_unsupported(spec, inputs),
        *_missing((), spec.all_fields, inputs, _required_inputs(spec, model)),
        *(
            p
            for f in spec.all_fields
            if f.name in inputs and not f.output
            for p in _property(spec, model, f, inputs)
        ),
    ]
    return [(path_text(path), reason) for path, reason in found]


def shape_of(spec: Spec, model: ServiceModel, name: str) -> Shape | None:
    """The shape that AWS's service model gives a property; None where no call carries it."""
    for call in spec.writes:
        for path, carried in call.request.items():
            if carried == name:
                return shape_at(input_shape(model, call.operation), path)
    return None


def shape_at(shape: Shape | None, path: str) -> Shape:
    """The shape at a dotted member path.

    Raises:
        KeyError: the service model has no such member.
    """
    for part in path.split("."):
        if not isinstance(shape, StructureShape):
            raise KeyError(f"{path}: {shape} is not a structure")
        inner: Shape = members_of(shape)[part.removesuffix("[0]")]
        shape = _item(inner) if part.endswith("[0]") else inner
    if shape is None:
        raise KeyError(f"{path}: the operation takes nothing")
    return shape


def members_of(shape: StructureShape) -> Mapping[str, Shape]:
    """The structure's members (botocore's own annotation names the descriptor)."""
    return cast("Mapping[str, Shape]", shape.members)


def _required_members(shape: Shape | None) -> list[str]:
    return cast("list[str]", shape.required_members) if isinstance(shape, StructureShape) else []


def input_shape(model: ServiceModel, operation: str) -> Shape | None:
    """The shape of an operation's request."""
    return cast("Shape | None", model.operation_model(operation).input_shape)


def _item(shape: Shape) -> Shape:
    return shape.member  # type: ignore[attr-defined]


def _unsupported(spec: Spec, inputs: Properties) -> Iterator[Problem]:
    known = [f.name for f in spec.all_fields if not f.output]
    for name in inputs.keys() - set(known):
        if name in spec.instead:
            reason = f"is not supported by the embedded environment; use {spec.instead[name]}"
            yield (name,), reason
        else:
            yield (name,), _unknown_name(spec.type, name, known)


def _unknown_name(where: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"is no property of {where} that the embedded environment supports{hint}"


def _required_inputs(spec: Spec, model: ServiceModel) -> frozenset[str]:
    """What the creating call requires and neither a constant, a default nor a name gives."""
    required = _required_members(input_shape(model, spec.create.operation))
    given = {f.name for f in spec.all_fields if f.default is not None}
    given |= {spec.autoname.property} if spec.autoname else set()
    return frozenset(spec.create.request.get(member, "") for member in required) - given - {""}


def _missing(
    path: Path, fields: Iterable[Field], value: Properties, required: frozenset[str]
) -> Iterator[Problem]:
    for f in fields:
        if (f.required or f.name in required) and value.get(f.name) is None:
            yield (*path, f.name), "is required"


def _property(spec: Spec, model: ServiceModel, f: Field, inputs: Properties) -> Iterator[Problem]:
    shape = shape_of(spec, model, f.name)
    yield from _value((f.name,), f, shape, inputs[f.name])


def _value(path: Path, f: Field, shape: Shape | None, value: object) -> Iterator[Problem]:
    if value is UNKNOWN:
        return
    if f.fields and shape is not None and shape.type_name == "list":
        yield from _list(path, f, _item(shape), value)
    elif f.fields and isinstance(shape, StructureShape):
        yield from _object(path, f, shape, value)
    else:
        yield from _leaf(path, f, shape, value)


def _list(path: Path, f: Field, item: Shape, value: object) -> Iterator[Problem]:
    if not isinstance(value, list):
        yield path, f"{value!r} is not a list"
        return
    for index, element in enumerate(value):
        if element is not UNKNOWN and isinstance(item, StructureShape):
            yield from _object((*path, index), f, item, element)


def _object(path: Path, f: Field, shape: StructureShape, value: object) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield path, f"{value!r} is not an object"
        return
    names = {inner.name for inner in f.fields if not inner.output}
    for name in value.keys() - names:
        yield (*path, name), _unknown_name(path_text(path), name, names)
    required = frozenset(i.name for i in f.fields if i.member in _required_members(shape))
    yield from _missing(path, f.fields, value, required)
    for inner in f.fields:
        if value.get(inner.name) is not None and not inner.output:
            inner_shape = shape_at(shape, inner.member)
            yield from _value((*path, inner.name), inner, inner_shape, value[inner.name])


def _leaf(path: Path, f: Field, shape: Shape | None, value: object) -> Iterator[Problem]:
    if has_unknown(value):
        return
    expected = f.local_type or f.codec.expects
    if not isinstance(value, expected):
        yield path, f"{value!r} is not {_type_name(expected)}"
        return
    if shape is not None:
        yield from ((path, reason) for reason in _shape_problems(shape, to_aws(f, value)))
    if f.minimum is not None and isinstance(value, int) and value < f.minimum:
        yield path, f"{value} is below the minimum of {f.minimum}"
    if f.pattern and isinstance(value, str) and not re.fullmatch(f.pattern[0], value):
        yield path, f"{value!r} must be {f.pattern[1]}"


def _type_name(expected: type | tuple[type, ...]) -> str:
    several = expected if isinstance(expected, tuple) else (expected,)
    return " or ".join(_TYPE_NAMES.get(one, one.__name__) for one in several)


_TYPE_NAMES = {bool: "true or false", str: "a text", int: "a whole number", dict: "a map"}


def _shape_problems(shape: Shape, value: object) -> Iterator[str]:
    report = ParamValidator().validate(value, shape)
    if report.has_errors():
        # "Invalid type for parameter , value: x": the name is empty, since the path is ours.
        yield re.sub(r"\s+for parameter\s*,", ":", report.generate_report())
        return
    allowed = getattr(shape, "enum", [])
    if allowed and value not in allowed:
        yield f"{value!r} is not one of {', '.join(allowed)}"
    if shape.type_name == "list" and isinstance(value, list):
        for item in value:
            yield from _shape_problems(_item(shape), item)
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        for name, item in value.items():
            yield from _shape_problems(members_of(shape)[name], item)
