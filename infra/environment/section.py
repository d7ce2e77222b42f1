"""What the sections of a configuration are made of: a strict base, and paths of keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

PROJECT: Final = "voicemesh"


class Section(BaseModel):
    """A part of the configuration. Its keys are the fields in camelCase, and no others.

    Types and unknown keys are all that it checks: what values are allowed, the component that gets
    them says.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        hide_input_in_errors=True,
    )


LEFT_OUT: Any = None
"""Default of what the configuration need not say: the default of the component then holds."""


class Size(Section):
    """CPU and memory of a container."""

    cpu_cores: float
    memory_gib: float


Faults = Iterator[str]
"""Lines that each say what is wrong: the path of a key, its value, and what is allowed."""


def repeated(values: Iterable[Any]) -> list[Any]:
    """What occurs more than once, in order."""
    return sorted(value for value, count in Counter(values).items() if count > 1)


def path(*parts: str | int) -> str:
    """A key as `pulumi config set --path` takes it."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.replace("-", "").replace("_", "").isalnum():
            text += f".{part}"
        else:
            text += f'["{part}"]'
    return f"{PROJECT}:{text.lstrip('.')}"
