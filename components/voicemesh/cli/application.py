"""The commands, by name."""

from __future__ import annotations

import typer

from voicemesh.cli import models, policy, preflight

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("preflight")(preflight.command)
app.add_typer(policy.app, name="policy")
app.add_typer(models.app, name="models")


@app.callback()
def _main() -> None:
    """Works on environments of voicemesh."""
