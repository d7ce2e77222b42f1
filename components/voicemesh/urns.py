"""Uniform resource names, as Pulumi's engine makes them."""

from typing import Final

STACK_TYPE: Final = "pulumi:pulumi:Stack"


def child_urn(stack: str, project: str, parent: str, type_: str, name: str) -> str:
    """The URN of a resource: the types of all its ancestors but the stack, then its own.

    Args:
        parent: URN of the parent; the stack's, or empty, for a resource without one.
    """
    ancestors = parent.split("::")[2] if parent else ""
    qualified = type_ if ancestors in ("", STACK_TYPE) else f"{ancestors}${type_}"
    return f"urn:pulumi:{stack}::{project}::{qualified}::{name}"
