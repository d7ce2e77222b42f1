"""Checks, creates, reads, changes and deletes resources of any type that has a `Spec`."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from botocore import xform_name
from botocore.client import BaseClient
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError, WaiterError

from infra.local.adapters.aws_provider import checking
from infra.local.adapters.aws_provider.mapping import (
    JSON_DOCUMENT,
    PREVIOUS,
    Autoname,
    Field,
    Members,
    Scope,
    Spec,
    canonical_properties,
    live_input,
    narrowed,
    properties_from,
    request_of,
    with_choices,
)
from infra.local.adapters.aws_provider.mapping import Call as AwsCall
from infra.local.adapters.property_values import (
    UNKNOWN,
    Change,
    Path,
    Properties,
    Secret,
    changes,
    has_unknown,
    plain,
)
from infra.local.adapters.provider_base import (
    Call,
    CheckFailedError,
    Diff,
    InitFailedError,
    Live,
    ProviderError,
    ResourceType,
    replaced_by,
    without_ignored,
)

DEFAULTS = "__defaults"
"""Among the inputs in the state: the names of those that the provider chose, not the program."""
_RANDOM_DIGITS = 7


class Cloud(Protocol):
    """What resources need of the configured provider."""

    @property
    def default_tags(self) -> Mapping[str, str]: ...

    def region_of(self, properties: Properties) -> str: ...

    def partition_of(self, region: str) -> str: ...

    def account(self) -> str: ...

    def endpoint_of(self, service: str) -> str: ...

    def client(self, service: str, region: str) -> BaseClient: ...

    def model(self, service: str) -> Any: ...


class AwsError(ProviderError):
    """AWS refused a call: names resource, operation, AWS's code and message."""

    def __init__(self, where: str, operation: str, error: ClientError, concerns: str) -> None:
        details = error.response.get("Error", {})
        self.code = str(details.get("Code", ""))
        message = str(details.get("Message", "")) or "no message"
        suffix = f" (concerns {concerns})" if concerns else ""
        super().__init__(f"{where}: {operation}: {self.code}: {message}{suffix}")


