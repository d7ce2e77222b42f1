"""KMS: keys and their aliases."""

from __future__ import annotations

from infra.local.adapters.aws_provider.mapping import (
    JSON_DOCUMENT,
    KEY_REFERENCE,
    Autoname,
    Call,
    Field,
    Scope,
    Spec,
    Tagging,
    tags_as_list,
)
from infra.local.adapters.property_values import Properties

_NOT_FOUND = "NotFoundException"
_LEAVING = ("PendingDeletion", "PendingReplicaDeletion")

KEY = Spec(
    type="aws:kms/key:Key",
    service="kms",
    id="{keyId}",
    fields=(
        Field("description", default=""),
        Field("keyUsage", computed=True),
        Field("customerMasterKeySpec", computed=True),
        Field("multiRegion", computed=True),
        Field("policy", computed=True, codec=JSON_DOCUMENT),
        Field("bypassPolicyLockoutSafetyCheck", default=False),
        Field("enableKeyRotation", local_type=bool, default=False),
        Field("rotationPeriodInDays", computed=True, minimum=90),
        Field("isEnabled", local_type=bool, default=True),
        Field("deletionWindowInDays", local_type=int, minimum=7, default=30),
    ),
    create=Call(
        "CreateKey",
        {
            "Description": "description",
            "KeyUsage": "keyUsage",
            "KeySpec": "customerMasterKeySpec",
            "MultiRegion": "multiRegion",
            "Policy": "policy",
            "BypassPolicyLockoutSafetyCheck": "bypassPolicyLockoutSafetyCheck",
            "Tags": "tags",
        },
        {"KeyMetadata.KeyId": "keyId"},
    ),
    updates=(
        Call("UpdateKeyDescription", {"KeyId": "keyId", "Description": "description"}),
        Call(
            "PutKeyPolicy",
            {
                "KeyId": "keyId",
                "Policy": "policy",
                "BypassPolicyLockoutSafetyCheck": "bypassPolicyLockoutSafetyCheck",
            },
            constants={"PolicyName": "default"},
        ),
        # A disabled key's rotation cannot be changed.
        Call("EnableKey", {"KeyId": "keyId"}, when=("isEnabled", True)),
        Call(
            "EnableKeyRotation",
            {"KeyId": "keyId", "RotationPeriodInDays": "rotationPeriodInDays"},
            when=("enableKeyRotation", True),
        ),
        Call("DisableKeyRotation", {"KeyId": "keyId"}, when=("enableKeyRotation", False)),
        Call("DisableKey", {"KeyId": "keyId"}, when=("isEnabled", False)),
    ),
    reads=(
        Call(
            "DescribeKey",
            {"KeyId": "keyId"},
            {
                "KeyMetadata.Arn": "arn",
                "KeyMetadata.KeyId": "keyId",
                "KeyMetadata.Description": "description",
                "KeyMetadata.KeyUsage": "keyUsage",
                "KeyMetadata.KeySpec": "customerMasterKeySpec",
                "KeyMetadata.MultiRegion": "multiRegion",
                "KeyMetadata.Enabled": "isEnabled",
            },
            absent=(_NOT_FOUND,),
        ),
        Call(
            "GetKeyRotationStatus",
            {"KeyId": "keyId"},
            {
                "KeyRotationEnabled": "enableKeyRotation",
                "RotationPeriodInDays": "rotationPeriodInDays",
            },
            absent=("UnsupportedOperationException",),
        ),
        Call(
            "GetKeyPolicy",
            {"KeyId": "keyId"},
            {"Policy": "policy"},
            constants={"PolicyName": "default"},
        ),
    ),
    gone=lambda response: response["KeyMetadata"].get("KeyState") in _LEAVING,
    delete=Call(
        "ScheduleKeyDeletion",
        {"KeyId": "keyId", "PendingWindowInDays": "deletionWindowInDays"},
        absent=(_NOT_FOUND,),
    ),
    tagging=Tagging(
        read=Call("ListResourceTags", {"KeyId": "keyId"}, {"Tags": "tags"}),
        put=Call("TagResource", {"KeyId": "keyId", "Tags": "tags"}),
        remove=Call("UntagResource", {"KeyId": "keyId", "TagKeys": "removedTagKeys"}),
        codec=tags_as_list("TagKey", "TagValue"),
    ),
    computed=("arn", "keyId"),
)


def _alias_outputs(properties: Properties, scope: Scope) -> Properties:
    del scope
    return {"arn": f"{properties['targetKeyArn'].rpartition(':')[0]}:{properties['name']}"}


ALIAS = Spec(
    type="aws:kms/alias:Alias",
    service="kms",
    id="{name}",
    fields=(
        Field("name", pattern=(r"alias/[a-zA-Z0-9/_-]+", '"alias/" and then letters, digits, /_-')),
        Field("namePrefix", local_type=str),
        Field("targetKeyId", codec=KEY_REFERENCE),
    ),
    autoname=Autoname("name", maximum=256, prefix="alias/", prefix_property="namePrefix"),
    create=Call("CreateAlias", {"AliasName": "name", "TargetKeyId": "targetKeyId"}),
    updates=(Call("UpdateAlias", {"AliasName": "name", "TargetKeyId": "targetKeyId"}),),
    reads=(
        Call(
            "DescribeKey",
            {"KeyId": "name"},
            {"KeyMetadata.KeyId": "targetKeyId", "KeyMetadata.Arn": "targetKeyArn"},
            absent=(_NOT_FOUND,),
        ),
    ),
    delete=Call("DeleteAlias", {"AliasName": "name"}, absent=(_NOT_FOUND,)),
    derive=_alias_outputs,
    computed=("arn", "targetKeyArn"),
)

SPECS = (KEY, ALIAS)
