"""How pods of one kind are placed: away from each other, as far as there is room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pulumi_kubernetes.core.v1 import TopologySpreadConstraintArgs
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs

_OVER: Final = ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
_WHEN_UNSATISFIABLE: Final = "ScheduleAnyway"
# During a rollout, the pods that go do not count.
_WITHIN: Final = ("pod-template-hash",)


def topology_spread(labels: Mapping[str, str]) -> list[TopologySpreadConstraintArgs]:
    """Pods with these labels, over zones and nodes as evenly as there is room.

    A pod beside another of its kind is better than none.
    """
    return [
        TopologySpreadConstraintArgs(
            max_skew=1,
            topology_key=key,
            when_unsatisfiable=_WHEN_UNSATISFIABLE,
            label_selector=LabelSelectorArgs(match_labels=labels),
            match_label_keys=[*_WITHIN],
        )
        for key in _OVER
    ]


def topology_spread_values(labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """The same, as values of a chart."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": _WHEN_UNSATISFIABLE,
            "labelSelector": {"matchLabels": dict(labels)},
            "matchLabelKeys": [*_WITHIN],
        }
        for key in _OVER
    ]
