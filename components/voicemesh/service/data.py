"""Where a voice's weights come from, and where its audio goes."""

import re
from dataclasses import dataclass
from typing import Final

import pulumi

from voicemesh.arguments import URL, Faults, is_known

WEIGHTS_URI: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/([^/]+/)+")
SHA256: Final = re.compile(r"[0-9a-f]{64}")
BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class ModelWeights:
    """Weights in object storage, which each pod copies to the disk of its node when it starts.

    Beside the weights lies `SHA256SUMS`, as `sha256sum` writes it: a line for each object, with its
    name relative to `uri`. Nothing that differs from it is ever loaded.
    """

    uri: pulumi.Input[str]
    """The objects' common prefix, as in `s3://voices/models/glm-tts/1.2.0/`."""

    sha256: str
    """Digest of `SHA256SUMS`, in hexadecimal: it pins every object."""

    size_gib: float
    """Size of all objects in GiB; that much of the node's disk is reserved for each pod."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes what cannot be fetched or verified."""
        faults.matches(WEIGHTS_URI, f"{path}.uri", self.uri, "as in 's3://bucket/models/name/1.0/'")
        allowed = "the 64 hexadecimal digits of the SHA-256 of SHA256SUMS"
        faults.matches(SHA256, f"{path}.sha256", self.sha256, allowed)
        faults.at_least(0.001, f"{path}.size_gib", self.size_gib)


@dataclass(frozen=True)
class ObjectStorage:
    """How pods reach S3, or what speaks its protocol."""

    region: pulumi.Input[str]
    """Region of the bucket; any name, as in `us-east-1`, for storage that knows no regions."""

    endpoint_url: pulumi.Input[str] | None = None
    """Address of the storage; None for AWS. On another port than 443, the tenant's network has to
    allow it: `TenantNetwork.egress`."""

    role_arn: pulumi.Input[str] | None = None
    """Role that EKS Pod Identity gives the pods: `VoiceStorageAccess.role_arn`. Credentials reach
    a pod only when it is made, so pods wait for the role, and are replaced with it.
    Conflicts with `credentials_secret`."""

    credentials_secret: pulumi.Input[str] | None = None
    """Name of a Secret in the voice's namespace with the keys AWS_ACCESS_KEY_ID and
    AWS_SECRET_ACCESS_KEY; None for EKS Pod Identity."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes what leads nowhere."""
        allowed = "a URL as in 'https://minio.example.com:9000'"
        if self.endpoint_url is not None:
            faults.matches(URL, f"{path}.endpoint_url", self.endpoint_url, allowed)
        if self.credentials_secret is not None:
            faults.dns_label(f"{path}.credentials_secret", self.credentials_secret)
            faults.require(
                self.role_arn is None,
                f"{path}.credentials_secret",
                self.credentials_secret if is_known(self.credentials_secret) else "given",
                "nothing, since role_arn is given",
            )


@dataclass(frozen=True)
class OutputStorage:
    """Where audio that outlives its request is put: a bucket, or a volume.

    The server is told by `SPEECH_OUTPUTS_URI`. The bundled one puts nothing there so far; an image
    with a batch or recording engine does.
    """

    bucket: pulumi.Input[str] | None = None
    """Bucket, in which the voice uses the prefix `outputs/<namespace>/`. Needs `object_storage`;
    conflicts with `claim_name`."""

    claim_name: pulumi.Input[str] | None = None
    """A PersistentVolumeClaim in the voice's namespace that many pods may write at the same time
    (ReadWriteMany), mounted at /outputs. Conflicts with `bucket`."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes no place, or two."""
        one = (self.bucket is None) is not (self.claim_name is None)
        bucket = self.bucket if is_known(self.bucket) else "given"
        faults.require(one, f"{path}.bucket", bucket, "either bucket or claim_name")
        if self.bucket is not None:
            faults.matches(BUCKET, f"{path}.bucket", self.bucket, "the name of a bucket")
        if self.claim_name is not None:
            faults.dns_label(f"{path}.claim_name", self.claim_name)
