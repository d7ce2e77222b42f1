"""How the instances of node groups start."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

import pulumi
from pulumi_aws import ec2

from voicemesh.component import child_options

# https://docs.aws.amazon.com/eks/latest/userguide/launch-templates.html
_AL2023_ROOT_DEVICE: Final = "/dev/xvda"


def declare_launch_template(
    parent: pulumi.Resource,
    name: str,
    *,
    root_volume_gib: int,
    tags: Mapping[str, str],
    user_data: str | None = None,
    capacity_reservation_id: pulumi.Input[str] | None = None,
) -> ec2.LaunchTemplate:
    """A template with an encrypted root volume and instance metadata that pods do not reach."""
    named = {**tags, "Name": name}
    return ec2.LaunchTemplate(
        name,
        update_default_version=True,
        block_device_mappings=[
            {
                "device_name": _AL2023_ROOT_DEVICE,
                "ebs": {
                    "volume_type": "gp3",
                    "volume_size": root_volume_gib,
                    "encrypted": "true",
                    "delete_on_termination": "true",
                },
            }
        ],
        # One hop ends at the node: pods take their role from Pod Identity, not from the instance.
        metadata_options={
            "http_endpoint": "enabled",
            "http_tokens": "required",
            "http_put_response_hop_limit": 1,
        },
        capacity_reservation_specification=(
            {"capacity_reservation_target": {"capacity_reservation_id": capacity_reservation_id}}
            if capacity_reservation_id is not None
            else None
        ),
        user_data=base64.b64encode(user_data.encode()).decode() if user_data else None,
        tag_specifications=[
            {"resource_type": kind, "tags": named} for kind in ("instance", "volume")
        ],
        tags=tags,
        opts=child_options(parent),
    )
