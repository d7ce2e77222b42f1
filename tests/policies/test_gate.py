"""The policy gate, on programs of a few lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.policies.small_project import (
    BUCKET,
    DEPLOYMENT,
    NAMESPACE,
    TELLTALE,
    TINY,
    SmallProject,
)
from tests.stacks import ROOT
from voicemesh.cli import app
from voicemesh.policy.charts import Unchecked
from voicemesh.policy.errors import ConfigurationError, PackError, ProgramError
from voicemesh.policy.gate import StandIns
from voicemesh.policy.pack import Level, Severity
from voicemesh.policy.project import Project
from voicemesh.policy.resources import UNKNOWN, seconds

ONE_NAMESPACE = f"made({NAMESPACE!r}, 'home')\n"
FITTING = ONE_NAMESPACE + (
    f"made({DEPLOYMENT!r}, 'voice', {{'spec': {{'replicas': config.get_int('replicas') or 3}}}})\n"
)


class Run:
    """Runs `voicemesh policy check` in the working directory."""

    printed = ""

    def __call__(self, *arguments: str) -> int:
        """The exit code."""
        pack = [] if "--pack" in arguments else ["--pack", str(TINY)]
        result = CliRunner().invoke(app, ["policy", "check", *pack, *arguments])
        self.printed = result.output
        return result.exit_code


@pytest.fixture
def run(project: SmallProject, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(project.folder)
    return Run()


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    return SmallProject(tmp_path).program(FITTING)


class TestExitCode:
    def test_is_0_where_every_policy_is_kept(self, project: SmallProject, run: Run) -> None:
        assert run("test") == 0

    def test_is_1_where_a_mandatory_policy_is_violated(
        self, project: SmallProject, run: Run
    ) -> None:
        project.stack("test", {"small:replicas": 4})
        assert run("test") == 1
        assert "spec.replicas is 4; allowed: at most 3" in run.printed

    def test_is_0_where_only_an_advisory_policy_is_violated(
        self, project: SmallProject, run: Run
    ) -> None:
        project.program(FITTING + f"made({BUCKET!r}, 'voices')\n")
        assert run("test") == 0
        assert "the bucket is not protected" in run.printed

    def test_is_1_where_one_stack_of_all_is_refused(self, project: SmallProject, run: Run) -> None:
        project.stack("big", {"small:replicas": 4})
        assert run("--all") == 1
        assert "stack big: refused" in run.printed
        assert "stack test: passed" in run.printed

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["production"], "there is no stack 'production' here; there are test"),
            ([], "name the stacks to check, or give --all"),
            (["test", "--all"], "name the stacks to check, or give --all"),
            (["test", "--pack", "nowhere"], "is no policy pack: it has no PulumiPolicy.yaml"),
            (["--no-such-option"], "No such option"),
        ],
    )
    def test_is_2_where_the_command_cannot_be_followed(
        self, project: SmallProject, run: Run, arguments: list[str], reason: str
    ) -> None:
        assert run(*arguments) == 2
        assert reason in run.printed

    def test_is_2_where_the_program_fails(self, project: SmallProject, run: Run) -> None:
        project.program("raise pulumi.RunError('voices: there are none')\n")
        assert run("test") == 2
        assert "the program of stack test failed:\nvoices: there are none" in run.printed

    def test_is_2_where_the_program_is_in_another_language(
        self, project: SmallProject, run: Run
    ) -> None:
        project.write("Pulumi.yaml", {"name": "small", "runtime": "nodejs"})
        assert run("test") == 2
        assert "runtime: 'nodejs'; the gate runs programs in Python only" in run.printed

    def test_is_2_outside_of_a_project(self, project: SmallProject, run: Run) -> None:
        (project.folder / "Pulumi.yaml").unlink()
        assert run("test") == 2
        assert "has no Pulumi.yaml: run this in a Pulumi project" in run.printed


class TestVerdict:
    def test_says_which_policy_is_violated_how_badly_and_what_to_do(
        self, project: SmallProject
    ) -> None:
        project.stack("test", {"small:replicas": 4})
        verdict = project.check()
        (violation,) = verdict.violations
        assert verdict.refused
        assert violation.policy == "limit-replicas"
        assert violation.level is Level.MANDATORY
        assert violation.severity is Severity.HIGH
        assert violation.urn == f"urn:pulumi:test::small::{DEPLOYMENT}::voice"
        assert violation.message == "spec.replicas is 4; allowed: at most 3"
        assert violation.fix == "Lower spec.replicas."
        assert violation.url == "https://example.com/limit-replicas"

    def test_holds_the_whole_stack_to_its_policies(self, project: SmallProject) -> None:
        project.program("")
        assert project.said() == {"one-namespace small-test: no Namespace"}
        project.program(ONE_NAMESPACE + f"made({NAMESPACE!r}, 'second')\n")
        assert project.said() == {"one-namespace second: a second Namespace"}

    def test_names_components_that_a_provider_makes_as_unchecked(
        self, project: SmallProject
    ) -> None:
        project.program(
            "pulumi.ComponentResource('acme:index:Site', 'site', {}, remote=True)\n" + FITTING
        )
        (unchecked,) = project.check().unchecked
        assert unchecked == Unchecked(
            "urn:pulumi:test::small::acme:index:Site::site", "a provider makes its children"
        )


class TestWhatAPackIsTold:
    def test_includes_every_option(self, project: SmallProject) -> None:
        project.program(
            f"""
            parent = pulumi.ComponentResource("acme:index:Site", "site")
            provider = pulumi.ProviderResource("aws", "region", {{"region": "eu-west-1"}})
            made({BUCKET!r}, "voices", {{"bucket": "voices"}}, options(
                parent=parent,
                provider=provider,
                protect=True,
                ignore_changes=["tags"],
                delete_before_replace=True,
                aliases=[pulumi.Alias(name="sounds")],
                custom_timeouts=pulumi.CustomTimeouts(create="1h30m", update="90s"),
                additional_secret_outputs=["bucket"],
            ))
            """
        )
        assert project.told("voices") == {
            "type": BUCKET,
            "name": "voices",
            "provider": ["pulumi:providers:aws", "region"],
            "properties": {"bucket": "voices"},
            "options": {
                "protect": True,
                "ignoreChanges": ["tags"],
                "deleteBeforeReplace": True,
                "aliases": [],
                "customTimeouts": [5400.0, 90.0, 0.0],
                "additionalSecretOutputs": ["bucket"],
                "parent": "urn:pulumi:test::small::acme:index:Site::site",
            },
        }

    def test_is_unknown_where_a_provider_would_have_to_say(self, project: SmallProject) -> None:
        project.program(
            f"""
            bucket = made({BUCKET!r}, "voices", {{"arn": None, "bucket": "known"}})
            made("aws:iam/policy:Policy", "access", {{
                "given": bucket.bucket, "made": bucket.arn, "id": bucket.id, "urn": bucket.urn,
            }})
            """
        )
        assert project.told("access")["properties"] == {
            "given": "known",
            "made": UNKNOWN,
            "id": UNKNOWN,
            "urn": f"urn:pulumi:test::small::{BUCKET}::voices",
        }

    def test_names_a_resource_by_its_id_or_urn(self, project: SmallProject) -> None:
        project.program(
            f"""
            bucket = made({BUCKET!r}, "voices", None, options(import_="voices-1"))
            site = pulumi.ComponentResource("acme:index:Site", "site")
            made("acme:index:Link", "link", {{"bucket": bucket, "site": site}})
            """
        )
        site = "urn:pulumi:test::small::acme:index:Site::site"
        assert project.told("link")["properties"] == {"bucket": "voices-1", "site": site}

    def test_includes_the_default_provider_and_its_configuration(
        self, project: SmallProject
    ) -> None:
        project.stack("test", {"aws:region": "eu-west-1"})
        project.program(f"made({BUCKET!r}, 'voices', None, options(version='7.51.1'))\n")
        assert project.told("voices")["provider"] == ["pulumi:providers:aws", "default_7_51_1"]
        assert project.told("default_7_51_1")["properties"] == {
            "region": "eu-west-1",
            "version": "7.51.1",
        }

    def test_shows_secrets_to_the_pack_but_not_what_is_encrypted(
        self, project: SmallProject
    ) -> None:
        project.stack("test", {"small:key": {"secure": "v1:hunter2"}})
        project.program(
            f"""
            assert pulumi.runtime.is_config_secret("small:key")
            made({BUCKET!r}, "voices", {{
                "key": config.require_secret("key"), "mine": pulumi.Output.secret("mine"),
            }})
            """
        )
        properties = project.told("voices")["properties"]
        assert properties == {"key": "-----BEGIN (encrypted)-----", "mine": "mine"}


class TestUnknownsWeakenNothingSilently:
    def test_a_policy_that_meets_one_is_reported(self, project: SmallProject) -> None:
        project.program(
            f"""
            {ONE_NAMESPACE}
            count = made("acme:index:Count", "count", {{"value": None}})
            made({DEPLOYMENT!r}, "voice", {{"spec": {{"replicas": count.value}}}})
            """
        )
        (violation,) = project.check().violations
        assert violation.level is Level.ADVISORY
        assert violation.policy == "limit-replicas"
        assert "can't be known during preview" in violation.message


class TestOtherStacks:
    REFERS = """
        other = pulumi.StackReference(config.require("other"))
        made("acme:index:Link", "link", {"to": other.get_output("address")})
        """

    def test_of_the_project_have_the_outputs_of_their_own_preview(
        self, project: SmallProject
    ) -> None:
        project.program(
            """
            if pulumi.get_stack() == "owner":
                pulumi.export("address", "10.0.0.1")
            else:
                other = pulumi.StackReference("organization/small/owner")
                made("acme:index:Link", "link", {"to": other.get_output("address")})
            """
        )
        project.stack("owner")
        assert project.told("link")["properties"] == {"to": "10.0.0.1"}

    def test_have_outputs_that_the_project_stands_in_for(self, project: SmallProject) -> None:
        project.program(self.REFERS).stack("test", {"small:other": "acme/network/prod"})
        project.stand_ins(outputs={"acme/network/prod": {"address": {"secure": "10.0.0.2"}}})
        assert project.told("link")["properties"] == {"to": "10.0.0.2"}
        assert project.check(TELLTALE).unchecked == ()

    def test_that_are_not_known_make_what_depends_on_them_unknown(
        self, project: SmallProject
    ) -> None:
        project.program(self.REFERS).stack("test", {"small:other": "acme/network/prod"})
        assert project.told("link")["properties"] == {"to": UNKNOWN}
        (unchecked,) = project.check(TELLTALE).unchecked
        assert unchecked.what == "acme/network/prod"
        assert "give them in policies/gate.yaml, under outputs" in unchecked.reason

    def test_that_refer_to_each_other_are_not_known(self, project: SmallProject) -> None:
        project.program(self.REFERS + "\n        pulumi.export('address', '10.0.0.3')\n")
        project.stack("test", {"small:other": "organization/small/there"})
        project.stack("there", {"small:other": "organization/small/test"})
        assert project.told("link")["properties"] == {"to": "10.0.0.3"}

    def test_that_fail_are_named(self, project: SmallProject) -> None:
        project.program(
            """
            if pulumi.get_stack() == "owner":
                raise pulumi.RunError("no zones")
            pulumi.StackReference("organization/small/owner")
            """
        )
        project.stack("owner")
        with pytest.raises(ProgramError, match=r"the program of stack owner failed:\nno zones"):
            project.check()


class TestProgramError:
    def test_names_a_function_that_has_no_answer(self, project: SmallProject) -> None:
        project.program("pulumi.runtime.invoke('aws:index/getZones:getZones', {})\n")
        with pytest.raises(ProgramError, match=r"aws:index/getZones:getZones, which takes a prov"):
            project.check()

    def test_is_none_where_the_project_answers_the_function(self, project: SmallProject) -> None:
        project.program(
            f"""
            {ONE_NAMESPACE}
            zones = pulumi.runtime.invoke("aws:index/getZones:getZones", {{}}).value["names"]
            assert zones == ["a", "b"], zones
            """
        )
        project.stand_ins(invokes={"aws:index/getZones:getZones": {"names": ["a", "b"]}})
        assert not project.check().refused

    def test_says_that_a_name_is_taken(self, project: SmallProject) -> None:
        project.program(ONE_NAMESPACE * 2)
        with pytest.raises(ProgramError, match=r"Duplicate resource URN .*::home"):
            project.check()

    @pytest.mark.parametrize("barred", ["*", "aws"])
    def test_says_that_a_default_provider_is_not_allowed(
        self, project: SmallProject, barred: str
    ) -> None:
        project.stack("test", {"pulumi:disable-default-providers": [barred]})
        project.program(f"made({BUCKET!r}, 'voices')\n")
        with pytest.raises(ProgramError, match=r"Default provider for 'aws' disabled\. '.*voices'"):
            project.check()

    def test_carries_the_traceback_of_the_program(self, project: SmallProject) -> None:
        project.program("1 / 0\n")
        with pytest.raises(ProgramError, match="ZeroDivisionError"):
            project.check()


class TestPackError:
    @pytest.mark.parametrize(
        ("main", "reason"),
        [
            ("1 / 0\n", "did not start; it said:(.|\n)*ZeroDivisionError"),
            ("print('hello')\n", "did not start; it said:\nhello"),
            ("", "did not start; it said:\nnothing"),
        ],
    )
    def test_says_why_a_pack_does_not_start(
        self, project: SmallProject, tmp_path: Path, main: str, reason: str
    ) -> None:
        pack = _pack(tmp_path, main)
        with pytest.raises(PackError, match=reason):
            project.check(pack)

    def test_names_the_resource_on_which_a_policy_fails(
        self, project: SmallProject, tmp_path: Path
    ) -> None:
        pack = _pack(
            tmp_path,
            "from pulumi_policy import PolicyPack, ResourceValidationPolicy\n"
            "policy = ResourceValidationPolicy('breaks', 'Breaks.', lambda args, report: 1 / 0)\n"
            "PolicyPack('broken', [policy])\n",
        )
        with pytest.raises(PackError, match=r"a policy failed on urn:.*: .*division by zero"):
            project.check(pack)

    def test_a_pack_in_another_language_is_refused(
        self, project: SmallProject, tmp_path: Path
    ) -> None:
        pack = _pack(tmp_path, "", runtime="nodejs")
        with pytest.raises(ConfigurationError, match="runtime: 'nodejs'; the gate runs"):
            project.check(pack)


class TestSettings:
    """`policies/config/<stack>.json`, as `pulumi preview --policy-pack-config` takes it."""

    def test_change_levels_and_properties(self, project: SmallProject) -> None:
        project.stack("test", {"small:replicas": 4})
        assert project.check().refused
        project.settings({"limit-replicas": {"max": 4}})
        assert not project.check().violations
        project.settings({"limit-replicas": "advisory"})
        verdict = project.check()
        assert not verdict.refused
        assert verdict.violations
        project.settings({"limit-replicas": "disabled"})
        assert [policy.name for policy in project.check().policies] == [
            "protect-buckets",
            "one-namespace",
        ]

    def test_for_all_policies_come_before_those_for_one(self, project: SmallProject) -> None:
        project.stack("test", {"small:replicas": 4})
        project.settings({"limit-replicas": "mandatory", "all": "disabled"})
        assert [policy.name for policy in project.check().policies] == ["limit-replicas"]
        assert project.check().refused

    def test_of_one_stack_are_not_those_of_another(self, project: SmallProject) -> None:
        project.stack("test", {"small:replicas": 4}).settings({"all": "disabled"}, stack="other")
        assert project.check().refused

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"limit-replica": "mandatory"}, "the pack tiny has no policy limit-replica; it has"),
            ({"limit-replicas": {"max": "many"}}, "limit-replicas.max: 'many' is not of type"),
            ({"limit-replicas": "strict"}, "limit-replicas: 'strict'; allowed: advisory, mand"),
            ({"limit-replicas": 3}, "limit-replicas: 3; allowed: a level, or an object"),
        ],
    )
    def test_that_make_no_sense_are_refused(
        self, project: SmallProject, settings: dict, reason: str
    ) -> None:
        project.settings(settings)
        with pytest.raises(ConfigurationError, match=reason):
            project.check()


class TestStandIns:
    """`policies/gate.yaml`, for what takes a deployment."""

    def test_set_configuration_by_path(self, project: SmallProject) -> None:
        project.stack("test", {"small:hosts": [{"name": "a"}, {"name": "b"}]})
        project.stand_ins(
            config={"test": {"hosts[1].key": {"secure": "sesame"}, "small:zone.id": 7}}
        )
        project.program(
            """
            assert pulumi.runtime.is_config_secret("small:hosts")
            made("acme:index:Link", "link", {
                "hosts": config.require_object("hosts"), "zone": config.require_object("zone"),
            })
            """
        )
        assert project.told("link")["properties"] == {
            "hosts": [{"name": "a"}, {"name": "b", "key": "sesame"}],
            "zone": {"id": 7.0},
        }

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ({"stacks": {}}, "stacks: unknown key; known ones are config, outputs, invokes"),
            ({"config": {"test": 3}}, "config: allowed: a mapping of mappings"),
            ({"config": {"test": {"hosts[2].key": "x"}}}, r"hosts\[2\].key: there is no 2 to set"),
        ],
    )
    def test_that_make_no_sense_are_refused(
        self, project: SmallProject, content: dict, reason: str
    ) -> None:
        project.stack("test", {"small:hosts": []}).stand_ins(**content)
        with pytest.raises(ConfigurationError, match=reason):
            project.check()


def test_the_documented_stand_ins_are_taken(project: SmallProject) -> None:
    page = (ROOT / "docs" / "policy-gate.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    project.stand_ins()
    (project.folder / "policies" / "gate.yaml").write_text(example)
    stand_ins = StandIns.of_project(Project.at(project.folder))
    assert stand_ins.outputs == {"acme/network/prod": {"vpcId": "vpc-0123456789abcdef0"}}
    assert set(stand_ins.config["local"]) == {"cluster.kubeconfig", "aws.secretKey"}
    assert set(stand_ins.invokes) == {"aws:index/getCallerIdentity:getCallerIdentity"}


@pytest.mark.parametrize(
    ("duration", "expected"), [("", 0), ("90s", 90), ("1h30m", 5400), ("1.5m", 90), ("250ms", 0.25)]
)
def test_durations_are_told_in_seconds(duration: str, expected: float) -> None:
    assert seconds(duration) == expected


def _pack(folder: Path, main: str, runtime: str = "python") -> Path:
    pack = folder / "pack"
    pack.mkdir()
    (pack / "PulumiPolicy.yaml").write_text(f"runtime: {runtime}\n")
    (pack / "__main__.py").write_text(main)
    return pack
