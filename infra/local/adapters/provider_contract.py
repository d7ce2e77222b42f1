"""What a provider is made of: resource types, operations on them, and the errors they raise."""

from __future__ import annotations

import abc
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath

from infra.local.adapters.property_values import Change, Path, Properties, changes


class ProviderError(Exception):
    """The operation failed and nothing was left behind; the text is for the user."""


class UnsupportedTypeError(ProviderError):
    """The provider does not know the resource type, function or component."""

    def __init__(self, token: str, provider: str) -> None:
        super().__init__(
            f"{token} is not supported by the embedded environment's {provider} provider; "
            "install Pulumi's released plugin to use it"
        )


class CheckFailedError(ProviderError):
    """Inputs are refused: pairs of property path and reason, all at once."""

    def __init__(self, failures: Iterable[tuple[str, str]]) -> None:
        self.failures = tuple(failures)
        super().__init__("; ".join(f"{path}: {reason}" for path, reason in self.failures))


class InitFailedError(ProviderError):
    """The object exists with these outputs, and is kept in the state, but did not become ready.

    Args:
        id_: the resource's id.
        outputs: the object as it is.
        reasons: what it lacks.
        inputs: the inputs that describe it, where they are not those of the request.
    """

    def __init__(
        self,
        id_: str,
        outputs: Properties,
        reasons: Iterable[str],
        inputs: Properties | None = None,
    ) -> None:
        self.id, self.outputs, self.inputs = id_, outputs, inputs
        self.reasons = tuple(reasons)
        super().__init__("; ".join(self.reasons))


class CancelledError(ProviderError):
    """The user interrupted the operation."""


@dataclass(frozen=True)
class Autoname:
    """How the engine wants a resource named (`pulumi:autonaming`).

    Args:
        mode: `PROPOSE`, `ENFORCE` or `DISABLE`.
        proposed: the name it suggests or demands.
    """

    mode: str
    proposed: str


@dataclass(frozen=True)
class Call:
    """One operation on one resource.

    Args:
        urn: the resource's URN.
        type: its token, such as `kubernetes:apps/v1:Deployment`.
        name: its name in the program.
        preview: whether nothing may be changed.
        timeout_seconds: what `customTimeouts` says; 0 means the type's own default.
        ignore_changes: property paths whose changes do not count.
        autoname: the engine's wishes, if any.
        random_seed: seed for repeatable names; empty where the engine sends none.
        cancelled: set once the user interrupts.
    """

    urn: str
    type: str
    name: str
    cancelled: threading.Event
    log: Callable[[str, str, bool], None] = field(repr=False)
    preview: bool = False
    timeout_seconds: float = 0
    ignore_changes: tuple[str, ...] = ()
    autoname: Autoname | None = None
    random_seed: bytes = b""

    def status(self, message: str) -> None:
        """Shows a line beside the resource while the operation runs."""
        self.log("INFO", message, True)

    def info(self, message: str) -> None:
        """Tells the user something that stays on the screen."""
        self.log("INFO", message, False)

    def warn(self, message: str) -> None:
        """Warns the user."""
        self.log("WARNING", message, False)


@dataclass(frozen=True)
class Diff:
    """What an update would change.

    Args:
        changed: each changed property, by path.
        replaces: those among them that need a new object.
        delete_first: whether the old object must go before the new one can be made.
    """

    changed: Mapping[Path, Change]
    replaces: frozenset[Path] = frozenset()
    delete_first: bool = False


@dataclass(frozen=True)
class Live:
    """A resource as it is found outside: its id, outputs, and the inputs that would make it."""

    id: str
    outputs: Properties
    inputs: Properties


class ResourceType(abc.ABC):
    """One type of resource; see the module's text."""

    def check(self, call: Call, olds: Properties, news: Properties) -> Properties:
        """The inputs with defaults filled in; raises `CheckFailedError`."""
        del call, olds
        return news

    def diff(
        self,
        call: Call,
        id_: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
    ) -> Diff:
        """By default: every changed input, none of which needs a replacement."""
        del call, id_, old_outputs
        return Diff(changes(old_inputs, news))

    def preview_create(self, call: Call, inputs: Properties) -> Properties:
        """The outputs known before the object is made."""
        del call
        return inputs

    def preview_update(
        self,
        call: Call,
        id_: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
    ) -> Properties:
        """The outputs known before the object is changed."""
        del call, id_, old_inputs, old_outputs
        return news

    @abc.abstractmethod
    def create(self, call: Call, inputs: Properties) -> tuple[str, Properties]:
        """Makes the object; returns its id and outputs."""

    @abc.abstractmethod
    def read(self, call: Call, id_: str, inputs: Properties, outputs: Properties) -> Live | None:
        """The object as it is now; None where it is gone."""

    def update(
        self,
        call: Call,
        id_: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
    ) -> Properties:
        """Changes the object; returns its outputs. A type whose every change replaces has none."""
        del call, id_, old_inputs, old_outputs, news
        raise ProviderError(f"{type(self).__name__} cannot be changed in place")

    @abc.abstractmethod
    def delete(self, call: Call, id_: str, inputs: Properties, outputs: Properties) -> None:
        """Deletes the object; one that is gone is no error."""


class Provider:
    """A provider plugin: its configuration and its resource types."""

    def __init__(self, name: str, version: str) -> None:
        self.name, self.version = name, version

    def check_config(self, olds: Properties, news: Properties) -> Properties:
        """The provider's configuration with defaults; raises `CheckFailedError`."""
        del olds
        return news

    def diff_config(self, olds: Properties, news: Properties) -> Diff:
        """What changed in the configuration; by default nothing needs a replacement."""
        return Diff(changes(olds, news))

    def configure(self, config: Properties) -> None:
        """Takes the configuration, once, before any resource."""

    def resource_type(self, token: str) -> ResourceType:
        """The type with this token; raises `UnsupportedTypeError`."""
        raise UnsupportedTypeError(token, self.name)

    def invoke(self, token: str, arguments: Properties) -> Properties:
        """The result of a function; raises `UnsupportedTypeError`."""
        del arguments
        raise UnsupportedTypeError(token, self.name)


def replaced_by(changed: Mapping[Path, Change], forcing: Iterable[Path]) -> frozenset[Path]:
    """Those of the changes that lie at, below or above a path that forces a replacement.

    `"*"` in a forcing path stands for any list index or object member.
    """
    forced = tuple(forcing)
    return frozenset(path for path in changed if any(_overlap(path, rule) for rule in forced))


def without_ignored(changed: Mapping[Path, Change], ignored: Iterable[str]) -> dict[Path, Change]:
    """The changes that do not lie at or below an ignored path."""
    rules = tuple(parse_path(text) for text in ignored)
    return {
        path: change
        for path, change in changed.items()
        if not any(len(path) >= len(rule) and _overlap(path, rule) for rule in rules)
    }


def parse_path(text: str) -> Path:
    """The path that `property_values.path_text` writes, `[*]` and `.*` included."""
    parts = re.findall(r'\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|\[(\*)\]|([^.\[\]]+)', text)
    return tuple(
        int(index) if index else (star or name or re.sub(r"\\(.)", r"\1", quoted))
        for quoted, index, star, name in parts
    )


def program_root(start: FilePath | None = None) -> FilePath:
    """The folder with `Pulumi.yaml` above the program's folder, in which plugins are started."""
    here = start or FilePath.cwd()
    for folder in (here, *here.parents):
        if (folder / "Pulumi.yaml").exists():
            return folder
    return here


def _overlap(path: Path, rule: Path) -> bool:
    return all(part in ("*", other) for other, part in zip(path, rule, strict=False))
