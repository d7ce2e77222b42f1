"""The language host on the real engine: programs, policy packs, interruptions."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local import toolbox
from infra.local.adapters.kubernetes_provider.api import Api
from infra.local.waiting import wait_until

from .engine import Stack
from .test_objects import workload


def test_a_program_sees_its_configuration_and_fails_in_its_own_words(stack: Stack) -> None:
    stack.cli("config", "set", "voice", "alto")
    stack.cli("config", "set", "--secret", "word", "open-sesame")
    program = """
    config = pulumi.Config()
    pulumi.export("voice", config.require("voice"))
    pulumi.export("word", config.require_secret("word"))
    pulumi.export("where", [pulumi.get_project(), pulumi.get_stack()])
    print("printed by the program")
    """
    done = stack.up(program)
    assert "printed by the program" in done.text
    outputs = stack.outputs()
    assert outputs["voice"] == "alto"
    assert outputs["where"] == ["adapters", "test"]
    assert outputs["word"] == "[secret]"
    failed = stack.preview(program + '\n    raise ValueError("no such voice")', fails=True)
    assert "ValueError: no such voice" in failed.text
    assert "__main__.py" in failed.text
    assert "program_runner" not in failed.text, "only the program's own frames are shown"


def test_an_interrupted_update_ends_soon_and_keeps_what_it_made(
    stack: Stack, home: str, api: Api
) -> None:
    with _waiting_update(stack, home, api) as process:
        interrupted = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        told, _ = process.communicate(timeout=30)
    assert time.monotonic() - interrupted < 15
    assert process.returncode != 0
    assert "Traceback" not in told
    assert _leftovers(stack.folder) == []
    assert "interrupted while waiting" in told
    assert stack.resource("server")["id"].endswith("/server")
    stack.up(workload(home))


def test_a_killed_engine_takes_its_plugins_along_and_can_be_followed(
    stack: Stack, home: str, api: Api
) -> None:
    with _waiting_update(stack, home, api) as process:
        process.kill()
        process.communicate(timeout=30)
    wait_until(lambda: " ".join(_leftovers(stack.folder)), "the plugins to end", 10)
    stack.cli("cancel", "--yes")
    assert "already exists" in stack.up(workload(home), fails=True).text
    stack.environment["PULUMI_K8S_UPSERT_EXISTING_OBJECTS"] = "true"
    stack.up()
    stack.unchanged()


@contextmanager
def _waiting_update(stack: Stack, home: str, api: Api) -> Iterator[subprocess.Popen[str]]:
    """An update that waits for a Deployment which can never become ready."""
    stack.program(workload(home, annotation=""))
    process = subprocess.Popen(
        [str(toolbox.binary("pulumi")), "up", "--yes", "--skip-preview", "--non-interactive"],
        cwd=stack.folder,
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    deployments = api.kind("apps/v1", "Deployment")
    try:
        wait_until(
            lambda: None if api.list(deployments, home) else "there is none", "a Deployment", 60
        )
        yield process
    finally:
        process.kill()
        process.wait()


def _leftovers(folder: Path) -> list[str]:
    """Commands of processes that still run in the project's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve().is_relative_to(folder):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found
