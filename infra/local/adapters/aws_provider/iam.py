"""IAM: roles and their policies."""

from __future__ import annotations

from botocore.client import BaseClient

from infra.local.adapters.aws_provider.ec2_common import none_at
from infra.local.adapters.aws_provider.mapping import (
    JSON_DOCUMENT,
    TIMESTAMP,
    Autoname,
    Call,
    Field,
    Members,
    Spec,
    Tagging,
)
from infra.local.adapters.property_values import Properties

_NOT_FOUND = "NoSuchEntity"


def _with_description(request: Members, properties: Properties) -> Members:
    """An absent description would leave the old one."""
    del properties
    request.setdefault("Description", "")
    return request


def _detach_policies(client: BaseClient, properties: Properties) -> None:
    """With `forceDetachPolicies`, takes away the policies that others gave the role."""
    if not properties.get("forceDetachPolicies"):
        return
    role = properties["name"]
    for page in client.get_paginator("list_attached_role_policies").paginate(RoleName=role):
        for policy in page["AttachedPolicies"]:
            client.detach_role_policy(RoleName=role, PolicyArn=policy["PolicyArn"])
    for page in client.get_paginator("list_role_policies").paginate(RoleName=role):
        for name in page["PolicyNames"]:
            client.delete_role_policy(RoleName=role, PolicyName=name)


ROLE = Spec(
    type="aws:iam/role:Role",
    service="iam",
    id="{name}",
    fields=(
        Field("name", pattern=(r"[\w+=,.@-]{1,64}", "1 to 64 of letters, digits and _+=,.@-")),
        Field("namePrefix", local_type=str),
        Field("path", default="/"),
        Field("assumeRolePolicy", codec=JSON_DOCUMENT),
        Field("description"),
        Field("maxSessionDuration", default=3600, minimum=3600),
        Field("permissionsBoundary"),
        Field("forceDetachPolicies", local_type=bool, default=False),
        Field("createDate", output=True, codec=TIMESTAMP),
    ),
    autoname=Autoname("name", maximum=64, prefix_property="namePrefix"),
    create=Call(
        "CreateRole",
        {
            "RoleName": "name",
            "Path": "path",
            "AssumeRolePolicyDocument": "assumeRolePolicy",
            "Description": "description",
            "MaxSessionDuration": "maxSessionDuration",
            "PermissionsBoundary": "permissionsBoundary",
            "Tags": "tags",
        },
        waiter="role_exists",
    ),
    updates=(
        Call("UpdateAssumeRolePolicy", {"RoleName": "name", "PolicyDocument": "assumeRolePolicy"}),
        Call(
            "UpdateRole",
            {
                "RoleName": "name",
                "Description": "description",
                "MaxSessionDuration": "maxSessionDuration",
            },
            finish=_with_description,
        ),
        Call(
            "PutRolePermissionsBoundary",
            {"RoleName": "name", "PermissionsBoundary": "permissionsBoundary"},
        ),
    ),
    reads=(
        Call(
            "GetRole",
            {"RoleName": "name"},
            {
                "Role.Arn": "arn",
                "Role.RoleName": "name",
                "Role.Path": "path",
                "Role.RoleId": "uniqueId",
                "Role.CreateDate": "createDate",
                "Role.AssumeRolePolicyDocument": "assumeRolePolicy",
                "Role.Description": "description",
                "Role.MaxSessionDuration": "maxSessionDuration",
                "Role.PermissionsBoundary.PermissionsBoundaryArn": "permissionsBoundary",
                "Role.Tags": "tags",
            },
            absent=(_NOT_FOUND,),
        ),
    ),
    before_delete=_detach_policies,
    delete=Call("DeleteRole", {"RoleName": "name"}, absent=(_NOT_FOUND,)),
    tagging=Tagging(
        read=None,
        put=Call("TagRole", {"RoleName": "name", "Tags": "tags"}),
        remove=Call("UntagRole", {"RoleName": "name", "TagKeys": "removedTagKeys"}),
    ),
    computed=("arn", "uniqueId"),
    regional=False,
    instead={
        "inlinePolicies": "aws.iam.RolePolicy",
        "managedPolicyArns": "aws.iam.RolePolicyAttachment",
    },
)

_PUT_POLICY = Call(
    "PutRolePolicy", {"RoleName": "role", "PolicyName": "name", "PolicyDocument": "policy"}
)

ROLE_POLICY = Spec(
    type="aws:iam/rolePolicy:RolePolicy",
    service="iam",
    id="{role}:{name}",
    fields=(
        Field("role"),
        Field("name"),
        Field("namePrefix", local_type=str),
        Field("policy", codec=JSON_DOCUMENT),
    ),
    autoname=Autoname("name", maximum=128, prefix_property="namePrefix"),
    create=_PUT_POLICY,
    updates=(_PUT_POLICY,),
    reads=(
        Call(
            "GetRolePolicy",
            {"RoleName": "role", "PolicyName": "name"},
            {"PolicyDocument": "policy"},
            absent=(_NOT_FOUND,),
        ),
    ),
    delete=Call(
        "DeleteRolePolicy", {"RoleName": "role", "PolicyName": "name"}, absent=(_NOT_FOUND,)
    ),
    regional=False,
)

_ATTACHMENT = {"RoleName": "role", "PolicyArn": "policyArn"}

ROLE_POLICY_ATTACHMENT = Spec(
    type="aws:iam/rolePolicyAttachment:RolePolicyAttachment",
    service="iam",
    id="{role}/{policyArn}",
    fields=(Field("role"), Field("policyArn")),
    create=Call("AttachRolePolicy", _ATTACHMENT),
    reads=(
        Call(
            "ListAttachedRolePolicies",
            {"RoleName": "role"},
            {"AttachedPolicies[0].PolicyArn": "policyArn"},
            only=("AttachedPolicies", {"PolicyArn": "policyArn"}),
            absent=(_NOT_FOUND,),
        ),
    ),
    gone=none_at("AttachedPolicies"),
    delete=Call("DetachRolePolicy", _ATTACHMENT, absent=(_NOT_FOUND,)),
    regional=False,
)

SPECS = (ROLE, ROLE_POLICY, ROLE_POLICY_ATTACHMENT)
