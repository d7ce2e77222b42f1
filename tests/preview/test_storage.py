"""What the storage components declare: options, privacy, access, and the volume's clean-up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes
import pytest

from tests.preview import rules
from tests.preview.rules import Rule, mutated, with_options
from voicemesh import (
    ComputeSize,
    OutputStorage,
    TtsVoiceService,
    TtsVoiceServiceArgs,
    VoiceStorage,
    VoiceStorageAccess,
    VoiceStorageAccessArgs,
    VoiceStorageArgs,
    VoiceVariant,
    VoiceVolume,
    VoiceVolumeArgs,
)
from voicemesh.arguments import ArgumentsError
from voicemesh.testing import EchoMocks, Recording, Registration, record

BUCKET = "aws:s3/bucket:Bucket"
KEY = "aws:kms/key:Key"
POLICY = "aws:s3/bucketPolicy:BucketPolicy"
VERSIONING = "aws:s3/bucketVersioning:BucketVersioning"
ENCRYPTION = (
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
)
PUBLIC_ACCESS = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
OWNERSHIP = "aws:s3/bucketOwnershipControls:BucketOwnershipControls"
LIFECYCLE = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
ROLE = "aws:iam/role:Role"
ROLE_POLICY = "aws:iam/rolePolicy:RolePolicy"
ASSOCIATION = "aws:eks/podIdentityAssociation:PodIdentityAssociation"
CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"
CRON_JOB = "kubernetes:batch/v1:CronJob"

BUCKET_ARN = "arn:aws:s3:::voices-1a2b3c4"
KEY_ARN = "arn:aws:kms:eu-west-1:123456789012:key/1"
ROLE_ARN = "arn:aws:iam::123456789012:role/speech"
OUTPUTS = {
    BUCKET: {"arn": BUCKET_ARN, "bucket": "voices-1a2b3c4"},
    KEY: {"arn": KEY_ARN},
    ROLE: {"arn": ROLE_ARN, "name": "speech-5d6e7f8"},
}
STATEFUL = (BUCKET, KEY, CLAIM)
DAY_SECONDS = 86_400


def recorded(
    options: pulumi.ResourceOptions | None = None, **arguments: Any
) -> tuple[Recording, dict[str, Any]]:
    """All three components, wired to each other; `arguments` are those they share, or one has."""
    given = {"deletion_protection": True, "output_days": 7, **arguments}
    resolved: dict[str, Any] = {}

    def program() -> None:
        providers: list[pulumi.ProviderResource] = [
            kubernetes.Provider("cluster", kubeconfig="{}"),
            aws.Provider("aws", region="eu-west-1"),
        ]
        opts = pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(providers=providers))
        storage = VoiceStorage("voices", VoiceStorageArgs(**given), opts)
        access = VoiceStorageAccess(
            "speech",
            VoiceStorageAccessArgs(
                cluster_name="prod",
                namespace="tts",
                service_account=pulumi.Output.from_input("speech"),
                tenant="acme",
                bucket_arn=storage.bucket_arn,
                key_arn=storage.key_arn,
            ),
            opts,
        )
        volume = VoiceVolume(
            "shared",
            VoiceVolumeArgs(
                namespace="tts", storage_class="efs", cleanup_image="speech:1", **given
            ),
            opts,
        )
        outputs = {
            "bucket": storage.bucket,
            "role": access.role_arn,
            "claim": volume.claim_name,
        }
        pulumi.Output.all(**outputs).apply(resolved.update)

    return record(program, resource_mocks=EchoMocks(outputs=OUTPUTS)), resolved


@pytest.fixture(scope="module")
def storage() -> Recording:
    return recorded()[0]


# What must hold for every bucket and claim, as functions that find what does not.


def what_is_kept_is_protected(recording: Recording) -> Iterator[str]:
    for resource in recording.registrations:
        if resource.type in STATEFUL and not resource.protect:
            yield f"{resource.urn} is not protected"
        if resource.type not in STATEFUL and resource.protect:
            yield f"{resource.urn} is protected, although it holds nothing"
        if resource.inputs.get("forceDestroy"):
            yield f"{resource.urn} is deleted with what it holds"


def buckets_are_private(recording: Recording) -> Iterator[str]:
    for bucket in recording.of_type(BUCKET):
        block = _inputs(recording, PUBLIC_ACCESS, bucket)
        flags = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls")
        for flag in (*flags, "restrictPublicBuckets"):
            if block.get(flag) is not True:
                yield f"{bucket.name} may become public: no {flag}"
        rule = _inputs(recording, OWNERSHIP, bucket).get("rule", {})
        if rule.get("objectOwnership") != "BucketOwnerEnforced":
            yield f"{bucket.name} has access control lists"


def buckets_are_reached_by_tls_only(recording: Recording) -> Iterator[str]:
    denied = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [BUCKET_ARN, f"{BUCKET_ARN}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    for bucket in recording.of_type(BUCKET):
        policy = json.loads(_inputs(recording, POLICY, bucket).get("policy", '{"Statement": []}'))
        if not any(denied.items() <= statement.items() for statement in policy["Statement"]):
            yield f"{bucket.name} can be reached without TLS"


def buckets_are_encrypted_with_a_key_that_rotates(recording: Recording) -> Iterator[str]:
    for bucket in recording.of_type(BUCKET):
        for rule in _inputs(recording, ENCRYPTION, bucket).get("rules", [{}]):
            default = rule.get("applyServerSideEncryptionByDefault", {})
            if default != {"sseAlgorithm": "aws:kms", "kmsMasterKeyId": KEY_ARN}:
                yield f"{bucket.name} is encrypted by {default}"
            if not rule.get("bucketKeyEnabled"):
                yield f"{bucket.name} asks for a key for each object"
    for key in recording.of_type(KEY):
        if not key.inputs.get("enableKeyRotation"):
            yield f"{key.name} never rotates"


def rules_for_versions_wait_for_versioning(recording: Recording) -> Iterator[str]:
    for bucket in recording.of_type(BUCKET):
        versioning = _inputs(recording, VERSIONING, bucket).get("versioningConfiguration")
        if versioning != {"status": "Enabled"}:
            yield f"{bucket.name} keeps no versions"
    for lifecycle in recording.of_type(LIFECYCLE):
        if not any(VERSIONING in urn for urn in lifecycle.depends_on):
            yield f"{lifecycle.name} may come before versioning"


def roles_have_their_policy_before_pods_get_them(recording: Recording) -> Iterator[str]:
    for association in recording.of_type(ASSOCIATION):
        if not any(ROLE_POLICY in urn for urn in association.depends_on):
            yield f"{association.name} may give pods a role that allows nothing"
        if association.inputs["roleArn"] != ROLE_ARN:
            yield f"{association.name} gives {association.inputs['roleArn']}"


def cleanup_meets_the_restricted_standard(recording: Recording) -> Iterator[str]:
    for job in recording.of_type(CRON_JOB):
        pod = _template(job)["spec"]
        context, (container,) = pod.get("securityContext", {}), pod["containers"]
        own = container.get("securityContext", {})
        for holds, fault in (
            (context.get("runAsNonRoot"), "may run as root"),
            (context.get("seccompProfile") == {"type": "RuntimeDefault"}, "has no seccomp profile"),
            (own.get("allowPrivilegeEscalation") is False, "allows privilege escalation"),
            (own.get("capabilities", {}).get("drop") == ["ALL"], "keeps capabilities"),
            (own.get("readOnlyRootFilesystem"), "can write to its image"),
            (pod.get("automountServiceAccountToken") is False, "carries a token"),
            (container["resources"].get("limits", {}).get("memory"), "has no memory limit"),
        ):
            if not holds:
                yield f"{job.name} {fault}"


def cleanup_ends_and_never_overlaps(recording: Recording) -> Iterator[str]:
    for job in recording.of_type(CRON_JOB):
        spec = job.inputs["spec"]
        labels = _template(job)["metadata"]["labels"]
        for holds, fault in (
            (spec.get("concurrencyPolicy") == "Forbid", "runs twice at once"),
            ("startingDeadlineSeconds" in spec, "is given up after a hundred missed starts"),
            ("ttlSecondsAfterFinished" in spec["jobTemplate"]["spec"], "leaves its pods"),
            ("activeDeadlineSeconds" in spec["jobTemplate"]["spec"], "may run for ever"),
            (labels.get("sidecar.istio.io/inject") == "false", "waits for its sidecar"),
            (_template(job)["spec"].get("restartPolicy") == "Never", "is restarted in place"),
        ):
            if not holds:
                yield f"{job.name} {fault}"


def claims_are_shared(recording: Recording) -> Iterator[str]:
    for claim in recording.of_type(CLAIM):
        if claim.inputs["spec"]["accessModes"] != ["ReadWriteMany"]:
            yield f"{claim.name} can be mounted on one node only"


INVARIANTS: list[Rule] = [
    rules.every_resource_is_the_child_of_a_component,
    rules.every_component_registers_outputs,
    rules.every_resource_uses_the_explicit_provider_of_its_package,
    rules.no_option_of_a_component_reaches_its_children,
    rules.no_object_is_declared_twice,
]

Change = Callable[[dict[str, Any]], Any]


def _first(change: Change) -> Change:
    return lambda inputs: change(inputs["rules"][0])


def _job(change: Change) -> Change:
    return lambda inputs: change(inputs["spec"]["jobTemplate"]["spec"])


def _pod(change: Change) -> Change:
    return _job(lambda job: change(job["template"]["spec"]))


def _container(change: Change) -> Change:
    return _pod(lambda pod: change(pod["containers"][0]))


# A rule, and one change to the inputs that it must catch.
MUTATIONS: list[tuple[Rule, str, Change]] = [
    (what_is_kept_is_protected, BUCKET, lambda inputs: inputs.update(forceDestroy=True)),
    (buckets_are_private, PUBLIC_ACCESS, lambda inputs: inputs.pop("restrictPublicBuckets")),
    (buckets_are_private, PUBLIC_ACCESS, lambda inputs: inputs.update(bucket="other")),
    (buckets_are_private, OWNERSHIP, lambda inputs: inputs["rule"].clear()),
    (
        buckets_are_reached_by_tls_only,
        POLICY,
        lambda inputs: inputs.update(policy=inputs["policy"].replace("Secure", "Insecure")),
    ),
    (
        buckets_are_reached_by_tls_only,
        POLICY,
        lambda inputs: inputs.update(policy=inputs["policy"].replace("/*", "/voices/*")),
    ),
    (
        buckets_are_encrypted_with_a_key_that_rotates,
        ENCRYPTION,
        _first(lambda rule: rule["applyServerSideEncryptionByDefault"].pop("kmsMasterKeyId")),
    ),
    (
        buckets_are_encrypted_with_a_key_that_rotates,
        ENCRYPTION,
        _first(lambda rule: rule.pop("bucketKeyEnabled")),
    ),
    (
        buckets_are_encrypted_with_a_key_that_rotates,
        KEY,
        lambda inputs: inputs.pop("enableKeyRotation"),
    ),
    (
        rules_for_versions_wait_for_versioning,
        VERSIONING,
        lambda inputs: inputs["versioningConfiguration"].update(status="Suspended"),
    ),
    (
        roles_have_their_policy_before_pods_get_them,
        ASSOCIATION,
        lambda inputs: inputs.update(roleArn="arn:aws:iam::123456789012:role/other"),
    ),
    (
        cleanup_meets_the_restricted_standard,
        CRON_JOB,
        _pod(lambda pod: pod["securityContext"].pop("seccompProfile")),
    ),
    (
        cleanup_meets_the_restricted_standard,
        CRON_JOB,
        _pod(lambda pod: pod.pop("automountServiceAccountToken")),
    ),
    (
        cleanup_meets_the_restricted_standard,
        CRON_JOB,
        _container(lambda container: container["securityContext"].pop("capabilities")),
    ),
    (
        cleanup_meets_the_restricted_standard,
        CRON_JOB,
        _container(lambda container: container["resources"].pop("limits")),
    ),
    (
        cleanup_ends_and_never_overlaps,
        CRON_JOB,
        lambda inputs: inputs["spec"].pop("concurrencyPolicy"),
    ),
    (
        cleanup_ends_and_never_overlaps,
        CRON_JOB,
        _job(lambda job: job.pop("ttlSecondsAfterFinished")),
    ),
    (
        cleanup_ends_and_never_overlaps,
        CRON_JOB,
        lambda inputs: inputs["spec"].pop("startingDeadlineSeconds"),
    ),
    (
        cleanup_ends_and_never_overlaps,
        CRON_JOB,
        _job(lambda job: job["template"]["metadata"]["labels"].clear()),
    ),
    (
        claims_are_shared,
        CLAIM,
        lambda inputs: inputs["spec"].update(accessModes=["ReadWriteOnce"]),
    ),
]

# A rule, and one change to the options of a type's resources that it must catch.
OPTION_MUTATIONS: list[tuple[Rule, str, dict[str, Any]]] = [
    (what_is_kept_is_protected, BUCKET, {"protect": False}),
    (what_is_kept_is_protected, KEY, {"protect": False}),
    (what_is_kept_is_protected, CLAIM, {"protect": False}),
    (what_is_kept_is_protected, LIFECYCLE, {"protect": True}),
    (rules_for_versions_wait_for_versioning, LIFECYCLE, {"depends_on": frozenset()}),
    (roles_have_their_policy_before_pods_get_them, ASSOCIATION, {"depends_on": frozenset()}),
    (rules.every_resource_is_the_child_of_a_component, ROLE_POLICY, {"parent": "stack"}),
    (rules.every_resource_uses_the_explicit_provider_of_its_package, CRON_JOB, {"provider": ""}),
    (rules.every_component_registers_outputs, "voicemesh:index:VoiceVolume", {"outputs": None}),
]


@pytest.mark.parametrize("rule", INVARIANTS, ids=lambda rule: rule.__name__)
def test_invariant(rule: Rule, storage: Recording) -> None:
    assert list(rule(storage)) == []


@pytest.mark.parametrize(
    ("rule", "type_", "change"),
    MUTATIONS,
    ids=[f"{rule.__name__}-{index}" for index, (rule, _, _) in enumerate(MUTATIONS)],
)
def test_rule_holds_and_notices_the_fault(
    rule: Rule, type_: str, change: Change, storage: Recording
) -> None:
    assert list(rule(storage)) == []
    assert list(rule(mutated(storage, type_, change)))


@pytest.mark.parametrize(
    ("rule", "type_", "options"),
    OPTION_MUTATIONS,
    ids=[f"{rule.__name__}-{index}" for index, (rule, _, _) in enumerate(OPTION_MUTATIONS)],
)
def test_rule_holds_and_notices_the_option(
    rule: Rule, type_: str, options: dict[str, Any], storage: Recording
) -> None:
    assert list(rule(storage)) == []
    assert list(rule(with_options(storage, type_, **options)))


def test_no_option_that_the_caller_gives_reaches_a_child() -> None:
    given = pulumi.ResourceOptions(
        protect=True, aliases=[pulumi.Alias(name="before")], ignore_changes=["tags"]
    )
    recording, _ = recorded(given, deletion_protection=False)
    assert all(component.protect for component in recording.components())
    assert [*rules.no_option_of_a_component_reaches_its_children(recording)] == []
    leaking = with_options(recording, ROLE_POLICY, protect=True)
    assert [*rules.no_option_of_a_component_reaches_its_children(leaking)]


def test_without_protection_everything_can_be_destroyed() -> None:
    recording, _ = recorded(deletion_protection=False)
    assert not any(resource.protect for resource in recording.registrations)
    assert recording.one(BUCKET).inputs["forceDestroy"] is True


def test_names_are_left_to_the_engine_unless_they_are_given() -> None:
    assert "bucket" not in recorded()[0].one(BUCKET).inputs
    assert "name" not in recorded()[0].one(ROLE).inputs


def test_outputs_are_what_others_mount_and_assume() -> None:
    assert recorded()[1] == {"bucket": "voices-1a2b3c4", "role": ROLE_ARN, "claim": "shared"}


def test_urns_are_the_ones_that_stacks_in_use_already_have(storage: Recording) -> None:
    prefix = "urn:pulumi:test::voicemesh::voicemesh:index:VoiceStorage$"
    (component,) = storage.of_type("voicemesh:index:VoiceStorage")
    assert {child.urn.removeprefix(prefix) for child in storage.children(component)} == {
        f"{type_}::voices"
        for type_ in (
            BUCKET,
            KEY,
            POLICY,
            VERSIONING,
            ENCRYPTION,
            PUBLIC_ACCESS,
            OWNERSHIP,
            LIFECYCLE,
        )
    }


ACCESS = VoiceStorageAccessArgs("prod", "tts", "speech", "acme", BUCKET_ARN, KEY_ARN)
VOLUME = VoiceVolumeArgs("tts", "efs", "speech:1")


@pytest.mark.parametrize(
    ("valid", "changes", "refusal"),
    [
        (VoiceStorageArgs(), {"output_days": 0}, "output_days is 0; allowed: a whole number ≥ 1"),
        (VoiceStorageArgs(), {"output_days": 7.5}, "output_days is 7.5; allowed: a whole number"),
        (VoiceStorageArgs(), {"quality_days": True}, "quality_days is True; allowed: a whole"),
        (VoiceStorageArgs(), {"bucket_name": "V"}, "bucket_name is 'V'; allowed: 3 to 63"),
        (ACCESS, {"tenant": "*"}, "tenant is '\\*'; allowed: up to 63 of a-z"),
        (ACCESS, {"tenant": "acme/other"}, "tenant is 'acme/other'; allowed: up to 63"),
        (ACCESS, {"namespace": "Tts"}, "namespace is 'Tts'; allowed: up to 63"),
        (ACCESS, {"service_account": ""}, "service_account is ''; allowed: up to 63"),
        (ACCESS, {"bucket_arn": "voices"}, "bucket_arn is 'voices'; allowed: an ARN"),
        (ACCESS, {"key_arn": "alias/voices"}, "key_arn is 'alias/voices'; allowed: an ARN"),
        (VOLUME, {"storage_class": ""}, "storage_class is ''; allowed: a name"),
        (VOLUME, {"cleanup_image": ""}, "cleanup_image is ''; allowed: an image"),
        (VOLUME, {"size_gib": 0}, "size_gib is 0; allowed: a whole number ≥ 1"),
        (VOLUME, {"output_days": -1}, "output_days is -1; allowed: a whole number ≥ 1"),
        (VOLUME, {"claim_name": "x" * 53}, "claim_name is 'x{53}'; allowed: at most 52"),
        (VOLUME, {"cleanup_size": ComputeSize(0, 1)}, "cleanup_size.cpu_cores is 0; allowed"),
    ],
)
def test_arguments_that_cannot_work_are_refused_by_name(
    valid: Any, changes: dict[str, Any], refusal: str
) -> None:
    component = type(valid).__name__.removesuffix("Args")
    with pytest.raises(ArgumentsError, match=f"^{component}: {refusal}"):
        replace(valid, **changes)


def test_a_component_whose_name_is_no_claims_name_is_refused() -> None:
    def program() -> None:
        VoiceVolume("Shared", VOLUME)

    with pytest.raises(ArgumentsError, match="VoiceVolume: claim_name is 'Shared'; allowed: up to"):
        record(program)


class TestAccess:
    def test_pods_of_one_service_account_get_the_role(self, storage: Recording) -> None:
        association = storage.one(ASSOCIATION).inputs
        assert association == {
            "clusterName": "prod",
            "namespace": "tts",
            "serviceAccount": "speech",
            "roleArn": ROLE_ARN,
            "tags": {},
        }

    def test_pods_are_made_only_when_a_new_association_has_taken_effect(
        self, storage: Recording
    ) -> None:
        assert storage.one(ASSOCIATION).hooks == {"after_create"}
        assert storage.one(ROLE_POLICY).hooks == frozenset()

    def test_the_key_is_used_through_s3_of_its_own_region(self, storage: Recording) -> None:
        policy = json.loads(storage.one(ROLE_POLICY).inputs["policy"])
        (statement,) = (s for s in policy["Statement"] if s["Resource"] == KEY_ARN)
        via = {"StringEquals": {"kms:ViaService": "s3.eu-west-1.amazonaws.com"}}
        assert statement["Condition"] == via


class TestVolume:
    @pytest.fixture
    def volume(self, tmp_path: Path) -> Path:
        """A volume with files of each age, at each place that has a meaning."""
        for folder in ("voices/acme", "models/glm", "outputs/acme/jobs", "quality/acme"):
            (tmp_path / folder).mkdir(parents=True)
            for days in (0, 6, 8, 400):
                _age(tmp_path / folder / f"{days}.wav", days)
        return tmp_path

    def test_outputs_older_than_a_week_are_deleted_and_nothing_else(
        self, storage: Recording, volume: Path
    ) -> None:
        before = _files(volume)
        _clean_up(storage, volume)
        old = {f"outputs/acme/jobs/{days}.wav" for days in (8, 400)}
        assert before - _files(volume) == old
        assert len(before) == 16

    def test_days_are_the_ones_asked_for(self, volume: Path) -> None:
        _clean_up(recorded(output_days=10)[0], volume)
        assert "outputs/acme/jobs/8.wav" in _files(volume)
        assert "outputs/acme/jobs/400.wav" not in _files(volume)

    def test_empty_folders_go_once_nobody_has_used_them_for_as_long(
        self, storage: Recording, volume: Path
    ) -> None:
        for days in (6, 8):
            empty = volume / f"outputs/acme/empty-{days}"
            empty.mkdir()
            _set_age(empty, days)
        _clean_up(storage, volume)
        assert (volume / "outputs/acme/empty-6").exists()
        assert not (volume / "outputs/acme/empty-8").exists()
        assert (volume / "outputs/acme/jobs").exists()

    def test_links_are_not_followed(self, storage: Recording, volume: Path) -> None:
        link = volume / "outputs/acme/voices"
        link.symlink_to(volume / "voices", target_is_directory=True)
        os.utime(link, (0, 0), follow_symlinks=False)
        _clean_up(storage, volume)
        assert not link.is_symlink()
        assert (volume / "voices/acme/400.wav").exists()

    def test_a_volume_without_outputs_is_clean(self, storage: Recording, tmp_path: Path) -> None:
        _clean_up(storage, tmp_path)
        assert _files(tmp_path) == set()

    def test_what_cannot_be_deleted_is_named_and_stops_nothing_else(
        self, storage: Recording, volume: Path
    ) -> None:
        python, option, script, *arguments = _command(storage, volume)
        result = subprocess.run(
            [python, option, _REFUSES_ONE + script, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 1
        assert result.stderr == f"refused: {volume}/outputs/acme/jobs/8.wav\n"
        assert not (volume / "outputs/acme/jobs/400.wav").exists()

    def test_the_job_mounts_the_claim_and_runs_every_hour(self, storage: Recording) -> None:
        job = storage.one(CRON_JOB)
        (volume,) = _template(job)["spec"]["volumes"]
        assert volume["persistentVolumeClaim"] == {"claimName": "shared"}
        assert job.inputs["spec"]["schedule"].split()[1:] == ["*"] * 4
        assert any(CLAIM in urn for urn in job.depends_on)

    def test_a_voice_puts_its_outputs_where_the_job_looks(self, storage: Recording) -> None:
        variant = VoiceVariant("stable", "1.0", "speech:1", weight=100, replicas=2)
        args = TtsVoiceServiceArgs(
            namespace="tts", variants=[variant], outputs=OutputStorage(claim_name="shared")
        )

        def program() -> None:
            TtsVoiceService("speech", args)

        pod = record(program).one(rules.DEPLOYMENT).inputs["spec"]["template"]["spec"]
        (volume,) = (v for v in pod["volumes"] if "persistentVolumeClaim" in v)
        mounts = pod["containers"][0]["volumeMounts"]
        (mount,) = (m for m in mounts if m["name"] == volume["name"])
        assert volume["persistentVolumeClaim"] == {"claimName": "shared"}
        (cleanup,) = _template(storage.one(CRON_JOB))["spec"]["containers"]
        assert cleanup["command"][3] == f"/volume/{mount['subPath']}/"


_REFUSES_ONE = """
import os
unlink = os.unlink
def refuse_one(path):
    if path.endswith("/8.wav"):
        raise PermissionError(f"refused: {path}")
    unlink(path)
