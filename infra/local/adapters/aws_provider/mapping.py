"""How a resource type of Pulumi's AWS provider is written in terms of AWS calls.

A `Spec` lists a type's properties (`Field`) and calls (`Call`). A call says which request member
carries which property, and which response member tells which; members below a property that is an
object or a list of objects are named by the property's own fields. From this follow, with no
further word:

- a property that the creating call carries and no updating call does needs a replacement;
- an updating call runs when a property that it carries has changed, and right after creation for
  properties that the creating call could not carry;
- a property that no call carries is the provider's own (`forceDestroy`) and changes in place.

Member paths are dotted: `OwnershipControls.Rules[0]` is the first item of a list below a
structure, which Pulumi writes as a plain object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from botocore.client import BaseClient

from infra.local.adapters.property_values import UNKNOWN, Properties

Members = dict[str, Any]


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Codec:
    """How a value is written differently on the two sides.

    Args:
        encode: from Pulumi's value to AWS's.
        decode: back.
        canonical: equal for values that mean the same.
        expects: Pulumi's type or types, for messages.
    """

    encode: Callable[[Any], Any] = _same
    decode: Callable[[Any], Any] = _same
    canonical: Callable[[Any], Any] = _same
    expects: type | tuple[type, ...] = object


def tags_as_list(key: str = "Key", value: str = "Value") -> Codec:
    """A map of tags, which AWS takes as a list of pairs; tags that AWS itself sets are left out."""
    return Codec(
        encode=lambda tags: [{key: k, value: v} for k, v in sorted(tags.items())],
        decode=lambda pairs: {p[key]: p[value] for p in pairs if not p[key].startswith("aws:")},
        expects=dict,
    )


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


def _as_text(document: Any) -> Any:
    """botocore parses the policies of IAM; in properties every document is a text."""
    return document if isinstance(document, str) else json.dumps(document)


def _iso_time(moment: Any) -> str:
    if isinstance(moment, datetime):
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(moment)


def _moment(text: Any) -> Any:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return text
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


JSON_DOCUMENT = Codec(decode=_as_text, canonical=_parsed, expects=str)
TIMESTAMP = Codec(decode=_iso_time, canonical=_moment, expects=str)
MAP = Codec(expects=dict)
KEY_REFERENCE = Codec(canonical=lambda text: str(text).rpartition("/")[2], expects=str)
"""A KMS key, by id or ARN. (An alias is told from the key by its own name.)"""


@dataclass(frozen=True)
class Field:
    """One property.

    Args:
        name: Pulumi's name on the wire, `kmsMasterKeyId`.
        member: AWS's name below the structure around it; unused for a type's own properties, whose
            calls name the members.
        fields: the properties of an object or of a list's objects.
        codec: how the value differs.
        required: beyond what AWS's service model itself requires.
        default: what AWS or the provider takes when the property is not given.
        computed: AWS chooses a value when none is given.
        output: AWS alone sets it: a program may read but not state it.
        untold: the local AWS server drops it: where an answer lacks it, it counts as unchanged.
        unordered: the order of a list means nothing.
        minimum: lowest value allowed, beyond the service model.
        pattern: what a text must match in full, and the same in words.
        local_type: for a property that no call carries.
    """

    name: str
    member: str = ""
    fields: tuple[Field, ...] = ()
    codec: Codec = field(default_factory=Codec)
    required: bool = False
    default: Any = None
    computed: bool = False
    output: bool = False
    untold: bool = False
    unordered: bool = False
    minimum: int | None = None
    pattern: tuple[str, str] | None = None
    local_type: type | None = None

    @property
    def chosen_by_aws(self) -> bool:
        """Whether AWS has a value where the program states none."""
        return self.computed or self.output


PREVIOUS = "__previous"
"""What `finish` of an updating call finds among the properties: the outputs before the update."""


@dataclass(frozen=True)
class Call:
    """One AWS operation.

    Args:
        operation: AWS's name, `PutBucketVersioning`.
        request: request member path → property.
        response: response member path → property.
        constants: request member path → value.
        when: property and value: the call runs only then.
        absent: error codes that mean: there is no such thing.
        finish: last changes to the request, from request and properties; None: nothing to ask for.
        also: further properties that `finish` puts into the request.
        only: list in the response, and member → property: the list's other items do not count.
        waiter: botocore's waiter to run afterwards, with the request of the first reading.
        changed_only: whether an update leaves out the properties that have not changed.
    """

    operation: str
    request: Mapping[str, str] = field(default_factory=dict)
    response: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    when: tuple[str, Any] | None = None
    absent: tuple[str, ...] = ()
    finish: Callable[[Members, Properties], Members | None] | None = None
    also: tuple[str, ...] = ()
    only: tuple[str, Mapping[str, str]] | None = None
    waiter: str = ""
    changed_only: bool = False

    @property
    def carries(self) -> frozenset[str]:
        """The properties that this call tells AWS."""
        condition = {self.when[0]} if self.when else set()
        return frozenset({*self.request.values(), *self.also, *condition})


@dataclass(frozen=True)
class Tagging:
    """How a type's tags are read and changed; the creating call may carry them too.

    Args:
        read: tells `tags`; None where a reading of the type does.
        put: carries `tags`.
        remove: takes tags away: the `removedTagKeys`, or all of them where `put` sets them all.
        put_replaces_all: whether `put` leaves no other tags.
    """

    read: Call | None
    put: Call
    remove: Call
    codec: Codec = field(default_factory=tags_as_list)
    put_replaces_all: bool = False


@dataclass(frozen=True)
class Autoname:
    """How a resource without a name is named: `<prefix><name>-<seven hex digits>`, lower case."""

    property: str
    maximum: int
    prefix: str = ""
    prefix_property: str = ""


@dataclass(frozen=True)
class Scope:
    """Where a resource lives."""

    region: str
    partition: str
    find_account: Callable[[], str] = str

    @property
    def account(self) -> str:
        """The account's number; asks AWS."""
        return self.find_account()

    def arn(self, service: str, resource: str) -> str:
        """`arn:aws:ec2:eu-central-1:123456789012:vpc/vpc-1`"""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"


