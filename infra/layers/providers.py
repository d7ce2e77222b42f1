"""How each stack reaches AWS and its cluster."""

from __future__ import annotations

from typing import Any, Final

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes
import pulumi_random as random

from infra.environment.cluster import Aws

_SERVICES: Final = ("ec2", "ecr", "eks", "iam", "kms", "logs", "s3", "sts")
"""What the program uses of AWS."""


def kubernetes_provider(
    kubeconfig: pulumi.Input[str], context: str | None = None
) -> kubernetes.Provider:
    """The provider of everything in Kubernetes."""
    return kubernetes.Provider(
        "cluster", kubeconfig=pulumi.Output.secret(kubeconfig), context=context
    )


def aws_provider(account: Aws) -> pulumi.ProviderResource:
    """The provider of everything in AWS. It asks AWS nothing before there is something to do,
    unless the configuration names the account."""
    return aws.Provider(
        "aws",
        region=account.region,
        # Bills and clean-up go by them.
        default_tags={"tags": {"project": pulumi.get_project(), "environment": pulumi.get_stack()}},
        **_access(account),
        **_keys(account),
    )


def random_provider() -> pulumi.ProviderResource:
    """The provider of names' random ends."""
    return random.Provider("random")


def _access(account: Aws) -> dict[str, Any]:
    if account.account_id is not None:
        return {"allowed_account_ids": [account.account_id]}
    offline: dict[str, Any] = {
        "skip_credentials_validation": True,
        "skip_metadata_api_check": True,
        "skip_requesting_account_id": True,
    }
    if account.endpoint is None:
        return offline
    endpoints = [dict.fromkeys(_SERVICES, account.endpoint)]
    return {**offline, "endpoints": endpoints, "s3_use_path_style": True}


def _keys(account: Aws) -> dict[str, Any]:
    if account.access_key is None or account.secret_key is None:
        return {}
    return {
        "access_key": pulumi.Output.secret(account.access_key),
        "secret_key": pulumi.Output.secret(account.secret_key.get_secret_value()),
    }
