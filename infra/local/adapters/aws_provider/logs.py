"""CloudWatch Logs: log groups."""

from __future__ import annotations

from infra.local.adapters.aws_provider.ec2_common import none_at
from infra.local.adapters.aws_provider.mapping import (
    KEY_REFERENCE,
    MAP,
    PREVIOUS,
    Autoname,
    Call,
    Field,
    Members,
    Spec,
    Tagging,
)
from infra.local.adapters.property_values import Properties

_NOT_FOUND = "ResourceNotFoundException"


def _limited(request: Members, properties: Properties) -> Members | None:
    return request if properties.get("retentionInDays") else None


def _with_key(request: Members, properties: Properties) -> Members | None:
    return request if properties.get("kmsKeyId") else None


def _without_key(request: Members, properties: Properties) -> Members | None:
    had = properties.get(PREVIOUS, {}).get("kmsKeyId")
    return request if had and not properties.get("kmsKeyId") else None


LOG_GROUP = Spec(
    type="aws:cloudwatch/logGroup:LogGroup",
    service="logs",
    id="{name}",
    fields=(
        Field("name"),
        Field("namePrefix", local_type=str),
        Field("retentionInDays", default=0),
        Field("kmsKeyId", codec=KEY_REFERENCE),
        Field("logGroupClass", computed=True),
    ),
    autoname=Autoname("name", maximum=512, prefix_property="namePrefix"),
    create=Call(
        "CreateLogGroup",
        {
            "logGroupName": "name",
            "kmsKeyId": "kmsKeyId",
            "logGroupClass": "logGroupClass",
            "tags": "tags",
        },
    ),
    updates=(
        Call(
            "PutRetentionPolicy",
            {"logGroupName": "name", "retentionInDays": "retentionInDays"},
            finish=_limited,
        ),
        # For ever.
        Call("DeleteRetentionPolicy", {"logGroupName": "name"}, when=("retentionInDays", 0)),
        Call("AssociateKmsKey", {"logGroupName": "name", "kmsKeyId": "kmsKeyId"}, finish=_with_key),
        Call(
            "DisassociateKmsKey", {"logGroupName": "name"}, finish=_without_key, also=("kmsKeyId",)
        ),
    ),
    reads=(
        Call(
            "DescribeLogGroups",
            {"logGroupNamePrefix": "name"},
            {
                "logGroups[0].logGroupName": "name",
                "logGroups[0].logGroupArn": "arn",
                "logGroups[0].retentionInDays": "retentionInDays",
                "logGroups[0].kmsKeyId": "kmsKeyId",
                "logGroups[0].logGroupClass": "logGroupClass",
            },
            only=("logGroups", {"logGroupName": "name"}),
        ),
    ),
    gone=none_at("logGroups"),
    delete=Call("DeleteLogGroup", {"logGroupName": "name"}, absent=(_NOT_FOUND,)),
    tagging=Tagging(
        read=Call("ListTagsForResource", {"resourceArn": "arn"}, {"tags": "tags"}),
        put=Call("TagResource", {"resourceArn": "arn", "tags": "tags"}),
        remove=Call("UntagResource", {"resourceArn": "arn", "tagKeys": "removedTagKeys"}),
        codec=MAP,
    ),
    computed=("arn",),
)

SPECS = (LOG_GROUP,)