def _nothing(properties: Properties, scope: Scope) -> Properties:
    del properties, scope
    return {}


def _present(response: Members) -> bool:
    del response
    return False


@dataclass(frozen=True)
class Spec:
    """One resource type.

    Args:
        type: Pulumi's token.
        service: botocore's service name.
        fields: its properties.
        id: template over properties, `{bucket}/{key}`; ids given to an import are read by it.
        create, reads, updates, delete: its calls. The first of `reads` decides whether the
            resource is there.
        tagging: for types with tags.
        autoname: for types that are named automatically.
        derive: further outputs, from properties and scope.
        computed: names of outputs beyond the fields, unknown before creation.
        renewed: those of them that an update of anything but tags changes.
        replacing: dotted paths whose change needs a new resource, beyond what the calls imply.
        delete_first: whether a new one cannot be made while the old one is there.
        regional: whether a program may state a `region`.
        simulated: whether the local AWS server knows the type; the calls of one that it does not
            know are checked by AWS's service model and not made.
        gone: whether the first reading's response means: not there.
        after_create: takes away what AWS adds and nobody stated.
        before_delete: clears what would keep AWS from deleting.
        after_read: corrects inputs found by a reading, from those stated, and the old and new
            outputs.
        instead: property not supported here → what to use.
    """

    type: str
    service: str
    fields: tuple[Field, ...]
    id: str
    create: Call
    reads: tuple[Call, ...]
    delete: Call
    updates: tuple[Call, ...] = ()
    tagging: Tagging | None = None
    autoname: Autoname | None = None
    derive: Callable[[Properties, Scope], Properties] = _nothing
    computed: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()
    replacing: tuple[str, ...] = ()
    delete_first: bool = False
    regional: bool = True
    simulated: bool = True
    gone: Callable[[Members], bool] = _present
    after_create: Callable[[BaseClient, Properties], None] | None = None
    before_delete: Callable[[BaseClient, Properties], None] | None = None
    after_read: Callable[[Properties, Properties, Properties], Properties] | None = None
    instead: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_fields(self) -> tuple[Field, ...]:
        """The fields, and those that every type has: `region`, and `tags` where it has them."""
        tags = (Field("tags", codec=self.tagging.codec, default={}),) if self.tagging else ()
        region = (Field("region", computed=True, local_type=str),) if self.regional else ()
        return (*self.fields, *tags, *region)

    @property
    def writes(self) -> tuple[Call, ...]:
        """The calls that carry properties to AWS."""
        tagging = (self.tagging.put,) if self.tagging else ()
        return (self.create, *self.updates, *tagging)

    @property
    def immutable(self) -> frozenset[str]:
        """The properties whose change needs a new resource."""
        changeable = frozenset().union(*(call.carries for call in (*self.updates, self.delete)))
        identity = frozenset(re.findall(r"{(\w+)}", self.id))
        tags = frozenset({"tags"} if self.tagging else ())
        elsewhere = frozenset({"region"} if self.regional else ())
        return (self.create.carries - changeable - tags) | identity | elsewhere

    @property
    def forcing(self) -> frozenset[tuple[str, ...]]:
        """The paths whose change needs a new resource."""
        return frozenset((name,) for name in self.immutable) | frozenset(
            tuple(path.split(".")) for path in self.replacing
        )

    def id_of(self, properties: Properties) -> str:
        """The resource's id."""
        return self.id.format_map(properties)

    def properties_of(self, id_: str) -> Properties:
        """The properties that an id names; empty where it does not have the id's form."""
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(self.id))
        found = re.fullmatch(pattern, id_)
        return found.groupdict() if found else {}


