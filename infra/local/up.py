"""The story of `make up`, phase by phase, and of `make down`."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import httpx

from infra.local import (
    cluster,
    debian,
    images,
    ownership,
    preflight,
    processes,
    stack,
    tokens,
    toolbox,
)
from infra.local.certificates import ensure_authority
from infra.local.display import console, phase
from infra.local.network import in_hub
from infra.local.paths import CHECKOUT, STATE
from infra.local.processes import Daemon
from infra.local.speak import Door, speak
from infra.local.topology import AWS_PORT, HUB_ADDRESS, ISSUER_PORT
from infra.local.waiting import wait_until
from voicemesh.contract import SPEECH_PATH

HOST = "tts.voicemesh.localhost"
CHARTS = STATE / "charts"
GATEWAY_AUTHORITY = STATE / "gateway" / "ca.crt"
ISSUER_DAEMON = "token-issuer"


def up() -> None:
    """Brings the environment up, or completes it, and speaks a sentence.

    Raises:
        LocalEnvironmentError: a phase failed; the next `up` goes on from there.
    """
    started = time.monotonic()
    with phase("this machine"):
        preflight.check_machine()
    with phase("tools") as progress:
        toolbox.ensure_tools(toolbox.needed_for_up(), progress)
        debian.ensure_packages(progress)
    with phase("images") as progress:
        archives = images.ensure_images(progress)
    with ownership.lock(console.print):
        with phase("ownership") as progress:
            ownership.claim(progress)
        # What died may have taken with it what the stack's state believes to exist.
        died = [name for name in processes.recorded_daemons() if not processes.running(name)]
        with phase("cluster") as progress:
            cluster.ensure_cluster(archives, progress)
            ensure_aws_server()
            ensure_token_issuer()
        with phase("stack configuration"):
            ensure_charts()
            stack.configure(ensure_authority(GATEWAY_AUTHORITY.parent, GATEWAY_AUTHORITY.stem))
        changes = stack.up(refresh=bool(died))
        with phase("speech"):
            utterance = speak(door(), None, STATE / "speech.wav")
    _show_outputs()
    console.print(
        f"try it: curl --cacert {_shown(GATEWAY_AUTHORITY)} {door().url}{SPEECH_PATH} "
        """-H "Authorization: Bearer $(.venv/bin/python -m infra.local token)" """
        """--json '{"input": "Hello."}' --output hello.wav""",
        soft_wrap=True,
        markup=False,
    )
    console.print(f"{changes} in {time.monotonic() - started:.0f} s")
    console.print(
        f'spoke "{utterance.text}" into {_shown(utterance.path)}: first audio after '
        f"{utterance.first_audio_seconds:.3f} s, all {utterance.audio_seconds:.1f} s of it after "
        f"{utterance.total_seconds:.3f} s",
        soft_wrap=True,
    )


def down() -> None:
    """Stops the environment and removes all of it.

    Raises:
        LocalEnvironmentError: it is another checkout's, or something could not be removed.
    """
    with ownership.lock(console.print), phase("down") as progress:
        cluster.down(progress)


def door() -> Door:
    """Where the environment's voice service is reached from this machine."""
    return Door(HOST, GATEWAY_AUTHORITY)


def ensure_aws_server() -> None:
    """Starts the stand-in for AWS in the hub, where pods and the Pulumi engine reach it.

    Raises:
        LocalEnvironmentError: it does not answer; shows the end of its log.
    """
    _ensure_server("aws-server", "infra.local.aws_server", AWS_PORT, "/moto-api/")


def ensure_token_issuer() -> None:
    """Starts the stand-in for an identity provider in the hub, where the proxies reach it.

    Raises:
        LocalEnvironmentError: it does not answer; shows the end of its log.
    """
    files = tokens.token_files()
    files.ensure()
    _ensure_server(
        ISSUER_DAEMON,
        "infra.local.token_issuer",
        ISSUER_PORT,
        tokens.KEYS_PATH,
        "--folder",
        str(files.folder),
    )


def _ensure_server(name: str, module: str, port: int, path: str, *more: str) -> None:
    """Starts a server of ours in the hub, and waits until it answers at a path."""
    address = ["--host", HUB_ADDRESS, "--port", str(port)]
    argv = in_hub([sys.executable, "-m", module, *address, *more])
    daemon = Daemon(name, argv, {"PYTHONPATH": str(CHECKOUT)})
    processes.ensure_daemon(daemon)

    def missing() -> str | None:
        processes.still_running(daemon)
        try:
            httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False, timeout=5)
        except httpx.HTTPError as error:
            return str(error)
        return None

    wait_until(missing, f"{name} to answer", 60, daemon.log)


def ensure_charts() -> None:
    """Copies Istio's charts to where the stack's configuration expects them."""
    new = CHARTS.with_name("charts.new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(toolbox.istio_charts(), new)
    shutil.rmtree(CHARTS, ignore_errors=True)
    new.rename(CHARTS)


def _show_outputs() -> None:
    for name, value in sorted(stack.outputs().items()):
        console.print(f"  {name}: {json.dumps(value)}", markup=False, soft_wrap=True)


def _shown(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))
