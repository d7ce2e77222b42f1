"""`VoiceVolume`: a shared file system for voices and outputs, where there is no object storage."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pulumi
from pulumi_kubernetes.batch.v1 import CronJob, CronJobSpecArgs, JobSpecArgs, JobTemplateSpecArgs
from pulumi_kubernetes.core.v1 import (
    CapabilitiesArgs,
    ContainerArgs,
    PersistentVolumeClaim,
    PersistentVolumeClaimSpecArgs,
    PersistentVolumeClaimVolumeSourceArgs,
    PodSecurityContextArgs,
    PodSpecArgs,
    PodTemplateSpecArgs,
    ResourceRequirementsArgs,
    SeccompProfileArgs,
    SecurityContextArgs,
    VolumeArgs,
    VolumeMountArgs,
    VolumeResourceRequirementsArgs,
)
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from voicemesh import contract
from voicemesh.arguments import Faults
from voicemesh.component import after, child_options
from voicemesh.sizes import ComputeSize, memory_quantity

# Cron jobs' names are 11 characters shorter than other names: their jobs' names end in a time.
# https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/
_MAX_NAME: Final = 52
_MOUNT_PATH: Final = "/volume"
_HOURLY: Final = "17 * * * *"
_DEADLINE_SECONDS: Final = 3000
_STARTING_DEADLINE_SECONDS: Final = 1800
_KEEP_JOB_SECONDS: Final = 86_400


@dataclass(frozen=True)
class VoiceVolumeArgs:
    """Arguments of `VoiceVolume`."""

    namespace: pulumi.Input[str]
    """Namespace of the tenant: `TenantNamespace.namespace`."""

    storage_class: str
    """Storage class of a file system that many nodes can write to at once, as EFS and NFS can."""

    cleanup_image: pulumi.Input[str]
    """Image that deletes old outputs: any with `python3`, such as the speech server's."""

    size_gib: int = 100
    """Size that is asked for, in GiB. Elastic file systems, EFS among them, ignore it."""

    claim_name: str | None = None
    """Name of the claim, at most 52 characters; by default the component's name."""

    output_days: int = 7
    """Days after which files under `outputs/` are deleted, at most an hour late. Files elsewhere
    on the volume never are."""

    cleanup_size: ComputeSize = field(default_factory=lambda: ComputeSize(0.05, 0.0625))
    """CPU and memory of the pod that deletes them; it counts towards the tenant's quota while it
    runs."""

    deletion_protection: bool = True
    """Whether the claim is protected: `pulumi destroy` then refuses to touch it."""

    def __post_init__(self) -> None:
        faults = Faults.of(self)
        faults.dns_label("namespace", self.namespace)
        faults.require(bool(self.storage_class), "storage_class", self.storage_class, "a name")
        empty = self.cleanup_image == ""
        faults.require(not empty, "cleanup_image", self.cleanup_image, "an image")
        faults.whole_number(1, "size_gib", self.size_gib)
        faults.whole_number(1, "output_days", self.output_days)
        if self.claim_name is not None:
            _check_claim_name(faults, self.claim_name)
        self.cleanup_size.check(faults, "cleanup_size")
        faults.raise_any()


