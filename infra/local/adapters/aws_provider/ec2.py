"""EC2's networks: VPCs, and what is in them but security groups."""

from __future__ import annotations

from botocore.client import BaseClient

from infra.local.adapters.aws_provider.ec2_common import (
    EC2_TAGGING,
    creating,
    describing,
    in_state,
    list_changes,
    none_at,
)
from infra.local.adapters.aws_provider.mapping import (
    JSON_DOCUMENT,
    PREVIOUS,
    Call,
    Codec,
    Field,
    Members,
    Scope,
    Spec,
)
from infra.local.adapters.property_values import Properties

_DESCRIBE_TABLES = "DescribeRouteTables"
_NO_TABLE = "InvalidRouteTableID.NotFound"


def _of_vpc(operation: str, response: dict[str, str], *more: tuple[str, str]) -> Call:
    """A reading of what a VPC got by itself: by the VPC's id and further filters."""

    def finish(request: Members, properties: Properties) -> Members:
        del properties
        request["Filters"] += [{"Name": name, "Values": [value]} for name, value in more]
        return request

    return Call(
        operation,
        {"Filters[0].Values[0]": "id"},
        response,
        constants={"Filters[0].Name": "vpc-id"},
        finish=finish,
    )


def _vpc_outputs(properties: Properties, scope: Scope) -> Properties:
    return {
        "arn": scope.arn("ec2", f"vpc/{properties['id']}"),
        "defaultRouteTableId": properties.get("mainRouteTableId"),
    }


VPC = Spec(
    type="aws:ec2/vpc:Vpc",
    service="ec2",
    id="{id}",
    fields=(
        Field("cidrBlock", required=True),
        Field("instanceTenancy", default="default"),
        Field("enableDnsSupport", default=True),
        Field("enableDnsHostnames", default=False),
    ),
    create=creating(
        "CreateVpc",
        "vpc",
        {"CidrBlock": "cidrBlock", "InstanceTenancy": "instanceTenancy"},
        {"Vpc.VpcId": "id"},
        waiter="vpc_available",
    ),
    # One attribute a call.
    updates=tuple(
        Call("ModifyVpcAttribute", {"VpcId": "id", f"{member}.Value": name})
        for member, name in (
            ("EnableDnsSupport", "enableDnsSupport"),
            ("EnableDnsHostnames", "enableDnsHostnames"),
        )
    ),
    reads=(
        describing(
            "DescribeVpcs",
            "VpcIds",
            {
                "Vpcs[0].CidrBlock": "cidrBlock",
                "Vpcs[0].InstanceTenancy": "instanceTenancy",
                "Vpcs[0].OwnerId": "ownerId",
                "Vpcs[0].DhcpOptionsId": "dhcpOptionsId",
                "Vpcs[0].Tags": "tags",
            },
            "InvalidVpcID.NotFound",
        ),
        *(
            Call(
                "DescribeVpcAttribute",
                {"VpcId": "id"},
                {f"{member}.Value": name},
                constants={"Attribute": name},
            )
            for member, name in (
                ("EnableDnsSupport", "enableDnsSupport"),
                ("EnableDnsHostnames", "enableDnsHostnames"),
            )
        ),
        _of_vpc(
            _DESCRIBE_TABLES,
            {"RouteTables[0].RouteTableId": "mainRouteTableId"},
            ("association.main", "true"),
        ),
        _of_vpc(
            "DescribeSecurityGroups",
            {"SecurityGroups[0].GroupId": "defaultSecurityGroupId"},
            ("group-name", "default"),
        ),
        _of_vpc(
            "DescribeNetworkAcls",
            {"NetworkAcls[0].NetworkAclId": "defaultNetworkAclId"},
            ("default", "true"),
        ),
    ),
    gone=none_at("Vpcs"),
    delete=Call("DeleteVpc", {"VpcId": "id"}, absent=("InvalidVpcID.NotFound",)),
    tagging=EC2_TAGGING,
    derive=_vpc_outputs,
    computed=(
        "arn",
        "ownerId",
        "dhcpOptionsId",
        "mainRouteTableId",
        "defaultRouteTableId",
        "defaultSecurityGroupId",
        "defaultNetworkAclId",
    ),
)

_NO_SUBNET = "InvalidSubnetID.NotFound"

