"""The layer `platform`: add-ons of EKS, mesh and gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from infra.environment import Environment, arguments
from infra.environment.mesh import Gateway, Mesh
from infra.layers.cluster import EksCluster, Outputs
from voicemesh import ClusterAddons, IstioMesh, PublicGateway
from voicemesh.component import after


@dataclass(frozen=True)
class Platform:
    """What the services of an environment stand on."""

    injection_labels: pulumi.Output[Mapping[str, str]]
    mesh_revision: pulumi.Output[str]
    gateway: PublicGateway


def make_platform(
    environment: Environment,
    gateway: Gateway,
    eks: EksCluster | None,
    options: pulumi.ResourceOptions,
) -> tuple[Platform, Outputs]:
    """Add-ons where the cluster is one of EKS, the mesh, and the gateway."""
    addons = make_addons(environment, eks, options) if eks else None
    mesh_section = environment.mesh or Mesh()
    seconds = environment.max_stream_seconds
    issuers = arguments.token_issuers(environment.identity)
    mesh = IstioMesh("mesh", arguments.mesh_args(mesh_section, seconds, issuers, gateway), options)
    labels = mesh.injection_labels
    if addons is not None:
        # Its controllers make the gateway's load balancer, and offer pods the GPUs of their nodes.
        labels = after(labels, addons)
    charts = arguments.chart_source(mesh_section)
    public = PublicGateway(
        "public-gateway",
        arguments.gateway_args(gateway, charts, seconds, issuers, labels, mesh.revision),
        options,
    )
    return Platform(labels, mesh.revision, public), _outputs(mesh, public)


def make_addons(
    environment: Environment, eks: EksCluster, options: pulumi.ResourceOptions
) -> ClusterAddons:
    """What EKS leaves out."""
    args = arguments.addons_args(environment.addons, eks.cluster_name, eks.region, eks.vpc_id)
    return ClusterAddons("addons", args, options)


def _outputs(mesh: IstioMesh, gateway: PublicGateway) -> dict[str, Any]:
    return {
        "istioVersion": mesh.version,
        "injectionLabels": mesh.injection_labels,
        "meshRevision": mesh.revision,
        "gateway": {
            "ref": gateway.gateway_ref,
            "namespace": gateway.namespace,
            "principal": gateway.principal,
            "address": gateway.address,
        },
    }
