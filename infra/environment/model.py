"""Everything that differs between environments."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from infra.environment.cluster import Aws, Cluster, Eks, Registry, Storage
from infra.environment.identity import Identity
from infra.environment.mesh import Addons, Gateway, Mesh
from infra.environment.section import Section
from infra.environment.services import Tenant, Voice


class Layer(StrEnum):
    """A part of an environment that one stack owns."""

    CLUSTER = "cluster"
    """VPC, EKS, nodes, image registry, and the bucket. Nothing of it needs Kubernetes."""

    PLATFORM = "platform"
    """Add-ons of the cluster, mesh and gateway; and the bucket, where the cluster is another's."""

    SERVICES = "services"
    """Tenants and voices."""


class Environment(Section):
    """The configuration of a stack. A section that is empty is not there."""

    layers: frozenset[Layer]
    cluster: Cluster | None = None
    eks: Eks | None = None
    registry: Registry | None = None
    storage: Storage | None = None
    aws: Aws | None = None
    addons: Addons | None = None
    mesh: Mesh | None = None
    identity: Identity | None = None
    gateway: Gateway | None = None
    tenants: tuple[Tenant, ...] = ()
    voices: tuple[Voice, ...] = ()
    max_stream_seconds: int = Field(default=600, ge=1)

    @property
    def cluster_stack(self) -> str | None:
        """The stack that owns the cluster, if it is another."""
        return self.cluster.stack if self.cluster is not None else None

    @property
    def runs_on_eks(self) -> bool:
        """Whether the cluster is one of EKS that a stack of this program makes."""
        return self.eks is not None or self.cluster_stack is not None

    def owns(self, layer: Layer) -> bool:
        """Whether this stack owns a layer."""
        return layer in self.layers
