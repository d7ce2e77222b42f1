"""`python -m infra.local`: the embedded environment's command line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Annotated

import typer

from infra.local import stack, status, tokens, up
from infra.local.display import console, errors
from infra.local.errors import LocalEnvironmentError
from infra.local.network import hub_namespace, in_hub
from infra.local.paths import LOGS, STATE

app = typer.Typer(
    help="A real Kubernetes, Istio and Pulumi engine on this machine, with a voice that speaks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_INTERRUPTED = 130


@app.command("up")
def up_command() -> None:
    """Bring the environment up and speak a sentence; goes on where an earlier `up` stopped."""
    _run(up.up)


@app.command("down")
def down_command() -> None:
    """Stop the environment and remove all of it, with everything that was stored in it."""
    _run(up.down)


@app.command("status")
def status_command() -> None:
    """Show what runs, where it listens, and what memory it takes."""
    _run(status.show)


@app.command("logs")
def logs_command(
    name: Annotated[str, typer.Argument(help="a daemon, as `status` names it")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on as it grows")] = False,
) -> None:
    """Print the log of a daemon; without a name, list them."""
    names = sorted(path.stem for path in LOGS.glob("*.log"))
    if not name:
        console.print("\n".join(names) or "there are no logs: the environment is down")
        return
    if name not in names:
        _fail(LocalEnvironmentError(f"no daemon has the name {name!r}", f"one of {names}"))
    tail = ["tail", "-n", "+1", *(["-F"] if follow else []), str(LOGS / f"{name}.log")]
    os.execvp("tail", tail)  # noqa: S606


@app.command("kubeconfig")
def kubeconfig_command() -> None:
    """Print the path of a kubeconfig for use on this machine."""
    _require_running()
    typer.echo(STATE / "kubeconfig-host")


@app.command("token")
def token_command(
    client: Annotated[str, typer.Option(help="who asks for it")] = tokens.DEFAULT_CLIENT,
    scope: Annotated[
        str | None, typer.Option(help="scopes with blanks between them; by default all it may have")
    ] = None,
) -> None:
    """Print an access token, as the gateway wants one after `Authorization: Bearer`."""
    _require_running()
    _run(lambda: typer.echo(tokens.fetch_token(client, scope)))


@app.command("exec", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def exec_command(context: typer.Context) -> None:
    """Run a command inside the environment's network, such as `pulumi preview` or `kubectl`.

    Its stack and kubeconfig are chosen, and the tools of the environment are on its PATH.
    """
    _require_running()
    if not context.args:
        _fail(LocalEnvironmentError("exec needs a command", "exec kubectl get pods -A"))
    environment = {**stack.engine_environment(), "KUBECONFIG": str(STATE / "kubeconfig")}
    argv = in_hub(context.args)
    raise typer.Exit(subprocess.run(argv, env=environment, check=False).returncode)


def _require_running() -> None:
    if not hub_namespace().exists():
        _fail(LocalEnvironmentError("the environment is down", "run `make up`"))


def _run(command: Callable[[], None]) -> None:
    try:
        command()
    except LocalEnvironmentError as error:
        _fail(error)
    except KeyboardInterrupt:
        errors.print("interrupted: `make up` goes on from here, `make down` removes what there is")
        raise typer.Exit(_INTERRUPTED) from None


def _fail(error: LocalEnvironmentError) -> None:
    errors.print(f"error: {error}", markup=False, soft_wrap=True)
    raise typer.Exit(1)
