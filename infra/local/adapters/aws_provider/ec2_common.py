"""What the types of EC2 share: tags on creation, and changes of tags and of lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from infra.local.adapters.aws_provider.mapping import (
    PREVIOUS,
    Call,
    Members,
    Tagging,
    get_member,
    tags_as_list,
)
from infra.local.adapters.property_values import Properties

Finish = Callable[[Members, Properties], Members | None]


def tagged(kind: str) -> Finish:
    """EC2 takes tags on creation with the kind of resource that they are for."""

    def finish(request: Members, properties: Properties) -> Members:
        tags = tags_as_list().encode(properties.get("tags") or {})
        if tags:
            request["TagSpecifications"] = [{"ResourceType": kind, "Tags": tags}]
        return request

    return finish


def creating(
    operation: str,
    kind: str,
    request: Mapping[str, str],
    response: Mapping[str, str],
    *,
    waiter: str = "",
) -> Call:
    """A creating call that carries tags."""
    return Call(operation, request, response, finish=tagged(kind), also=("tags",), waiter=waiter)


def describing(operation: str, ids: str, response: Mapping[str, str], absent: str) -> Call:
    """The call that tells of one resource by its id."""
    return Call(operation, {f"{ids}[0]": "id"}, response, absent=(absent,))


def none_at(path: str) -> Callable[[Members], bool]:
    """For `gone`: whether the list at the path is empty."""
    return lambda response: not get_member(response, path)


def in_state(path: str, *states: str) -> Callable[[Members], bool]:
    """For `gone`: whether the response has nothing at the path, or one of the states."""
    return lambda response: get_member(response, path) in (None, *states)


def _keys_to_remove(request: Members, properties: Properties) -> Members:
    return request | {"Tags": [{"Key": key} for key in properties["removedTagKeys"]]}


EC2_TAGGING = Tagging(
    read=None,
    put=Call("CreateTags", {"Resources[0]": "id", "Tags": "tags"}),
    remove=Call("DeleteTags", {"Resources[0]": "id"}, finish=_keys_to_remove),
)


def list_changes(**members: str) -> Finish:
    """For calls that take what is added to a list and what leaves it: list's member → property."""

    def finish(request: Members, properties: Properties) -> Members | None:
        changed = False
        for member, name in members.items():
            old = set(properties[PREVIOUS].get(name) or [])
            new = set(properties.get(name) or [])
            for verb, ids in (("Add", new - old), ("Remove", old - new)):
                if ids:
                    request[f"{verb}{member}"] = sorted(ids)
                    changed = True
        return request if changed else None

    return finish
