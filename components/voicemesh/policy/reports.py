"""Verdicts for people and for continuous integration: a table, SARIF and JUnit XML."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table

from voicemesh.policy.gate import Verdict
from voicemesh.policy.pack import Level, Severity, Violation

_SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_SARIF_LEVELS: Final = {Level.MANDATORY: "error", Level.REMEDIATE: "error"}
# GitHub's scale: https://docs.github.com/code-security/code-scanning (properties of a rule).
_SECURITY_SEVERITIES: Final = {
    Severity.LOW: "2.0",
    Severity.MEDIUM: "5.0",
    Severity.HIGH: "8.0",
    Severity.CRITICAL: "9.5",
}
# XML 1.0 has no way to write these: https://www.w3.org/TR/xml/#charsets
_NOT_IN_XML: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STYLES: Final = {Level.MANDATORY: "bold red", Level.ADVISORY: "yellow"}


def print_table(verdict: Verdict, console: Console) -> None:
    """What violates a policy, what was not checked, and how much was."""
    if verdict.violations:
        table = Table(title=f"stack {verdict.stack}", title_justify="left", show_lines=True)
        for column in ("resource", "policy", "severity", "message", "fix"):
            table.add_column(column, overflow="fold")
        for violation in _worst_first(verdict.violations):
            level = f"[{_STYLES.get(violation.level, '')}]{violation.level}[/]"
            severity = "" if violation.severity is Severity.UNSPECIFIED else violation.severity
            table.add_row(
                *_escaped(short_name(violation.urn), violation.policy),
                f"{level} {severity}".strip(),
                *_escaped(violation.message, violation.fix),
            )
        console.print(table)
    for unchecked in verdict.unchecked:
        console.print(
            f"unchecked: {short_name(unchecked.what)}: {unchecked.reason}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    mandatory = sum(violation.level is Level.MANDATORY for violation in verdict.violations)
    console.print(
        f"stack {verdict.stack}: {'refused' if verdict.refused else 'passed'}: "
        f"{mandatory} mandatory and {len(verdict.violations) - mandatory} advisory violations; "
        f"{len(verdict.policies)} policies of {verdict.pack}, {len(verdict.resources)} resources",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def short_name(urn: str) -> str:
    """Type and name of a resource, without stack, project and ancestors."""
    if not urn.startswith("urn:pulumi:"):
        return urn
    _, _, types, name = urn.split("::", 3)
    return f"{types.rpartition('$')[2]} {name}"


def sarif(verdicts: Sequence[Verdict], folder: Path) -> dict[str, Any]:
    """The verdicts as SARIF 2.1.0, one run for each stack.

    A violation is located in the stack's configuration file, with the resource as its logical
    location: what a program declares has no line of its own.

    Args:
        folder: the repository; paths are relative to it.
    """
    return {
        "$schema": _SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [_run(verdict, folder) for verdict in verdicts],
    }


def junit(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as JUnit XML: a suite for each stack, with a case for each policy.

    Mandatory violations fail a case; advisory ones are in its output.
    """
    root = ElementTree.Element("testsuites")
    for verdict in verdicts:
        cases = [_case(verdict, policy.name) for policy in verdict.policies]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=f"policies of stack {verdict.stack}",
            tests=str(len(cases)),
            failures=str(sum(case.find("failure") is not None for case in cases)),
            errors="0",
        )
        suite.extend(cases)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _run(verdict: Verdict, folder: Path) -> dict[str, Any]:
    artifact = verdict.file.relative_to(folder).as_posix()
    name, _, version = verdict.pack.partition(" ")
    return {
        "tool": {
            "driver": {
                "name": name,
                **({"version": version} if version else {}),
                "rules": [_rule(policy) for policy in verdict.policies],
            }
        },
        "automationDetails": {"id": f"policies/{verdict.stack}/"},
        "invocations": [
            {
                "executionSuccessful": True,
                "toolExecutionNotifications": [
                    {
                        "level": "note",
                        "message": {"text": f"unchecked: {unchecked.what}: {unchecked.reason}"},
                    }
                    for unchecked in verdict.unchecked
                ],
            }
        ],
        "results": [_result(violation, artifact) for violation in verdict.violations],
    }


def _rule(policy: Any) -> dict[str, Any]:
    severity = list(Severity)[policy.severity]
    rule: dict[str, Any] = {
        "id": policy.name,
        "shortDescription": {"text": policy.description or policy.name},
        "properties": {"tags": sorted({"security", *policy.tags})},
    }
    if policy.remediation_steps:
        rule["help"] = {"text": policy.remediation_steps}
    if policy.url:
        rule["helpUri"] = policy.url
    if severity in _SECURITY_SEVERITIES:
        rule["properties"]["security-severity"] = _SECURITY_SEVERITIES[severity]
    return rule


def _result(violation: Violation, artifact: str) -> dict[str, Any]:
    fix = f" {violation.fix}" if violation.fix else ""
    fingerprint = f"{violation.policy}\n{violation.urn}\n{violation.message}"
    return {
        "ruleId": violation.policy,
        "level": _SARIF_LEVELS.get(violation.level, "warning"),
        "message": {"text": f"{short_name(violation.urn)}: {violation.message}{fix}"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": artifact, "uriBaseId": "%SRCROOT%"},
                    "region": {"startLine": 1},
                },
                "logicalLocations": [
                    {"fullyQualifiedName": violation.urn, "kind": "resource"},
                ],
            }
        ],
        "partialFingerprints": {
            "policyAndResource/v1": hashlib.sha256(fingerprint.encode()).hexdigest()
        },
    }


def _case(verdict: Verdict, policy: str) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=f"{verdict.stack}.policies", name=policy)
    found = [violation for violation in verdict.violations if violation.policy == policy]
    for level, tag in ((Level.MANDATORY, "failure"), (Level.ADVISORY, "system-out")):
        lines = [_line(violation) for violation in found if violation.level is level]
        if not lines:
            continue
        element = ElementTree.SubElement(case, tag)
        element.text = "\n".join(lines)
        if tag == "failure":
            element.set("type", level)
            element.set("message", f"{len(lines)} violations")
    return case


def _line(violation: Violation) -> str:
    line = f"{violation.urn}: {violation.message} {violation.fix}".strip()
    return _NOT_IN_XML.sub("", line)


def _worst_first(violations: Iterable[Violation]) -> list[Violation]:
    levels, severities = [Level.MANDATORY, *Level], list(Severity)
    return sorted(
        violations,
        key=lambda v: (levels.index(v.level), -severities.index(v.severity), v.urn, v.policy),
    )


def _escaped(*texts: str) -> list[str]:
    return [text.replace("[", r"\[") for text in texts]
