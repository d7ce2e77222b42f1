"""`voicemesh preflight`: does the AWS account grant what a stack needs?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from voicemesh.cli.checkout import load_stack
from voicemesh.cli.errors import UsageError
from voicemesh.preflight import Account, PlannedNodes, ask_account, findings

if TYPE_CHECKING:
    from infra.environment import Environment

_SHORT = 1


def command(
    stack: Annotated[str, typer.Option("--stack", "-s", help="the stack, as prod-cluster")],
) -> None:
    """Check that the AWS account has the quotas, zones and reservations that a stack needs.

    Asks AWS with the credentials of the environment, and changes nothing.
    """
    output, errors = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
    try:
        environment = load_stack(stack, Path.cwd())
        region, plan = planned_nodes(environment)
        account = _answers(plan, region, _clients(environment, region))
        _require_account(environment, account)
    except UsageError as error:
        errors.print(f"error: {error}", markup=False)
        raise typer.Exit(_SHORT) from None
    output.print(f"account {account.number}, region {account.region}", markup=False)
    found = findings(plan, account)
    for finding in found:
        mark = "ok     " if finding.holds else "MISSING"
        output.print(f"{mark} {finding}", markup=False, highlight=False)
    if not all(finding.holds for finding in found):
        raise typer.Exit(_SHORT)


def planned_nodes(environment: Environment) -> tuple[str, list[PlannedNodes]]:
    """The region of the cluster that a stack makes, and all its node groups.

    Raises:
        UsageError: it makes none.
    """
    from infra.environment.arguments import cluster_args, planned_node_group_args

    eks = environment.eks
    if eks is None:
        owner = environment.cluster_stack
        elsewhere = f"; {owner} makes the one that it runs on" if owner else ""
        raise UsageError(f"the stack makes no cluster: it has no section 'eks'{elsewhere}")
    cluster = cluster_args(eks, "preflight")
    groups = [
        PlannedNodes.of_group(group.name, planned_node_group_args(eks, group))
        for group in eks.node_groups
    ]
    return cluster.region, [PlannedNodes.of_system(cluster), *groups]


def _require_account(environment: Environment, account: Account) -> None:
    wanted = environment.aws.account_id if environment.aws else None
    if wanted not in (None, account.number):
        raise UsageError(
            f"the credentials are of account {account.number}, and the stack works on {wanted} only"
        )


def _clients(environment: Environment, region: str) -> Callable[[str], Any]:
    # It takes half a second to load, and no other command asks AWS.
    import boto3

    endpoint = environment.aws.endpoint if environment.aws else None
    session = boto3.Session(region_name=region)
    return lambda service: session.client(service, endpoint_url=endpoint)


def _answers(plan: Sequence[PlannedNodes], region: str, client: Callable[[str], Any]) -> Account:
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        return ask_account(plan, region, client)
    except NoCredentialsError:
        raise UsageError(
            "there are no AWS credentials: set AWS_PROFILE, or sign in with `aws sso login`"
        ) from None
    except (ClientError, BotoCoreError) as error:
        raise UsageError(f"AWS refused, or did not answer: {error}") from None
