"""EC2's security groups and their rules."""

from __future__ import annotations

from botocore.client import BaseClient

from infra.local.adapters.aws_provider.ec2_common import (
    EC2_TAGGING,
    Finish,
    creating,
    describing,
    none_at,
    tagged,
)
from infra.local.adapters.aws_provider.mapping import Autoname, Call, Field, Members, Spec
from infra.local.adapters.property_values import Properties

_NO_GROUP = ("InvalidGroup.NotFound", "InvalidGroupId.NotFound")


def _revoke_the_default_rule(client: BaseClient, properties: Properties) -> None:
    """As the released provider does: a group allows only what the program states."""
    everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    client.revoke_security_group_egress(GroupId=properties["id"], IpPermissions=everything)


SECURITY_GROUP = Spec(
    type="aws:ec2/securityGroup:SecurityGroup",
    service="ec2",
    id="{id}",
    fields=(
        Field("name"),
        Field("namePrefix", local_type=str),
        Field("description", default="Managed by Pulumi"),
        Field("vpcId", required=True),
        Field("revokeRulesOnDelete", local_type=bool, default=False),
    ),
    autoname=Autoname("name", maximum=255, prefix_property="namePrefix"),
    create=creating(
        "CreateSecurityGroup",
        "security-group",
        {"GroupName": "name", "Description": "description", "VpcId": "vpcId"},
        {"GroupId": "id"},
    ),
    reads=(
        describing(
            "DescribeSecurityGroups",
            "GroupIds",
            {
                "SecurityGroups[0].GroupName": "name",
                "SecurityGroups[0].Description": "description",
                "SecurityGroups[0].VpcId": "vpcId",
                "SecurityGroups[0].OwnerId": "ownerId",
                "SecurityGroups[0].Tags": "tags",
            },
            _NO_GROUP[0],
        ),
    ),
    gone=none_at("SecurityGroups"),
    after_create=_revoke_the_default_rule,
    delete=Call("DeleteSecurityGroup", {"GroupId": "id"}, absent=_NO_GROUP),
    tagging=EC2_TAGGING,
    derive=lambda properties, scope: {
        "arn": scope.arn("ec2", f"security-group/{properties['id']}")
    },
    computed=("arn", "ownerId"),
    instead={
        "ingress": "aws.vpc.SecurityGroupIngressRule",
        "egress": "aws.vpc.SecurityGroupEgressRule",
    },
)

_PERMISSION = {
    "GroupId": "securityGroupId",
    "IpPermissions[0].IpProtocol": "ipProtocol",
    "IpPermissions[0].FromPort": "fromPort",
    "IpPermissions[0].ToPort": "toPort",
    "IpPermissions[0].IpRanges[0].CidrIp": "cidrIpv4",
    "IpPermissions[0].Ipv6Ranges[0].CidrIpv6": "cidrIpv6",
    "IpPermissions[0].PrefixListIds[0].PrefixListId": "prefixListId",
    "IpPermissions[0].UserIdGroupPairs[0].GroupId": "referencedSecurityGroupId",
}
_RULE = {
    "IpProtocol": "ipProtocol",
    "FromPort": "fromPort",
    "ToPort": "toPort",
    "CidrIpv4": "cidrIpv4",
    "CidrIpv6": "cidrIpv6",
    "PrefixListId": "prefixListId",
    "Description": "description",
}
_NO_RULE = "InvalidSecurityGroupRuleId.NotFound"


def _described(kind: str) -> Finish:
    """A rule's description belongs to the one range or group that it is about."""
    add_tags = tagged(kind)

    def finish(request: Members, properties: Properties) -> Members | None:
        for ranges in request["IpPermissions"][0].values():
            if isinstance(ranges, list) and properties.get("description"):
                ranges[0]["Description"] = properties["description"]
        return add_tags(request, properties)

    return finish


def _rule(direction: str) -> Spec:
    """Rules of security groups: `Ingress` or `Egress`."""
    authorize = Call(
        f"AuthorizeSecurityGroup{direction}",
        _PERMISSION,
        {"SecurityGroupRules[0].SecurityGroupRuleId": "id"},
        finish=_described("security-group-rule"),
        also=("tags", "description"),
    )
    changed = {f"SecurityGroupRules[0].SecurityGroupRule.{m}": n for m, n in _RULE.items()}
    return Spec(
        type=f"aws:vpc/securityGroup{direction}Rule:SecurityGroup{direction}Rule",
        service="ec2",
        id="{id}",
        fields=(
            Field("securityGroupId", required=True),
            Field("ipProtocol", required=True),
            Field("fromPort", computed=True),
            Field("toPort", computed=True),
            Field("cidrIpv4"),
            Field("cidrIpv6"),
            Field("prefixListId"),
            Field("referencedSecurityGroupId"),
            Field("description"),
        ),
        create=authorize,
        updates=(
            Call(
                "ModifySecurityGroupRules",
                {
                    "GroupId": "securityGroupId",
                    "SecurityGroupRules[0].SecurityGroupRuleId": "id",
                    "SecurityGroupRules[0].SecurityGroupRule.ReferencedGroupId": (
                        "referencedSecurityGroupId"
                    ),
                    **changed,
                },
            ),
        ),
        reads=(
            describing(
                "DescribeSecurityGroupRules",
                "SecurityGroupRuleIds",
                {
                    "SecurityGroupRules[0].GroupId": "securityGroupId",
                    "SecurityGroupRules[0].SecurityGroupRuleId": "securityGroupRuleId",
                    "SecurityGroupRules[0].ReferencedGroupInfo.GroupId": (
                        "referencedSecurityGroupId"
                    ),
                    **{f"SecurityGroupRules[0].{m}": n for m, n in _RULE.items()},
                    "SecurityGroupRules[0].Tags": "tags",
                },
                _NO_RULE,
            ),
        ),
        gone=none_at("SecurityGroupRules"),
        delete=Call(
            f"RevokeSecurityGroup{direction}",
            {"GroupId": "securityGroupId", "SecurityGroupRuleIds[0]": "id"},
            absent=(_NO_RULE, *_NO_GROUP),
        ),
        tagging=EC2_TAGGING,
        derive=lambda properties, scope: {
            "arn": scope.arn("ec2", f"security-group-rule/{properties['id']}")
        },
        computed=("arn", "securityGroupRuleId"),
        replacing=("securityGroupId",),
    )


INGRESS_RULE = _rule("Ingress")
EGRESS_RULE = _rule("Egress")

SPECS = (SECURITY_GROUP, INGRESS_RULE, EGRESS_RULE)
