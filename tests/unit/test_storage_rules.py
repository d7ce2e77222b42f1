"""What the policies of a bucket and of its users say, by the evaluator of the IAM language."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from infra.local import aws_policy
from infra.local.aws_policy import Request, Verdict
from voicemesh.arguments import DNS_LABEL
from voicemesh.contract import MODELS_PREFIX, OUTPUTS_PREFIX, VOICES_PREFIX
from voicemesh.storage.access import access_policy, trust_policy
from voicemesh.storage.bucket import lifecycle_rules, tls_only_policy

BUCKET = "arn:aws:s3:::voices"
KEY = "arn:aws:kms:eu-west-1:123456789012:key/1"
VIA_S3 = {"kms:viaservice": ("s3.eu-west-1.amazonaws.com",)}
ACME = access_policy(BUCKET, KEY, "acme")


def verdict(policy: dict[str, Any], action: str, resource: str, **context: Any) -> Verdict:
    """What a policy says of a request that comes from those it is attached to."""
    statements = [{"Principal": "*", **statement} for statement in policy["Statement"]]
    attached = {**policy, "Statement": statements}
    aws_policy.validate(attached)
    request = Request(action, resource, context={k: v for k, v in context.items() if v is not None})
    return aws_policy.decide(attached, request).verdict


@pytest.mark.parametrize(
    ("action", "key", "allowed"),
    [
        ("s3:GetObject", "models/glm-tts/weights", True),
        ("s3:PutObject", "models/glm-tts/weights", False),
        ("s3:DeleteObject", "models/glm-tts/weights", False),
        ("s3:GetObject", "voices/acme/a.wav", True),
        ("s3:PutObject", "voices/acme/a.wav", True),
        ("s3:DeleteObject", "voices/acme/a.wav", True),
        ("s3:DeleteObjectVersion", "voices/acme/a.wav", False),
        ("s3:PutObjectAcl", "voices/acme/a.wav", False),
        ("s3:GetObject", "voices/other/a.wav", False),
        ("s3:GetObject", "voices/acme-two/a.wav", False),
        ("s3:GetObject", "voices/acme", False),
        ("s3:GetObject", "voices/a", False),
        ("s3:GetObject", "outputs/acme/a.wav", True),
        ("s3:PutObject", "outputs/acme/a.wav", True),
        ("s3:AbortMultipartUpload", "outputs/acme/a.wav", True),
        ("s3:GetObject", "outputs/other/a.wav", False),
        ("s3:PutObject", "outputs/other/a.wav", False),
        ("s3:PutObject", "outputs/a.wav", False),
        ("s3:GetObject", "quality/acme/a.wav", False),
        ("s3:GetObject", "backup/voices/acme/a.wav", False),
    ],
)
def test_a_tenant_reads_models_and_changes_what_is_its_own(
    action: str, key: str, allowed: bool
) -> None:
    expected = Verdict.ALLOW if allowed else Verdict.SILENT
    assert verdict(ACME, action, f"{BUCKET}/{key}") is expected


@pytest.mark.parametrize(
    ("prefix", "allowed"),
    [
        ("models/", True),
        ("voices/acme/", True),
        ("outputs/acme/2026/", True),
        ("voices/", False),
        ("voices/acme", False),
        ("voices/acme-two/", False),
        ("outputs/other/", False),
        ("", False),
        (None, False),
    ],
)
def test_a_tenant_lists_models_and_what_is_its_own(prefix: str | None, allowed: bool) -> None:
    context = {} if prefix is None else {"s3:prefix": (prefix,)}
    found = verdict(ACME, "s3:ListBucket", BUCKET, **context)
    assert found is (Verdict.ALLOW if allowed else Verdict.SILENT)


@pytest.mark.parametrize(
    ("action", "resource", "context", "allowed"),
    [
        ("kms:Decrypt", KEY, VIA_S3, True),
        ("kms:GenerateDataKey", KEY, VIA_S3, True),
        ("kms:Decrypt", KEY, {}, False),
        ("kms:Decrypt", KEY, {"kms:viaservice": ("ebs.eu-west-1.amazonaws.com",)}, False),
        ("kms:Decrypt", KEY.replace("key/1", "key/2"), VIA_S3, False),
        ("kms:ScheduleKeyDeletion", KEY, VIA_S3, False),
        ("kms:PutKeyPolicy", KEY, VIA_S3, False),
        ("s3:PutBucketPolicy", BUCKET, {}, False),
        ("s3:PutLifecycleConfiguration", BUCKET, {}, False),
        ("s3:ListBucketVersions", BUCKET, {"s3:prefix": ("voices/acme/",)}, False),
        ("s3:GetObject", "arn:aws:s3:::other/models/a", {}, False),
    ],
)
def test_a_tenant_uses_the_key_through_s3_and_configures_nothing(
    action: str, resource: str, context: dict[str, tuple[str]], allowed: bool
) -> None:
    found = verdict(ACME, action, resource, **context)
    assert found is (Verdict.ALLOW if allowed else Verdict.SILENT)


_TENANTS = st.text("ab-", min_size=1, max_size=5).filter(lambda name: DNS_LABEL.fullmatch(name))


def reaches(policy: dict[str, Any], tenant: str, path: str) -> list[str]:
    """Which actions a policy allows on what belongs to `tenant`."""
    actions = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
    keys = [f"{prefix}{tenant}/{path}" for prefix in (VOICES_PREFIX, OUTPUTS_PREFIX)]
    found = [f"{a} {k}" for a in actions for k in keys if _allows(policy, a, f"{BUCKET}/{k}")]
    listed = [f"{prefix}{tenant}/" for prefix in (VOICES_PREFIX, OUTPUTS_PREFIX)]
    context = [{"s3:prefix": (prefix,)} for prefix in listed]
    return [*found, *(str(c) for c in context if _allows(policy, "s3:ListBucket", BUCKET, **c))]


def _allows(policy: dict[str, Any], action: str, resource: str, **context: Any) -> bool:
    return verdict(policy, action, resource, **context) is Verdict.ALLOW


@given(tenant=_TENANTS, other=_TENANTS, path=st.text("ab-/.*", max_size=5))
def test_no_tenant_reaches_anothers_prefix(tenant: str, other: str, path: str) -> None:
    policy = access_policy(BUCKET, KEY, tenant)
    assert len(reaches(policy, tenant, path)) == 10
    assume(tenant != other)
    assert reaches(policy, other, path) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f'"{BUCKET}/voices/acme/*"', f'"{BUCKET}/voices/acme*"'),
        (f'"{BUCKET}/voices/acme/*"', f'"{BUCKET}/voices/*"'),
        (f'"{BUCKET}/outputs/acme/*"', f'"{BUCKET}/*"'),
        ('"outputs/acme/*"', '"outputs/*"'),
        ('"StringLike": {"s3:prefix"', '"StringNotLike": {"s3:prefix"'),
    ],
)
def test_a_wider_policy_is_noticed(before: str, after: str) -> None:
    text = json.dumps(ACME)
    assert before in text
    assert reaches(json.loads(text.replace(before, after)), "acme-two", "a")


SESSION = {
    "aws:requesttag/eks-cluster-name": ("prod",),
    "aws:requesttag/kubernetes-namespace": ("tts",),
    "aws:requesttag/kubernetes-service-account": ("speech",),
}


@pytest.mark.parametrize("action", ["sts:AssumeRole", "sts:TagSession"])
def test_pod_identity_gives_the_role_to_one_service_account_only(action: str) -> None:
    (statement,) = trust_policy("prod", "tts", "speech")["Statement"]
    assert statement.pop("Principal") == {"Service": "pods.eks.amazonaws.com"}
    policy = {"Version": "2012-10-17", "Statement": [{**statement, "Resource": "*"}]}
    assert verdict(policy, action, "role", **SESSION) is Verdict.ALLOW
    for tag in SESSION:
        assert verdict(policy, action, "role", **{**SESSION, tag: ("other",)}) is Verdict.SILENT
        assert verdict(policy, action, "role", **{**SESSION, tag: None}) is Verdict.SILENT
    assert verdict(policy, "sts:AssumeRoleWithWebIdentity", "role", **SESSION) is Verdict.SILENT


def test_outputs_expire_with_their_versions_and_markers() -> None:
    rules = [rule for rule in lifecycle_rules(7, 30) if rule["filter"]["prefix"] == OUTPUTS_PREFIX]
    assert [rule.get("expiration") for rule in rules] == [
        {"days": 7},
        {"expired_object_delete_marker": True},
    ]
    assert rules[0]["noncurrent_version_expiration"] == {"noncurrent_days": 1}


def test_models_and_reference_voices_never_expire() -> None:
    for prefix in (MODELS_PREFIX, VOICES_PREFIX):
        for rule in lifecycle_rules(7, 30):
            if f"{prefix}x".startswith(rule["filter"]["prefix"]):
                assert not {"expiration", "noncurrent_version_expiration"} & rule.keys()


def test_unfinished_uploads_are_given_up_everywhere() -> None:
    rules = [r for r in lifecycle_rules(7, 30) if "abort_incomplete_multipart_upload" in r]
    assert [rule["filter"]["prefix"] for rule in rules] == [""]


@pytest.mark.parametrize(
    ("secure", "expected"), [("true", Verdict.SILENT), ("false", Verdict.DENY)]
)
@pytest.mark.parametrize("resource", [BUCKET, f"{BUCKET}/voices/acme/a.wav"])
def test_the_bucket_policy_denies_only_what_does_not_come_by_tls(
    secure: str, expected: Verdict, resource: str
) -> None:
    context = {"aws:securetransport": (secure,)}
    assert verdict(tls_only_policy(BUCKET), "s3:GetObject", resource, **context) is expected


def test_the_key_is_used_through_s3_by_the_name_it_has_in_china_too() -> None:
    key = "arn:aws-cn:kms:cn-north-1:123456789012:key/k"
    policy = access_policy("arn:aws-cn:s3:::voices", key, "acme")
    (statement,) = (s for s in policy["Statement"] if s["Resource"] == key)
    via = {"kms:ViaService": "s3.cn-north-1.amazonaws.com.cn"}
    assert statement["Condition"] == {"StringEquals": via}
