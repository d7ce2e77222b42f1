"""What bucket policies say, by the local AWS server's evaluator."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local import aws_policy
from infra.local.aws_policy import PolicyError, Request, Verdict

ROOT = "arn:aws:iam::123456789012:root"
SESSION = "arn:aws:sts::123456789012:assumed-role/speech/pod-1"


def statement(**changed: Any) -> dict[str, Any]:
    """A Deny for everybody and everything in the bucket `voices`, with changes."""
    base = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": ["arn:aws:s3:::voices", "arn:aws:s3:::voices/*"],
    }
    return {name: value for name, value in (base | changed).items() if value is not None}


def request(**changed: Any) -> Request:
    values: dict[str, Any] = {
        "action": "s3:GetObject",
        "resource": "arn:aws:s3:::voices/models/a",
        "principal": ROOT,
        "context": {},
    }
    return Request(**values | changed)


def verdict(*statements: dict[str, Any], **changed: Any) -> Verdict:
    policy = {"Version": "2012-10-17", "Statement": list(statements)}
    aws_policy.validate(policy)
    return aws_policy.decide(policy, request(**changed)).verdict


CONDITIONS = [
    # operator, wanted, actual (None: the key is absent), holds
    ("Bool", "false", "false", True),
    ("Bool", "false", "true", False),
    ("Bool", False, "false", True),
    ("Bool", "false", None, False),
    ("BoolIfExists", "false", None, True),
    ("Null", "true", None, True),
    ("Null", "true", "x", False),
    ("Null", "false", "x", True),
    ("StringEquals", "aws:kms", "aws:kms", True),
    ("StringEquals", ["AES256", "aws:kms"], "aws:kms", True),
    ("StringEquals", "aws:kms", None, False),
    ("StringEquals", "a*", "ab", False),
    ("StringEqualsIfExists", "aws:kms", None, True),
    ("StringNotEquals", "aws:kms", "AES256", True),
    ("StringNotEquals", "aws:kms", "aws:kms", False),
    ("StringNotEquals", ["AES256", "aws:kms"], "aws:kms", False),
    ("StringNotEquals", "aws:kms", None, True),
    ("StringEqualsIgnoreCase", "AWS:KMS", "aws:kms", True),
    ("StringLike", "outputs/*", "outputs/a/b", True),
    ("StringLike", "outputs/?", "outputs/ab", False),
    ("StringNotLike", "outputs/*", "models/a", True),
    ("ArnLike", "arn:aws:iam::*:role/s*", "arn:aws:iam::123456789012:role/speech", True),
    ("ArnLike", "arn:aws:*", "arn:aws:iam::123456789012:role/speech", False),
    ("NumericLessThan", "1.2", "1.1", True),
    ("NumericLessThan", "1.2", "1.3", False),
    ("NumericLessThan", "1.2", None, False),
    ("IpAddress", "10.244.0.0/16", "10.244.2.9", True),
    ("NotIpAddress", "10.244.0.0/16", "10.244.2.9", False),
    ("ForAllValues:StringEquals", "a", None, True),
    ("ForAnyValue:StringEquals", "a", None, False),
    ("ForAnyValue:StringNotEquals", "a", None, False),
]


@pytest.mark.parametrize(("operator", "wanted", "actual", "holds"), CONDITIONS)
def test_a_conditional_deny_refuses_if_and_only_if_its_condition_holds(
    operator: str, wanted: Any, actual: str | None, holds: bool
) -> None:
    context = {} if actual is None else {"some:key": (actual,)}
    denied = verdict(statement(Condition={operator: {"Some:Key": wanted}}), context=context)
    assert denied is (Verdict.DENY if holds else Verdict.SILENT)


def test_a_quantifier_tells_some_values_from_all() -> None:
    context = {"some:keys": ("a", "b")}
    for quantifier, expected in (("ForAnyValue", Verdict.DENY), ("ForAllValues", Verdict.SILENT)):
        condition = {f"{quantifier}:StringEquals": {"some:keys": "a"}}
        assert verdict(statement(Condition=condition), context=context) is expected


def test_all_conditions_must_hold() -> None:
    condition = {"Bool": {"a:a": "true"}, "StringEquals": {"b:b": "x", "c:c": "y"}}
    holding = {"a:a": ("true",), "b:b": ("x",), "c:c": ("y",)}
    assert verdict(statement(Condition=condition), context=holding) is Verdict.DENY
    for key in holding:
        failing = holding | {key: ("other",)}
        assert verdict(statement(Condition=condition), context=failing) is Verdict.SILENT


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, Verdict.DENY),
        ({"Action": "s3:getobject"}, Verdict.DENY),
        ({"Action": ["s3:PutObject", "s3:Get*"]}, Verdict.DENY),
        ({"Action": "s3:PutObject"}, Verdict.SILENT),
        ({"Action": None, "NotAction": "s3:PutObject"}, Verdict.DENY),
        ({"Action": None, "NotAction": "s3:Get*"}, Verdict.SILENT),
        ({"Resource": "arn:aws:s3:::voices"}, Verdict.SILENT),
        ({"Resource": "arn:aws:s3:::voices/Models/*"}, Verdict.SILENT),
        ({"Resource": None, "NotResource": "arn:aws:s3:::voices/outputs/*"}, Verdict.DENY),
        ({"Principal": {"AWS": "*"}}, Verdict.DENY),
        ({"Principal": {"AWS": ROOT}}, Verdict.DENY),
        ({"Principal": {"AWS": "123456789012"}}, Verdict.DENY),
        ({"Principal": {"AWS": "arn:aws:iam::123456789012:role/speech"}}, Verdict.SILENT),
        ({"Principal": {"Service": "logging.s3.amazonaws.com"}}, Verdict.SILENT),
        ({"Principal": None, "NotPrincipal": {"AWS": ROOT}}, Verdict.SILENT),
        ({"Effect": "Allow"}, Verdict.ALLOW),
    ],
)
def test_a_statement_counts_only_for_its_actions_resources_and_principals(
    changed: dict[str, Any], expected: Verdict
) -> None:
    assert verdict(statement(**changed)) is expected


def test_a_role_named_in_a_policy_is_met_by_its_sessions_and_no_other() -> None:
    named = statement(Principal={"AWS": "arn:aws:iam::123456789012:role/speech"})
    assert verdict(named, principal=SESSION) is Verdict.DENY
    assert verdict(named, principal=SESSION.replace("speech", "batch")) is Verdict.SILENT
    assert verdict(named, principal=aws_policy.ANONYMOUS) is Verdict.SILENT


@given(st.permutations([statement(), statement(Effect="Allow"), statement(Action="s3:PutObject")]))
def test_an_explicit_deny_wins_in_any_order(statements: list[dict[str, Any]]) -> None:
    assert verdict(*statements) is Verdict.DENY


@given(
    base=st.sampled_from(
        [
            ("StringEquals", "StringNotEquals"),
            ("StringLike", "StringNotLike"),
            ("StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase"),
            ("ArnLike", "ArnNotLike"),
            ("NumericEquals", "NumericNotEquals"),
            ("IpAddress", "NotIpAddress"),
        ]
    ),
    wanted=st.lists(st.text(alphabet="aA*?:1.", max_size=4), min_size=1, max_size=3),
    actual=st.none() | st.text(alphabet="aA*?:1.", max_size=4),
)
def test_a_negated_operator_says_the_opposite(
    base: tuple[str, str], wanted: list[str], actual: str | None
) -> None:
    context = {} if actual is None else {"some:key": (actual,)}
    said = {
        verdict(statement(Condition={operator: {"some:key": wanted}}), context=context)
        for operator in base
    }
    assert said == {Verdict.DENY, Verdict.SILENT}


@given(st.text(alphabet=".*?[]()|\\^$a/", max_size=12))
def test_only_star_and_question_mark_are_special_in_a_pattern(value: str) -> None:
    literal = value.replace("*", "a").replace("?", "a")
    denied = verdict(statement(Resource=f"arn:{literal}"), resource=f"arn:{literal}")
    assert denied is Verdict.DENY
    assert verdict(statement(Resource=f"arn:{literal}"), resource=f"arn:{literal}b") is (
        Verdict.SILENT
    )


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"Effect": "Forbid"}, r"Statement\[0\].Effect is 'Forbid'"),
        ({"Action": None}, r"Statement\[0\] needs either Action or NotAction"),
        ({"Principal": None}, r"Statement\[0\] needs either Principal or NotPrincipal"),
        ({"Resource": "arn:aws:s3:::${aws:username}"}, "policy variables"),
        ({"Condition": {"DateLessThan": {"aws:CurrentTime": "x"}}}, "operator 'DateLessThan'"),
        ({"Condition": {"Some:StringEquals": {"a:b": "x"}}}, "operator 'Some:StringEquals'"),
        ({"Condition": {"Bool": "true"}}, "Condition.Bool is not an object"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_by_name(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(PolicyError, match=named):
        verdict(statement(**changed))
