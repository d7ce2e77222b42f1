"""EC2's capacity reservations, which the local AWS server does not simulate."""

from __future__ import annotations

import uuid

from infra.local.adapters.aws_provider.ec2_common import EC2_TAGGING, creating
from infra.local.adapters.aws_provider.mapping import TIMESTAMP, Call, Field, Scope, Spec
from infra.local.adapters.property_values import Properties


def _reservation_outputs(properties: Properties, scope: Scope) -> Properties:
    id_ = properties.get("id") or f"cr-0{uuid.uuid4().hex[:16]}"
    return {
        "id": id_,
        "arn": scope.arn("ec2", f"capacity-reservation/{id_}"),
        "ownerId": scope.account,
    }


CAPACITY_RESERVATION = Spec(
    type="aws:ec2/capacityReservation:CapacityReservation",
    service="ec2",
    id="{id}",
    fields=(
        Field("instanceType"),
        Field("instancePlatform"),
        Field("availabilityZone", required=True),
        Field("instanceCount", minimum=1),
        Field("instanceMatchCriteria", default="open"),
        Field("ebsOptimized", default=False),
        Field("tenancy", default="default"),
        Field("endDateType", default="unlimited"),
        Field("endDate", codec=TIMESTAMP),
    ),
    create=creating(
        "CreateCapacityReservation",
        "capacity-reservation",
        {
            "InstanceType": "instanceType",
            "InstancePlatform": "instancePlatform",
            "AvailabilityZone": "availabilityZone",
            "InstanceCount": "instanceCount",
            "InstanceMatchCriteria": "instanceMatchCriteria",
            "EbsOptimized": "ebsOptimized",
            "Tenancy": "tenancy",
            "EndDateType": "endDateType",
            "EndDate": "endDate",
        },
        {"CapacityReservation.CapacityReservationId": "id"},
    ),
    updates=(
        Call(
            "ModifyCapacityReservation",
            {
                "CapacityReservationId": "id",
                "InstanceCount": "instanceCount",
                "EndDateType": "endDateType",
                "EndDate": "endDate",
            },
        ),
    ),
    reads=(),
    delete=Call("CancelCapacityReservation", {"CapacityReservationId": "id"}),
    tagging=EC2_TAGGING,
    derive=_reservation_outputs,
    computed=("arn", "ownerId"),
    simulated=False,
)

SPECS = (CAPACITY_RESERVATION,)
