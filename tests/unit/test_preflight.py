"""`voicemesh preflight` names what an AWS account lacks, before anything is made.

Calls are checked against botocore's models: by its Stubber, and by moto where it knows the call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws
from typer.testing import CliRunner

from tests.stacks import ROOT, STACKS
from voicemesh import CapacityType, GpuClusterArgs, GpuNodeGroupArgs, ReservedCapacity
from voicemesh.cli import app
from voicemesh.preflight import (
    ON_DEMAND_QUOTAS,
    SPOT_QUOTAS,
    Account,
    PlannedNodes,
    Reservation,
    applied_quotas,
    ask_account,
    findings,
    quota_of,
)

REGION = "us-east-1"
ZONES = ("us-east-1a", "us-east-1b")
RESERVATION_ID = "cr-0123456789abcdef0"
DEPLOY = "arn:aws:iam::123456789012:role/deploy"

SYSTEM = PlannedNodes("system", ("m7i.xlarge",), ZONES, max_size=4)
ONLINE = PlannedNodes("online", ("p5.4xlarge",), ZONES[:1], 8, reservation_id=RESERVATION_ID)
OFFLINE = PlannedNodes("offline", ("g6e.xlarge",), ZONES, 10, CapacityType.SPOT)
PLAN = (SYSTEM, ONLINE, OFFLINE)
EVERY_QUOTA = {quota.code: 1e6 for quota in (*ON_DEMAND_QUOTAS.values(), *SPOT_QUOTAS.values())}

FAULTY = """\
config:
  other:key: other
  voicemesh:layers: [cluster]
  voicemesh:eksx: {a: b}
