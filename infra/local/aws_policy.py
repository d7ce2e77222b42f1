"""What a resource policy such as an S3 bucket policy says about one request.

A small evaluator of the IAM policy language, for the local AWS server: effect, principal, action,
resource and condition, with AWS's own rules for what an absent context key means. What it does
not evaluate (dates, binary values, policy variables) is refused by `validate`, when the policy is
put, and never passed over in silence.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Any

ANONYMOUS = ""


class Verdict(Enum):
    """What the statements together say; without a statement that concerns the request, nothing."""

    ALLOW = "allow"
    DENY = "deny"
    SILENT = "silent"


class PolicyError(Exception):
    """A policy is malformed or needs something that is not evaluated here; names where."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Args:
        action: for instance "s3:GetObject".
        resource: ARN of the object or bucket.
        principal: ARN of the caller, `ANONYMOUS` for none.
        context: condition keys, lower case, with their values; an absent key is absent.
    """

    action: str
    resource: str
    principal: str = ANONYMOUS
    context: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """A verdict and the `Sid` (or number) of the statement that decided it."""

    verdict: Verdict
    statement: str = ""


def decide(policy: Mapping[str, Any], request: Request) -> Decision:
    """An explicit Deny wins over any Allow, whatever the order of statements."""
    allowed = Decision(Verdict.SILENT)
    for number, statement in enumerate(_statements(policy)):
        if not _concerns(statement, request):
            continue
        name = str(statement.get("Sid") or f"Statement[{number}]")
        if statement["Effect"] == "Deny":
            return Decision(Verdict.DENY, name)
        allowed = Decision(Verdict.ALLOW, name)
    return allowed


def validate(policy: Any) -> None:
    """Refuses what `decide` could not evaluate.

    Raises:
        PolicyError: naming the statement and the element.
    """
    if not isinstance(policy, Mapping) or "Statement" not in policy:
        raise PolicyError("the policy has no Statement")
    for number, statement in enumerate(_statements(policy)):
        where = f"Statement[{number}]"
        if not isinstance(statement, Mapping):
            raise PolicyError(f"{where} is not an object")
        _validate_elements(where, statement)
        _validate_conditions(f"{where}.Condition", statement.get("Condition", {}))


def _validate_elements(where: str, statement: Mapping[str, Any]) -> None:
    if statement.get("Effect") not in ("Allow", "Deny"):
        raise PolicyError(f"{where}.Effect is {statement.get('Effect')!r}, not Allow or Deny")
    for element in ("Principal", "Action", "Resource"):
        if (element in statement) == (f"Not{element}" in statement):
            raise PolicyError(f"{where} needs either {element} or Not{element}")
    for element in ("Action", "NotAction", "Resource", "NotResource"):
        for value in _several(statement.get(element, ())):
            _validate_text(f"{where}.{element}", value)


def _validate_conditions(where: str, conditions: Any) -> None:
    if not isinstance(conditions, Mapping):
        raise PolicyError(f"{where} is not an object")
    for name, tests in conditions.items():
        base = _Operator.parse(name).base
        if base not in _TESTS and base != "Null":
            raise PolicyError(
                f"{where}: operator {name!r} is not evaluated by the local AWS server; "
                f"it knows Null, {', '.join(sorted(_TESTS))}"
            )
        if not isinstance(tests, Mapping):
            raise PolicyError(f"{where}.{name} is not an object")
        for key, values in tests.items():
            for value in _several(values):
                _validate_text(f"{where}.{name}.{key}", _text(value))


def _validate_text(where: str, value: Any) -> None:
    if not isinstance(value, str):
        raise PolicyError(f"{where}: {value!r} is not a string")
    if "${" in value:
        raise PolicyError(
            f"{where}: policy variables ({value}) are not evaluated by the local AWS server"
        )


def _statements(policy: Mapping[str, Any]) -> list[Any]:
    statements = policy["Statement"]
    return statements if isinstance(statements, list) else [statements]


def _concerns(statement: Mapping[str, Any], request: Request) -> bool:
    return (
        _matches_element(statement, "Action", lambda e: _any_like(e, request.action, fold=True))
        and _matches_element(statement, "Resource", lambda e: _any_like(e, request.resource))
        and _matches_element(statement, "Principal", lambda e: _is_principal(e, request.principal))
        and _conditions_hold(statement.get("Condition", {}), request.context)
    )


def _matches_element(
    statement: Mapping[str, Any], element: str, matches: Callable[[Any], bool]
) -> bool:
    if element in statement:
        return matches(statement[element])
    return not matches(statement[f"Not{element}"])


def _is_principal(element: Any, caller: str) -> bool:
    if element == "*":
        return True
    wanted = _several(element.get("AWS", ())) if isinstance(element, Mapping) else ()
    return any(_names_caller(principal, caller) for principal in wanted)


def _names_caller(principal: str, caller: str) -> bool:
    if principal == "*":
        return True
    if caller == ANONYMOUS:
        return False
    account = caller.split(":")[4]
    if principal in (account, caller) or re.fullmatch(rf"arn:[^:]+:iam::{account}:root", principal):
        return True
    return principal == role_of_session(caller)


def role_of_session(caller: str) -> str:
    """The role's ARN of an assumed-role session's ARN; "" for any other caller."""
    found = re.fullmatch(r"(arn:[^:]+):sts::(\d+):assumed-role/(.+)/[^/]+", caller)
    return f"{found[1]}:iam::{found[2]}:role/{found[3]}" if found else ""


@dataclass(frozen=True)
class _Operator:
    """A condition operator taken apart: `ForAllValues:StringNotLikeIfExists`."""

    base: str
    quantifier: str = ""
    if_exists: bool = False

    @classmethod
    def parse(cls, name: str) -> _Operator:
        quantifier, _, rest = name.rpartition(":")
        if quantifier not in ("", "ForAllValues", "ForAnyValue"):
            return cls(name)
        if_exists = rest.endswith("IfExists")
        return cls(rest.removesuffix("IfExists"), quantifier, if_exists)


def _conditions_hold(conditions: Mapping[str, Any], context: Mapping[str, Sequence[str]]) -> bool:
    """All operators and all their keys must hold."""
    return all(
        _test_holds(_Operator.parse(name), [_text(v) for v in _several(values)], context, key)
        for name, tests in conditions.items()
        for key, values in tests.items()
    )


def _test_holds(
    operator: _Operator, wanted: list[str], context: Mapping[str, Sequence[str]], key: str
) -> bool:
    actual = context.get(key.lower())
    if operator.base == "Null":
        return any((actual is None) == (value.lower() == "true") for value in wanted)
    matches, negated = _TESTS[operator.base]

    def holds(value: str) -> bool:
        return any(matches(want, value) for want in wanted) != negated

    if actual is None:
        # An absent key fails a positive test and passes a negated one, ForAnyValue apart.
        return operator.if_exists or _QUANTIFIER_OF_NOTHING.get(operator.quantifier, negated)
    if operator.quantifier == "ForAnyValue":
        return any(map(holds, actual))
    return all(map(holds, actual))


_QUANTIFIER_OF_NOTHING = {"ForAllValues": True, "ForAnyValue": False}


def _like(pattern: str, value: str) -> bool:
    return _glob(pattern).fullmatch(value) is not None


def _arn_like(pattern: str, value: str) -> bool:
    """Each of the six parts is matched by itself, so that `*` does not run over a colon."""
    wanted, actual = pattern.split(":", 5), value.split(":", 5)
    return len(wanted) == len(actual) and all(map(_like, wanted, actual))


def _number(compare: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    def matches(wanted: str, value: str) -> bool:
        try:
            return compare(float(value), float(wanted))
        except ValueError:
            return False

    return matches


def _in_network(wanted: str, value: str) -> bool:
    try:
        return ipaddress.ip_address(value) in ipaddress.ip_network(wanted, strict=False)
    except ValueError:
        return False


def _equal(wanted: str, value: str) -> bool:
    return wanted == value


def _equal_folded(wanted: str, value: str) -> bool:
    return wanted.lower() == value.lower()


_TESTS: dict[str, tuple[Callable[[str, str], bool], bool]] = {
    "StringEquals": (_equal, False),
    "StringNotEquals": (_equal, True),
    "StringEqualsIgnoreCase": (_equal_folded, False),
    "StringNotEqualsIgnoreCase": (_equal_folded, True),
    "StringLike": (_like, False),
    "StringNotLike": (_like, True),
    "ArnEquals": (_arn_like, False),
    "ArnNotEquals": (_arn_like, True),
    "ArnLike": (_arn_like, False),
    "ArnNotLike": (_arn_like, True),
    "Bool": (_equal_folded, False),
    "NumericEquals": (_number(lambda a, b: a == b), False),
    "NumericNotEquals": (_number(lambda a, b: a == b), True),
    "NumericLessThan": (_number(lambda a, b: a < b), False),
    "NumericLessThanEquals": (_number(lambda a, b: a <= b), False),
    "NumericGreaterThan": (_number(lambda a, b: a > b), False),
    "NumericGreaterThanEquals": (_number(lambda a, b: a >= b), False),
    "IpAddress": (_in_network, False),
    "NotIpAddress": (_in_network, True),
}
"""Each operator's test of a wanted value against the request's, and whether it is negated."""


def _any_like(patterns: Any, value: str, *, fold: bool = False) -> bool:
    if fold:
        return any(_like(pattern.lower(), value.lower()) for pattern in _several(patterns))
    return any(_like(pattern, value) for pattern in _several(patterns))


@lru_cache(maxsize=256)
def _glob(pattern: str) -> re.Pattern[str]:
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(c, re.escape(c)) for c in pattern), re.DOTALL)


def _several(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
