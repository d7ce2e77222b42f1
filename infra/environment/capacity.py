"""Whether voices fit into their tenants' quotas, and onto the nodes that there can be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from pydantic.alias_generators import to_camel

from infra.environment.section import Faults, path
from voicemesh import (
    ComputeSize,
    GpuNodeGroupArgs,
    TenantQuota,
    TtsVoiceServiceArgs,
    VoiceVariant,
    VoiceVolumeArgs,
    contract,
)
from voicemesh.cluster.nodes import node_view
from voicemesh.service.workload import node_selector, tolerations


@dataclass(frozen=True)
class GpuNodes:
    """A group of nodes with GPUs, as far as pods can tell."""

    name: str
    labels: Mapping[str, str]
    taint_keys: Sequence[str]
    gpu_resource: str
    gpus_per_node: int
    """How many of this resource each node has."""

    max_size: int

    @property
    def as_output(self) -> dict[str, Any]:
        """As a stack exports it, for stacks whose pods run here."""
        return {to_camel(key): value for key, value in asdict(self).items()}

    @classmethod
    def from_output(cls, exported: Mapping[str, Any]) -> GpuNodes:
        """What another stack exports; its numbers come back as floats."""
        values = {field.name: exported[to_camel(field.name)] for field in fields(cls)}
        counts = {name: int(values[name]) for name in ("gpus_per_node", "max_size")}
        return cls(**{**values, **counts})

    @property
    def gpus(self) -> int:
        """GPUs, or slices, of all nodes that there can be."""
        return self.gpus_per_node * self.max_size

    def takes(self, voice: TtsVoiceServiceArgs, variant: VoiceVariant) -> bool:
        """Whether the pods of a variant may run here, by labels, taints and the kind of GPU."""
        tolerated = {toleration.key for toleration in tolerations(variant)}
        return (
            node_selector(voice, variant).items() <= self.labels.items()
            and tolerated >= {*self.taint_keys}
            and variant.gpu_resource == self.gpu_resource
            and variant.gpu_count <= self.gpus_per_node
        )

    def __str__(self) -> str:
        kind = " ".join(
            self.labels.get(label, "")
            for label in (contract.NODE_TYPE_LABEL, contract.ACCELERATOR_LABEL)
        )
        return f"{self.name} ({kind}, {self.gpus_per_node} {self.gpu_resource} on each node)"


def gpu_nodes(name: str, args: GpuNodeGroupArgs) -> GpuNodes:
    """What a node group offers to pods."""
    view = node_view(args)
    return GpuNodes(
        name=name,
        labels=dict(view.labels),
        taint_keys=[taint.key for taint in view.taints],
        gpu_resource=view.gpu_resource,
        gpus_per_node=view.gpu_resources,
        max_size=args.max_size,
    )


@dataclass(frozen=True)
class Share:
    """A tenant's quota, and what counts against it."""

    index: int
    """Place of the tenant in the configuration."""

    quota: TenantQuota
    voices: Sequence[TtsVoiceServiceArgs]
    volume: VoiceVolumeArgs | None


def quota_faults(share: Share, sidecar: ComputeSize) -> Faults:
    """Quotas that the tenant's voices exceed when all of them run at their largest."""
    need = _needs(share, sidecar)
    allowances = _allowances(share.quota)
    for key, (resource, has) in allowances.items():
        if need[resource] > has:
            where = path("tenants", share.index, "quota", *key)
            yield f"{where}: allows {has} {resource}, but its voices need {need[resource]}"
    allowed = {resource for resource, _ in allowances.values()}
    for resource in sorted(need.keys() - allowed):
        where = path("tenants", share.index, "quota", "gpus")
        yield f"{where}: allows no {resource}, but its voices need {need[resource]}"


def placement_faults(
    voices: Mapping[int, TtsVoiceServiceArgs], groups: Sequence[GpuNodes]
) -> Faults:
    """Voices that no node can run, and GPUs that there can never be enough of.

    Args:
        voices: by their place in the configuration.
        groups: all nodes with GPUs that the cluster can have.
    """
    demand: Counter[tuple[str, ...]] = Counter()
    by_name = {group.name: group for group in groups}
    for index, voice in voices.items():
        for place, variant in enumerate(voice.variants):
            where = path("voices", index, "variants", place)
            if variant.gpu_count == 0:
                yield from _cpu_faults(where, voice, variant)
                continue
            fitting = tuple(group.name for group in groups if group.takes(voice, variant))
            demand[fitting] += variant.maximum_replicas * variant.gpu_count
            if not fitting:
                yield (
                    f"{where}: no node group has {_wish(voice, variant)}; there are {_list(groups)}"
                )
    for fitting, gpus in demand.items():
        there = sum(by_name[name].gpus for name in fitting)
        if fitting and gpus > there:
            yield (
                f"{path('voices')}: need up to {gpus} {by_name[fitting[0]].gpu_resource} on "
                f"{' and '.join(fitting)}, which have at most {there}; "
                "raise maxSize, or lower replicas"
            )


def _cpu_faults(where: str, voice: TtsVoiceServiceArgs, variant: VoiceVariant) -> Faults:
    wishes = {"accelerator": variant.accelerator, "nodeType": voice.node_type}
    for key, value in wishes.items():
        if value is not None:
            yield (
                f"{where}: with gpuCount 0 it tolerates no node with GPUs, but {key} {value!r} "
                f"asks for one; set {key} to null"
            )


def _wish(voice: TtsVoiceServiceArgs, variant: VoiceVariant) -> str:
    labels = [f"{key}={value}" for key, value in node_selector(voice, variant).items()]
    return ", ".join([*labels, f"{variant.gpu_count} {variant.gpu_resource} on one node"])


def _list(groups: Iterable[GpuNodes]) -> str:
    return "; ".join(map(str, groups)) or "none"


def _allowances(quota: TenantQuota) -> dict[tuple[str, ...], tuple[str, int]]:
    size = ComputeSize(quota.cpu_cores, quota.memory_gib)
    return {
        ("cpuCores",): ("millicores", size.millicores),
        ("memoryGib",): ("MiB", size.mebibytes),
        ("pods",): ("pods", quota.pods),
        **{("gpus", name): (name, count) for name, count in quota.gpus.items()},
    }


def _needs(share: Share, sidecar: ComputeSize) -> Counter[str]:
    need: Counter[str] = Counter()
    for voice in share.voices:
        for variant in voice.variants:
            need += _variant_needs(variant, sidecar)
    if share.volume is not None:
        size = share.volume.cleanup_size
        need += Counter({"millicores": size.millicores, "MiB": size.mebibytes, "pods": 1})
    return need


def _variant_needs(variant: VoiceVariant, sidecar: ComputeSize) -> Counter[str]:
    size, pods = variant.size, variant.maximum_replicas
    return Counter(
        {
            "millicores": pods * (size.millicores + sidecar.millicores),
            "MiB": pods * (size.mebibytes + sidecar.mebibytes),
            "pods": pods,
            variant.gpu_resource: pods * variant.gpu_count,
        }
    )