"""

GENEROUS = Account(
    number="123456789012",
    region=REGION,
    quotas={"L-417A185B": 128, "L-1216C47A": 16, "L-3819A6DF": 40},
    vcpus={"m7i.xlarge": 4, "p5.4xlarge": 16, "g6e.xlarge": 4},
    offered={
        "m7i.xlarge": frozenset(ZONES),
        "p5.4xlarge": frozenset(ZONES[:1]),
        "g6e.xlarge": frozenset(ZONES),
    },
    reservations={RESERVATION_ID: Reservation("active", "p5.4xlarge", ZONES[0], 8)},
)


def missing(account: Account, plan: tuple[PlannedNodes, ...] = PLAN) -> list[str]:
    return [str(finding) for finding in findings(plan, account) if not finding.holds]


class TestDecision:
    def test_an_account_that_grants_everything_lacks_nothing(self) -> None:
        assert missing(GENEROUS) == []
        # Three quotas, three types in their zones, one reservation.
        assert len(findings(PLAN, GENEROUS)) == 7

    def test_a_quota_that_is_too_small_is_named_with_need_and_the_command_that_asks_for_more(
        self,
    ) -> None:
        (line,) = missing(replace(GENEROUS, quotas={**GENEROUS.quotas, "L-417A185B": 127}))
        assert line == (
            "quota L-417A185B (Running On-Demand P instances): needs 128 vCPUs, has 127; "
            "aws service-quotas request-service-quota-increase --service-code ec2 "
            "--quota-code L-417A185B --desired-value 128 --region us-east-1"
        )

    def test_groups_of_one_family_share_their_quota(self) -> None:
        more = (*PLAN, PlannedNodes("more", ("p5.4xlarge",), ZONES[:1], 1))
        (line,) = missing(GENEROUS, more)
        assert "needs 144 vCPUs, has 128" in line

    def test_the_largest_type_that_a_node_may_become_counts(self) -> None:
        account = replace(
            GENEROUS,
            vcpus={**GENEROUS.vcpus, "p5.48xlarge": 192},
            offered={**GENEROUS.offered, "p5.48xlarge": frozenset(ZONES)},
        )
        plan = (PlannedNodes("online", ("p5.4xlarge", "p5.48xlarge"), ZONES[:1], 2),)
        (line,) = missing(account, plan)
        assert "needs 384 vCPUs, has 128" in line

    def test_a_zone_that_does_not_offer_the_type_is_named_with_those_that_do(self) -> None:
        offered = {**GENEROUS.offered, "m7i.xlarge": frozenset({"us-east-1b", "us-east-1c"})}
        (line,) = missing(replace(GENEROUS, offered=offered))
        assert line == (
            "nodes system: m7i.xlarge: needs zones us-east-1a, us-east-1b, "
            "has us-east-1b, us-east-1c; "
            "choose zones of these, or another instance type, than us-east-1a"
        )

    def test_a_region_without_the_type_is_named(self) -> None:
        offered = {k: v for k, v in GENEROUS.offered.items() if k != "p5.4xlarge"}
        vcpus = {k: v for k, v in GENEROUS.vcpus.items() if k != "p5.4xlarge"}
        (line,) = missing(replace(GENEROUS, offered=offered, vcpus=vcpus))
        assert "has none; choose another region than us-east-1" in line

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"state": "expired"}, "it cannot be revived"),
            ({"instance_type": "p5.48xlarge"}, "make the group's instance type that of"),
            ({"zone": "us-east-1b"}, "make the group's zone that of the reservation"),
            ({"platform": "Windows"}, "make the group's platform that of the reservation"),
            ({"instance_count": 7}, "raise its instance count to 8, or lower maxSize"),
        ],
    )
    def test_a_reservation_that_does_not_fit_says_how_to_make_it_fit(
        self, change: dict[str, Any], message: str
    ) -> None:
        found = replace(GENEROUS.reservations[RESERVATION_ID], **change)
        (line,) = missing(replace(GENEROUS, reservations={RESERVATION_ID: found}))
        assert f"reservation {RESERVATION_ID}: needs 8 p5.4xlarge for Linux/UNIX" in line
        assert message in line

    def test_a_reservation_that_does_not_exist_is_named(self) -> None:
        (line,) = missing(replace(GENEROUS, reservations={}))
        assert "has none of this ID; name one of region us-east-1" in line

    @pytest.mark.parametrize(
        ("instance_type", "on_demand", "spot"),
        [
            ("p5.4xlarge", "L-417A185B", "L-C4BD4855"),
            ("p5en.48xlarge", "L-417A185B", "L-C4BD4855"),
            ("p4d.24xlarge", "L-417A185B", "L-7212CCBC"),
            ("g6e.xlarge", "L-DB2E81BA", "L-3819A6DF"),
            ("m7i.xlarge", "L-1216C47A", "L-34B43A08"),
        ],
    )
    def test_each_family_counts_against_its_own_quota(
        self, instance_type: str, on_demand: str, spot: str
    ) -> None:
        for capacity_type, code in [
            (CapacityType.ON_DEMAND, on_demand),
            (CapacityType.SPOT, spot),
        ]:
            quota = quota_of(instance_type, capacity_type)
            assert quota is not None
            assert quota.code == code

    def test_families_with_quotas_of_their_own_are_left_to_aws(self) -> None:
        assert quota_of("x2idn.16xlarge", CapacityType.ON_DEMAND) is None


class TestPlan:
    GROUP = GpuNodeGroupArgs(
        "prod", "arn", {zone: zone for zone in ZONES}, 1, 4, availability_zones=ZONES[:1]
    )

    def test_a_group_is_planned_at_its_largest_in_its_own_zones(self) -> None:
        assert PlannedNodes.of_group("h100", self.GROUP) == PlannedNodes(
            "h100", ("p5.4xlarge",), ZONES[:1], 4
        )

    def test_instances_that_are_reserved_count_whether_they_run_or_not(self) -> None:
        reserved = replace(self.GROUP, reservation=ReservedCapacity(instance_count=6))
        assert PlannedNodes.of_group("h100", reserved).max_size == 6

    def test_an_existing_reservation_is_looked_up(self) -> None:
        reserved = replace(self.GROUP, reservation=ReservedCapacity(RESERVATION_ID))
        assert PlannedNodes.of_group("h100", reserved).reservation_id == RESERVATION_ID

    def test_system_nodes_are_planned_in_all_zones_with_those_that_an_update_adds(self) -> None:
        planned = PlannedNodes.of_system(GpuClusterArgs("prod", ZONES, [DEPLOY]))
        assert planned == replace(SYSTEM, max_size=4 + 2 * len(ZONES))


@contextmanager
def stubbed(answers: dict[str, list[tuple[str, Any, Any]]]) -> Iterator[Callable[[str], Any]]:
    """Clients that take exactly these calls, in this order, by service."""
    keys = {"aws_access_key_id": "access", "aws_secret_access_key": "secret"}
    session = boto3.Session(region_name=REGION, **keys)
    with ExitStack() as stack:
        clients = {}
        for service, calls in answers.items():
            clients[service] = session.client(service)
            stubber = stack.enter_context(Stubber(clients[service]))
            for operation, parameters, answer in calls:
                stubber.add_response(operation, answer, parameters)
            stack.callback(stubber.assert_no_pending_responses)
        yield clients.__getitem__


def test_the_account_is_asked_for_quotas_zones_and_reservations() -> None:
    offerings = [
        {"InstanceType": "p5.4xlarge", "LocationType": "availability-zone", "Location": ZONES[0]}
    ]
    reservation = {
        "CapacityReservationId": RESERVATION_ID,
        "State": "active",
        "InstanceType": "p5.4xlarge",
        "InstancePlatform": "Linux/UNIX",
        "AvailabilityZone": ZONES[0],
        "TotalInstanceCount": 8,
    }
    other = {**reservation, "CapacityReservationId": "cr-00000000000000000"}
    asked = {
        "sts": [("get_caller_identity", {}, {"Account": "123456789012"})],
        "service-quotas": [
            (
                "get_service_quota",
                {"ServiceCode": "ec2", "QuotaCode": "L-417A185B"},
                {"Quota": {"QuotaCode": "L-417A185B", "Value": 128.0}},
            )
        ],
        "ec2": [
            (
                "describe_instance_type_offerings",
                {
                    "LocationType": "availability-zone",
                    "Filters": [{"Name": "instance-type", "Values": ["p5.4xlarge"]}],
                },
                {"InstanceTypeOfferings": offerings},
            ),
            (
                "describe_instance_types",
                {"InstanceTypes": ["p5.4xlarge"]},
                {
                    "InstanceTypes": [
                        {"InstanceType": "p5.4xlarge", "VCpuInfo": {"DefaultVCpus": 16}}
                    ]
                },
            ),
            (
                "describe_capacity_reservations",
                {},
                {"CapacityReservations": [other, reservation]},
            ),
        ],
    }
    with stubbed(asked) as client:
        account = ask_account((ONLINE,), REGION, client)
    assert account == Account(
        number="123456789012",
        region=REGION,
        quotas={"L-417A185B": 128.0},
        vcpus={"p5.4xlarge": 16},
        offered={"p5.4xlarge": frozenset({ZONES[0]})},
        reservations=GENEROUS.reservations,
    )
    assert missing(account, (ONLINE,)) == []


def test_a_quota_that_was_never_changed_is_the_one_of_every_account() -> None:
    keys = {"aws_access_key_id": "access", "aws_secret_access_key": "secret"}
    client = boto3.Session(region_name=REGION, **keys).client("service-quotas")
    wanted = {"ServiceCode": "ec2", "QuotaCode": "L-C4BD4855"}
    with Stubber(client) as stubber:
        stubber.add_client_error(
            "get_service_quota", "NoSuchResourceException", expected_params=wanted
        )
        default = {"Quota": {"QuotaCode": "L-C4BD4855", "Value": 0.0}}
        stubber.add_response("get_aws_default_service_quota", default, wanted)
        assert applied_quotas(client, ["L-C4BD4855"]) == {"L-C4BD4855": 0.0}
        stubber.assert_no_pending_responses()


def test_a_refusal_is_not_taken_for_a_quota() -> None:
    keys = {"aws_access_key_id": "access", "aws_secret_access_key": "secret"}
    client = boto3.Session(region_name=REGION, **keys).client("service-quotas")
    with Stubber(client) as stubber:
        stubber.add_client_error("get_service_quota", "AccessDeniedException")
        with pytest.raises(ClientError, match="AccessDenied"):
            applied_quotas(client, ["L-C4BD4855"])


@mock_aws
def test_moto_answers_what_it_knows_as_aws_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voicemesh.preflight.applied_quotas", lambda _client, _codes: {})
    plan = (
        SYSTEM,
        replace(ONLINE, reservation_id=None),
        PlannedNodes("x", ("p9.xlarge",), ZONES, 1),
    )
    account = ask_account(plan, REGION, partial(boto3.client, region_name=REGION))
    assert account.number == "123456789012"
    assert account.vcpus == {"m7i.xlarge": 4, "p5.4xlarge": 16}
    assert set(account.offered) == {"m7i.xlarge", "p5.4xlarge"}


class TestCommand:
    @pytest.fixture(autouse=True)
    def in_the_checkout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(app, ["preflight", *arguments])

    def granting(self, monkeypatch: pytest.MonkeyPatch, **change: Any) -> None:
        def answer(plan: list[PlannedNodes], region: str, _client: object) -> Account:
            types = {t for nodes in plan for t in nodes.instance_types}
            zones = frozenset(zone for nodes in plan for zone in nodes.zones)
            plenty: dict[str, Any] = {
                "quotas": EVERY_QUOTA,
                "vcpus": dict.fromkeys(types, 16),
                "offered": dict.fromkeys(types, zones),
            }
            return Account("123456789012", region, **{**plenty, **change})

        monkeypatch.setattr("voicemesh.cli.preflight.ask_account", answer)

    def test_a_stack_that_an_account_can_hold_passes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.granting(monkeypatch)
        done = self.run("--stack", "prod-cluster")
        assert done.exit_code == 0, done.output
        assert "account 123456789012, region" in done.output
        assert "ok      quota L-417A185B (Running On-Demand P instances): needs" in done.output
        assert "MISSING" not in done.output

    def test_a_stack_that_it_cannot_hold_fails_and_says_what_is_missing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.granting(monkeypatch, quotas={**EVERY_QUOTA, "L-417A185B": 0})
        done = self.run("-s", "prod-cluster")
        assert done.exit_code == 1
        (line,) = [line for line in done.output.splitlines() if line.startswith("MISSING")]
        assert "L-417A185B" in line
        assert line.count("--quota-code L-417A185B") == 1

    def test_credentials_of_another_account_than_the_stacks_are_refused(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        self.granting(monkeypatch)
        (tmp_path / "infra").symlink_to(ROOT / "infra")
        (tmp_path / "Pulumi.yaml").write_text("name: voicemesh\n")
        committed = (ROOT / "Pulumi.prod-cluster.yaml").read_text()
        line = "    region: us-east-2\n"
        assert line in committed
        for account, code in [("123456789012", 0), ("210987654321", 1)]:
            theirs = committed.replace("123456789012", account)
            restricted = theirs.replace(line, f'{line}    accountId: "{account}"\n')
            (tmp_path / "Pulumi.x.yaml").write_text(restricted)
            monkeypatch.chdir(tmp_path)
            done = self.run("--stack", "x")
            assert done.exit_code == code, done.output
        assert "account 123456789012, and the stack works on 210987654321 only" in done.stderr

    def test_without_credentials_it_says_how_to_get_them(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.setenv(name, str(tmp_path / "none"))
        done = self.run("--stack", "prod-cluster")
        assert done.exit_code == 1
        assert done.stderr == (
            "error: there are no AWS credentials: "
            "set AWS_PROFILE, or sign in with `aws sso login`\n"
        )

    def test_a_stack_that_makes_no_cluster_is_refused(self) -> None:
        done = self.run("--stack", "prod")
        assert done.exit_code == 1
        assert done.stderr == (
            "error: the stack makes no cluster: it has no section 'eks'; "
            "organization/voicemesh/prod-cluster makes the one that it runs on\n"
        )

    def test_an_unknown_stack_is_refused_with_those_there_are(self) -> None:
        done = self.run("--stack", "production")
        assert done.exit_code == 1
        assert "there is no stack 'production' here" in done.stderr
        assert all(stack in done.stderr for stack in STACKS)

    def test_outside_a_checkout_it_says_where_to_run(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        done = self.run("--stack", "prod-cluster")
        assert done.exit_code == 1
        assert "is no checkout of voicemesh: run this where Pulumi.yaml" in done.stderr

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (FAULTY, "the configuration is faulty:\nvoicemesh:eksx: unknown key"),
            ("", "the configuration is faulty:\nvoicemesh:layers: missing"),
            ("config:\n", "the configuration is faulty:\nvoicemesh:layers: missing"),
            ("config:\n  voicemesh:layers: [cluster\n", "Pulumi.x.yaml is no YAML: while parsing"),
            ("voicemesh\n", "Pulumi.x.yaml has no keys, but is 'voicemesh'"),
        ],
    )
    def test_a_faulty_configuration_is_reported_as_the_program_reports_it(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, message: str
    ) -> None:
        (tmp_path / "infra").symlink_to(ROOT / "infra")
        (tmp_path / "Pulumi.yaml").write_text("name: voicemesh\n")
        (tmp_path / "Pulumi.x.yaml").write_text(text)
        monkeypatch.chdir(tmp_path)
        done = self.run("--stack", "x")
        assert done.exit_code == 1
        assert done.stderr.startswith(f"error: {message}")

    def test_the_command_is_found_among_others(self) -> None:
        assert "preflight" in CliRunner().invoke(app, ["--help"]).output
        assert "--stack" in self.run("--help").output
