"""A forgiving view of what a resource declares.

Whatever the shape of the properties, looking at them raises nothing but `UnknownError`: what is
not there, or is of another type than asked for, reads as nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_MOST_SHOWN: Final = 120
_DEEPEST: Final = 64
"""Levels below which nothing is looked at: more than any schema that the rules know has."""

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|us|ns|m|s)", re.ASCII)
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_QUANTITY = re.compile(r"([+-]?\d{1,18}(?:\.\d{0,18})?)([a-zA-Z]{0,2}|[eE][+-]?\d{1,2})", re.ASCII)
_FACTORS = {
    "": 1.0,
    "m": 1e-3,
    "u": 1e-6,
    "n": 1e-9,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
    **{f"{prefix}i": 1024.0**power for power, prefix in enumerate("KMGTPE", 1)},
}


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()
"""Stands for a value that is not known before something else has been made."""


class UnknownError(Exception):
    """A rule needs a value that is not known yet.

    Attributes:
        path: of the property, as in `spec.template.spec`.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


@dataclass(frozen=True)
class View:
    """A value among the properties of a resource, and where it is."""

    value: Any
    path: str = ""

    def __getitem__(self, key: str | int) -> View:
        """What is under a key, or at an index: a view of None where nothing is."""
        value = self._known()
        path = f"{self.path}[{key}]" if isinstance(key, int) else _joined(self.path, key)
        if isinstance(key, int):
            known = value if isinstance(value, list) else []
            return View(known[key] if key < len(known) else None, path)
        return View(value.get(key) if isinstance(value, Mapping) else None, path)

    def at(self, path: str) -> View:
        """What is under a path of keys with dots between them."""
        view = self
        for key in path.split("."):
            view = view[key]
        return view

    @property
    def present(self) -> bool:
        return self._known() is not None

    @property
    def text(self) -> str:
        value = self._known()
        return value if isinstance(value, str) else ""

    @property
    def number(self) -> float | None:
        """A finite number, also one written as a text."""
        value = self._known()
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            return None
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return None
        return number if math.isfinite(number) else None

    @property
    def flag(self) -> bool | None:
        """True or False, also where AWS writes it as a text; None for anything else."""
        value = self._known()
        if isinstance(value, bool):
            return value
        return {"true": True, "false": False}.get(value) if isinstance(value, str) else None

    @property
    def seconds(self) -> float | None:
        """A duration such as `1m30s`."""
        found, rest = 0.0, self.text
        if not rest:
            return None
        while part := _DURATION.match(rest):
            found += float(part[1]) * _SECONDS[part[2]]
            rest = rest[part.end() :]
        return found if not rest and math.isfinite(found) else None

    @property
    def quantity(self) -> float | None:
        """An amount in the notation of Kubernetes, as `500m`, `16Gi` or 2."""
        if (number := self.number) is not None:
            return number
        if not (part := _QUANTITY.fullmatch(self.text)):
            return None
        factor = _FACTORS.get(part[2])
        return None if factor is None else float(part[1]) * factor

    @property
    def items(self) -> list[View]:
        """Views of the entries of a list."""
        value = self._known()
        if not isinstance(value, list):
            return []
        return [View(entry, f"{self.path}[{index}]") for index, entry in enumerate(value)]

    @property
    def entries(self) -> list[tuple[str, View]]:
        """Keys, and views of what is under them."""
        value = self._known()
        if not isinstance(value, Mapping):
            return []
        return [
            (str(key), View(entry, _joined(self.path, str(key)))) for key, entry in value.items()
        ]

    @property
    def texts(self) -> list[str]:
        """The texts of a list, or a single one, as IAM writes it."""
        return [self.text] if self.text else [text for it in self.items if (text := it.text)]

    @property
    def labels(self) -> dict[str, str]:
        """Texts by key."""
        return {key: it.text for key, it in self.entries}

    @property
    def document(self) -> View:
        """JSON in a text, or what is there as it is; None where it is not JSON."""
        if not (text := self.text):
            return self
        try:
            return View(json.loads(text), self.path)
        except (ValueError, RecursionError):
            return View(None, self.path)

    def walk(self, depth: int = 0) -> Iterator[View]:
        """This and everything below it, what is unknown included."""
        yield self
        if self.value is UNKNOWN or depth >= _DEEPEST:
            return
        for _, below in self.entries:
            yield from below.walk(depth + 1)
        for below in self.items:
            yield from below.walk(depth + 1)

    @property
    def shown(self) -> str:
        """The value for a message, shortened."""
        return "missing" if self.value is None else _shortened(_shown(self.value, 0))

    def wrong(self, problem: str) -> Finding:
        """What is wrong with this value, as the end of a sentence: `must be true`."""
        return Finding(self.path, self.shown, problem)

    def _known(self) -> Any:
        if self.value is UNKNOWN:
            raise UnknownError(self.path)
        return self.value


@dataclass(frozen=True)
class Finding:
    """What breaks a rule.

    Attributes:
        path: of the property.
        shown: its value, as a message shows it.
        problem: end of a sentence that begins with path and value.
        urn: of the resource, where a rule looks at a whole stack.
    """

    path: str
    shown: str
    problem: str
    urn: str = ""


def _joined(path: str, key: str) -> str:
    shown = f"[{_shortened(json.dumps(key))}]" if "." in key or "/" in key else f".{key}"
    return f"{path}{shown}".lstrip(".")


def _shown(value: Any, depth: int) -> str:
    """JSON of what a message has room for."""
    if depth > 3:
        return "…"
    if isinstance(value, Mapping):
        parts = [
            f"{_shown(str(key), depth + 1)}: {_shown(entry, depth + 1)}"
            for key, entry, _ in zip(value, value.values(), range(8), strict=False)
        ]
        return f"{{{', '.join(parts)}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(_shown(entry, depth + 1) for entry in value[:8])}]"
    if isinstance(value, str):
        return json.dumps(value[: _MOST_SHOWN + 1], ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        # Pulumi's values have no integers.
        return f"{value:.0f}"[: _MOST_SHOWN + 1]
    return "unknown" if value is UNKNOWN else str(value)[: _MOST_SHOWN + 1]


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
