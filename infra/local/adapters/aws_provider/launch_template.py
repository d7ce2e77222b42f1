"""EC2's launch templates, of which every change makes a new version."""

from __future__ import annotations

from typing import Any

from infra.local.adapters.aws_provider.ec2_common import (
    EC2_TAGGING,
    creating,
    describing,
    none_at,
)
from infra.local.adapters.aws_provider.mapping import (
    PREVIOUS,
    Autoname,
    Call,
    Codec,
    Field,
    Members,
    Spec,
    Tagging,
    tags_as_list,
)
from infra.local.adapters.property_values import Properties

_FLAG = Codec(
    encode=lambda value: value in (True, "true"),
    decode=lambda value: "true" if value else "false",
    canonical=lambda value: str(value).lower(),
    expects=(bool, str),
)
"""Programs write these flags as texts."""
_TRUE_OR_FALSE = ("true|false", "true or false")


def _of_instances(specifications: Any) -> Any:
    """moto counts the template's own tags among those of its instances."""
    return [s for s in specifications if s.get("ResourceType") != "launch-template"]


_DATA = {
    "BlockDeviceMappings": "blockDeviceMappings",
    "CapacityReservationSpecification": "capacityReservationSpecification",
    "EbsOptimized": "ebsOptimized",
    "ImageId": "imageId",
    "InstanceType": "instanceType",
    "MetadataOptions": "metadataOptions",
    "Monitoring": "monitoring",
    "SecurityGroupIds": "vpcSecurityGroupIds",
    "TagSpecifications": "tagSpecifications",
    "UserData": "userData",
}
_VERSION = {
    "VersionDescription": "description",
    **{f"LaunchTemplateData.{member}": name for member, name in _DATA.items()},
}
_LATEST = "LaunchTemplateVersions[0]"


def _newest_as_default(request: Members, properties: Properties) -> Members | None:
    if PREVIOUS not in properties or not properties.get("updateDefaultVersion"):
        return None
    return request | {"DefaultVersion": str(properties["latestVersion"])}


LAUNCH_TEMPLATE = Spec(
    type="aws:ec2/launchTemplate:LaunchTemplate",
    service="ec2",
    id="{id}",
    fields=(
        Field("name"),
        Field("namePrefix", local_type=str),
        Field("description"),
        Field("updateDefaultVersion", local_type=bool, default=False),
        Field(
            "blockDeviceMappings",
            fields=(
                Field("deviceName", "DeviceName"),
                Field(
                    "ebs",
                    "Ebs",
                    fields=(
                        Field(
                            "deleteOnTermination",
                            "DeleteOnTermination",
                            codec=_FLAG,
                            pattern=_TRUE_OR_FALSE,
                        ),
                        Field("encrypted", "Encrypted", codec=_FLAG, pattern=_TRUE_OR_FALSE),
                        Field("iops", "Iops", computed=True),
                        Field("kmsKeyId", "KmsKeyId"),
                        Field("throughput", "Throughput", computed=True),
                        Field("volumeSize", "VolumeSize", minimum=1),
                        Field("volumeType", "VolumeType", computed=True),
                    ),
                ),
            ),
        ),
        Field(
            "capacityReservationSpecification",
            fields=(
                Field("capacityReservationPreference", "CapacityReservationPreference"),
                Field(
                    "capacityReservationTarget",
                    "CapacityReservationTarget",
                    fields=(Field("capacityReservationId", "CapacityReservationId"),),
                ),
            ),
        ),
        Field("ebsOptimized", codec=_FLAG, pattern=_TRUE_OR_FALSE),
        Field("imageId"),
        Field("instanceType"),
        Field(
            "metadataOptions",
            fields=(
                Field("httpEndpoint", "HttpEndpoint", computed=True),
                Field("httpProtocolIpv6", "HttpProtocolIpv6", computed=True),
                Field("httpPutResponseHopLimit", "HttpPutResponseHopLimit", computed=True),
                Field("httpTokens", "HttpTokens", computed=True),
                Field("instanceMetadataTags", "InstanceMetadataTags", computed=True),
            ),
        ),
        Field("monitoring", fields=(Field("enabled", "Enabled"),)),
        Field("vpcSecurityGroupIds", unordered=True),
        Field(
            "tagSpecifications",
            codec=Codec(decode=_of_instances),
            fields=(
                Field("resourceType", "ResourceType"),
                Field("tags", "Tags", codec=tags_as_list()),
            ),
        ),
        Field("userData"),
    ),
    autoname=Autoname("name", maximum=125, prefix_property="namePrefix"),
    create=creating(
        "CreateLaunchTemplate",
        "launch-template",
        {"LaunchTemplateName": "name", **_VERSION},
        {"LaunchTemplate.LaunchTemplateId": "id"},
    ),
    updates=(
        Call(
            "CreateLaunchTemplateVersion",
            {"LaunchTemplateId": "id", **_VERSION},
            {"LaunchTemplateVersion.VersionNumber": "latestVersion"},
        ),
        Call(
            "ModifyLaunchTemplate",
            {"LaunchTemplateId": "id"},
            finish=_newest_as_default,
            also=("updateDefaultVersion", *_VERSION.values()),
        ),
    ),
    reads=(
        describing(
            "DescribeLaunchTemplates",
            "LaunchTemplateIds",
            {
                "LaunchTemplates[0].LaunchTemplateName": "name",
                "LaunchTemplates[0].LatestVersionNumber": "latestVersion",
                "LaunchTemplates[0].DefaultVersionNumber": "defaultVersion",
            },
            "InvalidLaunchTemplateId.NotFound",
        ),
        Call(
            "DescribeLaunchTemplateVersions",
            {"LaunchTemplateId": "id"},
            {
                f"{_LATEST}.VersionDescription": "description",
                **{f"{_LATEST}.LaunchTemplateData.{m}": name for m, name in _DATA.items()},
            },
            constants={"Versions": ["$Latest"]},
        ),
    ),
    gone=none_at("LaunchTemplates"),
    delete=Call(
        "DeleteLaunchTemplate",
        {"LaunchTemplateId": "id"},
        absent=("InvalidLaunchTemplateId.NotFound", "InvalidLaunchTemplateName.NotFoundException"),
    ),
    # moto tells with the template only the tags that it was created with.
    tagging=Tagging(
        read=Call(
            "DescribeTags",
            {"Filters[0].Values[0]": "id"},
            {"Tags": "tags"},
            constants={"Filters[0].Name": "resource-id"},
        ),
        put=EC2_TAGGING.put,
        remove=EC2_TAGGING.remove,
    ),
    derive=lambda properties, scope: {
        "arn": scope.arn("ec2", f"launch-template/{properties['id']}")
    },
    computed=("arn", "latestVersion", "defaultVersion"),
    renewed=("latestVersion", "defaultVersion"),
)

SPECS = (LAUNCH_TEMPLATE,)
