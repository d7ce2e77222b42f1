from __future__ import annotations

from voicemesh.contract import MODELS_PREFIX, OUTPUTS_PREFIX, VOICES_PREFIX
from voicemesh.storage.bucket import lifecycle_rules, tls_only_policy


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
    rules = [rule for rule in lifecycle_rules(7, 30) if "abort_incomplete_multipart_upload" in rule]
    assert [rule["filter"]["prefix"] for rule in rules] == [""]


def test_the_bucket_policy_denies_only_what_does_not_come_by_tls() -> None:
    (statement,) = tls_only_policy("arn:aws:s3:::voices")["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert statement["Resource"] == ["arn:aws:s3:::voices", "arn:aws:s3:::voices/*"]
