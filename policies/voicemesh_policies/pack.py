"""The rules as policies of Pulumi."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pulumi_policy import (
    Policy,
    PolicyComplianceFramework,
    PolicyConfigSchema,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE, UnknownValueError

from voicemesh_policies import rules
from voicemesh_policies.objects import Resource
from voicemesh_policies.rule import COMMON_CONFIG, Rule, violations
from voicemesh_policies.view import UNKNOWN

NAME: Final = "voicemesh"
_DEEPEST: Final = 200


def policies(chosen: Sequence[Rule] | None = None) -> list[Policy]:
    """All rules of the pack, or some, as policies."""
    return [_policy(rule) for rule in (rules.ALL if chosen is None else chosen)]


def plain(value: Any, depth: int = 0) -> Any:
    """Properties as Pulumi hands them to a policy, with `UNKNOWN` where it would raise.

    What is nested too deep to be looked at counts as unknown.
    """
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if depth > _DEEPEST:
        return UNKNOWN
    if isinstance(value, Mapping):
        return {key: _entry(value, key, depth) for key in value}
    if isinstance(value, Sequence):
        return [_entry(value, index, depth) for index in range(len(value))]
    return str(value)


def _entry(values: Any, key: Any, depth: int) -> Any:
    try:
        return plain(values[key], depth + 1)
    except UnknownValueError:
        return UNKNOWN


def _policy(rule: Rule) -> Policy:
    metadata = {
        "name": rule.name,
        "description": f"{rule.what} {rule.why}",
        "config_schema": PolicyConfigSchema(
            {key: dict(it) for key, it in {**COMMON_CONFIG, **rule.config}.items()}
        ),
        "display_name": rule.name.replace("-", " ").capitalize(),
        "severity": Severity(rule.severity.value),
        "framework": PolicyComplianceFramework(name=rule.framework),
        "tags": [rule.concern],
        "remediation_steps": rule.fix,
        "url": rule.link,
    }
    if rule.on_resource is not None:
        return ResourceValidationPolicy(validate=_validate_resource(rule), **metadata)
    return StackValidationPolicy(validate=_validate_stack(rule), **metadata)


def _validate_resource(rule: Rule) -> Callable[[ResourceValidationArgs, ReportViolation], None]:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        resource = _resource(args, frozenset())
        if rule.applies_to(resource):
            _report(rule, [resource], args.get_config(), report)

    return validate


def _validate_stack(rule: Rule) -> Callable[[StackValidationArgs, ReportViolation], None]:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        resources = [
            _resource(it, frozenset(other.urn for other in it.dependencies))
            for it in args.resources
        ]
        _report(rule, resources, args.get_config(), report)

    return validate


def _report(
    rule: Rule, resources: Sequence[Resource], config: Mapping[str, Any], report: ReportViolation
) -> None:
    found = list(violations(rule, resources, config))
    for violation in found:
        if not violation.unjudged:
            report(violation.message, violation.urn or None)
    for violation in found:
        if violation.unjudged:
            # Pulumi makes of it an advisory message, whatever the rule's own level.
            raise UnknownValueError(UNKNOWN_STRING_VALUE, [violation.unjudged])


def _resource(args: Any, dependencies: frozenset[str]) -> Resource:
    return Resource(
        type=args.resource_type,
        name=args.name,
        urn=args.urn,
        load=lambda: plain(args.props),
        protect=bool(args.opts.protect),
        load_provider=lambda: plain(args.provider.props) if args.provider else None,
        dependencies=dependencies,
    )
