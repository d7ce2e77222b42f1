"""What the tests that start an AWS server share: the server, its clients, and its recording."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from infra.local.paths import CHECKOUT
from infra.local.waiting import wait_until

_LISTENING = re.compile(r"listening on (\S+)")
_SECONDS_TO_START = 30


def url_of(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where a server that was just started listens, once it does."""

    def missing() -> str | None:
        assert process.poll() is None, f"the AWS server ended: {log.read_text()}"
        return None if _LISTENING.search(log.read_text()) else "it does not listen"

    wait_until(missing, "the AWS server to start", _SECONDS_TO_START, log)
    found = _LISTENING.search(log.read_text())
    assert found
    return found[1]


@dataclass(frozen=True)
class AwsServer:
    """A running AWS server that records every request it gets."""

    url: str
    recording: Path

    def client(self, service: str, region: str = "eu-central-1") -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=region,
            aws_access_key_id="someone",
            aws_secret_access_key="else",
            config=Config(s3={"addressing_style": "path"}),
        )

    def requests(self, method: str, path: str) -> list[dict[str, Any]]:
        """The JSON bodies of the requests to a path, a regular expression, in their order."""
        lines = self.recording.read_text().splitlines() if self.recording.exists() else []
        entries = (json.loads(line) for line in lines)
        return [
            _body(entry)
            for entry in entries
            if entry["method"] == method
            and re.fullmatch(path, urllib.parse.urlsplit(entry["url"]).path)
        ]


def _body(entry: Mapping[str, Any]) -> dict[str, Any]:
    text = entry["body"] or ""
    content = base64.b64decode(text) if entry["body_encoded"] else text.encode()
    return json.loads(content or b"{}")


@contextmanager
def recording_server(folder: Path) -> Iterator[AwsServer]:
    """An AWS server of a test's own, with AWS's managed policies and with moto's recorder."""
    log, recording = folder / "log", folder / "recording"
    environment = {
        "MOTO_ENABLE_RECORDING": "1",
        "MOTO_RECORDER_FILEPATH": str(recording),
        "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
    }
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.local.aws_server", "--port", "0"],
            cwd=CHECKOUT,
            stderr=stream,
            env={**os.environ, **environment},
        )
    try:
        yield AwsServer(url_of(process, log), recording)
    finally:
        process.terminate()
        assert process.wait(timeout=10) == 0, log.read_text()
