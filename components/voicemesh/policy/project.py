"""A Pulumi project and the configuration of its stacks, read as the engine reads them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from voicemesh.policy.errors import ConfigurationError

_ENCRYPTED: Final = "secure"
_MASK: Final = "-----BEGIN (encrypted)-----"
"""In place of what is encrypted. Looks like PEM, for programs that refuse a key that is not."""


@dataclass(frozen=True)
class StackConfiguration:
    """What the engine passes to the program of a stack."""

    values: Mapping[str, str]
    """By namespaced key; lists and objects as JSON. What is encrypted in the file stays so: there
    is a mask in its place."""
    secret_keys: frozenset[str]
    """Keys in whose values something is secret."""

    def texts(self) -> set[str]:
        """All texts in the configuration, those within lists and objects included."""
        return {text for value in self.values.values() for text in _texts(_decoded(value))}


@dataclass(frozen=True)
class Project:
    """A folder with a `Pulumi.yaml`."""

    folder: Path
    name: str
    program: Path
    """Folder or file that Python runs."""
    runtime: str
    runtime_options: Mapping[str, Any]
    defaults: dict[str, Any]
    """Configuration that `Pulumi.yaml` gives to every stack, by namespaced key."""

    @classmethod
    def at(cls, folder: Path) -> Project:
        """The project of a folder.

        Raises:
            ConfigurationError: there is none, or it has no name.
        """
        file = folder / "Pulumi.yaml"
        if not file.is_file():
            raise ConfigurationError(f"{folder} has no Pulumi.yaml: run this in a Pulumi project")
        content = mapping_of(file)
        name = str(content.get("name") or "")
        if not name:
            raise ConfigurationError(f"{file}: name: missing; name the project")
        runtime, options = runtime_of(content)
        return cls(
            folder,
            name,
            folder / str(content.get("main") or "."),
            runtime,
            options,
            _defaults(content, name),
        )

    @property
    def working_directory(self) -> Path:
        """Where program and policy packs run."""
        return self.program if self.program.is_dir() else self.program.parent

    @property
    def interpreter(self) -> Path:
        """The Python that runs the program."""
        return interpreter_of(self.runtime_options, self.folder)

    def stacks(self) -> list[str]:
        """The stacks that have a configuration file, by name."""
        files = self.folder.glob("Pulumi.*.yaml")
        return sorted(file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in files)

    def file_of(self, stack: str) -> Path:
        """The configuration file of a stack.

        Raises:
            ConfigurationError: it has none.
        """
        file = self.folder / f"Pulumi.{stack}.yaml"
        if not file.is_file():
            known = ", ".join(self.stacks()) or "none"
            raise ConfigurationError(f"there is no stack {stack!r} here; there are {known}")
        return file

    def configuration_of(
        self, stack: str, stand_ins: Mapping[str, Any] | None = None
    ) -> StackConfiguration:
        """The configuration of a stack.

        Args:
            stand_ins: values by path, as `pulumi config set --path` takes it, for what the file
                does not have before the stack is deployed. `{secure: …}` is a secret.

        Raises:
            ConfigurationError: the stack has no file, or a path leads nowhere.
        """
        file = self.file_of(stack)
        given = mapping_of(file).get("config") or {}
        given = deepcopy(self.defaults) | {self._namespaced(str(k)): v for k, v in given.items()}
        secret_keys = {key for key, value in given.items() if has_encrypted(value)}
        values = {key: masked(value) for key, value in given.items()}
        for path, value in (stand_ins or {}).items():
            parts = _parts(self._namespaced(path))
            set_at(values, parts, opened(value, lambda text: text), path)
            if has_encrypted(value):
                secret_keys.add(str(parts[0]))
        return StackConfiguration(
            {key: _as_text(value) for key, value in values.items()}, frozenset(secret_keys)
        )

    def _namespaced(self, key: str) -> str:
        return key if ":" in key.partition(".")[0] else f"{self.name}:{key}"


def mapping_of(file: Path) -> dict[str, Any]:
    """The content of a YAML file that holds a mapping; empty for an empty file.

    Raises:
        ConfigurationError: it holds something else, or no YAML.
    """
    try:
        content = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file.name} is no YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file.name} has no keys, but is {content!r}")
    return content


def runtime_of(content: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Name and options of the runtime, of a `Pulumi.yaml` or a `PulumiPolicy.yaml`."""
    runtime = content.get("runtime")
    if isinstance(runtime, Mapping):
        return str(runtime.get("name")), runtime.get("options") or {}
    return str(runtime), {}


def interpreter_of(options: Mapping[str, Any], folder: Path) -> Path:
    """The Python of the virtual environment that runtime options name within a folder; the running
    one where they name none, or it has not been made."""
    virtualenv = options.get("virtualenv")
    python = folder / str(virtualenv) / "bin" / "python"
    return python if virtualenv and python.exists() else Path(sys.executable)


def opened(value: Any, seal: Callable[[Any], Any]) -> Any:
    """A value of a stack's file with `seal` of its text wherever something is a secret."""
    if isinstance(value, dict):
        if set(value) == {_ENCRYPTED}:
            return seal(value[_ENCRYPTED])
        return {key: opened(entry, seal) for key, entry in value.items()}
    return [opened(entry, seal) for entry in value] if isinstance(value, list) else value


def masked(value: Any) -> Any:
    """A value of a stack's file with a mask wherever something is encrypted."""
    return opened(value, lambda _: _MASK)


def has_encrypted(value: Any) -> bool:
    """Whether something in a value of a stack's file is encrypted."""
    return masked(value) != value


def set_at(values: dict[str, Any], parts: list[str | int], value: Any, path: str) -> None:
    """Sets one value within nested mappings and lists; makes mappings that are missing.

    Raises:
        ConfigurationError: the path goes through something that has no such part.
    """
    target: Any = values
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        fits = isinstance(target, dict) if isinstance(part, str) else isinstance(target, list)
        if not fits or (isinstance(part, int) and part >= len(target)):
            raise ConfigurationError(f"{path}: there is no {part!r} to set in the configuration")
        if following is None:
            target[part] = value
        elif isinstance(target, dict):
            target = target.setdefault(part, {})
        else:
            target = target[part]


def _parts(path: str) -> list[str | int]:
    """`project:a.b[0].c` is `project:a`, `b`, 0, `c`."""
    parts: list[str | int] = []
    for piece in path.split("."):
        name, *indices = piece.replace("]", "").split("[")
        parts += [name, *map(int, indices)]
    return parts


def _defaults(content: Mapping[str, Any], project: str) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    for key, declared in (content.get("config") or {}).items():
        name = key if ":" in key else f"{project}:{key}"
        if not isinstance(declared, Mapping):
            defaults[name] = declared
        elif "value" in declared or "default" in declared:
            defaults[name] = declared.get("value", declared.get("default"))
    return defaults


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _decoded(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for entry in value.values():
            yield from _texts(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry)
    elif isinstance(value, str):
        yield value
