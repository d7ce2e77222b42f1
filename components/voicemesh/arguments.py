"""How components check their arguments: all faults at once, before any resource is declared."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin

import pulumi

DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
HOSTNAME: Final = re.compile(rf"({DNS_LABEL.pattern}\.)+{DNS_LABEL.pattern}")
_PORT = r"[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5]"
URL: Final = re.compile(rf"https?://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:({_PORT}))?(/\S*)?")
ARN: Final = re.compile(r"arn:[a-z-]+:[a-z0-9-]+:[a-z0-9-]*:[0-9]*:.+")
PRINCIPAL: Final = re.compile(
    rf"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/ns/{DNS_LABEL.pattern}/sa/[a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?"
)
LABEL_VALUE: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

LABEL_KEY: Final = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)


class ArgumentsError(pulumi.InputPropertiesError):
    """A component was given arguments that it cannot work with.

    The message has one line for each fault: component, argument, value and what is allowed.
    """


class Faults:
    """Collects what is wrong with the arguments of one component.

    Args:
        component: name of the component, with which each line of the message starts.
    """

    def __init__(self, component: str) -> None:
        self._component = component
        self._found: list[tuple[str, str]] = []

    @staticmethod
    def of(arguments: Any) -> Faults:
        """The faults of a component's arguments, none so far.

        Raises:
            ArgumentsError: something is no list, mapping or class of arguments where one belongs;
                whatever looks into it would fail, or take a text for a list of its letters.
        """
        faults = Faults(type(arguments).__name__.removesuffix("Args"))
        faults._found += _misfits(type(arguments), arguments, "")
        faults.raise_any()
        return faults

    def require(self, holds: bool, path: str, value: object, allowed: str) -> None:
        """Notes a fault of the argument at `path` unless `holds`."""
        if not holds:
            self._found.append((path, f"is {value!r}; allowed: {allowed}"))

    def matches(self, pattern: re.Pattern[str], path: str, value: Any, allowed: str) -> None:
        """Notes a fault where a string that is known by now does not match."""
        if not is_known(value):
            return
        fits = isinstance(value, str) and pattern.fullmatch(value) is not None
        self.require(fits, path, value, allowed)

    def dns_label(self, path: str, value: Any) -> None:
        """The name of a Kubernetes object."""
        self.matches(DNS_LABEL, path, value, "up to 63 of a-z, 0-9 and '-', as in 'tts-a'")

    def hostname(self, path: str, value: Any) -> None:
        """A full host name, without wildcards."""
        self.matches(HOSTNAME, path, value, "a host name in lower case, as in 'tts.example.com'")

    def at_least(self, minimum: float, path: str, value: Any) -> None:
        """A number with a lower bound."""
        if is_known(value):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            self.require(number and value >= minimum, path, value, f"a number ≥ {minimum:g}")

    def whole_number(self, minimum: int, path: str, value: Any) -> None:
        """A count, with a lower bound."""
        if is_known(value):
            whole = isinstance(value, int) and not isinstance(value, bool)
            allowed = f"a whole number ≥ {minimum}"
            self.require(whole and value >= minimum, path, value, allowed)

    def arn(self, path: str, value: Any) -> None:
        """The full name of something in AWS."""
        self.matches(ARN, path, value, "an ARN, as in 'arn:aws:s3:::name'")

    def unique(self, path: str, values: list[str], what: str) -> None:
        """Notes each value that occurs more than once."""
        for value in sorted({v for v in values if values.count(v) > 1}):
            self.require(False, path, value, f"each {what} once")

    def raise_any(self) -> None:
        """Raises `ArgumentsError` if anything was found."""
        if self._found:
            raise ArgumentsError(
                "\n".join(f"{self._component}: {path} {fault}" for path, fault in self._found),
                [{"property_path": path, "reason": fault} for path, fault in self._found],
            )


def is_known(value: object) -> bool:
    """Whether an input is a plain value, not an output that resolves later."""
    return not isinstance(value, pulumi.Output) and not hasattr(value, "__await__")


def _misfits(annotation: Any, value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Where a value has not the form that its annotation asks for, and why."""
    if not is_known(value) or (value is None and NoneType in _choices(annotation)):
        return
    for choice in _choices(annotation):
        kind = get_origin(choice) or choice
        if kind is Sequence:
            yield from _misfits_in_list(choice, value, path)
        elif kind is Mapping:
            yield from _misfits_in_mapping(choice, value, path)
        elif is_dataclass(kind):
            yield from _misfits_in_class(kind, value, path)


def _misfits_in_list(annotation: Any, value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, f"is {value!r}; allowed: a list, as in [{value!r}]"
    elif not isinstance(value, Sequence):
        yield path, f"is {_kind(value)}; allowed: a list"
    else:
        for index, entry in enumerate(value):
            yield from _misfits(get_args(annotation)[0], entry, f"{path}[{index}]")


def _misfits_in_mapping(annotation: Any, value: Any, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(value, Mapping):
        yield path, f"is {_kind(value)}; allowed: a mapping"
        return
    entries = get_args(annotation)[1]
    for key, entry in value.items():
        if str in _choices(entries) and is_known(entry) and not isinstance(entry, str):
            yield f"{path}[{key}]", f"is {_kind(entry)}; allowed: a text"
        yield from _misfits(entries, entry, f"{path}[{key}]")


def _misfits_in_class(class_: Any, value: Any, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(value, class_):
        yield path, f"is {_kind(value)}; allowed: {class_.__name__}(…)"
        return
    for field in fields(class_):
        place = f"{path}.{field.name}" if path else field.name
        yield from _misfits(field.type, getattr(value, field.name), place)


def _choices(annotation: Any) -> Sequence[Any]:
    is_union = get_origin(annotation) in (Union, UnionType)
    return get_args(annotation) if is_union else [annotation]


def _kind(value: Any) -> str:
    """Not the value, since there may be a secret in it."""
    return "None" if value is None else f"of type {type(value).__name__}"
