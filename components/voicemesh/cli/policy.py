"""`voicemesh policy`: does a stack's program satisfy a policy pack?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from voicemesh.policy.errors import ConfigurationError, GateError

app = typer.Typer(
    no_args_is_help=True, help="Check Pulumi programs with policies, without an engine."
)
_REFUSED = 1
_NO_VERDICT = 2
_LOG_WIDTH = 160
"""Columns of a table that is not shown by a terminal."""


@app.callback()
def _policy() -> None:
    """Check Pulumi programs with policies, without an engine."""


@app.command()
def check(
    stacks: Annotated[list[str] | None, typer.Argument(help="the stacks, as prod")] = None,
    every: Annotated[bool, typer.Option("--all", help="check all stacks of the project")] = False,
    pack: Annotated[
        Path, typer.Option(help="folder of the policy pack, where PulumiPolicy.yaml is")
    ] = Path("policies"),
    charts: Annotated[
        list[Path] | None,
        typer.Option(help="folder with Helm charts by name; can be given several times"),
    ] = None,
    helm: Annotated[
        str, typer.Option(envvar="HELM_BINARY", help="helm, which renders charts")
    ] = "helm",
    sarif: Annotated[Path | None, typer.Option(help="file to write SARIF 2.1.0 to")] = None,
    junit: Annotated[Path | None, typer.Option(help="file to write JUnit XML to")] = None,
) -> None:
    """Run the programs of stacks as a preview does, and check all that they declare.

    Needs no engine, cluster, network or credentials. Run it in the folder of a Pulumi project.

    Ends with 0 if no mandatory policy is violated, with 1 if one is, and with 2 if there is no
    verdict: a file is missing or faulty, or the program or the pack failed.
    """
    # What the gate takes is loaded by those only who use it.
    from voicemesh.policy.charts import Charts
    from voicemesh.policy.gate import Gate, Verdict, check
    from voicemesh.policy.project import Project
    from voicemesh.policy.reports import junit as as_junit
    from voicemesh.policy.reports import print_table
    from voicemesh.policy.reports import sarif as as_sarif

    output, errors = Console(), Console(stderr=True, soft_wrap=True)
    if not output.is_terminal:
        output.width = _LOG_WIDTH
    verdicts: list[Verdict] = []
    try:
        project = Project.at(Path.cwd())
        local = Charts(helm, tuple(charts or ()), project.working_directory)
        for stack in _chosen(stacks or [], every, project.stacks()):
            verdicts.append(check(project, stack, Gate(pack.absolute(), local)))
            print_table(verdicts[-1], output)
    except GateError as error:
        errors.print(f"error: {error}", markup=False, highlight=False)
        raise typer.Exit(_NO_VERDICT) from None
    if sarif is not None:
        sarif.write_text(json.dumps(as_sarif(verdicts, project.folder), indent=2) + "\n")
    if junit is not None:
        junit.write_text(as_junit(verdicts))
    if any(verdict.refused for verdict in verdicts):
        raise typer.Exit(_REFUSED)


def _chosen(stacks: Sequence[str], every: bool, known: Sequence[str]) -> Sequence[str]:
    if every == bool(stacks):
        raise ConfigurationError("name the stacks to check, or give --all")
    return known if every else stacks