SUBNET = Spec(
    type="aws:ec2/subnet:Subnet",
    service="ec2",
    id="{id}",
    fields=(
        Field("vpcId"),
        Field("cidrBlock", required=True),
        Field("availabilityZone", computed=True),
        Field("mapPublicIpOnLaunch", default=False),
    ),
    create=creating(
        "CreateSubnet",
        "subnet",
        {"VpcId": "vpcId", "CidrBlock": "cidrBlock", "AvailabilityZone": "availabilityZone"},
        {"Subnet.SubnetId": "id"},
        waiter="subnet_available",
    ),
    updates=(
        Call(
            "ModifySubnetAttribute",
            {"SubnetId": "id", "MapPublicIpOnLaunch.Value": "mapPublicIpOnLaunch"},
        ),
    ),
    reads=(
        describing(
            "DescribeSubnets",
            "SubnetIds",
            {
                "Subnets[0].VpcId": "vpcId",
                "Subnets[0].CidrBlock": "cidrBlock",
                "Subnets[0].AvailabilityZone": "availabilityZone",
                "Subnets[0].AvailabilityZoneId": "availabilityZoneId",
                "Subnets[0].MapPublicIpOnLaunch": "mapPublicIpOnLaunch",
                "Subnets[0].SubnetArn": "arn",
                "Subnets[0].OwnerId": "ownerId",
                "Subnets[0].Tags": "tags",
            },
            _NO_SUBNET,
        ),
    ),
    gone=none_at("Subnets"),
    delete=Call("DeleteSubnet", {"SubnetId": "id"}, absent=(_NO_SUBNET,)),
    tagging=EC2_TAGGING,
    computed=("arn", "ownerId", "availabilityZoneId"),
)

_NO_GATEWAY = "InvalidInternetGatewayID.NotFound"


def _from_previous_vpc(request: Members, properties: Properties) -> Members | None:
    attached = properties.get(PREVIOUS, {}).get("vpcId")
    return request | {"VpcId": attached} if attached else None


def _detach_gateway(client: BaseClient, properties: Properties) -> None:
    if properties.get("vpcId"):
        client.detach_internet_gateway(
            InternetGatewayId=properties["id"], VpcId=properties["vpcId"]
        )


INTERNET_GATEWAY = Spec(
    type="aws:ec2/internetGateway:InternetGateway",
    service="ec2",
    id="{id}",
    fields=(Field("vpcId"),),
    create=creating(
        "CreateInternetGateway",
        "internet-gateway",
        {},
        {"InternetGateway.InternetGatewayId": "id"},
    ),
    updates=(
        Call(
            "DetachInternetGateway",
            {"InternetGatewayId": "id"},
            finish=_from_previous_vpc,
            also=("vpcId",),
        ),
        Call("AttachInternetGateway", {"InternetGatewayId": "id", "VpcId": "vpcId"}),
    ),
    reads=(
        describing(
            "DescribeInternetGateways",
            "InternetGatewayIds",
            {
                "InternetGateways[0].Attachments[0].VpcId": "vpcId",
                "InternetGateways[0].OwnerId": "ownerId",
                "InternetGateways[0].Tags": "tags",
            },
            _NO_GATEWAY,
        ),
    ),
    gone=none_at("InternetGateways"),
    before_delete=_detach_gateway,
    delete=Call(
        "DeleteInternetGateway",
        {"InternetGatewayId": "id"},
        absent=(_NO_GATEWAY, "Gateway.NotAttached"),
    ),
    tagging=EC2_TAGGING,
    derive=lambda properties, scope: {
        "arn": scope.arn("ec2", f"internet-gateway/{properties['id']}")
    },
    computed=("arn", "ownerId"),
)

_NO_ADDRESS = "InvalidAllocationID.NotFound"

EIP = Spec(
    type="aws:ec2/eip:Eip",
    service="ec2",
    id="{id}",
    fields=(Field("domain", default="vpc"),),
    create=creating("AllocateAddress", "elastic-ip", {"Domain": "domain"}, {"AllocationId": "id"}),
    reads=(
        describing(
            "DescribeAddresses",
            "AllocationIds",
            {
                "Addresses[0].AllocationId": "allocationId",
                "Addresses[0].Domain": "domain",
                "Addresses[0].PublicIp": "publicIp",
                "Addresses[0].Tags": "tags",
            },
            _NO_ADDRESS,
        ),
    ),
    gone=none_at("Addresses"),
    delete=Call("ReleaseAddress", {"AllocationId": "id"}, absent=(_NO_ADDRESS,)),
    tagging=EC2_TAGGING,
    derive=lambda properties, scope: {"arn": scope.arn("ec2", f"elastic-ip/{properties['id']}")},
    computed=("arn", "allocationId", "publicIp"),
)

_NO_NAT = "NatGatewayNotFound"

