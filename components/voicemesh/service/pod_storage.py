"""What a variant's pods need of storage: weights on the node's disk, and a place for outputs."""

from __future__ import annotations

import math
from typing import Final

import pulumi
from pulumi_kubernetes.core.v1 import (
    ContainerArgs,
    EmptyDirVolumeSourceArgs,
    EnvVarArgs,
    EnvVarSourceArgs,
    PersistentVolumeClaimVolumeSourceArgs,
    ResourceRequirementsArgs,
    SecretKeySelectorArgs,
    SecurityContextArgs,
    VolumeArgs,
    VolumeMountArgs,
)

from voicemesh import contract
from voicemesh.service.arguments import TtsVoiceServiceArgs, VoiceVariant
from voicemesh.service.data import ModelWeights, ObjectStorage
from voicemesh.sizes import memory_quantity

WEIGHTS_FOLDER: Final = "/models"
OUTPUTS_FOLDER: Final = "/outputs"
STORAGE_ROLE_ANNOTATION: Final = "voicemesh.io/storage-role"
DISK_OVERHEAD: Final = 1.05
DISK_MARGIN_GIB: Final = 1 / 16
"""What files take beyond their content."""
FETCH_SECONDS_PER_GIB: Final = 20
"""At 50 MiB/s, a fraction of what a GPU node reads from S3."""
FETCH_MARGIN_SECONDS: Final = 60


def fetch_seconds(model: ModelWeights | None) -> int:
    """How long fetching the weights may take."""
    if model is None:
        return 0
    return FETCH_MARGIN_SECONDS + math.ceil(model.size_gib * FETCH_SECONDS_PER_GIB)


def disk_requests(model: ModelWeights | None) -> dict[str, str]:
    """The disk of a node that a pod reserves for its weights."""
    return {} if model is None else {"ephemeral-storage": _disk(model)}


def _disk(model: ModelWeights) -> str:
    return memory_quantity(model.size_gib * DISK_OVERHEAD + DISK_MARGIN_GIB)


def volumes(args: TtsVoiceServiceArgs, variant: VoiceVariant) -> list[VolumeArgs]:
    """The weights' place on the node's disk, and the volume for outputs."""
    found = []
    if variant.model is not None:
        weights = EmptyDirVolumeSourceArgs(size_limit=_disk(variant.model))
        found.append(VolumeArgs(name="weights", empty_dir=weights))
    if args.outputs is not None and args.outputs.claim_name is not None:
        claim = PersistentVolumeClaimVolumeSourceArgs(claim_name=args.outputs.claim_name)
        found.append(VolumeArgs(name="outputs", persistent_volume_claim=claim))
    return found


def server_mounts(args: TtsVoiceServiceArgs, variant: VoiceVariant) -> list[VolumeMountArgs]:
    """Where the speech server finds them."""
    found = []
    if variant.model is not None:
        found.append(VolumeMountArgs(name="weights", mount_path=WEIGHTS_FOLDER, read_only=True))
    if args.outputs is not None and args.outputs.claim_name is not None:
        # Where the clean-up of a `VoiceVolume` looks for them.
        folder = contract.OUTPUTS_PREFIX.rstrip("/")
        found.append(VolumeMountArgs(name="outputs", mount_path=OUTPUTS_FOLDER, sub_path=folder))
    return found


def server_environment(args: TtsVoiceServiceArgs, variant: VoiceVariant) -> list[EnvVarArgs]:
    """What tells the speech server; it has the storage's credentials only if it writes there."""
    found = []
    if variant.model is not None:
        found.append(EnvVarArgs(name=contract.MODEL_DIRECTORY_VARIABLE, value=WEIGHTS_FOLDER))
    if args.outputs is not None:
        found.append(EnvVarArgs(name=contract.OUTPUTS_VARIABLE, value=_outputs_uri(args)))
        if args.outputs.bucket is not None and args.object_storage is not None:
            found += s3_environment(args.object_storage)
    return found


def _outputs_uri(args: TtsVoiceServiceArgs) -> pulumi.Input[str]:
    if args.outputs is None or args.outputs.bucket is None:
        return f"file://{OUTPUTS_FOLDER}/"
    prefix = f"/{contract.OUTPUTS_PREFIX}"
    return pulumi.Output.concat("s3://", args.outputs.bucket, prefix, args.namespace, "/")


def s3_environment(storage: ObjectStorage) -> list[EnvVarArgs]:
    """How AWS's SDKs reach the storage; on EKS, Pod Identity adds the credentials."""
    found = [EnvVarArgs(name="AWS_REGION", value=storage.region)]
    if storage.endpoint_url is not None:
        found.append(EnvVarArgs(name="AWS_ENDPOINT_URL_S3", value=storage.endpoint_url))
    if storage.credentials_secret is not None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            key = SecretKeySelectorArgs(name=storage.credentials_secret, key=name)
            found.append(EnvVarArgs(name=name, value_from=EnvVarSourceArgs(secret_key_ref=key)))
    return found


def pod_annotations(args: TtsVoiceServiceArgs) -> dict[str, pulumi.Input[str]]:
    """The role behind a pod's credentials: with another one, pods are replaced."""
    if args.object_storage is None or args.object_storage.role_arn is None:
        return {}
    return {STORAGE_ROLE_ANNOTATION: args.object_storage.role_arn}


def init_containers(
    args: TtsVoiceServiceArgs, variant: VoiceVariant, security: SecurityContextArgs
) -> list[ContainerArgs]:
    """What fetches and verifies the weights before the speech server starts.

    The sidecar is there before it: istiod makes it a native one
    (https://istio.io/latest/blog/2023/native-sidecars/).
    """
    model, storage = variant.model, args.object_storage
    if model is None or storage is None:
        return []
    requests = variant.size.requests
    return [
        ContainerArgs(
            name="weights",
            image=variant.image,
            image_pull_policy="IfNotPresent",
            command=["python", "-m", contract.WEIGHTS_MODULE],
            args=[
                model.uri,
                *("--sha256", model.sha256),
                *("--size-gib", str(model.size_gib)),
                *("--folder", WEIGHTS_FOLDER),
            ],
            env=s3_environment(storage),
            # As much as the speech server, which is not there yet: it costs no quota.
            resources=ResourceRequirementsArgs(
                requests={**requests, **disk_requests(model)},
                limits={"memory": requests["memory"]},
            ),
            security_context=security,
            volume_mounts=[VolumeMountArgs(name="weights", mount_path=WEIGHTS_FOLDER)],
            # Whoever asks for the pod reads which object was refused.
            termination_message_policy="FallbackToLogsOnError",
        )
    ]
