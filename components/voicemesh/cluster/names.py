"""ARNs and configuration that follow from names, without asking AWS."""

from __future__ import annotations

import json
from typing import Final

_PARTITIONS: Final = {"cn": "aws-cn", "us-gov": "aws-us-gov"}
"""By the start of a region's name; everywhere else it is `aws`."""

_WITHOUT_CHINAS_PREFIX: Final = ("s3", "kms", "logs")
"""What VPCs in China reach by the same name as elsewhere: `aws ec2 describe-vpc-endpoint-services`
lists them all."""


def partition_of(region: str) -> str:
    """The partition of AWS to which a region belongs, with which its ARNs start."""
    found = [p for start, p in _PARTITIONS.items() if region.startswith(f"{start}-")]
    return found[0] if found else "aws"


def account_of(arn: str) -> str:
    """The account's number in an ARN."""
    return arn.split(":")[4]


def endpoint_service(region: str, service: str) -> str:
    """The name by which a VPC's endpoint asks for a service; `s3` for a gateway endpoint."""
    name = f"com.amazonaws.{region}.{service}"
    plain = partition_of(region) != "aws-cn" or service in _WITHOUT_CHINAS_PREFIX
    return name if plain else f"cn.{name}"


def managed_policy_arn(partition: str, policy: str) -> str:
    """The ARN of an IAM policy that AWS maintains."""
    return f"arn:{partition}:iam::aws:policy/{policy}"


def cluster_access_policy_arn(partition: str, policy: str) -> str:
    """The ARN of a policy for access entries of EKS.

    https://docs.aws.amazon.com/eks/latest/userguide/access-policy-permissions.html
    """
    return f"arn:{partition}:eks::aws:cluster-access-policy/{policy}"


def kubeconfig(cluster_name: str, region: str, endpoint: str, authority: str) -> str:
    """A kubeconfig, as JSON, whose user signs in as whoever the AWS credentials belong to."""
    sign_in = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "aws",
        "args": ["--region", region, "eks", "get-token", "--cluster-name", cluster_name],
        "interactiveMode": "Never",
    }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": cluster_name,
        "clusters": [
            {
                "name": cluster_name,
                "cluster": {"server": endpoint, "certificate-authority-data": authority},
            }
        ],
        "contexts": [
            {"name": cluster_name, "context": {"cluster": cluster_name, "user": cluster_name}}
        ],
        "users": [{"name": cluster_name, "user": {"exec": sign_in}}],
    }
    return json.dumps(content)
