"""IAM roles of a cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
from pulumi_aws import eks, iam

from voicemesh.cluster.names import managed_policy_arn
from voicemesh.cluster.policies import pod_identity_trust, service_trust
from voicemesh.component import child_options


def declare_service_role(
    parent: pulumi.Resource,
    name: str,
    *,
    service: str,
    partition: str,
    policies: Sequence[str],
    tags: Mapping[str, str],
) -> tuple[iam.Role, list[pulumi.Resource]]:
    """A role for an AWS service with policies that AWS maintains, and their attachments."""
    role = _role(parent, name, service_trust(service), tags)
    attachments = [
        _attach(parent, f"{name}-{policy}", role, managed_policy_arn(partition, policy))
        for policy in policies
    ]
    return role, list(attachments)


def declare_pod_role(
    parent: pulumi.Resource,
    name: str,
    *,
    policy: Mapping[str, Any] | None = None,
    managed_policy: str | None = None,
    tags: Mapping[str, str],
) -> tuple[iam.Role, pulumi.Resource]:
    """A role for pods with one policy: a document, or one that AWS maintains, by its ARN."""
    role = _role(parent, name, pod_identity_trust(), tags)
    if managed_policy is not None:
        return role, _attach(parent, name, role, managed_policy)
    document = json.dumps(policy)
    grant = iam.RolePolicy(name, role=role.name, policy=document, opts=child_options(parent))
    return role, grant


def declare_pod_identity(
    parent: pulumi.Resource,
    name: str,
    *,
    cluster_name: pulumi.Input[str],
    namespace: str,
    service_account: str,
    policy: Mapping[str, Any],
    tags: Mapping[str, str],
) -> pulumi.Resource:
    """Lets the pods of one service account do what a policy says."""
    role, grant = declare_pod_role(parent, name, policy=policy, tags=tags)
    return eks.PodIdentityAssociation(
        name,
        cluster_name=cluster_name,
        namespace=namespace,
        service_account=service_account,
        role_arn=role.arn,
        tags=tags,
        opts=child_options(parent, pulumi.ResourceOptions(depends_on=[grant])),
    )


def _role(
    parent: pulumi.Resource, name: str, trust: Mapping[str, Any], tags: Mapping[str, str]
) -> iam.Role:
    document = json.dumps(trust)
    return iam.Role(name, assume_role_policy=document, tags=tags, opts=child_options(parent))


def _attach(
    parent: pulumi.Resource, name: str, role: iam.Role, policy_arn: str
) -> iam.RolePolicyAttachment:
    return iam.RolePolicyAttachment(
        name, role=role.name, policy_arn=policy_arn, opts=child_options(parent)
    )