os.unlink = refuse_one
"""


def _clean_up(recording: Recording, volume: Path) -> None:
    """Runs the clean-up job's command on a folder instead of the mounted volume."""
    subprocess.run(_command(recording, volume), check=True)


def _command(recording: Recording, volume: Path) -> list[str]:
    (container,) = _template(recording.one(CRON_JOB))["spec"]["containers"]
    (mount,) = container["volumeMounts"]
    python, option, script, folder, days = container["command"]
    assert (python, option) == ("python3", "-c")
    mounted = mount["mountPath"]
    assert folder.startswith(f"{mounted}/")
    return [sys.executable, option, script, f"{volume}{folder.removeprefix(mounted)}", days]


def _age(path: Path, days: float) -> None:
    path.write_bytes(b"RIFF")
    _set_age(path, days)


def _set_age(path: Path, days: float) -> None:
    then = time.time() - days * DAY_SECONDS
    os.utime(path, (then, then))


def _files(volume: Path) -> set[str]:
    return {str(p.relative_to(volume)) for p in volume.rglob("*") if p.is_file()}


def _template(job: Registration) -> Any:
    return job.inputs["spec"]["jobTemplate"]["spec"]["template"]


def _inputs(recording: Recording, type_: str, bucket: Registration) -> Mapping[str, Any]:
    """Inputs of what configures a bucket; none where nothing does."""
    name = OUTPUTS[BUCKET]["bucket"]
    found = [r.inputs for r in recording.of_type(type_) if r.inputs["bucket"] == name]
    assert len(found) <= 1, f"{bucket.name} has several of {type_}"
    return found[0] if found else {}
