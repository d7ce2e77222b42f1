"""Sections about AWS and the cluster, made by this stack or by another."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, SecretStr, model_validator

from infra.environment.section import LEFT_OUT, Section


def _stack_name(value: str) -> str:
    if not re.fullmatch(r"[^/\s]+/[^/\s]+/[^/\s]+", value):
        raise ValueError(f"{value!r} is not as in organization/voicemesh/prod-cluster")
    return value


def _account_id(value: str) -> str:
    if not re.fullmatch(r"\d{12}", value):
        raise ValueError(f"{value!r} is not the 12 digits of an AWS account")
    return value


class Cluster(Section):
    """A cluster that another made: one with a kubeconfig, or the one of another stack."""

    kubeconfig: str | None = None
    """Path of a kubeconfig, relative to the project; it is read when the program runs."""

    context: str | None = None
    """Context of the kubeconfig; by default its current one."""

    stack: Annotated[str, AfterValidator(_stack_name)] | None = None
    """The stack that owns the layer `cluster`, as organization/project/stack."""

    @model_validator(mode="after")
    def _is_one_cluster(self) -> Cluster:
        if (self.kubeconfig is None) is (self.stack is None):
            raise ValueError("needs kubeconfig, or stack, and not both")
        if self.context is not None and self.kubeconfig is None:
            raise ValueError("context belongs to a kubeconfig; a stack has one cluster")
        return self


class Aws(Section):
    """The AWS account. Without keys, the usual chain of credentials is used."""

    region: str
    """Where everything lives, as in eu-west-1; with an endpoint, whatever that one calls it."""

    account_id: Annotated[str, AfterValidator(_account_id)] | None = None
    """The only account that is worked on. AWS is then asked whose the credentials are, even for a
    preview; without it, a preview asks AWS nothing."""

    endpoint: str | None = None
    """URL of a server that stands in for AWS."""

    access_key: str | None = None
    secret_key: SecretStr | None = None

    @model_validator(mode="after")
    def _has_a_region(self) -> Aws:
        if self.endpoint is None and not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", self.region):
            raise ValueError(f"region {self.region!r} is none of AWS, as in eu-west-1")
        return self

    @model_validator(mode="after")
    def _has_both_keys(self) -> Aws:
        if (self.access_key is None) is not (self.secret_key is None):
            raise ValueError("accessKey and secretKey are given together, or neither is")
        if self.endpoint is not None and self.account_id is not None:
            raise ValueError("accountId conflicts with endpoint, which stands in for any account")
        return self


class SystemNodes(Section):
    """The nodes without GPUs."""

    instance_types: tuple[str, ...] = LEFT_OUT
    min_size: int = LEFT_OUT
    max_size: int = LEFT_OUT


class Reservation(Section):
    """Capacity that is kept for a node group: an existing reservation, or one to make."""

    reservation_id: str | None = None
    instance_count: int | None = None


class NodeGroup(Section):
    """Nodes with GPUs, all of one kind."""

    name: str
    node_type: str = LEFT_OUT
    accelerator: str = LEFT_OUT
    gpus_per_node: int = LEFT_OUT
    instance_types: tuple[str, ...] = LEFT_OUT
    availability_zones: tuple[str, ...] = LEFT_OUT
    min_size: int
    max_size: int
    capacity_type: Literal["ON_DEMAND", "SPOT"] = LEFT_OUT
    reservation: Reservation | None = None
    mig_profile: str | None = None
    root_volume_gib: int = LEFT_OUT
    deletion_protection: bool = LEFT_OUT
    labels: dict[str, str] = LEFT_OUT
    tags: dict[str, str] = LEFT_OUT


class Eks(Section):
    """The cluster that this stack makes."""

    availability_zones: tuple[str, ...]
    administrators: tuple[str, ...] = LEFT_OUT
    kubernetes_version: str = LEFT_OUT
    vpc_cidr: str = LEFT_OUT
    nat_gateways: Literal["one", "each-zone"] = LEFT_OUT
    interface_endpoints: tuple[str, ...] = LEFT_OUT
    public_access_cidrs: tuple[str, ...] = LEFT_OUT
    system_nodes: SystemNodes = LEFT_OUT
    addon_versions: dict[str, str] = LEFT_OUT
    log_days: int = LEFT_OUT
    deletion_protection: bool = LEFT_OUT
    tags: dict[str, str] = LEFT_OUT
    node_groups: tuple[NodeGroup, ...] = ()


class Registry(Section):
    """Where images are kept."""

    repositories: tuple[str, ...]
    rollback_days: int = LEFT_OUT
    unused_days: int = LEFT_OUT
    deletion_protection: bool = LEFT_OUT
    tags: dict[str, str] = LEFT_OUT


class Storage(Section):
    """The bucket for models, reference voices and outputs."""

    bucket_name: str | None = None
    """Its name, unique in all of AWS; by default that of project and stack, with a random end."""

    output_days: int = LEFT_OUT
    quality_days: int = LEFT_OUT
    deletion_protection: bool = LEFT_OUT
    tags: dict[str, str] = LEFT_OUT