NAT_GATEWAY = Spec(
    type="aws:ec2/natGateway:NatGateway",
    service="ec2",
    id="{id}",
    fields=(
        Field("subnetId", required=True),
        Field("allocationId"),
        Field("connectivityType", default="public", untold=True),
        Field("privateIp", computed=True),
    ),
    create=creating(
        "CreateNatGateway",
        "natgateway",
        {
            "SubnetId": "subnetId",
            "AllocationId": "allocationId",
            "ConnectivityType": "connectivityType",
            "PrivateIpAddress": "privateIp",
        },
        {"NatGateway.NatGatewayId": "id"},
        waiter="nat_gateway_available",
    ),
    reads=(
        describing(
            "DescribeNatGateways",
            "NatGatewayIds",
            {
                "NatGateways[0].SubnetId": "subnetId",
                "NatGateways[0].ConnectivityType": "connectivityType",
                "NatGateways[0].NatGatewayAddresses[0].AllocationId": "allocationId",
                "NatGateways[0].NatGatewayAddresses[0].AssociationId": "associationId",
                "NatGateways[0].NatGatewayAddresses[0].NetworkInterfaceId": "networkInterfaceId",
                "NatGateways[0].NatGatewayAddresses[0].PrivateIp": "privateIp",
                "NatGateways[0].NatGatewayAddresses[0].PublicIp": "publicIp",
                "NatGateways[0].Tags": "tags",
            },
            _NO_NAT,
        ),
    ),
    gone=in_state("NatGateways[0].State", "deleting", "deleted", "failed"),
    delete=Call(
        "DeleteNatGateway", {"NatGatewayId": "id"}, absent=(_NO_NAT,), waiter="nat_gateway_deleted"
    ),
    tagging=EC2_TAGGING,
    computed=("associationId", "networkInterfaceId", "publicIp"),
)

ROUTE_TABLE = Spec(
    type="aws:ec2/routeTable:RouteTable",
    service="ec2",
    id="{id}",
    fields=(Field("vpcId"),),
    create=creating(
        "CreateRouteTable", "route-table", {"VpcId": "vpcId"}, {"RouteTable.RouteTableId": "id"}
    ),
    reads=(
        describing(
            _DESCRIBE_TABLES,
            "RouteTableIds",
            {
                "RouteTables[0].VpcId": "vpcId",
                "RouteTables[0].OwnerId": "ownerId",
                "RouteTables[0].Tags": "tags",
            },
            _NO_TABLE,
        ),
    ),
    gone=none_at("RouteTables"),
    delete=Call("DeleteRouteTable", {"RouteTableId": "id"}, absent=(_NO_TABLE,)),
    tagging=EC2_TAGGING,
    derive=lambda properties, scope: {"arn": scope.arn("ec2", f"route-table/{properties['id']}")},
    computed=("arn", "ownerId"),
    instead={"routes": "aws.ec2.Route"},
)

_ROUTE = {
    "RouteTableId": "routeTableId",
    "DestinationCidrBlock": "destinationCidrBlock",
    "GatewayId": "gatewayId",
    "NatGatewayId": "natGatewayId",
}

ROUTE = Spec(
    type="aws:ec2/route:Route",
    service="ec2",
    id="{routeTableId}_{destinationCidrBlock}",
    fields=(
        Field("routeTableId"),
        Field("destinationCidrBlock", required=True),
        Field("gatewayId"),
        Field("natGatewayId"),
    ),
    create=Call("CreateRoute", _ROUTE),
    updates=(Call("ReplaceRoute", _ROUTE),),
    reads=(
        Call(
            _DESCRIBE_TABLES,
            {"RouteTableIds[0]": "routeTableId"},
            {
                "RouteTables[0].Routes[0].GatewayId": "gatewayId",
                "RouteTables[0].Routes[0].NatGatewayId": "natGatewayId",
                "RouteTables[0].Routes[0].Origin": "origin",
                "RouteTables[0].Routes[0].State": "state",
            },
            only=("RouteTables[0].Routes", {"DestinationCidrBlock": "destinationCidrBlock"}),
            absent=(_NO_TABLE,),
        ),
    ),
    gone=none_at("RouteTables[0].Routes"),
    delete=Call(
        "DeleteRoute",
        {"RouteTableId": "routeTableId", "DestinationCidrBlock": "destinationCidrBlock"},
        absent=(_NO_TABLE, "InvalidRoute.NotFound"),
    ),
    computed=("origin", "state"),
    delete_first=True,
)

_NO_ASSOCIATION = "InvalidAssociationID.NotFound"