def put_member(members: Members, path: str, value: Any) -> None:
    """Sets the member at a dotted path, making the structures and one-item lists on the way."""
    *parents, last = path.split(".")
    for parent in parents:
        members = _descend(members, parent)
    if last.endswith("[0]"):
        members[last.removesuffix("[0]")] = [value]
    else:
        members[last] = value


def _descend(members: Members, part: str) -> Members:
    if part.endswith("[0]"):
        return members.setdefault(part.removesuffix("[0]"), [{}])[0]
    return members.setdefault(part, {})


def get_member(members: Any, path: str) -> Any:
    """The member at a dotted path, the whole for ""; None where anything on the way is absent."""
    for part in path.split(".") if path else ():
        members = (members or {}).get(part.removesuffix("[0]"))
        if part.endswith("[0]"):
            members = members[0] if members else None
    return members


def narrowed(call: Call, response: Members, properties: Properties) -> Members:
    """The response without what `only` leaves out."""
    if call.only is None:
        return response
    path, wanted = call.only
    items = [
        item
        for item in get_member(response, path) or []
        if all(item.get(member) == properties.get(name) for member, name in wanted.items())
    ]
    kept: Members = {}
    put_member(kept, path, items)
    return kept


def to_aws(spec_field: Field, value: Any) -> Any:
    """A known property value as AWS takes it."""
    if spec_field.fields and isinstance(value, list):
        value = [_object_to_aws(spec_field, item) for item in value]
    elif spec_field.fields:
        value = _object_to_aws(spec_field, value)
    return spec_field.codec.encode(value)


def _object_to_aws(spec_field: Field, value: Properties) -> Members:
    members: Members = {}
    for inner in spec_field.fields:
        if value.get(inner.name) is not None and not inner.output:
            put_member(members, inner.member, to_aws(inner, value[inner.name]))
    return members


def from_aws(spec_field: Field, value: Any) -> Any:
    """What AWS tells, as a property value."""
    value = spec_field.codec.decode(value)
    if spec_field.fields and isinstance(value, list):
        return [_object_from_aws(spec_field, item) for item in value]
    if spec_field.fields:
        return _object_from_aws(spec_field, value)
    return value


def _object_from_aws(spec_field: Field, members: Members) -> Properties:
    found = ((inner, get_member(members, inner.member)) for inner in spec_field.fields)
    return {inner.name: from_aws(inner, value) for inner, value in found if value is not None}


