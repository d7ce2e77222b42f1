"""What the cluster's controllers may do, evaluated from their policies, and what they may not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from infra.local.aws_policy import Request, Verdict, decide, validate
from voicemesh.cluster.policies import (
    autoscaler_policy,
    key_policy,
    load_balancer_policy,
    pod_identity_trust,
    secrets_key_use,
    service_trust,
)

BALANCER = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/net/a/1"
GROUP = "arn:aws:ec2:us-east-1:123456789012:security-group/sg-1"
VPC = "arn:aws:ec2:us-east-1:123456789012:vpc/vpc-1"
SCALING = "arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:1:autoScalingGroupName/a"
NODEGROUP = "arn:aws:eks:us-east-1:123456789012:nodegroup"
REQUESTED = "aws:requesttag/elbv2.k8s.aws/cluster"
OWNED = "aws:resourcetag/elbv2.k8s.aws/cluster"
OF_CLUSTER = "aws:resourcetag/kubernetes.io/cluster/prod"
SCALED = "aws:resourcetag/k8s.io/cluster-autoscaler/prod"


def allows(policy: Mapping[str, Any], action: str, resource: str, **context: str) -> bool:
    """Whether an identity with the policy may do something; policies of identities name nobody."""
    statements = [{**statement, "Principal": "*"} for statement in policy["Statement"]]
    document = {**policy, "Statement": statements}
    validate(document)
    request = Request(action, resource, "arn:aws:iam::123456789012:role/r", _values(context))
    return decide(document, request).verdict is Verdict.ALLOW


def _values(context: Mapping[str, str]) -> dict[str, list[str]]:
    return {key: [value] for key, value in context.items()}


@pytest.mark.parametrize(
    ("action", "resource", "key", "value"),
    [
        ("elasticloadbalancing:CreateLoadBalancer", BALANCER, REQUESTED, "prod"),
        ("elasticloadbalancing:AddTags", BALANCER, REQUESTED, "prod"),
        ("elasticloadbalancing:CreateListener", BALANCER, OWNED, "prod"),
        ("elasticloadbalancing:DeleteLoadBalancer", BALANCER, OWNED, "prod"),
        ("elasticloadbalancing:RegisterTargets", BALANCER, OWNED, "prod"),
        ("ec2:CreateSecurityGroup", GROUP, REQUESTED, "prod"),
        ("ec2:DeleteSecurityGroup", GROUP, OWNED, "prod"),
        ("ec2:AuthorizeSecurityGroupIngress", GROUP, OWNED, "prod"),
        ("ec2:AuthorizeSecurityGroupIngress", GROUP, OF_CLUSTER, "owned"),
    ],
)
def test_the_load_balancer_controller_changes_only_what_is_its_clusters(
    action: str, resource: str, key: str, value: str
) -> None:
    policy = load_balancer_policy("prod")
    assert allows(policy, action, resource, **{key: value})
    assert not allows(policy, action, resource, **{key: "staging"})
    assert not allows(policy, action, resource)


@pytest.mark.parametrize(
    "action", ["ec2:DescribeSubnets", "elasticloadbalancing:DescribeTargetHealth"]
)
def test_the_load_balancer_controller_sees_the_network(action: str) -> None:
    assert allows(load_balancer_policy("prod"), action, "*")


@pytest.mark.parametrize(
    "action",
    [
        "ec2:RunInstances",
        "ec2:AuthorizeSecurityGroupEgress",
        "iam:PassRole",
        "wafv2:AssociateWebACL",
        "s3:GetObject",
    ],
)
def test_the_load_balancer_controller_does_nothing_else(action: str) -> None:
    owned = {OWNED: "prod", REQUESTED: "prod"}
    assert not allows(load_balancer_policy("prod"), action, "*", **owned)


def test_the_load_balancer_controller_makes_the_service_role_of_load_balancers_only() -> None:
    policy = load_balancer_policy("prod")
    service = "iam:awsservicename"
    action = "iam:CreateServiceLinkedRole"
    assert allows(policy, action, "*", **{service: "elasticloadbalancing.amazonaws.com"})
    assert not allows(policy, action, "*", **{service: "ec2.amazonaws.com"})


def test_a_new_security_group_is_tagged_as_it_is_made_and_not_later() -> None:
    policy = load_balancer_policy("prod")
    made = {REQUESTED: "prod", "ec2:createaction": "CreateSecurityGroup"}
    assert allows(policy, "ec2:CreateTags", GROUP, **made)
    assert not allows(policy, "ec2:CreateTags", GROUP, **{REQUESTED: "prod"})
    assert allows(policy, "ec2:CreateSecurityGroup", VPC)


@pytest.mark.parametrize(
    "action",
    ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"],
)
def test_the_autoscaler_resizes_only_groups_of_its_cluster(action: str) -> None:
    assert allows(autoscaler_policy("prod"), action, SCALING, **{SCALED: "owned"})
    assert not allows(autoscaler_policy("staging"), action, SCALING, **{SCALED: "owned"})
    assert not allows(autoscaler_policy("prod"), action, SCALING)


def test_the_autoscaler_reads_the_node_groups_of_its_cluster_only() -> None:
    action = "eks:DescribeNodegroup"
    assert allows(autoscaler_policy("prod"), action, f"{NODEGROUP}/prod/h100/1")
    assert not allows(autoscaler_policy("prod"), action, f"{NODEGROUP}/prod-2/h100/1")


@pytest.mark.parametrize("action", ["autoscaling:DeleteAutoScalingGroup", "ec2:RunInstances"])
def test_the_autoscaler_does_nothing_else(action: str) -> None:
    assert not allows(autoscaler_policy("prod"), action, SCALING, **{SCALED: "owned"})


def test_cloudwatch_uses_the_key_for_the_clusters_logs_only() -> None:
    policy = key_policy("aws", "123456789012", "us-east-1", "/aws/eks/prod/cluster")
    account, logs = policy["Statement"]
    assert account["Principal"] == {"AWS": "arn:aws:iam::123456789012:root"}
    assert logs["Principal"] == {"Service": "logs.us-east-1.amazonaws.com"}
    context = logs["Condition"]["ArnEquals"]["kms:EncryptionContext:aws:logs:arn"]
    assert context == "arn:aws:logs:us-east-1:123456789012:log-group:/aws/eks/prod/cluster"
    assert "kms:*" not in logs["Action"]


def test_the_control_plane_uses_its_own_key_only() -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/1"
    assert allows(secrets_key_use(key), "kms:Encrypt", key)
    assert not allows(secrets_key_use(key), "kms:Encrypt", f"{key}2")
    assert not allows(secrets_key_use(key), "kms:ScheduleKeyDeletion", key)


def test_only_the_service_of_pod_identity_acts_for_pods() -> None:
    (statement,) = pod_identity_trust()["Statement"]
    assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    assert statement["Action"] == ["sts:AssumeRole", "sts:TagSession"]
    (other,) = service_trust("ec2.amazonaws.com")["Statement"]
    assert other["Action"] == "sts:AssumeRole"