@dataclass
class TableResource(ResourceType):
    """A resource type by its table."""

    spec: Spec
    cloud: Cloud
    _fields: dict[str, Field] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._fields = {f.name: f for f in self.spec.all_fields}

    def check(self, call: Call, olds: Properties, news: Properties) -> Properties:
        inputs = {name: value for name, value in news.items() if value is not None}
        inputs.pop(DEFAULTS, None)
        inputs = self._with_default_tags(inputs)
        inputs = {name: self._as_document(name, value) for name, value in inputs.items()}
        if self.spec.autoname:
            inputs |= automatic_name(self.spec.autoname, call, olds, inputs)
        checked = {name: plain(value) for name, value in inputs.items() if name != DEFAULTS}
        found = checking.problems(self.spec, self.cloud.model(self.spec.service), checked)
        if found:
            raise CheckFailedError(found)
        return inputs

    def diff(
        self,
        call: Call,
        id_: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
    ) -> Diff:
        del id_, old_outputs
        found = without_ignored(self._changed(old_inputs, news), call.ignore_changes)
        replaces = replaced_by(found, self.spec.forcing)
        return Diff(found, replaces, delete_first=bool(replaces) and self._in_the_way(found, news))

    def preview_create(self, call: Call, inputs: Properties) -> Properties:
        del call
        unknown = dict.fromkeys((*self.spec.computed, *self._chosen_by_aws()), UNKNOWN)
        stated = self._with_choices(inputs, {}, known=False)
        return self._outputs({**unknown, **stated}, known=False)

    def preview_update(
        self,
        call: Call,
        id_: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
    ) -> Properties:
        del call, id_
        changed = {str(path[0]) for path in self._changed(old_inputs, news)}
        renewed = dict.fromkeys(self.spec.renewed if changed - {"tags"} else (), UNKNOWN)
        stated = self._with_choices(news, old_outputs, known=True)
        return self._outputs({**self._desired(old_outputs, stated), **renewed}, known=False)

    def create(self, call: Call, inputs: Properties) -> tuple[str, Properties]:
        where = _where(call, "")
        properties = {**plain(inputs), "region": self.cloud.region_of(plain(inputs))}
        properties |= properties_from(
            self.spec, self.spec.create, self._do(where, self.spec.create, properties)
        )
        id_ = self.spec.id_of(properties)
        try:
            self._wait(_where(call, id_), self.spec.create, properties)
            self._hook(_where(call, id_), self.spec.after_create, properties)
            self._complete(_where(call, id_), properties)
            return id_, self._found(_where(call, id_), properties)
        except ProviderError as error:
            # It exists by now: the state must know, so that the next update can go on.
            raise InitFailedError(id_, self._outputs(properties), [str(error)]) from error

    def read(self, call: Call, id_: str, inputs: Properties, outputs: Properties) -> Live | None:
        importing = not inputs
        named = self.spec.properties_of(id_)
        properties = {**plain(outputs), **named}
        if not named:
            raise ProviderError(
                f"{_where(call, id_)}: the id does not have the form {self.spec.id}"
            )
        properties["region"] = self.cloud.region_of(properties)
        found = self._look(_where(call, id_), properties)
        if found is None:
            return None
        stated = plain(inputs)
        live = self._live_inputs(stated, found, importing=importing)
        if importing:
            live |= {name: value for name, value in named.items() if name in self._fields}
        if self.spec.after_read:
            live = self.spec.after_read(live, plain(outputs), found)
        return Live(id_, self._outputs({**properties, **found}, stated=live), live)

    def update(
        self,
        call: Call,
        id_: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
    ) -> Properties:
        where = _where(call, id_)
        previous = plain(old_outputs)
        properties = plain(self._desired(old_outputs, news))
        properties["region"] = self.cloud.region_of(properties)
        changed = {str(path[0]) for path in self._changed(old_inputs, news)}
        if not changed:
            # The engine updates without a change what was left unfinished.
            self._complete(where, properties)
        for aws_call in self.spec.updates:
            if changed & aws_call.carries and self._applies(aws_call, properties):
                told = self._told(aws_call, properties, changed)
                response = self._do(where, aws_call, {**told, PREVIOUS: previous})
                properties |= properties_from(self.spec, aws_call, response)
                self._wait(where, aws_call, properties)
        if "tags" in changed:
            self._set_tags(where, properties, previous.get("tags") or {})
        return self._found(where, properties)

    def delete(self, call: Call, id_: str, inputs: Properties, outputs: Properties) -> None:
        where = _where(call, id_)
        properties = {**plain(outputs), **plain(inputs), **self.spec.properties_of(id_)}
        properties["region"] = self.cloud.region_of(properties)
        try:
            self._hook(where, self.spec.before_delete, properties)
            self._do(where, self.spec.delete, properties)
            self._wait(where, self.spec.delete, properties)
        except AwsError as error:
            if error.code not in self.spec.delete.absent:
                raise

    def _hook(
        self,
        where: str,
        hook: Callable[[BaseClient, Properties], None] | None,
        properties: Properties,
    ) -> None:
        if hook is None:
            return
        try:
            hook(self.cloud.client(self.spec.service, properties["region"]), properties)
        except ClientError as error:
            raise AwsError(where, error.operation_name, error, "") from error

    def _wait(self, where: str, aws_call: AwsCall, properties: Properties) -> None:
        if not aws_call.waiter:
            return
        client = self.cloud.client(self.spec.service, properties["region"])
        request = request_of(self.spec, self.spec.reads[0], properties) or {}
        try:
            client.get_waiter(aws_call.waiter).wait(**request)
        except WaiterError as error:
            raise ProviderError(f"{where}: {error}") from error

    def _told(self, aws_call: AwsCall, properties: Properties, changed: set[str]) -> Properties:
        """What an updating call is to carry."""
        if not aws_call.changed_only:
            return properties
        return {n: v for n, v in properties.items() if n in changed or n not in self._carried}

    @property
    def _carried(self) -> frozenset[str]:
        """The properties of the resource that may change, without those of the calls."""
        names = frozenset().union(*(c.carries for c in self.spec.writes))
        local = {f.name for f in self.spec.all_fields if f.local_type}
        return names & self._fields.keys() - self.spec.immutable - local

    def _with_default_tags(self, inputs: Properties) -> Properties:
        """As the released provider does, the provider's default tags become part of `tags`."""
        if not self.spec.tagging or not self.cloud.default_tags:
            return inputs
        own = inputs.get("tags", {})
        if isinstance(own, Secret):
            return inputs | {"tags": Secret({**self.cloud.default_tags, **own.value})}
        if not isinstance(own, dict):
            return inputs
        return inputs | {"tags": {**self.cloud.default_tags, **own}}

    def _as_document(self, name: str, value: Any) -> Any:
        """Programs may write a JSON document as an object."""
        known = self._fields.get(name)
        if known is None or known.codec is not JSON_DOCUMENT or isinstance(plain(value), str):
            return value
        if has_unknown(value):
            return UNKNOWN
        text = json.dumps(plain(value))
        return text if value == plain(value) else Secret(text)

    def _changed(self, old_inputs: Properties, news: Properties) -> dict[Path, Change]:
        """The changed inputs; what AWS chose by itself is no change when no longer stated."""
        found = changes(
            canonical_properties(self.spec.all_fields, plain(old_inputs)),
            canonical_properties(self.spec.all_fields, plain(news)),
        )
        return {
            _shortened(path, self._fields): change
            for path, change in found.items()
            if not (change is Change.DELETE and _chosen_by_aws(path, self._fields))
        }

    def _in_the_way(self, changed: Mapping[Path, Change], news: Properties) -> bool:
        """Two objects cannot have the same name or place: the old one must go first."""
        if self.spec.delete_first:
            return True
        named = self.spec.autoname
        return named is not None and (named.property,) not in changed and named.property in news

    def _chosen_by_aws(self) -> list[str]:
        return [f.name for f in self.spec.all_fields if f.chosen_by_aws]

    def _with_choices(self, stated: Properties, old: Properties, *, known: bool) -> Properties:
        return {
            name: with_choices(self._fields[name], value, old.get(name), known=known)
            if name in self._fields
            else value
            for name, value in stated.items()
        }

    def _desired(self, old_outputs: Properties, news: Properties) -> Properties:
        """What the object will be: its outputs with the new inputs in place of all old ones."""
        kept = {
            name: value
            for name, value in old_outputs.items()
            if name not in self._fields or self._fields[name].chosen_by_aws
        }
        return {**kept, **news}

    def _applies(self, aws_call: AwsCall, properties: Properties) -> bool:
        if aws_call.when is None:
            return True
        name, wanted = aws_call.when
        value = properties.get(name)
        return (self._fields[name].default if value is None else value) == wanted

    def _complete(self, where: str, properties: Properties) -> None:
        """Makes the calls for what the creating call could not carry."""
        missing = {
            name
            for name, f in self._fields.items()
            if name not in self.spec.create.carries
            and properties.get(name) is not None
            and properties[name] != f.default
        }
        for aws_call in self.spec.updates:
            if missing & aws_call.carries and self._applies(aws_call, properties):
                self._do(where, aws_call, properties)
                self._wait(where, aws_call, properties)
        if "tags" in missing and "tags" not in self.spec.create.carries:
            self._set_tags(where, properties, {})

    def _set_tags(self, where: str, properties: Properties, old: Mapping[str, str]) -> None:
        tagging = self.spec.tagging
        assert tagging is not None  # noqa: S101
        new = properties.get("tags") or {}
        removed = sorted(old.keys() - new.keys())
        if removed and not (tagging.put_replaces_all and new):
            self._do(where, tagging.remove, {**properties, "removedTagKeys": removed})
        if new:
            self._do(where, tagging.put, properties)

    def _found(self, where: str, properties: Properties) -> Properties:
        found = self._look(where, properties)
        if found is None:
            raise ProviderError(f"{where}: AWS does not find it right after the call")
        return self._outputs({**properties, **found}, stated=properties)

    def _look(self, where: str, properties: Properties) -> Properties | None:
        """What AWS tells of the object; None when it is not there."""
        found: Properties = {}
        tagging = self.spec.tagging.read if self.spec.tagging else None
        for aws_call in (*self.spec.reads, *((tagging,) if tagging else ())):
            first = aws_call is self.spec.reads[0]
            try:
                response = self._do(where, aws_call, {**properties, **found})
                response = narrowed(aws_call, response, properties)
            except AwsError as error:
                if error.code not in aws_call.absent:
                    raise
                response = None
            if first and (response is None or self.spec.gone(response)):
                return None
            found |= properties_from(self.spec, aws_call, response or {})
        return found

    def _readable(self) -> frozenset[str]:
        tagging = ("tags",) if self.spec.tagging else ()
        told = (name for aws_call in self.spec.reads for name in aws_call.response.values())
        return frozenset((*told, *tagging))

    def _live_inputs(self, stated: Properties, found: Properties, *, importing: bool) -> Properties:
        readable = self._readable()
        live = {name: value for name, value in stated.items() if name not in readable}
        for name in readable & self._fields.keys():
            actual = live_input(
                self._fields[name], found.get(name), stated.get(name), importing=importing
            )
            if actual is not None:
                live[name] = actual
        return live

    def _outputs(
        self, properties: Properties, *, known: bool = True, stated: Properties | None = None
    ) -> Properties:
        """Inputs, defaults and what follows from them, as the resource's outputs.

        Args:
            known: whether the object exists; before that, derived outputs stay as they are.
            stated: inputs that count for properties that AWS does not tell.
        """
        outputs = {f.name: f.default for f in self.spec.all_fields if f.default is not None}
        outputs |= {name: v for name, v in properties.items() if name != DEFAULTS}
        outputs |= {n: v for n, v in (stated or {}).items() if n not in outputs}
        if self.spec.tagging:
            outputs["tagsAll"] = outputs.get("tags", {})
        if known:
            region = outputs["region"] = self.cloud.region_of(plain(properties))
            scope = Scope(region, self.cloud.partition_of(region), self.cloud.account)
            outputs |= self.spec.derive(outputs, scope)
        if not self.spec.regional:
            outputs.pop("region", None)
        return outputs

    def _do(self, where: str, aws_call: AwsCall, properties: Properties) -> Members:
        client = self.cloud.client(self.spec.service, properties["region"])
        request = request_of(self.spec, aws_call, properties)
        if request is None:
            return {}
        try:
            return getattr(client, xform_name(aws_call.operation))(**request)
        except ClientError as error:
            concerns = concerned(self.spec, str(error.response.get("Error", {}).get("Message", "")))
            raise AwsError(where, aws_call.operation, error, concerns) from error
        except ParamValidationError as error:
            raise ProviderError(f"{where}: {aws_call.operation}: {error}") from error
        except BotoCoreError as error:
            raise ProviderError(f"{where}: {aws_call.operation}: {error}") from error


