"""What EKS does and moto does not, as far as programs see it.

- A cluster has a security group of its own and knows its VPC.
- A changed part of a cluster's network leaves the other parts as they were.
- A cluster that is protected from deletion is not deleted.
- A node group's desired size lies between its minimum and its maximum.
- The versions of clusters and node groups can be changed, and node groups can be tagged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.eks import models, responses, urls
from moto.eks.exceptions import (
    InvalidParameterException,
    InvalidRequestException,
    ResourceNotFoundException,
)
from moto.moto_api._internal import mock_random

Backend = models.EKSBackend


def install() -> None:
    """Puts these in the place of moto's own."""
    Backend.create_cluster = _creating(Backend.create_cluster)
    Backend.delete_cluster = _deleting(Backend.delete_cluster)
    Backend.update_cluster_config = _updating(Backend.update_cluster_config)
    Backend.create_nodegroup = _sized(Backend.create_nodegroup)
    Backend.update_nodegroup_config = _sized(Backend.update_nodegroup_config)
    Backend.tag_resource = _tag
    Backend.untag_resource = _untag
    Backend.list_tags_for_resource = _tags_of
    for name in ("create_cluster", "update_cluster_config"):
        answer = getattr(responses.EKSResponse, name)
        setattr(responses.EKSResponse, name, _noting_protection(answer))
    for answer in (update_cluster_version, update_nodegroup_version):
        setattr(responses.EKSResponse, answer.__name__, answer)
    cluster = "{0}/clusters/(?P<name>[^/]+)"
    for path in ("updates$", "node-groups/(?P<nodegroupName>[^/]+)/update-version$"):
        urls.url_paths[f"{cluster}/{path}"] = urls.response.dispatch


def _networks(backend: Backend) -> Any:
    from moto.ec2.models import ec2_backends

    return ec2_backends[backend.account_id][backend.region_name]


def _creating(original: Callable[..., models.Cluster]) -> Callable[..., models.Cluster]:
    def create_cluster(self: Backend, **arguments: Any) -> models.Cluster:
        cluster = original(self, **arguments)
        networks, config = _networks(self), cluster.resources_vpc_config
        subnet = networks.get_subnet(config["subnetIds"][0])
        group = networks.create_security_group(
            f"eks-cluster-sg-{cluster.name}-{mock_random.randint(10**8, 10**9)}",
            "EKS created security group applied to ENI that is attached to EKS Control Plane "
            "master nodes, as well as any managed workloads.",
            vpc_id=subnet.vpc_id,
            tags={f"kubernetes.io/cluster/{cluster.name}": "owned"},
        )
        config |= {"vpcId": subnet.vpc_id, "clusterSecurityGroupId": group.id}
        return cluster

    return create_cluster


def _deleting(original: Callable[..., models.Cluster]) -> Callable[..., models.Cluster]:
    def delete_cluster(self: Backend, name: str) -> models.Cluster:
        if getattr(self.describe_cluster(name), "deletion_protection", False):
            raise InvalidRequestException(
                message=f"Cluster {name} has deletion protection enabled. Disable it first."
            )
        cluster = original(self, name)
        group = cluster.resources_vpc_config["clusterSecurityGroupId"]
        _networks(self).delete_security_group(group_id=group)
        return cluster

    return delete_cluster


def _noting_protection(
    original: Callable[[responses.EKSResponse], ActionResult],
) -> Callable[[responses.EKSResponse], ActionResult]:
    def answer(self: responses.EKSResponse) -> ActionResult:
        result = original(self)
        protected = self._get_param("deletionProtection")
        if protected is not None:
            cluster = self.eks_backend.describe_cluster(self._get_param("name"))
            vars(cluster)["deletion_protection"] = protected
        return result

    return answer


def _updating(original: Callable[..., models.Cluster]) -> Callable[..., models.Cluster]:
    def update_cluster_config(
        self: Backend, name: str, resources_vpc_config: dict[str, Any] | None, **others: Any
    ) -> models.Cluster:
        merged = resources_vpc_config
        if merged and name in self.clusters:
            merged = self.clusters[name].resources_vpc_config | merged
        return original(self, name, merged, **others)

    return update_cluster_config


def _sized(original: Callable[..., Any]) -> Callable[..., Any]:
    def checked(self: Backend, **arguments: Any) -> Any:
        fault = _size_fault(arguments.get("scaling_config") or {})
        if fault:
            raise InvalidParameterException(message=fault)
        return original(self, **arguments)

    return checked


def _size_fault(sizes: dict[str, int]) -> str | None:
    desired = sizes.get("desiredSize")
    if desired is None:
        return None
    least, most = sizes.get("minSize", desired), sizes.get("maxSize", desired)
    if least > desired:
        return f"Minimum capacity {least} can't be greater than desired size {desired}"
    if desired > most:
        return f"desired capacity {desired} can't be greater than max size {most}"
    return None


def _tagged(backend: Backend, arn: str) -> models.Cluster | models.Nodegroup:
    for cluster in backend.clusters.values():
        for resource in (cluster, *cluster.nodegroups.values()):
            if resource.arn == arn:
                return resource
    raise ResourceNotFoundException(
        clusterName=None,
        nodegroupName=None,
        fargateProfileName=None,
        addonName=None,
        message=f"No resource found for ARN: {arn}.",
    )


def _tag(self: Backend, resource_arn: str, tags: dict[str, str]) -> None:
    _tagged(self, resource_arn).tags.update(tags)


def _untag(self: Backend, resource_arn: str, tag_keys: list[str] | str) -> None:
    tags = _tagged(self, resource_arn).tags
    for key in [tag_keys] if isinstance(tag_keys, str) else tag_keys:
        tags.pop(key, None)


def _tags_of(self: Backend, resource_arn: str) -> dict[str, str]:
    return _tagged(self, resource_arn).tags


def update_cluster_version(self: responses.EKSResponse) -> ActionResult:
    """Answers UpdateClusterVersion, which moto finds by this name."""
    cluster = self.eks_backend.describe_cluster(self._get_param("name"))
    cluster.version = self._get_param("version")
    return _update()


def update_nodegroup_version(self: responses.EKSResponse) -> ActionResult:
    """Answers UpdateNodegroupVersion, which moto finds by this name."""
    group = self.eks_backend.describe_nodegroup(
        self._get_param("name"), self._get_param("nodegroupName")
    )
    group.version = self._get_param("version") or group.version
    group.release_version = self._get_param("releaseVersion") or group.release_version
    template = self._get_param("launchTemplate")
    if template:
        group.launch_template = (group.launch_template or {}) | template
    return _update()


def _update() -> ActionResult:
    update = {
        "id": str(mock_random.uuid4()),
        "status": "Successful",
        "type": "VersionUpdate",
        "params": [],
        "createdAt": utcnow(),
        "errors": [],
    }
    return ActionResult({"update": update})