def request_of(spec: Spec, call: Call, properties: Properties) -> Members | None:
    """The call's request: what the properties give, with defaults and constants.

    None: there is nothing to ask for.
    """
    fields = {f.name: f for f in spec.all_fields}
    members: Members = {}
    for path, name in call.request.items():
        spec_field = fields.get(name, Field(name))
        value = properties.get(name)
        value = spec_field.default if value is None else value
        if value is not None:
            put_member(members, path, to_aws(spec_field, value))
    for path, value in call.constants.items():
        put_member(members, path, value)
    return call.finish(members, properties) if call.finish else members


def properties_from(spec: Spec, call: Call, response: Members) -> Properties:
    """The properties that a response tells."""
    fields = {f.name: f for f in spec.all_fields}
    found = ((name, get_member(response, path)) for path, name in call.response.items())
    return {
        name: from_aws(fields.get(name, Field(name)), value)
        for name, value in found
        if value is not None
    }


def canonical(spec_field: Field, value: Any) -> Any:
    """Equal for two values of a property that mean the same; empty parts do not count."""
    if value is UNKNOWN:
        return value
    if isinstance(value, list) and (spec_field.fields or spec_field.unordered):
        items = [canonical(replace(spec_field, unordered=False), item) for item in value]
        return sorted(items, key=_sorting) if spec_field.unordered else items
    if spec_field.fields and isinstance(value, dict):
        return canonical_properties(spec_field.fields, value)
    return spec_field.codec.canonical(value)


def _sorting(item: Any) -> str:
    return json.dumps(item, sort_keys=True, default=repr)


def canonical_properties(fields: Iterable[Field], properties: Properties) -> Properties:
    """The properties that have fields, each in its canonical form, without empty ones."""
    found = ((f.name, canonical(f, properties[f.name])) for f in fields if f.name in properties)
    return {name: value for name, value in found if value not in (None, {}, [])}


def with_choices(spec_field: Field, value: Any, old: Any, *, known: bool) -> Any:
    """A stated value with what AWS chooses inside it: as it was, and UNKNOWN before creation.

    Args:
        old: the value among the outputs so far.
        known: whether there are such outputs.
    """
    if not spec_field.fields:
        return value
    if isinstance(value, list):
        olds = [*(old if isinstance(old, list) else []), *[None] * len(value)]
        pairs = zip(value, olds, strict=False)
        return [with_choices(spec_field, item, other, known=known) for item, other in pairs]
    if not isinstance(value, dict):
        return value
    before = old if isinstance(old, dict) else {}
    found = dict(value)
    for inner in spec_field.fields:
        if inner.name in value:
            found[inner.name] = with_choices(
                inner, value[inner.name], before.get(inner.name), known=known
            )
        elif inner.chosen_by_aws and (inner.name in before or not known):
            found[inner.name] = before.get(inner.name, UNKNOWN)
    return found


def live_input(spec_field: Field, actual: Any, stated: Any, *, importing: bool) -> Any:
    """The input that would make what was found, in the program's own words where they mean that.

    What the program does not state is left out where it is AWS's choice or the default, so that
    only a real difference shows. None: no such input.
    """
    if spec_field.output or (stated is None and not importing and spec_field.computed):
        return None
    if actual is None and spec_field.untold:
        return stated
    if canonical(spec_field, actual) == canonical(spec_field, stated):
        return stated
    if stated is None and canonical(spec_field, actual) == canonical(
        spec_field, spec_field.default
    ):
        return None
    if spec_field.fields and isinstance(actual, list):
        stated_items = stated if isinstance(stated, list) else []
        padded = [*stated_items, *[None] * len(actual)]
        return [
            _live_object(spec_field, item, other, importing=importing)
            for item, other in zip(actual, padded, strict=False)
        ]
    if spec_field.fields and isinstance(actual, dict):
        return _live_object(spec_field, actual, stated, importing=importing) or None
    return None if actual in (None, {}, []) and stated is None else actual


def _live_object(
    spec_field: Field, actual: Properties, stated: Any, *, importing: bool
) -> Properties:
    stated = stated if isinstance(stated, dict) else {}
    found = {
        inner.name: live_input(
            inner, actual.get(inner.name), stated.get(inner.name), importing=importing
        )
        for inner in spec_field.fields
    }
    return {name: value for name, value in found.items() if value is not None}
