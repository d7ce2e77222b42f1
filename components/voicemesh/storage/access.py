"""`VoiceStorageAccess`: what one service account may do in the bucket of a `VoiceStorage`."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pulumi
from pulumi_aws import eks, iam

from voicemesh import contract
from voicemesh.arguments import Faults
from voicemesh.component import after, child_options

POD_IDENTITY_PRINCIPAL: Final = "pods.eks.amazonaws.com"

# EKS knows a new association only some seconds after it said so. A pod that is made before never
# gets the role. https://docs.aws.amazon.com/eks/latest/APIReference/API_CreatePodIdentityAssociation.html
_SECONDS_UNTIL_EFFECTIVE: Final = 20


@dataclass(frozen=True)
class VoiceStorageAccessArgs:
    """Arguments of `VoiceStorageAccess`."""

    cluster_name: pulumi.Input[str]
    """Name of the EKS cluster: `GpuCluster.cluster_name`. It runs the Pod Identity agent."""

    namespace: pulumi.Input[str]
    """Namespace of the service account: `TenantNamespace.namespace`."""

    service_account: pulumi.Input[str]
    """Name of the service account: `TtsVoiceService.service_account`."""

    tenant: str
    """Tenant whose reference voices and outputs it may read, write and delete."""

    bucket_arn: pulumi.Input[str]
    """ARN of the bucket: `VoiceStorage.bucket_arn`."""

    key_arn: pulumi.Input[str]
    """ARN of the key that encrypts the bucket: `VoiceStorage.key_arn`."""

    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of role and association."""

    def __post_init__(self) -> None:
        faults = Faults.of(self)
        faults.dns_label("namespace", self.namespace)
        faults.dns_label("service_account", self.service_account)
        faults.dns_label("tenant", self.tenant)
        for name in ("bucket_arn", "key_arn"):
            faults.arn(name, getattr(self, name))
        faults.raise_any()


async def _until_effective(_association: pulumi.ResourceHookArgs) -> None:
    await asyncio.sleep(_SECONDS_UNTIL_EFFECTIVE)


_WAIT_ONCE: Final = pulumi.ResourceHookBinding(after_create=[_until_effective])


class VoiceStorageAccess(pulumi.ComponentResource):
    """An IAM role that the pods of one service account get by EKS Pod Identity.

    It reads all models, and reads, writes and deletes the reference voices and outputs of one
    tenant; it lists nothing else, and uses the key through S3 only. An association takes effect
    when a pod starts: pods that run already do not get the role.
    https://docs.aws.amazon.com/eks/latest/userguide/pod-identities.html
    """

    role_arn: pulumi.Output[str]
    """ARN of the role; it exists once pods that are made for the service account get it."""

    def __init__(
        self, name: str, args: VoiceStorageAccessArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("voicemesh:index:VoiceStorageAccess", name, {}, opts)
        role = iam.Role(
            name,
            description=f"Models, reference voices and outputs of tenant {args.tenant}",
            assume_role_policy=pulumi.Output.all(
                args.cluster_name, args.namespace, args.service_account
            ).apply(lambda identity: json.dumps(trust_policy(*identity))),
            tags=args.tags,
            opts=child_options(self),
        )
        policy = iam.RolePolicy(
            name,
            role=role.name,
            policy=pulumi.Output.all(args.bucket_arn, args.key_arn).apply(
                lambda arns: json.dumps(access_policy(arns[0], arns[1], args.tenant))
            ),
            opts=child_options(self),
        )
        association = eks.PodIdentityAssociation(
            name,
            cluster_name=args.cluster_name,
            namespace=args.namespace,
            service_account=args.service_account,
            # A pod must not get the role before it may do anything.
            role_arn=after(role.arn, policy),
            tags=args.tags,
            opts=child_options(self, pulumi.ResourceOptions(hooks=_WAIT_ONCE)),
        )
        self.role_arn = after(role.arn, policy, association)
        self.register_outputs({"role_arn": self.role_arn})


def trust_policy(cluster_name: str, namespace: str, service_account: str) -> dict[str, Any]:
    """Lets one service account of one cluster have a role, whatever associations there are.

    EKS names whom it asks for in the session's tags.
    https://docs.aws.amazon.com/eks/latest/userguide/pod-id-abac.html
    """
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "OneServiceAccount",
                "Effect": "Allow",
                "Principal": {"Service": POD_IDENTITY_PRINCIPAL},
                "Action": ["sts:AssumeRole", "sts:TagSession"],
                "Condition": {
                    "StringEquals": {
                        "aws:RequestTag/eks-cluster-name": cluster_name,
                        "aws:RequestTag/kubernetes-namespace": namespace,
                        "aws:RequestTag/kubernetes-service-account": service_account,
                    }
                },
            }
        ],
    }


def access_policy(bucket_arn: str, key_arn: str, tenant: str) -> dict[str, Any]:
    """Reading models, and all that a voice does with what is its tenant's."""
    models = f"{contract.MODELS_PREFIX}*"
    own = [f"{prefix}{tenant}/*" for prefix in (contract.VOICES_PREFIX, contract.OUTPUTS_PREFIX)]
    _, partition, _, region, *_ = key_arn.split(":")
    s3 = f"s3.{region}.amazonaws.com{'.cn' if partition == 'aws-cn' else ''}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "ListModelsAndOwn",
                "Effect": "Allow",
                "Action": "s3:ListBucket",
                "Resource": bucket_arn,
                "Condition": {"StringLike": {"s3:prefix": [models, *own]}},
            },
            {
                "Sid": "ReadModels",
                "Effect": "Allow",
                "Action": "s3:GetObject",
                "Resource": f"{bucket_arn}/{models}",
            },
            {
                "Sid": "ChangeOwn",
                "Effect": "Allow",
                "Action": [
                    "s3:GetObject",
                    "s3:PutObject",
                    "s3:DeleteObject",
                    "s3:AbortMultipartUpload",
                ],
                "Resource": [f"{bucket_arn}/{prefix}" for prefix in own],
            },
            {
                "Sid": "UseKeyThroughS3",
                "Effect": "Allow",
                "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
                "Resource": key_arn,
                "Condition": {"StringEquals": {"kms:ViaService": s3}},
            },
        ],
    }
