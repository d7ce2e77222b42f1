"""Which components an environment is made of.

(Not `platform`: the engine runs Python in this folder, where that would hide Python's own module.)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi

from infra.environment import Environment, FaultyEnvironmentError, Layer
from infra.environment.arguments import PROJECT_ROOT, uses_own_bucket
from infra.environment.capacity import GpuNodes
from infra.environment.loading import refuse_misplaced_voices
from infra.layers.cluster import (
    EksCluster,
    Outputs,
    StoredVoices,
    make_eks,
    make_registry,
    make_storage,
    outputs_of,
    referenced_eks,
    referenced_storage,
)
from infra.layers.platform import make_platform
from infra.layers.providers import aws_provider, kubernetes_provider
from infra.layers.services import Ground, make_services


def build(environment: Environment) -> Outputs:
    """Declares all components of an environment and returns the stack's outputs.

    Raises:
        FaultyEnvironmentError: the kubeconfig cannot be read.
        voicemesh.ArgumentsError: a component refuses its arguments.
    """
    # First, so that nothing is declared where it cannot be read.
    given_kubeconfig = _given_kubeconfig(environment)
    in_aws = _aws_options(environment)
    eks, storage, outputs = _cluster(environment, in_aws)
    # It is there exactly where the stack owns the platform.
    if environment.gateway is None:
        return outputs
    provider = kubernetes_provider(
        given_kubeconfig if eks is None else eks.kubeconfig,
        environment.cluster and environment.cluster.context,
    )
    in_kubernetes = pulumi.ResourceOptions(providers=[provider])
    platform, platform_outputs = make_platform(environment, environment.gateway, eks, in_kubernetes)
    outputs |= platform_outputs
    if environment.owns(Layer.SERVICES):
        labels = _where_voices_fit(environment, platform.injection_labels, eks)
        ground = Ground(
            labels,
            platform.mesh_revision,
            platform.gateway,
            storage,
            eks,
            in_kubernetes,
            in_aws,
        )
        outputs |= make_services(environment, ground)
    return outputs


def _cluster(
    environment: Environment, in_aws: pulumi.ResourceOptions
) -> tuple[EksCluster | None, StoredVoices | None, Outputs]:
    """Cluster and bucket, made here or by another stack, and the outputs of what is made here."""
    eks, storage, outputs = None, None, Outputs()
    if environment.cluster_stack is not None:
        reference = pulumi.StackReference(environment.cluster_stack)
        eks = referenced_eks(reference)
        if environment.storage is None and any(map(uses_own_bucket, environment.voices)):
            storage = referenced_storage(reference)
    name = f"{pulumi.get_project()}-{pulumi.get_stack()}"
    if environment.eks is not None:
        eks = make_eks(environment.eks, name, in_aws)
        outputs |= outputs_of(eks)
    if environment.registry is not None:
        outputs |= make_registry(environment.registry, name, in_aws)
    if environment.storage is not None:
        storage = make_storage(environment.storage, name, in_aws)
        outputs |= outputs_of(storage)
    return eks, storage, outputs


def _aws_options(environment: Environment) -> pulumi.ResourceOptions:
    if environment.aws is None:
        return pulumi.ResourceOptions()
    return pulumi.ResourceOptions(providers=[aws_provider(environment.aws)])


def _given_kubeconfig(environment: Environment) -> str:
    """What is in the file that the configuration names; nothing where it names none."""
    if environment.cluster is None or environment.cluster.kubeconfig is None:
        return ""
    path = PROJECT_ROOT / Path(environment.cluster.kubeconfig).expanduser()
    try:
        return path.read_text()
    except OSError as error:
        reason = error.strerror or str(error)
        raise FaultyEnvironmentError(
            [f"voicemesh:cluster.kubeconfig: cannot read {path}: {reason}"]
        ) from error


def _where_voices_fit(
    environment: Environment, labels: pulumi.Output[Mapping[str, str]], eks: EksCluster | None
) -> pulumi.Output[Mapping[str, str]]:
    """Labels of the tenants' namespaces, once there are nodes that can run all voices."""
    if eks is None:
        return labels

    def check(known: list[Any]) -> Mapping[str, str]:
        labels, groups = known
        try:
            refuse_misplaced_voices(environment, map(GpuNodes.from_output, groups))
        except FaultyEnvironmentError as error:
            raise pulumi.RunError(str(error)) from error
        return labels

    return pulumi.Output.all(labels, eks.gpu_nodes).apply(check)
