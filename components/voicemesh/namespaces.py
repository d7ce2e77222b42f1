"""Namespaces with the Pod Security Standard that their pods must meet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import pulumi
from pulumi_kubernetes.core.v1 import Namespace
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

PodSecurity = Literal["restricted", "privileged"]

_MODES: Final = ("enforce", "warn", "audit")


def pod_security_labels(level: PodSecurity) -> dict[str, str]:
    """Labels by which the API server refuses pods below a level of the Pod Security Standards."""
    return {f"pod-security.kubernetes.io/{mode}": level for mode in _MODES}


def declare_namespace(
    name: str,
    namespace: pulumi.Input[str],
    level: PodSecurity,
    opts: pulumi.ResourceOptions,
    labels: pulumi.Input[Mapping[str, str]] | None = None,
) -> Namespace:
    """A namespace that holds its pods to `level`, with further labels."""
    merged = pulumi.Output.from_input(labels or {}).apply(
        lambda further: {**further, **pod_security_labels(level)}
    )
    return Namespace(name, metadata=ObjectMetaArgs(name=namespace, labels=merged), opts=opts)