def automatic_name(named: Autoname, call: Call, olds: Properties, inputs: Properties) -> Properties:
    """The name for a resource whose program gives none, and the note that it was chosen here.

    A resource keeps the name it once got.

    Raises:
        CheckFailedError: the name would be too long, or the engine was told to make none.
    """
    if named.property in inputs:
        return {}
    chosen = {DEFAULTS: [named.property]}
    prefix = plain(inputs.get(named.prefix_property, "")) if named.prefix_property else ""
    old = plain(olds.get(named.property))
    if named.property in plain(olds.get(DEFAULTS) or []) and str(old).startswith(str(prefix)):
        return {named.property: old, **chosen}
    if prefix is UNKNOWN:
        return {named.property: UNKNOWN, **chosen}
    name = _proposed(named, call, prefix)
    if len(name) > named.maximum:
        reason = f"the automatic name {name!r} has {len(name)} characters, {named.maximum} at most"
        raise CheckFailedError([(named.property, f"{reason}; state a name")])
    return {named.property: name, **chosen}


def _proposed(named: Autoname, call: Call, prefix: str) -> str:
    if prefix:
        return prefix + _digits(call)
    if call.autoname and call.autoname.mode == "DISABLE":
        raise CheckFailedError([(named.property, "is required, since automatic names are off")])
    if call.autoname and call.autoname.proposed:
        return named.prefix + call.autoname.proposed.lower()
    return f"{named.prefix}{call.name.lower()}-{_digits(call)}"


