"""The layer `cluster`: AWS only; and what the layers above know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pulumi
from pydantic.alias_generators import to_camel

from infra.environment import arguments
from infra.environment.capacity import gpu_nodes
from infra.environment.cluster import Eks, Registry, Storage
from infra.layers.providers import random_provider
from voicemesh.component import after

Outputs = dict[str, Any]


@dataclass(frozen=True)
class StoredVoices:
    """The bucket of an environment."""

    bucket: pulumi.Output[str]
    bucket_arn: pulumi.Output[str]
    bucket_key_arn: pulumi.Output[str]


@dataclass(frozen=True)
class EksCluster:
    """A cluster of EKS and its node groups."""

    cluster_name: pulumi.Output[str]
    kubeconfig: pulumi.Output[str]
    region: pulumi.Output[str]
    vpc_id: pulumi.Output[str]
    gpu_nodes: pulumi.Output[Sequence[Mapping[str, Any]]]
    """What pods can tell of each node group, as `GpuNodes.as_output`; once its nodes can join."""


def outputs_of(values: StoredVoices | EksCluster) -> Outputs:
    """As the stack exports them: their names in camelCase."""
    return {to_camel(field.name): getattr(values, field.name) for field in fields(values)}


def referenced_eks(reference: pulumi.StackReference) -> EksCluster:
    """The cluster that another stack exports."""
    return EksCluster(**_read(reference, EksCluster))


def referenced_storage(reference: pulumi.StackReference) -> StoredVoices:
    """The bucket that another stack exports."""
    return StoredVoices(**_read(reference, StoredVoices))


def _read(reference: pulumi.StackReference, kind: Any) -> dict[str, Any]:
    names = {field.name: to_camel(field.name) for field in fields(kind)}
    return {
        field: reference.get_output(name).apply(_present(reference, name))
        for field, name in names.items()
    }


def _present(reference: pulumi.StackReference, name: str) -> Callable[[Any], Any]:
    stack = reference._name

    def check(value: Any) -> Any:
        if value is None:
            raise pulumi.RunError(
                f"voicemesh:cluster.stack: {stack} has no output {name!r}; bring it up first"
            )
        return value

    return check


def make_eks(eks: Eks, cluster_name: str, options: pulumi.ResourceOptions) -> EksCluster:
    """The cluster and its node groups."""
    # A stack without this layer does not pay for loading the SDK of AWS; so below.
    from voicemesh import GpuCluster, GpuNodeGroup

    cluster = GpuCluster("cluster", arguments.cluster_args(eks, cluster_name), options)
    made = []
    for group in eks.node_groups:
        args = arguments.node_group_args(
            group,
            subnets=cluster.private_subnets,
            cluster_name=cluster.cluster_name,
            node_role_arn=cluster.node_role_arn,
            kubernetes_version=cluster.kubernetes_version,
        )
        nodes = gpu_nodes(group.name, args).as_output
        made.append(after(nodes, GpuNodeGroup(group.name, args, options)))
    return EksCluster(
        cluster_name=cluster.cluster_name,
        kubeconfig=cluster.kubeconfig,
        region=cluster.region,
        vpc_id=cluster.vpc_id,
        gpu_nodes=pulumi.Output.all(*made),
    )


def make_registry(registry: Registry, name_prefix: str, options: pulumi.ResourceOptions) -> Outputs:
    """The image registry."""
    from voicemesh import ImageRegistry

    made = ImageRegistry("images", arguments.registry_args(registry, name_prefix), options)
    return {"imageUrls": made.urls}


def make_storage(
    storage: Storage, name_prefix: str, options: pulumi.ResourceOptions
) -> StoredVoices:
    """The bucket."""
    from voicemesh import VoiceStorage

    bucket = storage.bucket_name or _unique_bucket(name_prefix)
    made = VoiceStorage("voices", arguments.storage_args(storage, bucket), options)
    return StoredVoices(made.bucket, made.bucket_arn, made.key_arn)


def _unique_bucket(name_prefix: str) -> pulumi.Output[str]:
    from voicemesh import UniqueName, UniqueNameArgs

    options = pulumi.ResourceOptions(providers=[random_provider()])
    return UniqueName("bucket", UniqueNameArgs(prefix=name_prefix), options).value
