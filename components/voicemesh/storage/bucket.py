"""`VoiceStorage`: one bucket for models, reference voices and the audio that is made."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pulumi
from pulumi_aws import kms, s3

from voicemesh import contract
from voicemesh.arguments import Faults
from voicemesh.component import after, child_options

_BUCKET_NAME_LENGTH: Final = range(3, 64)
_KEY_DELETION_DAYS: Final = 30
_ABORT_UPLOAD_DAYS: Final = 1
# S3 counts these days from when a version was replaced or expired, and accepts no less.
_NONCURRENT_DAYS: Final = 1


@dataclass(frozen=True)
class VoiceStorageArgs:
    """Arguments of `VoiceStorage`."""

    bucket_name: pulumi.Input[str] | None = None
    """Name of the bucket, unique in all of AWS; by default the component's name with a random end,
    so that two stacks never want the same one."""

    output_days: int = 7
    """Days after which what lies under `outputs/` expires; a version that was replaced or expired
    goes one day later. S3 counts from the midnight (UTC) that follows. What lies under `models/`
    and `voices/` never expires.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html"""

    quality_days: int = 30
    """Days after which the audio kept to judge quality, under `quality/`, expires in the same
    way."""

    deletion_protection: bool = True
    """Whether bucket and key are protected: `pulumi destroy` then refuses to touch them. Without
    it, the bucket is deleted with everything in it."""

    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of bucket and key."""

    def __post_init__(self) -> None:
        faults = Faults.of(self)
        if isinstance(self.bucket_name, str):
            fits = len(self.bucket_name) in _BUCKET_NAME_LENGTH
            faults.require(fits, "bucket_name", self.bucket_name, "3 to 63 characters")
            faults.dns_label("bucket_name", self.bucket_name.replace(".", "-"))
        faults.whole_number(1, "output_days", self.output_days)
        faults.whole_number(1, "quality_days", self.quality_days)
        faults.raise_any()


class VoiceStorage(pulumi.ComponentResource):
    """A versioned bucket, encrypted with a key of its own, private, and reached by TLS only."""

    bucket: pulumi.Output[str]
    """Name of the bucket; it exists once it is private, encrypted and versioned."""

    bucket_arn: pulumi.Output[str]
    """ARN of the bucket."""

    key_arn: pulumi.Output[str]
    """ARN of the key that encrypts it."""

    def __init__(
        self, name: str, args: VoiceStorageArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("voicemesh:index:VoiceStorage", name, {}, opts)
        stateful = pulumi.ResourceOptions(protect=args.deletion_protection)
        key = kms.Key(
            name,
            description=f"Encrypts the audio and models of {name}",
            enable_key_rotation=True,
            deletion_window_in_days=_KEY_DELETION_DAYS,
            tags=args.tags,
            opts=child_options(self, stateful),
        )
        bucket = s3.Bucket(
            name,
            bucket=args.bucket_name,
            force_destroy=not args.deletion_protection,
            tags=args.tags,
            opts=child_options(self, stateful),
        )
        guards = [*self._access(name, bucket), *self._contents(name, args, bucket, key)]
        self.bucket = after(bucket.bucket, *guards)
        self.bucket_arn = after(bucket.arn, *guards)
        self.key_arn = key.arn
        self.register_outputs(
            {"bucket": self.bucket, "bucket_arn": self.bucket_arn, "key_arn": self.key_arn}
        )

    def _access(self, name: str, bucket: s3.Bucket) -> list[pulumi.Resource]:
        private = s3.BucketPublicAccessBlock(
            name,
            bucket=bucket.bucket,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=child_options(self),
        )
        owned = s3.BucketOwnershipControls(
            name,
            bucket=bucket.bucket,
            rule={"object_ownership": "BucketOwnerEnforced"},
            opts=child_options(self),
        )
        policy = s3.BucketPolicy(
            name,
            bucket=bucket.bucket,
            policy=bucket.arn.apply(lambda arn: json.dumps(tls_only_policy(arn))),
            # From here on AWS judges each policy by whether it makes the bucket public.
            opts=child_options(self, pulumi.ResourceOptions(depends_on=[private])),
        )
        return [private, owned, policy]

    def _contents(
        self, name: str, args: VoiceStorageArgs, bucket: s3.Bucket, key: kms.Key
    ) -> list[pulumi.Resource]:
        versioned = s3.BucketVersioning(
            name,
            bucket=bucket.bucket,
            versioning_configuration={"status": "Enabled"},
            opts=child_options(self),
        )
        encrypted = s3.BucketServerSideEncryptionConfiguration(
            name,
            bucket=bucket.bucket,
            rules=[
                {
                    "apply_server_side_encryption_by_default": {
                        "sse_algorithm": "aws:kms",
                        "kms_master_key_id": key.arn,
                    },
                    "bucket_key_enabled": True,
                }
            ],
            opts=child_options(self),
        )
        s3.BucketLifecycleConfiguration(
            name,
            bucket=bucket.bucket,
            rules=lifecycle_rules(args.output_days, args.quality_days),
            # Rules for noncurrent versions need versioning to be on.
            opts=child_options(self, pulumi.ResourceOptions(depends_on=[versioned])),
        )
        return [versioned, encrypted]


def tls_only_policy(bucket_arn: str) -> dict[str, Any]:
    """A bucket policy that denies every request that does not come by TLS."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "DenyWithoutTls",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [bucket_arn, f"{bucket_arn}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }


def lifecycle_rules(output_days: int, quality_days: int) -> list[Any]:
    """Outputs and quality snapshots expire, versions and delete markers included; unfinished
    uploads are given up."""
    return [
        *_expiry("outputs", contract.OUTPUTS_PREFIX, output_days),
        *_expiry("quality", contract.QUALITY_PREFIX, quality_days),
        {
            "id": "abort-unfinished-uploads",
            "status": "Enabled",
            "filter": {"prefix": ""},
            "abort_incomplete_multipart_upload": {"days_after_initiation": _ABORT_UPLOAD_DAYS},
        },
    ]


def _expiry(what: str, prefix: str, days: int) -> list[Any]:
    return [
        {
            "id": f"expire-{what}",
            "status": "Enabled",
            "filter": {"prefix": prefix},
            "expiration": {"days": days},
            "noncurrent_version_expiration": {"noncurrent_days": _NONCURRENT_DAYS},
        },
        {
            # S3 does not take this together with `days` in one rule.
            "id": f"remove-delete-markers-of-{what}",
            "status": "Enabled",
            "filter": {"prefix": prefix},
            "expiration": {"expired_object_delete_marker": True},
        },
    ]