def _digits(call: Call) -> str:
    """Repeatable between preview and update where the engine gives a seed."""
    source = random.Random(call.random_seed) if call.random_seed else random.SystemRandom()  # noqa: S311
    return f"{source.getrandbits(4 * _RANDOM_DIGITS):0{_RANDOM_DIGITS}x}"


def concerned(spec: Spec, message: str) -> str:
    """The properties whose AWS names a message of AWS mentions, `rules.expiration.days`."""
    words = set(re.findall(r"[A-Z][A-Za-z]+", message))
    names = {path.rpartition(".")[2]: name for c in spec.writes for path, name in c.request.items()}
    top = [name for member, name in names.items() if member in words]
    nested = [path for f in spec.fields for path in _mentioned(f, words)]
    return ", ".join(sorted({*top, *nested}))


def _mentioned(f: Field, words: set[str]) -> list[str]:
    here = [inner.name for inner in f.fields if inner.member in words and not inner.fields]
    below = [path for inner in f.fields for path in _mentioned(inner, words)]
    return [f"{f.name}.{path}" for path in (*here, *below)]


def _shortened(path: Path, fields: Mapping[str, Field]) -> Path:
    """A change inside a JSON document, or of an unordered list, counts for the whole."""
    for length, f in enumerate(_fields_on(path, fields), start=1):
        if f.codec is JSON_DOCUMENT or f.unordered:
            return _upto(path, length)
    return path


def _upto(path: Path, names: int) -> Path:
    """The beginning of a path that has so many names in it; list indices do not count."""
    places = [place for place, part in enumerate(path) if isinstance(part, str)]
    return path[: places[names - 1] + 1]


def _fields_on(path: Path, fields: Mapping[str, Field]) -> Iterator[Field]:
    for part in path:
        if isinstance(part, str):
            if part not in fields:
                return
            yield fields[part]
            fields = {f.name: f for f in fields[part].fields}


def _chosen_by_aws(path: Path, fields: Mapping[str, Field]) -> bool:
    """Whether AWS has a value of its own for the property at the path."""
    on_path = list(_fields_on(path, fields))
    named = [part for part in path if isinstance(part, str)]
    return len(on_path) == len(named) and path[-1] == named[-1] and on_path[-1].computed


def _where(call: Call, id_: str) -> str:
    return f"{call.type} {call.name}" + (f" ({id_})" if id_ else "")
