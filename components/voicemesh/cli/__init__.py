"""`voicemesh`: the command line, installed with the extra `voicemesh[cli]`."""

try:
    from voicemesh.cli.application import app
except ModuleNotFoundError as missing:
    if missing.name not in ("typer", "rich"):
        raise
    raise SystemExit(
        f"voicemesh's command line needs {missing.name}: pip install 'voicemesh[cli]'"
    ) from None

__all__ = ["app"]
