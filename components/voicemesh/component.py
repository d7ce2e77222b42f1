"""What all components share: their options, and outputs that wait for resources."""

from __future__ import annotations

from typing import TypeVar

import pulumi

T = TypeVar("T")


def child_options(
    parent: pulumi.Resource, specific: pulumi.ResourceOptions | None = None
) -> pulumi.ResourceOptions:
    """Options of a child resource: its own, and its parent last.

    Providers reach a child through its parent. `protect` would as well, so it is set for each
    child: what is protected is an argument of a component, not a side effect of its options.
    """
    defaults = pulumi.ResourceOptions(protect=False)
    return pulumi.ResourceOptions.merge(
        pulumi.ResourceOptions.merge(defaults, specific), pulumi.ResourceOptions(parent=parent)
    )


def after(value: pulumi.Input[T], *resources: pulumi.Resource) -> pulumi.Output[T]:
    """`value` as an output that exists once `resources` do, and is known at preview if it is now.

    Whoever uses it depends on them: that is how one component waits for another.
    """
    urns = [resource.urn for resource in resources]
    return pulumi.Output.all(value, *urns).apply(lambda resolved: resolved[0])
