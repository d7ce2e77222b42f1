"""Verdicts in the forms that people and continuous integration read."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st
from pulumi.runtime.proto import analyzer_pb2
from rich.console import Console

from voicemesh.policy.charts import Unchecked
from voicemesh.policy.gate import Verdict
from voicemesh.policy.pack import Level, Severity, Violation
from voicemesh.policy.reports import junit, print_table, sarif, short_name

_SCHEMAS = Path(__file__).with_name("schemas")
_FOLDER = Path("/project")
_URN = "urn:pulumi:prod::shop::acme:index:Site$kubernetes:apps/v1:Deployment::voice"
_POLICY = analyzer_pb2.PolicyInfo(
    name="limit-replicas",
    description="Deployments stay small.",
    remediation_steps="Lower spec.replicas.",
    url="https://example.com/limit-replicas",
    severity=analyzer_pb2.POLICY_SEVERITY_HIGH,
    tags=["workloads"],
)
_KEPT = analyzer_pb2.PolicyInfo(name="protect-buckets", description="Buckets are protected.")


def violation(message: str = "spec.replicas is 4", level: Level = Level.MANDATORY) -> Violation:
    return Violation(
        policy=_POLICY.name,
        level=level,
        severity=Severity.HIGH,
        urn=_URN,
        message=message,
        description=_POLICY.description,
        fix=_POLICY.remediation_steps,
        url=_POLICY.url,
    )


def verdict(*violations: Violation, unchecked: Sequence[Unchecked] = ()) -> Verdict:
    return Verdict(
        stack="prod",
        file=_FOLDER / "Pulumi.prod.yaml",
        pack="tiny 1.2.3",
        policies=(_POLICY, _KEPT),
        resources=(_URN,),
        violations=violations,
        unchecked=tuple(unchecked),
    )


@pytest.fixture(scope="module")
def sarif_schema() -> jsonschema.Draft4Validator:
    return jsonschema.Draft4Validator(json.loads((_SCHEMAS / "sarif-2.1.0.json").read_text()))


@pytest.fixture(scope="module")
def junit_schema() -> xmlschema.XMLSchema:
    return xmlschema.XMLSchema(_SCHEMAS / "junit-10.xsd")


CASES = {
    "nothing": [verdict()],
    "mandatory": [verdict(violation())],
    "advisory": [verdict(violation(level=Level.ADVISORY))],
    "unchecked": [verdict(unchecked=[Unchecked(_URN, "it is not at hand")])],
    "several": [verdict(violation(), violation("spec.replicas is unknown")), verdict()],
}


@pytest.mark.parametrize("verdicts", CASES.values(), ids=CASES)
def test_sarif_keeps_to_its_schema(
    verdicts: list[Verdict], sarif_schema: jsonschema.Draft4Validator
) -> None:
    sarif_schema.validate(json.loads(json.dumps(sarif(verdicts, _FOLDER))))


@pytest.mark.parametrize("verdicts", CASES.values(), ids=CASES)
def test_junit_keeps_to_its_schema(
    verdicts: list[Verdict], junit_schema: xmlschema.XMLSchema
) -> None:
    junit_schema.validate(junit(verdicts))


def test_a_schema_refuses_what_is_not_of_it(
    sarif_schema: jsonschema.Draft4Validator, junit_schema: xmlschema.XMLSchema
) -> None:
    report = sarif([verdict(violation())], _FOLDER)
    report["runs"][0]["results"][0]["level"] = "mandatory"
    assert not sarif_schema.is_valid(report)
    assert not junit_schema.is_valid(junit([verdict()]).replace("testcase", "case"))


def test_sarif_says_what_who_and_where() -> None:
    (run,) = sarif([verdict(violation())], _FOLDER)["runs"]
    (result,) = run["results"]
    (location,) = result["locations"]
    assert run["tool"]["driver"]["name"] == "tiny"
    assert run["tool"]["driver"]["version"] == "1.2.3"
    assert result["ruleId"] == "limit-replicas"
    assert result["level"] == "error"
    assert result["message"]["text"] == (
        "kubernetes:apps/v1:Deployment voice: spec.replicas is 4 Lower spec.replicas."
    )
    assert location["logicalLocations"][0]["fullyQualifiedName"] == _URN
    artifact = location["physicalLocation"]["artifactLocation"]
    assert artifact == {"uri": "Pulumi.prod.yaml", "uriBaseId": "%SRCROOT%"}


@pytest.mark.parametrize(
    ("level", "expected"), [(Level.MANDATORY, "error"), (Level.ADVISORY, "warning")]
)
def test_sarif_has_levels_of_its_own(level: Level, expected: str) -> None:
    (run,) = sarif([verdict(violation(level=level))], _FOLDER)["runs"]
    assert run["results"][0]["level"] == expected


def test_sarif_knows_a_violation_again() -> None:
    def fingerprint(message: str) -> str:
        (run,) = sarif([verdict(violation(message))], _FOLDER)["runs"]
        return run["results"][0]["partialFingerprints"]["policyAndResource/v1"]

    assert fingerprint("spec.replicas is 4") == fingerprint("spec.replicas is 4")
    assert fingerprint("spec.replicas is 4") != fingerprint("spec.replicas is 5")


def test_junit_fails_the_cases_of_violated_policies_only() -> None:
    (suite,) = ElementTree.fromstring(junit([verdict(violation())]))  # noqa: S314
    failed, kept = suite
    assert suite.attrib["name"] == "policies of stack prod"
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("2", "1")
    assert failed.attrib["name"] == "limit-replicas"
    assert failed[0].tag == "failure"
    assert f"{_URN}: spec.replicas is 4 Lower spec.replicas." in (failed[0].text or "")
    assert kept.attrib["name"] == "protect-buckets"
    assert len(kept) == 0


def test_junit_fails_nothing_for_an_advisory_violation() -> None:
    (suite,) = ElementTree.fromstring(junit([verdict(violation(level=Level.ADVISORY))]))  # noqa: S314
    assert suite.attrib["failures"] == "0"
    assert "spec.replicas is 4" in (suite[0][0].text or "")


@given(st.text())
def test_no_message_breaks_a_report(message: str) -> None:
    verdicts = [verdict(violation(message), violation(message, Level.ADVISORY))]
    json.loads(json.dumps(sarif(verdicts, _FOLDER)))
    ElementTree.fromstring(junit(verdicts).encode())  # noqa: S314
    _table(verdicts[0])


def test_the_table_shows_the_worst_first_and_markup_as_it_is() -> None:
    printed = _table(verdict(violation("advice", Level.ADVISORY), violation("[bold]no[/bold]")))
    assert printed.index("[bold]no[/bold]") < printed.index("advice")
    assert "1 mandatory and 1 advisory violations; 2 policies of tiny 1.2.3, 1 resources" in printed


def test_the_table_names_what_is_unchecked() -> None:
    printed = _table(verdict(unchecked=[Unchecked(_URN, "it is not at hand")]))
    assert "unchecked: kubernetes:apps/v1:Deployment voice: it is not at hand" in printed
    assert "stack prod: passed" in printed


@pytest.mark.parametrize(
    ("urn", "expected"),
    [
        (_URN, "kubernetes:apps/v1:Deployment voice"),
        ("urn:pulumi:prod::shop::aws:s3/bucket:Bucket::a::b", "aws:s3/bucket:Bucket a::b"),
        ("acme/network/prod", "acme/network/prod"),
    ],
)
def test_a_resource_is_shown_by_type_and_name(urn: str, expected: str) -> None:
    assert short_name(urn) == expected


def _table(shown: Verdict) -> str:
    output = io.StringIO()
    print_table(shown, Console(file=output, width=200))
    return output.getvalue()
