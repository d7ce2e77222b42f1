"""`GpuCluster`: the network and the EKS cluster that GPU nodes join."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

import pulumi
from pulumi_aws import cloudwatch, eks, iam, kms

from voicemesh import contract
from voicemesh.arguments import is_known
from voicemesh.cluster.arguments import GpuClusterArgs
from voicemesh.cluster.launch import declare_launch_template
from voicemesh.cluster.names import (
    account_of,
    cluster_access_policy_arn,
    kubeconfig,
    managed_policy_arn,
    partition_of,
)
from voicemesh.cluster.network import Network, declare_network
from voicemesh.cluster.node_group import AUTOSCALED
from voicemesh.cluster.policies import (
    autoscaler_policy,
    key_policy,
    load_balancer_policy,
    secrets_key_use,
)
from voicemesh.cluster.roles import declare_pod_identity, declare_pod_role, declare_service_role
from voicemesh.component import after, child_options

LOG_TYPES: Final = ("api", "audit", "authenticator", "controllerManager", "scheduler")

# The network plugin takes its rights from Pod Identity, images are only pulled.
# https://docs.aws.amazon.com/eks/latest/userguide/create-node-role.html
NODE_POLICIES: Final = ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly")

NETWORK_ADDON: Final = "vpc-cni"
ADDONS_BEFORE_NODES: Final = ("kube-proxy", "eks-pod-identity-agent")
"""What a node needs to become ready, besides the network plugin."""

NODE_MONITORING_ADDON: Final = "eks-node-monitoring-agent"
"""From it, node repair learns of GPU faults."""

ADDONS_ON_NODES: Final = ("coredns", "metrics-server", NODE_MONITORING_ADDON)
"""What becomes ready only on nodes."""

# The agent asks a server of DCGM on the node, whose pods tolerate no taint by themselves. Without
# one it calls the GPUs broken, and node repair replaces the node, again and again.
# https://github.com/aws/containers-roadmap/issues/2567
_ADDON_SETTINGS: Final = {
    NETWORK_ADDON: {"enableNetworkPolicy": "true"},
    NODE_MONITORING_ADDON: {"dcgmAgent": {"tolerations": [{"operator": "Exists"}]}},
}

_KEY_DELETION_DAYS: Final = 30
_SYSTEM_ROOT_VOLUME_GIB: Final = 50
_CLUSTER_TIMEOUTS: Final = pulumi.CustomTimeouts(create="60m", update="120m", delete="60m")


class GpuCluster(pulumi.ComponentResource):
    """A VPC and an EKS cluster with private nodes, encrypted secrets, logs, add-ons, and nodes for
    everything but speech."""

    cluster_name: pulumi.Output[str]
    """Name of the cluster; it exists once nodes can join and reach what they need."""

    kubernetes_version: pulumi.Output[str]
    """Minor version of its control plane."""

    kubeconfig: pulumi.Output[str]
    """A kubeconfig that signs in by `aws eks get-token`; it exists once the cluster runs pods."""

    endpoint: pulumi.Output[str]
    """URL of the Kubernetes API."""

    certificate_authority: pulumi.Output[str]
    """Certificate of the Kubernetes API's authority: PEM in base64."""

    region: pulumi.Output[str]
    """Region of the cluster."""

    vpc_id: pulumi.Output[str]
    """ID of the VPC."""

    private_subnets: Mapping[str, pulumi.Output[str]]
    """ID of each zone's private subnet, by the zone's name; they exist once they are routed."""

    cluster_security_group_id: pulumi.Output[str]
    """ID of the security group that EKS gives the control plane and all nodes."""

    node_role_arn: pulumi.Output[str]
    """ARN of the nodes' IAM role; it exists once the role can do what nodes need."""

    def __init__(
        self, name: str, args: GpuClusterArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("voicemesh:index:GpuCluster", name, {}, opts)
        self._args = args
        self._partition = partition_of(args.region)
        network = declare_network(self, name, args)
        cluster = self._cluster(name, network)
        access = self._access(name, cluster)
        needed_by_nodes = self._addons_before_nodes(name, cluster)
        node_role, grants = declare_service_role(
            self,
            f"{name}-node",
            service="ec2.amazonaws.com",
            partition=self._partition,
            policies=NODE_POLICIES,
            tags=args.tags,
        )
        self.cluster_name = after(cluster.name, *needed_by_nodes)
        self.kubernetes_version = cluster.version
        self.node_role_arn = after(node_role.arn, *grants)
        self.private_subnets = network.private_subnets
        nodes = self._system_nodes(name)
        running = [nodes, *self._addons_on_nodes(name, cluster, nodes), *self._identities(name)]
        self._expose(cluster, network, [*running, *access])

    def _expose(self, cluster: eks.Cluster, network: Network, ready: list[pulumi.Resource]) -> None:
        region = self._args.region
        self.region = pulumi.Output.from_input(region)
        self.vpc_id = network.vpc_id
        self.endpoint = cluster.endpoint
        self.certificate_authority = cluster.certificate_authority.apply(
            lambda authority: authority.data or ""
        )
        self.cluster_security_group_id = cluster.vpc_config.apply(
            lambda config: config.cluster_security_group_id or ""
        )
        content = pulumi.Output.all(cluster.name, self.endpoint, self.certificate_authority).apply(
            lambda found: kubeconfig(found[0], region, found[1], found[2])
        )
        self.kubeconfig = pulumi.Output.secret(after(content, *ready))
        self.register_outputs(
            {
                "cluster_name": self.cluster_name,
                "kubernetes_version": self.kubernetes_version,
                "kubeconfig": self.kubeconfig,
                "endpoint": self.endpoint,
                "certificate_authority": self.certificate_authority,
                "region": self.region,
                "vpc_id": self.vpc_id,
                "private_subnets": self.private_subnets,
                "cluster_security_group_id": self.cluster_security_group_id,
                "node_role_arn": self.node_role_arn,
            }
        )

    def _cluster(self, name: str, network: Network) -> eks.Cluster:
        args = self._args
        role, grants = declare_service_role(
            self,
            f"{name}-cluster",
            service="eks.amazonaws.com",
            partition=self._partition,
            policies=("AmazonEKSClusterPolicy",),
            tags=args.tags,
        )
        key = self._key(name, role)
        key_use = iam.RolePolicy(
            f"{name}-secrets-key",
            role=role.name,
            policy=key.arn.apply(lambda arn: json.dumps(secrets_key_use(arn))),
            opts=child_options(self),
        )
        logs = self._log_group(name, key)
        return eks.Cluster(
            name,
            name=args.cluster_name,
            version=args.kubernetes_version,
            role_arn=role.arn,
            upgrade_policy={"support_type": "STANDARD"},
            vpc_config=_vpc_config(args, network),
            access_config={
                "authentication_mode": "API",
                "bootstrap_cluster_creator_admin_permissions": False,
            },
            # All add-ons are EKS's, declared below, from the start.
            bootstrap_self_managed_addons=False,
            encryption_config={"provider": {"key_arn": key.arn}, "resources": ["secrets"]},
            enabled_cluster_log_types=list(LOG_TYPES),
            zonal_shift_config={"enabled": True},
            deletion_protection=args.deletion_protection,
            tags=args.tags,
            opts=self._stateful(
                depends_on=[*grants, key_use, logs], custom_timeouts=_CLUSTER_TIMEOUTS
            ),
        )

    def _key(self, name: str, role: iam.Role) -> kms.Key:
        region, group = self._args.region, _log_group_name(self._args)
        policy = role.arn.apply(
            lambda arn: json.dumps(key_policy(self._partition, account_of(arn), region, group))
        )
        return kms.Key(
            name,
            description=f"Encrypts secrets and logs of the cluster {self._args.cluster_name}",
            enable_key_rotation=True,
            deletion_window_in_days=_KEY_DELETION_DAYS,
            policy=policy,
            tags=self._args.tags,
            opts=self._stateful(),
        )

    def _log_group(self, name: str, key: kms.Key) -> cloudwatch.LogGroup:
        # EKS writes to a group of this name, and would make it itself, kept for ever.
        return cloudwatch.LogGroup(
            name,
            name=_log_group_name(self._args),
            retention_in_days=self._args.log_days,
            kms_key_id=key.arn,
            tags=self._args.tags,
            opts=self._stateful(),
        )

    def _access(self, name: str, cluster: eks.Cluster) -> list[pulumi.Resource]:
        policies: list[pulumi.Resource] = []
        for index, arn in enumerate(self._args.administrators):
            who = f"{name}-administrator-{_administrator_key(index, arn)}"
            entry = eks.AccessEntry(
                who,
                cluster_name=cluster.name,
                principal_arn=arn,
                tags=self._args.tags,
                opts=child_options(self),
            )
            policy = eks.AccessPolicyAssociation(
                who,
                cluster_name=cluster.name,
                principal_arn=entry.principal_arn,
                policy_arn=cluster_access_policy_arn(
                    self._partition, "AmazonEKSClusterAdminPolicy"
                ),
                access_scope={"type": "cluster"},
                opts=child_options(self, pulumi.ResourceOptions(depends_on=[entry])),
            )
            policies.append(policy)
        return policies

    def _addons_before_nodes(self, name: str, cluster: eks.Cluster) -> list[pulumi.Resource]:
        role, grant = declare_pod_role(
            self,
            f"{name}-network-plugin",
            managed_policy=managed_policy_arn(self._partition, "AmazonEKS_CNI_Policy"),
            tags=self._args.tags,
        )
        plugin = self._addon(
            name,
            NETWORK_ADDON,
            cluster,
            depends_on=[grant],
            pod_identity_associations=[{"service_account": "aws-node", "role_arn": role.arn}],
        )
        others = [self._addon(name, addon, cluster) for addon in ADDONS_BEFORE_NODES]
        return [plugin, *others]

    def _addons_on_nodes(
        self, name: str, cluster: eks.Cluster, nodes: eks.NodeGroup
    ) -> list[pulumi.Resource]:
        return [self._addon(name, addon, cluster, depends_on=[nodes]) for addon in ADDONS_ON_NODES]

    def _addon(
        self,
        name: str,
        addon: str,
        cluster: eks.Cluster,
        depends_on: list[pulumi.Resource] | None = None,
        **further: Any,
    ) -> eks.Addon:
        settings = _ADDON_SETTINGS.get(addon)
        return eks.Addon(
            f"{name}-{addon}",
            cluster_name=cluster.name,
            addon_name=addon,
            addon_version=self._args.addon_versions.get(addon),
            configuration_values=json.dumps(settings) if settings else None,
            # What is declared here wins over what somebody changed in the cluster.
            resolve_conflicts_on_create="OVERWRITE",
            resolve_conflicts_on_update="OVERWRITE",
            tags=self._args.tags,
            opts=child_options(self, pulumi.ResourceOptions(depends_on=depends_on)),
            **further,
        )

    def _system_nodes(self, name: str) -> eks.NodeGroup:
        args = self._args
        template = declare_launch_template(
            self, f"{name}-system", root_volume_gib=_SYSTEM_ROOT_VOLUME_GIB, tags=args.tags
        )
        return eks.NodeGroup(
            f"{name}-system",
            cluster_name=self.cluster_name,
            node_role_arn=self.node_role_arn,
            subnet_ids=list(self.private_subnets.values()),
            version=self.kubernetes_version,
            ami_type="AL2023_x86_64_STANDARD",
            instance_types=list(args.system_nodes.instance_types),
            launch_template={
                "id": template.id,
                "version": template.latest_version.apply(str),
            },
            scaling_config={
                "min_size": args.system_nodes.min_size,
                "max_size": args.system_nodes.max_size,
                "desired_size": args.system_nodes.min_size,
            },
            update_config={"max_unavailable": 1},
            node_repair_config={"enabled": True},
            tags=args.tags,
            opts=child_options(self, pulumi.ResourceOptions(ignore_changes=AUTOSCALED)),
        )

    def _identities(self, name: str) -> list[pulumi.Resource]:
        cluster_name = self._args.cluster_name
        policies = {
            contract.LOAD_BALANCER_CONTROLLER: load_balancer_policy(cluster_name),
            contract.CLUSTER_AUTOSCALER: autoscaler_policy(cluster_name),
        }
        return [
            declare_pod_identity(
                self,
                f"{name}-{controller}",
                cluster_name=self.cluster_name,
                namespace=contract.CONTROLLER_NAMESPACE,
                service_account=controller,
                policy=policy,
                tags=self._args.tags,
            )
            for controller, policy in policies.items()
        ]

    def _stateful(self, **options: Any) -> pulumi.ResourceOptions:
        protect = self._args.deletion_protection
        return child_options(self, pulumi.ResourceOptions(protect=protect, **options))


def _log_group_name(args: GpuClusterArgs) -> str:
    return f"/aws/eks/{args.cluster_name}/cluster"


def _vpc_config(args: GpuClusterArgs, network: Network) -> eks.ClusterVpcConfigArgs:
    return eks.ClusterVpcConfigArgs(
        subnet_ids=list(network.private_subnets.values()),
        endpoint_private_access=True,
        endpoint_public_access=bool(args.public_access_cidrs),
        public_access_cidrs=list(args.public_access_cidrs) or None,
    )


def _administrator_key(index: int, arn: pulumi.Input[str]) -> str:
    """A name that stays when others are added or removed, where the ARN is known by now."""
    return sha256(str(arn).encode()).hexdigest()[:8] if is_known(arn) else str(index)
