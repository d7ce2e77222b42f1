"""The VPC of a cluster: private subnets for nodes, public ones for load balancers and NAT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_aws import ec2, vpc

from voicemesh.cluster.arguments import GpuClusterArgs, NatGateways
from voicemesh.cluster.names import endpoint_service
from voicemesh.cluster.subnets import plan_subnets
from voicemesh.component import after, child_options

ANYWHERE: Final = "0.0.0.0/0"
HTTPS_PORT: Final = 443

# By these tags the load balancer controller chooses subnets.
# https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/deploy/subnet_discovery/
_PUBLIC_ROLE: Final = {"kubernetes.io/role/elb": "1"}
_PRIVATE_ROLE: Final = {"kubernetes.io/role/internal-elb": "1"}


@dataclass(frozen=True)
class Network:
    """A VPC, and what others need of it."""

    vpc_id: pulumi.Output[str]

    private_subnets: Mapping[str, pulumi.Output[str]]
    """ID of each zone's private subnet; it exists once its nodes reach what they need."""


def declare_network(parent: pulumi.Resource, name: str, args: GpuClusterArgs) -> Network:
    """Declares the VPC with all that belongs to it."""
    return _Builder(parent, name, args).build()


class _Builder:
    def __init__(self, parent: pulumi.Resource, name: str, args: GpuClusterArgs) -> None:
        self._parent = parent
        self._name = name
        self._args = args

    def build(self) -> Network:
        self._vpc = ec2.Vpc(
            self._name,
            cidr_block=self._args.vpc_cidr,
            enable_dns_support=True,
            # Private names of the interface endpoints need both.
            enable_dns_hostnames=True,
            tags=self._tags(),
            opts=self._options(protect=self._args.deletion_protection),
        )
        plan = plan_subnets(self._args.vpc_cidr, self._args.availability_zones)
        private = {
            zone: self._subnet("private", zone, of_zone.private, _PRIVATE_ROLE)
            for zone, of_zone in plan.items()
        }
        public = {
            zone: self._subnet("public", zone, of_zone.public, _PUBLIC_ROLE)
            for zone, of_zone in plan.items()
        }
        gateway, public_routes = self._public_routes(public)
        nat = self._nat_gateways(public, [gateway, *public_routes])
        tables, routes = self._private_routes(private, nat)
        endpoints = self._endpoints(private, tables)
        return Network(
            self._vpc.id,
            {zone: after(subnet.id, *routes[zone], *endpoints) for zone, subnet in private.items()},
        )

    def _subnet(self, kind: str, zone: str, cidr: str, role: Mapping[str, str]) -> ec2.Subnet:
        return ec2.Subnet(
            f"{self._name}-{kind}-{zone}",
            vpc_id=self._vpc.id,
            availability_zone=zone,
            cidr_block=cidr,
            map_public_ip_on_launch=False,
            tags=self._tags(f"{kind}-{zone}", role),
            opts=self._options(),
        )

    def _public_routes(
        self, subnets: Mapping[str, ec2.Subnet]
    ) -> tuple[ec2.InternetGateway, list[pulumi.Resource]]:
        gateway = ec2.InternetGateway(
            self._name, vpc_id=self._vpc.id, tags=self._tags(), opts=self._options()
        )
        name = f"{self._name}-public"
        table = ec2.RouteTable(
            name, vpc_id=self._vpc.id, tags=self._tags("public"), opts=self._options()
        )
        route = ec2.Route(
            name,
            route_table_id=table.id,
            destination_cidr_block=ANYWHERE,
            gateway_id=gateway.id,
            opts=self._options(),
        )
        associations = [self._associate("public", z, s, table) for z, s in subnets.items()]
        return gateway, [route, *associations]

    def _nat_gateways(
        self, public: Mapping[str, ec2.Subnet], routed: list[pulumi.Resource]
    ) -> dict[str, ec2.NatGateway]:
        """The NAT gateway of each zone, which may be that of another."""
        zones = list(public)
        if self._args.nat_gateways is NatGateways.ONE:
            only = self._nat_gateway(zones[0], public[zones[0]], routed)
            return dict.fromkeys(zones, only)
        return {zone: self._nat_gateway(zone, public[zone], routed) for zone in zones}

    def _nat_gateway(
        self, zone: str, subnet: ec2.Subnet, routed: list[pulumi.Resource]
    ) -> ec2.NatGateway:
        name = f"{self._name}-nat-{zone}"
        address = ec2.Eip(
            name,
            domain="vpc",
            tags=self._tags(f"nat-{zone}"),
            # https://docs.aws.amazon.com/vpc/latest/userguide/vpc-nat-gateway.html
            opts=self._options(depends_on=routed),
        )
        return ec2.NatGateway(
            name,
            allocation_id=address.id,
            subnet_id=subnet.id,
            tags=self._tags(f"nat-{zone}"),
            opts=self._options(depends_on=routed),
        )

    def _private_routes(
        self, subnets: Mapping[str, ec2.Subnet], nat: Mapping[str, ec2.NatGateway]
    ) -> tuple[list[ec2.RouteTable], dict[str, list[pulumi.Resource]]]:
        tables, routes = [], {}
        for zone, subnet in subnets.items():
            name = f"{self._name}-private-{zone}"
            table = ec2.RouteTable(
                name,
                vpc_id=self._vpc.id,
                tags=self._tags(f"private-{zone}"),
                opts=self._options(),
            )
            route = ec2.Route(
                name,
                route_table_id=table.id,
                destination_cidr_block=ANYWHERE,
                nat_gateway_id=nat[zone].id,
                opts=self._options(),
            )
            tables.append(table)
            routes[zone] = [route, self._associate("private", zone, subnet, table)]
        return tables, routes

    def _associate(
        self, kind: str, zone: str, subnet: ec2.Subnet, table: ec2.RouteTable
    ) -> ec2.RouteTableAssociation:
        return ec2.RouteTableAssociation(
            f"{self._name}-{kind}-{zone}",
            subnet_id=subnet.id,
            route_table_id=table.id,
            opts=self._options(),
        )

    def _endpoints(
        self, subnets: Mapping[str, ec2.Subnet], tables: list[ec2.RouteTable]
    ) -> list[pulumi.Resource]:
        s3 = ec2.VpcEndpoint(
            f"{self._name}-s3",
            vpc_id=self._vpc.id,
            service_name=endpoint_service(self._args.region, "s3"),
            vpc_endpoint_type="Gateway",
            route_table_ids=[table.id for table in tables],
            tags=self._tags("s3"),
            opts=self._options(),
        )
        services = self._args.interface_endpoints
        if not services:
            return [s3]
        guard, rule = self._endpoint_guard()
        return [s3, rule, *(self._interface(service, subnets, guard) for service in services)]

    def _endpoint_guard(self) -> tuple[ec2.SecurityGroup, vpc.SecurityGroupIngressRule]:
        name = f"{self._name}-endpoints"
        guard = ec2.SecurityGroup(
            name,
            vpc_id=self._vpc.id,
            description="Interface endpoints of AWS services",
            tags=self._tags("endpoints"),
            opts=self._options(),
        )
        rule = vpc.SecurityGroupIngressRule(
            name,
            security_group_id=guard.id,
            description="HTTPS from the VPC",
            cidr_ipv4=self._args.vpc_cidr,
            from_port=HTTPS_PORT,
            to_port=HTTPS_PORT,
            ip_protocol="tcp",
            tags=self._tags("endpoints"),
            opts=self._options(),
        )
        return guard, rule

    def _interface(
        self, service: str, subnets: Mapping[str, ec2.Subnet], guard: ec2.SecurityGroup
    ) -> ec2.VpcEndpoint:
        return ec2.VpcEndpoint(
            f"{self._name}-{service}",
            vpc_id=self._vpc.id,
            service_name=endpoint_service(self._args.region, service),
            vpc_endpoint_type="Interface",
            private_dns_enabled=True,
            subnet_ids=[subnet.id for subnet in subnets.values()],
            security_group_ids=[guard.id],
            tags=self._tags(service),
            opts=self._options(),
        )

    def _tags(self, part: str = "", further: Mapping[str, str] | None = None) -> dict[str, str]:
        shown = f"{self._args.cluster_name}-{part}" if part else self._args.cluster_name
        return {**self._args.tags, "Name": shown, **(further or {})}

    def _options(
        self, protect: bool = False, depends_on: list[pulumi.Resource] | None = None
    ) -> pulumi.ResourceOptions:
        specific = pulumi.ResourceOptions(protect=protect, depends_on=depends_on)
        return child_options(self._parent, specific)
