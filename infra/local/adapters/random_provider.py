"""The `random` provider: values drawn once and kept in the state.

As in the released provider (4.21), every change of an input draws a new value. Left out, and not
part of the outputs: `RandomPassword.bcryptHash`.
"""

from __future__ import annotations

import base64
import random
import secrets
import string
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from infra.local.adapters.property_values import Properties, Secret, changes, has_unknown, plain
from infra.local.adapters.provider_base import (
    Call,
    CheckFailedError,
    Diff,
    Live,
    Provider,
    ProviderError,
    ResourceType,
    UnsupportedTypeError,
    serve,
    without_ignored,
)

VERSION = "4.21.4"
_SPECIAL = "!@#$%&*()-_=+[]{}<>:?"
_CLASSES: Mapping[str, str] = {
    "lower": string.ascii_lowercase,
    "numeric": string.digits,
    "special": _SPECIAL,
    "upper": string.ascii_uppercase,
}


@dataclass(frozen=True)
class Kind:
    """A kind of random value.

    Args:
        draw: id and outputs (without the inputs) for some inputs.
        faults: pairs of property and reason for inputs that cannot be met.
    """

    draw: Callable[[Properties], tuple[str, Properties]]
    faults: Callable[[Properties], list[tuple[str, str]]]


class RandomValue(ResourceType):
    """A resource of one kind: drawn on creation, never changed."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    @override
    def check(self, call: Call, olds: Properties, news: Properties) -> Properties:
        inputs = {key: value for key, value in news.items() if value is not None}
        if not has_unknown(inputs) and (faults := self._kind.faults(plain(inputs))):
            raise CheckFailedError(faults)
        return inputs

    @override
    def diff(
        self,
        call: Call,
        id_: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
    ) -> Diff:
        changed = without_ignored(changes(old_inputs, news), call.ignore_changes)
        return Diff(changed, replaces=frozenset(changed))

    @override
    def create(self, call: Call, inputs: Properties) -> tuple[str, Properties]:
        id_, drawn = self._kind.draw(plain(inputs))
        return id_, {**inputs, **drawn}

    @override
    def read(self, call: Call, id_: str, inputs: Properties, outputs: Properties) -> Live | None:
        if not outputs:
            raise ProviderError(f"{call.type} cannot be imported here; let it draw a new value")
        return Live(id_, outputs, inputs)

    @override
    def delete(self, call: Call, id_: str, inputs: Properties, outputs: Properties) -> None:
        """Nothing exists outside the state."""


class RandomProvider(Provider):
    """Passwords, strings, ids, bytes, integers and UUIDs."""

    def __init__(self) -> None:
        super().__init__("random", VERSION)

    @override
    def resource_type(self, token: str) -> ResourceType:
        kind = _KINDS.get(token)
        if kind is None:
            raise UnsupportedTypeError(token, self.name)
        return RandomValue(kind)


def draw_text(inputs: Mapping[str, Any]) -> str:
    """A text of `length` characters with at least `minLower`, `minNumeric`, … of each class."""
    classes = _character_classes(inputs)
    characters = [
        secrets.choice(alphabet)
        for name, alphabet in classes.items()
        for _ in range(_minimum(inputs, name))
    ]
    everything = "".join(classes.values())
    characters += [
        secrets.choice(everything) for _ in range(int(inputs["length"]) - len(characters))
    ]
    random.SystemRandom().shuffle(characters)
    return "".join(characters)


def _character_classes(inputs: Mapping[str, Any]) -> dict[str, str]:
    """The alphabets that the inputs allow, by class."""
    alphabets = {**_CLASSES, "special": inputs.get("overrideSpecial") or _SPECIAL}
    wanted = {**inputs, "numeric": inputs.get("numeric", inputs.get("number", True))}
    return {name: text for name, text in alphabets.items() if wanted.get(name, True)}


def _minimum(inputs: Mapping[str, Any], name: str) -> int:
    return int(inputs.get(f"min{name.capitalize()}") or 0)


def _text_faults(inputs: Mapping[str, Any]) -> list[tuple[str, str]]:
    length = inputs.get("length")
    if not isinstance(length, int) or length < 1:
        return [("length", f"is {length!r}; give a whole number of at least 1")]
    classes = _character_classes(inputs)
    if not classes:
        return [("lower", "every class of characters is disabled; enable at least one")]
    least = sum(_minimum(inputs, name) for name in classes)
    if least > length:
        return [("length", f"is {length}, but the min… properties ask for {least} characters")]
    return []


def _draw_password(inputs: Properties) -> tuple[str, Properties]:
    return "none", {"result": Secret(draw_text(inputs))}


def _draw_string(inputs: Properties) -> tuple[str, Properties]:
    text = draw_text(inputs)
    return text, {"result": text}


def _positive(name: str) -> Callable[[Properties], list[tuple[str, str]]]:
    def faults(inputs: Properties) -> list[tuple[str, str]]:
        value = inputs.get(name)
        if isinstance(value, int) and value >= 1:
            return []
        return [(name, f"is {value!r}; give a whole number of at least 1")]

    return faults


def _draw_id(inputs: Properties) -> tuple[str, Properties]:
    drawn = secrets.token_bytes(inputs["byteLength"])
    prefix = inputs.get("prefix") or ""
    url = base64.urlsafe_b64encode(drawn).decode().rstrip("=")
    return url, {
        "b64Std": prefix + base64.b64encode(drawn).decode(),
        "b64Url": prefix + url,
        "dec": prefix + str(int.from_bytes(drawn, "big")),
        "hex": prefix + drawn.hex(),
    }


def _draw_bytes(inputs: Properties) -> tuple[str, Properties]:
    drawn = secrets.token_bytes(inputs["length"])
    outputs = {"base64": Secret(base64.b64encode(drawn).decode()), "hex": Secret(drawn.hex())}
    return "none", outputs


def _draw_integer(inputs: Properties) -> tuple[str, Properties]:
    seed = inputs.get("seed")
    source = random.Random(seed) if seed else random.SystemRandom()  # noqa: S311 (asked for)
    drawn = source.randint(inputs["min"], inputs["max"])
    return str(drawn), {"result": drawn}


def _integer_faults(inputs: Properties) -> list[tuple[str, str]]:
    low, high = inputs.get("min"), inputs.get("max")
    faults = [
        (name, f"is {value!r}; give a whole number")
        for name, value in (("min", low), ("max", high))
        if not isinstance(value, int)
    ]
    if not faults and low > high:  # type: ignore[operator]
        faults = [("min", f"is {low}, above max, which is {high}")]
    return faults


def _draw_uuid(inputs: Properties) -> tuple[str, Properties]:
    del inputs
    drawn = str(uuid.uuid4())
    return drawn, {"result": drawn}


def _no_faults(inputs: Properties) -> list[tuple[str, str]]:
    del inputs
    return []


_KINDS: Mapping[str, Kind] = {
    "random:index/randomBytes:RandomBytes": Kind(_draw_bytes, _positive("length")),
    "random:index/randomId:RandomId": Kind(_draw_id, _positive("byteLength")),
    "random:index/randomInteger:RandomInteger": Kind(_draw_integer, _integer_faults),
    "random:index/randomPassword:RandomPassword": Kind(_draw_password, _text_faults),
    "random:index/randomString:RandomString": Kind(_draw_string, _text_faults),
    "random:index/randomUuid:RandomUuid": Kind(_draw_uuid, _no_faults),
}


def main() -> None:
    serve(RandomProvider())


if __name__ == "__main__":
    main()