ROUTE_TABLE_ASSOCIATION = Spec(
    type="aws:ec2/routeTableAssociation:RouteTableAssociation",
    service="ec2",
    id="{id}",
    fields=(Field("routeTableId"), Field("subnetId", required=True)),
    create=Call(
        "AssociateRouteTable",
        {"RouteTableId": "routeTableId", "SubnetId": "subnetId"},
        {"AssociationId": "id"},
    ),
    reads=(
        Call(
            _DESCRIBE_TABLES,
            {"Filters[0].Values[0]": "id"},
            {
                "RouteTables[0].Associations[0].RouteTableId": "routeTableId",
                "RouteTables[0].Associations[0].SubnetId": "subnetId",
            },
            constants={"Filters[0].Name": "association.route-table-association-id"},
            only=("RouteTables[0].Associations", {"RouteTableAssociationId": "id"}),
        ),
    ),
    gone=none_at("RouteTables[0].Associations"),
    delete=Call("DisassociateRouteTable", {"AssociationId": "id"}, absent=(_NO_ASSOCIATION,)),
    delete_first=True,
)

_NO_ENDPOINT = "InvalidVpcEndpointId.NotFound"
_GROUP_IDS = Codec(
    decode=lambda groups: [g["GroupId"] if isinstance(g, dict) else g for g in groups]
)

VPC_ENDPOINT = Spec(
    type="aws:ec2/vpcEndpoint:VpcEndpoint",
    service="ec2",
    id="{id}",
    fields=(
        Field("vpcId"),
        Field("serviceName", required=True),
        Field("vpcEndpointType", default="Gateway"),
        Field("policy", computed=True, codec=JSON_DOCUMENT),
        Field("privateDnsEnabled", computed=True),
        Field("routeTableIds", computed=True, unordered=True),
        Field("subnetIds", computed=True, unordered=True),
        Field("securityGroupIds", computed=True, unordered=True, codec=_GROUP_IDS),
    ),
    create=creating(
        "CreateVpcEndpoint",
        "vpc-endpoint",
        {
            "VpcId": "vpcId",
            "ServiceName": "serviceName",
            "VpcEndpointType": "vpcEndpointType",
            "PolicyDocument": "policy",
            "PrivateDnsEnabled": "privateDnsEnabled",
            "RouteTableIds": "routeTableIds",
            "SubnetIds": "subnetIds",
            "SecurityGroupIds": "securityGroupIds",
        },
        {"VpcEndpoint.VpcEndpointId": "id"},
    ),
    updates=(
        Call("ModifyVpcEndpoint", {"VpcEndpointId": "id", "PolicyDocument": "policy"}),
        Call(
            "ModifyVpcEndpoint", {"VpcEndpointId": "id", "PrivateDnsEnabled": "privateDnsEnabled"}
        ),
        Call(
            "ModifyVpcEndpoint",
            {"VpcEndpointId": "id"},
            finish=list_changes(
                RouteTableIds="routeTableIds",
                SubnetIds="subnetIds",
                SecurityGroupIds="securityGroupIds",
            ),
            also=("routeTableIds", "subnetIds", "securityGroupIds"),
        ),
    ),
    reads=(
        describing(
            "DescribeVpcEndpoints",
            "VpcEndpointIds",
            {
                "VpcEndpoints[0].VpcId": "vpcId",
                "VpcEndpoints[0].ServiceName": "serviceName",
                "VpcEndpoints[0].VpcEndpointType": "vpcEndpointType",
                "VpcEndpoints[0].PolicyDocument": "policy",
                "VpcEndpoints[0].PrivateDnsEnabled": "privateDnsEnabled",
                "VpcEndpoints[0].RouteTableIds": "routeTableIds",
                "VpcEndpoints[0].SubnetIds": "subnetIds",
                "VpcEndpoints[0].Groups": "securityGroupIds",
                "VpcEndpoints[0].NetworkInterfaceIds": "networkInterfaceIds",
                "VpcEndpoints[0].OwnerId": "ownerId",
                "VpcEndpoints[0].State": "state",
                "VpcEndpoints[0].Tags": "tags",
            },
            _NO_ENDPOINT,
        ),
    ),
    gone=in_state("VpcEndpoints[0].State", "deleting", "deleted", "Deleting", "Deleted"),
    delete=Call("DeleteVpcEndpoints", {"VpcEndpointIds[0]": "id"}, absent=(_NO_ENDPOINT,)),
    tagging=EC2_TAGGING,
    derive=lambda properties, scope: {"arn": scope.arn("ec2", f"vpc-endpoint/{properties['id']}")},
    computed=("arn", "ownerId", "state", "networkInterfaceIds"),
)

SPECS = (
    VPC,
    SUBNET,
    INTERNET_GATEWAY,
    EIP,
    NAT_GATEWAY,
    ROUTE_TABLE,
    ROUTE,
    ROUTE_TABLE_ASSOCIATION,
    VPC_ENDPOINT,
)