class VoiceVolume(pulumi.ComponentResource):
    """A claim for a shared file system, laid out as a bucket is, and the job that cleans it up.

    Old outputs are deleted every hour; voices and models stay.
    """

    claim_name: pulumi.Output[str]
    """Name of the claim, for the pods that mount it."""

    def __init__(
        self, name: str, args: VoiceVolumeArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("voicemesh:index:VoiceVolume", name, {}, opts)
        claim_name = args.claim_name or _as_claim_name(name)
        claim = PersistentVolumeClaim(
            name,
            metadata=ObjectMetaArgs(name=claim_name, namespace=args.namespace),
            spec=PersistentVolumeClaimSpecArgs(
                access_modes=["ReadWriteMany"],
                storage_class_name=args.storage_class,
                resources=VolumeResourceRequirementsArgs(
                    requests={"storage": memory_quantity(args.size_gib)}
                ),
            ),
            opts=child_options(self, pulumi.ResourceOptions(protect=args.deletion_protection)),
        )
        self.claim_name = after(claim_name, claim)
        CronJob(
            name,
            metadata=ObjectMetaArgs(name=claim_name, namespace=args.namespace),
            spec=cleanup_spec(args, self.claim_name),
            opts=child_options(self),
        )
        self.register_outputs({"claim_name": self.claim_name})


def cleanup_spec(args: VoiceVolumeArgs, claim_name: pulumi.Input[str]) -> CronJobSpecArgs:
    """Every hour, one pod without network identity that can write to the volume only."""
    return CronJobSpecArgs(
        schedule=_HOURLY,
        concurrency_policy="Forbid",
        # Without it, a controller that missed a hundred starts would never start the job again.
        starting_deadline_seconds=_STARTING_DEADLINE_SECONDS,
        successful_jobs_history_limit=1,
        failed_jobs_history_limit=1,
        job_template=JobTemplateSpecArgs(
            spec=JobSpecArgs(
                backoff_limit=1,
                active_deadline_seconds=_DEADLINE_SECONDS,
                ttl_seconds_after_finished=_KEEP_JOB_SECONDS,
                template=PodTemplateSpecArgs(
                    # A sidecar would have to be told when the job is done, and adds nothing to it.
                    metadata=ObjectMetaArgs(labels={"sidecar.istio.io/inject": "false"}),
                    spec=_cleanup_pod(args, claim_name),
                ),
            )
        ),
    )


def cleanup_command(folder: str, output_days: int) -> list[str]:
    """Deletes what is older than `output_days` below `folder`."""
    script = Path(__file__).with_name("delete_old_files.py").read_text()
    return ["python3", "-c", script, folder, str(output_days)]


def _as_claim_name(name: str) -> str:
    faults = Faults("VoiceVolume")
    _check_claim_name(faults, name)
    faults.raise_any()
    return name


def _check_claim_name(faults: Faults, name: str) -> None:
    faults.dns_label("claim_name", name)
    fits = len(name) <= _MAX_NAME
    faults.require(fits, "claim_name", name, f"at most {_MAX_NAME} characters")


def _cleanup_pod(args: VoiceVolumeArgs, claim_name: pulumi.Input[str]) -> PodSpecArgs:
    requests = args.cleanup_size.requests
    container = ContainerArgs(
        name="cleanup",
        image=args.cleanup_image,
        image_pull_policy="IfNotPresent",
        command=cleanup_command(f"{_MOUNT_PATH}/{contract.OUTPUTS_PREFIX}", args.output_days),
        resources=ResourceRequirementsArgs(
            requests=requests, limits={"memory": requests["memory"]}
        ),
        security_context=SecurityContextArgs(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=CapabilitiesArgs(drop=["ALL"]),
        ),
        volume_mounts=[VolumeMountArgs(name="volume", mount_path=_MOUNT_PATH)],
    )
    return PodSpecArgs(
        restart_policy="Never",
        automount_service_account_token=False,
        enable_service_links=False,
        security_context=PodSecurityContextArgs(
            run_as_non_root=True,
            run_as_user=contract.UNPRIVILEGED_USER,
            run_as_group=contract.UNPRIVILEGED_USER,
            fs_group=contract.UNPRIVILEGED_USER,
            # Asking each file of a large volume for its owner would take minutes at every start.
            fs_group_change_policy="OnRootMismatch",
            seccomp_profile=SeccompProfileArgs(type="RuntimeDefault"),
        ),
        containers=[container],
        volumes=[
            VolumeArgs(
                name="volume",
                persistent_volume_claim=PersistentVolumeClaimVolumeSourceArgs(
                    claim_name=claim_name
                ),
            )
        ],
    )
