"""`voicemesh models`: weights of models, in object storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from voicemesh.cli.errors import UsageError

if TYPE_CHECKING:
    from voicemesh.publication import Release

app = typer.Typer(no_args_is_help=True, help="Publish the weights of models.")
_FAILED = 1


@app.callback()
def _models() -> None:
    """Publish the weights of models."""


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="the weights, published or a bundle")],
    uri: Annotated[str, typer.Argument(help="where to, as s3://acme-voices/models/glm-tts/1.0.0/")],
    license_expression: Annotated[
        str, typer.Option("--license", help="their licence, an SPDX expression, as Apache-2.0")
    ],
    source: Annotated[
        str | None, typer.Option(help="where they are from, as a URL with its revision")
    ] = None,
) -> None:
    """Put a model's weights into object storage, and say how a stack pins them.

    Each file goes there with its digest; SHA256SUMS comes last, and by its own digest a voice pins
    everything, the licence included. What is published is never changed: publishing the same again
    does nothing, other weights need another URI. After an interruption, run it again.

    AWS_PROFILE, AWS_ENDPOINT_URL_S3 and the like say as whom, and which storage.
    """
    output, errors = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
    try:
        release, is_new = _publish(folder, uri, license_expression, source, errors)
    except UsageError as error:
        errors.print(f"error: {error}", markup=False, highlight=False)
        raise typer.Exit(_FAILED) from None
    state = "published" if is_new else "published already"
    output.print(f"{state}: {len(release.files)} files, {release.size_gib:.3f} GiB. In a stack:")
    pinned = f"uri: {uri}\nsha256: {release.sha256}\nsizeGib: {release.size_gib}"
    output.print("model:\n  " + pinned.replace("\n", "\n  "), markup=False, highlight=False)


def _publish(
    folder: Path, uri: str, license_expression: str, source: str | None, console: Console
) -> tuple[Release, bool]:
    # What takes a second to load is loaded by those only who use it.
    import boto3
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    from voicemesh.publication import PublicationError, Release, file_names, publish
    from voicemesh.service.data import WEIGHTS_URI

    if not WEIGHTS_URI.fullmatch(uri):
        raise UsageError(f"{uri!r} is no URI as s3://bucket/models/name/1.0/, with a slash at last")
    try:
        total = sum((folder / name).stat().st_size for name in file_names(folder))
        with _progress(console, "reading", total) as advance:
            release = Release.of(folder, license_expression, source, advance)
        client: Any = boto3.client("s3")
        with _progress(console, "sending", total) as advance:
            is_new = publish(client, release, uri, advance)
    except (PublicationError, OSError) as error:
        raise UsageError(str(error)) from None
    except NoCredentialsError:
        raise UsageError(
            "there are no AWS credentials: set AWS_PROFILE, or sign in with `aws sso login`"
        ) from None
    except (ClientError, BotoCoreError, S3UploadFailedError) as error:
        raise UsageError(f"{uri}: the storage refused, or did not answer: {error}") from None
    return release, is_new


@contextmanager
def _progress(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar while bytes are moved; where there is no terminal, a line at the end."""
    columns = (TextColumn(what), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
