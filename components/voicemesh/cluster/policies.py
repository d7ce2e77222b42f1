"""IAM and key policies of the cluster, as documents."""

from __future__ import annotations

from typing import Any, Final

_VERSION: Final = "2012-10-17"
_OWNER_TAG: Final = "elbv2.k8s.aws/cluster"
"""The load balancer controller tags what it makes with this key and its cluster's name."""

_SECURITY_GROUPS: Final = "arn:*:ec2:*:*:security-group/*"


def service_trust(service: str) -> dict[str, Any]:
    """Lets an AWS service act as a role."""
    return _document(
        {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    )


def pod_identity_trust() -> dict[str, Any]:
    """Lets pods act as a role, by an association of EKS Pod Identity.

    https://docs.aws.amazon.com/eks/latest/userguide/pod-id-role.html
    """
    return _document(
        {
            "Effect": "Allow",
            "Principal": {"Service": "pods.eks.amazonaws.com"},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
        }
    )


def key_policy(partition: str, account: str, region: str, log_group: str) -> dict[str, Any]:
    """Policy of the cluster's key: IAM decides in the account, and CloudWatch may use it for one
    log group.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
    """
    log_group_arn = f"arn:{partition}:logs:{region}:{account}:log-group:{log_group}"
    suffix = ".cn" if partition == "aws-cn" else ""
    return _document(
        {
            "Sid": "AccountByIam",
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:{partition}:iam::{account}:root"},
            "Action": "kms:*",
            "Resource": "*",
        },
        {
            "Sid": "LogsOfTheControlPlane",
            "Effect": "Allow",
            "Principal": {"Service": f"logs.{region}.amazonaws.com{suffix}"},
            "Action": [
                "kms:Encrypt*",
                "kms:Decrypt*",
                "kms:ReEncrypt*",
                "kms:GenerateDataKey*",
                "kms:Describe*",
            ],
            "Resource": "*",
            "Condition": {"ArnEquals": {"kms:EncryptionContext:aws:logs:arn": log_group_arn}},
        },
    )


def secrets_key_use(key_arn: str) -> dict[str, Any]:
    """Lets the control plane encrypt Kubernetes' secrets with a key."""
    return _document(
        _allow(["kms:Encrypt", "kms:Decrypt", "kms:ListGrants", "kms:DescribeKey"], key_arn)
    )


def autoscaler_policy(cluster_name: str) -> dict[str, Any]:
    """What the Cluster Autoscaler may do: see all groups, and resize those of its cluster.

    EKS tags the groups of managed nodes so that the autoscaler finds them.
    https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/cloudprovider/aws/README.md
    """
    owned = _equals({f"aws:ResourceTag/k8s.io/cluster-autoscaler/{cluster_name}": "owned"})
    return _document(
        _allow(
            [
                "autoscaling:DescribeAutoScalingGroups",
                "autoscaling:DescribeAutoScalingInstances",
                "autoscaling:DescribeLaunchConfigurations",
                "autoscaling:DescribeScalingActivities",
                "autoscaling:DescribeTags",
                "ec2:DescribeImages",
                "ec2:DescribeInstanceTypes",
                "ec2:DescribeLaunchTemplateVersions",
                "ec2:GetInstanceTypesFromInstanceRequirements",
            ]
        ),
        # Labels, taints and resources of nodes that do not exist yet.
        _allow(["eks:DescribeNodegroup"], f"arn:*:eks:*:*:nodegroup/{cluster_name}/*"),
        _allow(
            ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"],
            condition=owned,
        ),
    )


def load_balancer_policy(cluster_name: str) -> dict[str, Any]:
    """What the load balancer controller may do for Services: see the network, and change what it
    tagged with its cluster's name. Its own policy also covers Ingresses (WAF, Shield, Cognito).

    https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/deploy/installation/
    """
    tag = {f"aws:RequestTag/{_OWNER_TAG}": cluster_name}
    requested = _equals(tag)
    owned = _equals({f"aws:ResourceTag/{_OWNER_TAG}": cluster_name})
    balancing = "arn:*:elasticloadbalancing:*:*"
    return _document(
        _allow(_LOAD_BALANCER_READS),
        _allow(
            ["iam:CreateServiceLinkedRole"],
            condition=_equals({"iam:AWSServiceName": "elasticloadbalancing.amazonaws.com"}),
        ),
        _allow(["ec2:CreateSecurityGroup"], "arn:*:ec2:*:*:vpc/*"),
        _allow(["ec2:CreateSecurityGroup"], _SECURITY_GROUPS, requested),
        _allow(
            ["ec2:CreateTags"],
            _SECURITY_GROUPS,
            _equals({**tag, "ec2:CreateAction": "CreateSecurityGroup"}),
        ),
        _allow(
            ["ec2:CreateTags", "ec2:DeleteTags", "ec2:DeleteSecurityGroup"],
            _SECURITY_GROUPS,
            owned,
        ),
        _allow(_RULE_CHANGES, _SECURITY_GROUPS, owned),
        # The security group that EKS gives the nodes lets the load balancers in.
        _allow(
            _RULE_CHANGES,
            _SECURITY_GROUPS,
            _equals({f"aws:ResourceTag/kubernetes.io/cluster/{cluster_name}": "owned"}),
        ),
        _allow(
            ["elasticloadbalancing:CreateLoadBalancer", "elasticloadbalancing:CreateTargetGroup"],
            condition=requested,
        ),
        _allow(
            ["elasticloadbalancing:AddTags"],
            [f"{balancing}:{kind}/*" for kind in ("targetgroup", "loadbalancer", "listener")],
            requested,
        ),
        _allow(_LOAD_BALANCER_CHANGES, condition=owned),
    )


_LOAD_BALANCER_READS: Final = [
    "ec2:DescribeAccountAttributes",
    "ec2:DescribeAddresses",
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeInstances",
    "ec2:DescribeInternetGateways",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeRouteTables",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeTags",
    "ec2:DescribeVpcPeeringConnections",
    "ec2:DescribeVpcs",
    "ec2:GetSecurityGroupsForVpc",
    "elasticloadbalancing:DescribeCapacityReservation",
    "elasticloadbalancing:DescribeListenerAttributes",
    "elasticloadbalancing:DescribeListenerCertificates",
    "elasticloadbalancing:DescribeListeners",
    "elasticloadbalancing:DescribeLoadBalancerAttributes",
    "elasticloadbalancing:DescribeLoadBalancers",
    "elasticloadbalancing:DescribeRules",
    "elasticloadbalancing:DescribeSSLPolicies",
    "elasticloadbalancing:DescribeTags",
    "elasticloadbalancing:DescribeTargetGroupAttributes",
    "elasticloadbalancing:DescribeTargetGroups",
    "elasticloadbalancing:DescribeTargetHealth",
]

_RULE_CHANGES: Final = [
    "ec2:AuthorizeSecurityGroupIngress",
    "ec2:RevokeSecurityGroupIngress",
]

_LOAD_BALANCER_CHANGES: Final = [
    "elasticloadbalancing:AddListenerCertificates",
    "elasticloadbalancing:AddTags",
    "elasticloadbalancing:CreateListener",
    "elasticloadbalancing:DeleteListener",
    "elasticloadbalancing:DeleteLoadBalancer",
    "elasticloadbalancing:DeleteTargetGroup",
    "elasticloadbalancing:DeregisterTargets",
    "elasticloadbalancing:ModifyListener",
    "elasticloadbalancing:ModifyListenerAttributes",
    "elasticloadbalancing:ModifyLoadBalancerAttributes",
    "elasticloadbalancing:ModifyTargetGroup",
    "elasticloadbalancing:ModifyTargetGroupAttributes",
    "elasticloadbalancing:RegisterTargets",
    "elasticloadbalancing:RemoveListenerCertificates",
    "elasticloadbalancing:RemoveTags",
    "elasticloadbalancing:SetIpAddressType",
    "elasticloadbalancing:SetSecurityGroups",
    "elasticloadbalancing:SetSubnets",
]


def _document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": _VERSION, "Statement": list(statements)}


def _equals(values: dict[str, str]) -> dict[str, Any]:
    return {"StringEquals": values}


def _allow(
    actions: list[str],
    resource: str | list[str] = "*",
    condition: dict[str, Any] | None = None,
) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": actions, "Resource": resource}
    return statement if condition is None else {**statement, "Condition": condition}
