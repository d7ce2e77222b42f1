"""EKS: clusters and node groups, and what belongs to a cluster.

The local AWS server knows clusters and node groups; the other types are not simulated.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from infra.local.adapters.aws_provider.mapping import (
    JSON_DOCUMENT,
    MAP,
    PREVIOUS,
    Autoname,
    Call,
    Codec,
    Field,
    Members,
    Scope,
    Spec,
    Tagging,
)
from infra.local.adapters.property_values import Properties

_NOT_FOUND = "ResourceNotFoundException"
_LOG_TYPES = ("api", "audit", "authenticator", "controllerManager", "scheduler")


def _tagging() -> Tagging:
    return Tagging(
        read=None,
        put=Call("TagResource", {"resourceArn": "arn", "tags": "tags"}),
        remove=Call("UntagResource", {"resourceArn": "arn", "tagKeys": "removedTagKeys"}),
        codec=Codec(
            decode=lambda tags: {k: v for k, v in tags.items() if not k.startswith("aws:")},
            expects=dict,
        ),
    )


def _log_setups(enabled: list[str]) -> list[Members]:
    """EKS leaves a type of log as it was that is named neither way."""
    disabled = [kind for kind in _LOG_TYPES if kind not in enabled]
    setups = [{"types": enabled, "enabled": True}, {"types": disabled, "enabled": False}]
    return [setup for setup in setups if setup["types"]]


def _enabled_logs(setups: list[Members]) -> list[str]:
    return [kind for setup in setups if setup.get("enabled") for kind in setup["types"]]


def _changed_members(*names: str) -> Callable[[Members, Properties], Members | None]:
    """For a cluster's network: some of its members, where one of them has changed.

    EKS takes a change of addresses and one of subnets in different calls.
    """

    def finish(request: Members, properties: Properties) -> Members | None:
        asked = request["resourcesVpcConfig"]
        before = properties[PREVIOUS].get("vpcConfig") or {}
        wanted = {name: asked[member] for name, member in _NETWORK.items() if member in asked}
        if all(_same(wanted.get(n), before.get(n)) for n in names if n in wanted):
            return None
        kept = {_NETWORK[n]: wanted[n] for n in names if n in wanted}
        return request | {"resourcesVpcConfig": kept}

    return finish


def _with_any(*members: str) -> Callable[[Members, Properties], Members | None]:
    """For an update that is none without one of the members."""
    return lambda request, _: request if request.keys() & set(members) else None


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, list) and isinstance(other, list):
        return sorted(value) == sorted(other)
    return value == other


_NETWORK = {
    "endpointPrivateAccess": "endpointPrivateAccess",
    "endpointPublicAccess": "endpointPublicAccess",
    "publicAccessCidrs": "publicAccessCidrs",
    "subnetIds": "subnetIds",
    "securityGroupIds": "securityGroupIds",
}


def _updating_cluster(
    member: str, name: str, finish: Callable[[Members, Properties], Members | None] | None = None
) -> Call:
    """EKS takes one change at a time."""
    return Call(
        "UpdateClusterConfig",
        {"name": "name", member: name},
        finish=finish,
        waiter="cluster_active",
    )


def _without_bootstrap(request: Members, properties: Properties) -> Members:
    del properties
    request["accessConfig"].pop("bootstrapClusterCreatorAdminPermissions", None)
    return request


_TOLD_OF_CLUSTER = {
    "name": "name",
    "roleArn": "roleArn",
    "version": "version",
    "resourcesVpcConfig": "vpcConfig",
    "kubernetesNetworkConfig": "kubernetesNetworkConfig",
    "logging.clusterLogging": "enabledClusterLogTypes",
    "encryptionConfig[0]": "encryptionConfig",
    "accessConfig": "accessConfig",
    "upgradePolicy": "upgradePolicy",
    "zonalShiftConfig": "zonalShiftConfig",
    "deletionProtection": "deletionProtection",
    "tags": "tags",
}

CLUSTER = Spec(
    type="aws:eks/cluster:Cluster",
    service="eks",
    id="{name}",
    fields=(
        Field(
            "name",
            pattern=(
                r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}",
                "1 to 100 of letters, digits, _ and -, the first a letter or digit",
            ),
        ),
        Field("roleArn"),
        Field("version", computed=True),
        Field(
            "vpcConfig",
            required=True,
            fields=(
                Field("subnetIds", "subnetIds", required=True, unordered=True),
                Field("securityGroupIds", "securityGroupIds", unordered=True),
                Field("endpointPrivateAccess", "endpointPrivateAccess", default=False),
                Field("endpointPublicAccess", "endpointPublicAccess", default=True),
                Field("publicAccessCidrs", "publicAccessCidrs", computed=True, unordered=True),
                Field("clusterSecurityGroupId", "clusterSecurityGroupId", output=True),
                Field("vpcId", "vpcId", output=True),
            ),
        ),
        Field(
            "kubernetesNetworkConfig",
            computed=True,
            fields=(
                Field("ipFamily", "ipFamily", computed=True),
                Field("serviceIpv4Cidr", "serviceIpv4Cidr", computed=True),
            ),
        ),
        Field(
            "enabledClusterLogTypes",
            unordered=True,
            codec=Codec(encode=_log_setups, decode=_enabled_logs, expects=list),
        ),
        Field(
            "encryptionConfig",
            fields=(
                Field("resources", "resources", required=True, unordered=True),
                Field("provider", "provider", required=True, fields=(Field("keyArn", "keyArn"),)),
            ),
        ),
        Field(
            "accessConfig",
            computed=True,
            untold=True,
            fields=(
                Field("authenticationMode", "authenticationMode", computed=True),
                Field(
                    "bootstrapClusterCreatorAdminPermissions",
                    "bootstrapClusterCreatorAdminPermissions",
                    computed=True,
                ),
            ),
        ),
        Field(
            "upgradePolicy",
            computed=True,
            untold=True,
            fields=(Field("supportType", "supportType", computed=True),),
        ),
        Field(
            "zonalShiftConfig", untold=True, fields=(Field("enabled", "enabled", default=False),)
        ),
        Field("deletionProtection", computed=True),
        Field("bootstrapSelfManagedAddons", default=True),
        Field("forceUpdateVersion", local_type=bool, default=False),
        Field(
            "identities",
            output=True,
            codec=Codec(decode=lambda identity: [{"oidcs": [identity["oidc"]]}]),
        ),
    ),
    autoname=Autoname("name", maximum=100),
    create=Call(
        "CreateCluster",
        {**_TOLD_OF_CLUSTER, "bootstrapSelfManagedAddons": "bootstrapSelfManagedAddons"},
        {"cluster.arn": "arn"},
        waiter="cluster_active",
    ),
    updates=(
        Call(
            "UpdateClusterVersion",
            {"name": "name", "version": "version", "force": "forceUpdateVersion"},
            finish=_with_any("version"),
            waiter="cluster_active",
            changed_only=True,
        ),
        _updating_cluster(
            "resourcesVpcConfig",
            "vpcConfig",
            _changed_members("endpointPrivateAccess", "endpointPublicAccess", "publicAccessCidrs"),
        ),
        _updating_cluster(
            "resourcesVpcConfig", "vpcConfig", _changed_members("subnetIds", "securityGroupIds")
        ),
        _updating_cluster("logging.clusterLogging", "enabledClusterLogTypes"),
        _updating_cluster("accessConfig", "accessConfig", _without_bootstrap),
        _updating_cluster("upgradePolicy", "upgradePolicy"),
        _updating_cluster("zonalShiftConfig", "zonalShiftConfig"),
        _updating_cluster("deletionProtection", "deletionProtection"),
    ),
    reads=(
        Call(
            "DescribeCluster",
            {"name": "name"},
            {
                **{f"cluster.{member}": name for member, name in _TOLD_OF_CLUSTER.items()},
                "cluster.arn": "arn",
                "cluster.endpoint": "endpoint",
                "cluster.certificateAuthority": "certificateAuthority",
                "cluster.identity": "identities",
                "cluster.platformVersion": "platformVersion",
                "cluster.status": "status",
            },
            absent=(_NOT_FOUND,),
        ),
    ),
    gone=lambda response: response["cluster"].get("status") == "DELETING",
    delete=Call("DeleteCluster", {"name": "name"}, absent=(_NOT_FOUND,), waiter="cluster_deleted"),
    tagging=_tagging(),
    computed=("arn", "endpoint", "certificateAuthority", "platformVersion", "status"),
    replacing=("accessConfig.bootstrapClusterCreatorAdminPermissions",),
)


def _label_changes(request: Members, properties: Properties) -> Members | None:
    old = properties[PREVIOUS].get("labels") or {}
    new = properties.get("labels") or {}
    changes = {
        "addOrUpdateLabels": {key: v for key, v in new.items() if old.get(key) != v},
        "removeLabels": sorted(old.keys() - new.keys()),
    }
    return request | {"labels": {name: value for name, value in changes.items() if value}}


def _taint_changes(request: Members, properties: Properties) -> Members | None:
    """EKS tells taints apart by key and effect."""
    old = _taints_by_identity(properties[PREVIOUS])
    new = _taints_by_identity(properties)
    changes = {
        "addOrUpdateTaints": [taint for key, taint in new.items() if old.get(key) != taint],
        "removeTaints": [taint for key, taint in old.items() if key not in new],
    }
    return request | {"taints": {name: value for name, value in changes.items() if value}}


def _taints_by_identity(properties: Properties) -> dict[tuple[str, str], Members]:
    return {(t["key"], t["effect"]): t for t in properties.get("taints") or []}


_GROUP = {"clusterName": "clusterName", "nodegroupName": "nodeGroupName"}


def _updating_group(
    *names: str,
    finish: Callable[[Members, Properties], Members | None] | None = None,
    also: tuple[str, ...] = (),
) -> Call:
    """EKS takes one change at a time."""
    request = {**_GROUP, **{name: name for name in names}}
    return Call(
        "UpdateNodegroupConfig", request, finish=finish, also=also, waiter="nodegroup_active"
    )


_TOLD_OF_GROUP = {
    **_GROUP,
    "nodeRole": "nodeRoleArn",
    "subnets": "subnetIds",
    "scalingConfig": "scalingConfig",
    "amiType": "amiType",
    "capacityType": "capacityType",
    "diskSize": "diskSize",
    "instanceTypes": "instanceTypes",
    "labels": "labels",
    "taints": "taints",
    "launchTemplate": "launchTemplate",
    "updateConfig": "updateConfig",
    "nodeRepairConfig": "nodeRepairConfig",
    "version": "version",
    "releaseVersion": "releaseVersion",
    "tags": "tags",
}

NODE_GROUP = Spec(
    type="aws:eks/nodeGroup:NodeGroup",
    service="eks",
    id="{clusterName}:{nodeGroupName}",
    fields=(
        Field("clusterName"),
        Field("nodeGroupName"),
        Field("nodeGroupNamePrefix", local_type=str),
        Field("nodeRoleArn"),
        Field("subnetIds", unordered=True),
        Field(
            "scalingConfig",
            required=True,
            fields=(
                Field("minSize", "minSize", required=True, minimum=0),
                Field("maxSize", "maxSize", required=True, minimum=1),
                Field("desiredSize", "desiredSize", required=True, minimum=0),
            ),
        ),
        Field("amiType", computed=True),
        Field("capacityType", computed=True),
        Field("diskSize", computed=True),
        Field("instanceTypes", computed=True),
        Field("labels", codec=MAP),
        Field(
            "taints",
            unordered=True,
            fields=(
                Field("key", "key", required=True),
                Field("value", "value", default=""),
                Field("effect", "effect", required=True),
            ),
        ),
        Field(
            "launchTemplate",
            fields=(
                Field("id", "id", computed=True),
                Field("name", "name", computed=True),
                Field("version", "version", required=True),
            ),
        ),
        Field(
            "updateConfig",
            computed=True,
            untold=True,
            fields=(
                Field("maxUnavailable", "maxUnavailable", computed=True),
                Field("maxUnavailablePercentage", "maxUnavailablePercentage", computed=True),
                Field("updateStrategy", "updateStrategy", computed=True),
            ),
        ),
        Field(
            "nodeRepairConfig",
            computed=True,
            untold=True,
            fields=(Field("enabled", "enabled"),),
        ),
        Field("version", computed=True),
        Field("releaseVersion", computed=True),
        Field("forceUpdateVersion", local_type=bool, default=False),
    ),
    autoname=Autoname("nodeGroupName", maximum=63, prefix_property="nodeGroupNamePrefix"),
    create=Call(
        "CreateNodegroup",
        _TOLD_OF_GROUP,
        {"nodegroup.nodegroupArn": "arn"},
        waiter="nodegroup_active",
    ),
    updates=(
        Call(
            "UpdateNodegroupVersion",
            {
                **_GROUP,
                "version": "version",
                "releaseVersion": "releaseVersion",
                "launchTemplate": "launchTemplate",
                "force": "forceUpdateVersion",
            },
            finish=_with_any("version", "releaseVersion", "launchTemplate"),
            waiter="nodegroup_active",
            changed_only=True,
        ),
        _updating_group("scalingConfig"),
        _updating_group("updateConfig"),
        _updating_group("nodeRepairConfig"),
        _updating_group(finish=_label_changes, also=("labels",)),
        _updating_group(finish=_taint_changes, also=("taints",)),
    ),
    reads=(
        Call(
            "DescribeNodegroup",
            _GROUP,
            {
                **{f"nodegroup.{member}": name for member, name in _TOLD_OF_GROUP.items()},
                "nodegroup.nodegroupArn": "arn",
                "nodegroup.status": "status",
            },
            absent=(_NOT_FOUND,),
        ),
    ),
    gone=lambda response: response["nodegroup"].get("status") == "DELETING",
    delete=Call("DeleteNodegroup", _GROUP, absent=(_NOT_FOUND,), waiter="nodegroup_deleted"),
    tagging=_tagging(),
    computed=("arn", "status"),
    replacing=("launchTemplate.id", "launchTemplate.name"),
    instead={"remoteAccess": "Session Manager, or an aws.ec2.LaunchTemplate"},
)


def _addon_outputs(properties: Properties, scope: Scope) -> Properties:
    if properties.get("arn"):
        return {}
    name = f"addon/{properties['clusterName']}/{properties['addonName']}/{uuid.uuid4()}"
    return {"arn": scope.arn("eks", name)}


_ADDON = {
    "clusterName": "clusterName",
    "addonName": "addonName",
    "addonVersion": "addonVersion",
    "configurationValues": "configurationValues",
    "serviceAccountRoleArn": "serviceAccountRoleArn",
    "podIdentityAssociations": "podIdentityAssociations",
}

ADDON = Spec(
    type="aws:eks/addon:Addon",
    service="eks",
    id="{clusterName}:{addonName}",
    fields=(
        Field("clusterName"),
        Field("addonName"),
        Field("addonVersion", computed=True),
        Field("configurationValues", computed=True, codec=JSON_DOCUMENT),
        Field("serviceAccountRoleArn"),
        Field(
            "podIdentityAssociations",
            unordered=True,
            fields=(
                Field("serviceAccount", "serviceAccount"),
                Field("roleArn", "roleArn"),
            ),
        ),
        Field("resolveConflictsOnCreate"),
        Field("resolveConflictsOnUpdate"),
        Field("preserve", local_type=bool, default=False),
    ),
    create=Call(
        "CreateAddon",
        {**_ADDON, "resolveConflicts": "resolveConflictsOnCreate", "tags": "tags"},
    ),
    updates=(Call("UpdateAddon", {**_ADDON, "resolveConflicts": "resolveConflictsOnUpdate"}),),
    reads=(),
    delete=Call("DeleteAddon", {"clusterName": "clusterName", "addonName": "addonName"}),
    tagging=_tagging(),
    derive=_addon_outputs,
    computed=("arn",),
    simulated=False,
)


def _entry_outputs(properties: Properties, scope: Scope) -> Properties:
    if properties.get("accessEntryArn"):
        return {}
    kind, _, name = properties["principalArn"].rpartition(":")[2].partition("/")
    place = f"{properties['clusterName']}/{kind}/{scope.account}/{name}/{uuid.uuid4()}"
    return {"accessEntryArn": scope.arn("eks", f"access-entry/{place}")}


_ENTRY = {
    "clusterName": "clusterName",
    "principalArn": "principalArn",
    "kubernetesGroups": "kubernetesGroups",
    "username": "userName",
}
_ENTRY_TYPES = ("STANDARD", "EC2_LINUX", "EC2_WINDOWS", "FARGATE_LINUX", "EC2", "HYBRID_LINUX")
_PRINCIPAL = (r"arn:[a-z-]+:iam::\d{12}:(user|role)/.+", "the ARN of an IAM user or role")

ACCESS_ENTRY = Spec(
    type="aws:eks/accessEntry:AccessEntry",
    service="eks",
    id="{clusterName}:{principalArn}",
    fields=(
        Field("clusterName"),
        Field("principalArn", pattern=_PRINCIPAL),
        Field("kubernetesGroups", computed=True, unordered=True),
        Field("userName", computed=True),
        Field("type", default="STANDARD", pattern=("|".join(_ENTRY_TYPES), "/".join(_ENTRY_TYPES))),
    ),
    create=Call("CreateAccessEntry", {**_ENTRY, "type": "type", "tags": "tags"}),
    updates=(Call("UpdateAccessEntry", _ENTRY),),
    reads=(),
    delete=Call(
        "DeleteAccessEntry", {"clusterName": "clusterName", "principalArn": "principalArn"}
    ),
    tagging=_tagging(),
    derive=_entry_outputs,
    computed=("accessEntryArn",),
    simulated=False,
)

_POLICY = {"clusterName": "clusterName", "principalArn": "principalArn", "policyArn": "policyArn"}

ACCESS_POLICY_ASSOCIATION = Spec(
    type="aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
    service="eks",
    id="{clusterName}#{principalArn}#{policyArn}",
    fields=(
        Field("clusterName"),
        Field("principalArn", pattern=_PRINCIPAL),
        Field(
            "policyArn",
            pattern=(
                r"arn:[a-z-]+:eks::aws:cluster-access-policy/\w+",
                "the ARN of an access policy of EKS",
            ),
        ),
        Field(
            "accessScope",
            fields=(
                Field("type", "type", required=True),
                Field("namespaces", "namespaces", unordered=True),
            ),
        ),
    ),
    create=Call("AssociateAccessPolicy", {**_POLICY, "accessScope": "accessScope"}),
    reads=(),
    delete=Call("DisassociateAccessPolicy", _POLICY),
    simulated=False,
    delete_first=True,
)


def _association_outputs(properties: Properties, scope: Scope) -> Properties:
    id_ = properties.get("associationId") or f"a-{uuid.uuid4().hex[:16]}"
    place = f"podidentityassociation/{properties['clusterName']}/{id_}"
    return {"associationId": id_, "associationArn": scope.arn("eks", place)}


POD_IDENTITY_ASSOCIATION = Spec(
    type="aws:eks/podIdentityAssociation:PodIdentityAssociation",
    service="eks",
    id="{associationId}",
    fields=(
        Field("clusterName"),
        Field("namespace"),
        Field("serviceAccount"),
        Field("roleArn"),
        Field("disableSessionTags", computed=True),
        Field("targetRoleArn"),
    ),
    create=Call(
        "CreatePodIdentityAssociation",
        {
            "clusterName": "clusterName",
            "namespace": "namespace",
            "serviceAccount": "serviceAccount",
            "roleArn": "roleArn",
            "disableSessionTags": "disableSessionTags",
            "targetRoleArn": "targetRoleArn",
            "tags": "tags",
        },
    ),
    updates=(
        Call(
            "UpdatePodIdentityAssociation",
            {
                "clusterName": "clusterName",
                "associationId": "associationId",
                "roleArn": "roleArn",
                "disableSessionTags": "disableSessionTags",
                "targetRoleArn": "targetRoleArn",
            },
        ),
    ),
    reads=(),
    delete=Call(
        "DeletePodIdentityAssociation",
        {"clusterName": "clusterName", "associationId": "associationId"},
    ),
    tagging=_tagging(),
    derive=_association_outputs,
    computed=("associationId", "associationArn"),
    replacing=("clusterName",),
    delete_first=True,
    simulated=False,
)

SPECS = (
    CLUSTER,
    NODE_GROUP,
    ADDON,
    ACCESS_ENTRY,
    ACCESS_POLICY_ASSOCIATION,
    POD_IDENTITY_ASSOCIATION,
)
