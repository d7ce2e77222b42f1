"""The Pulumi stack `local`: its backend, its working configuration, and the engine that runs it.

The committed `Pulumi.local.yaml` is never written to. The engine works on a copy in `STATE`, which
also holds what belongs to one life of the environment: the passphrase's salt and generated secrets.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from infra.local import network, toolbox
from infra.local.certificates import Authority, ensure_pair, write_private
from infra.local.errors import LocalEnvironmentError
from infra.local.paths import CHECKOUT, LOGS, STATE

STACK = "local"
CONFIG_FILE = STATE / "Pulumi.local.yaml"
SELECTED = ("--stack", STACK)
WORKING = (*SELECTED, "--config-file", str(CONFIG_FILE))
_PASSPHRASE_FILE = STATE / "pulumi" / "passphrase"
_UNCHANGED = "same"
_UNATTENDED = ("--yes", "--skip-preview")
_HOSTS = ("voicemesh:gateway", "hosts")
_AWS = "voicemesh:aws"


@dataclass(frozen=True)
class Changes:
    """What one run of the engine did, by resource: the counts of its summary event."""

    by_operation: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Resources that were, or would be, created, updated, replaced or deleted."""
        return sum(n for operation, n in self.by_operation.items() if operation != _UNCHANGED)

    def __str__(self) -> str:
        changed = {op: n for op, n in self.by_operation.items() if op != _UNCHANGED and n}
        detail = ", ".join(f"{n} {operation}" for operation, n in sorted(changed.items()))
        unchanged = self.by_operation.get(_UNCHANGED, 0)
        return f"{self.total} changes ({detail + ', ' if detail else ''}{unchanged} unchanged)"


def engine_environment() -> dict[str, str]:
    """The environment variables with which the Pulumi CLI works on the stack."""
    command = toolbox.pulumi_command()
    return {
        **os.environ,
        "PULUMI_BACKEND_URL": f"file://{STATE / 'pulumi'}",
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(_PASSPHRASE_FILE),
        "PULUMI_HOME": str(STATE / "pulumi" / "home"),
        "PULUMI_SKIP_UPDATE_CHECK": "1",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
        "PULUMI_OPTION_NON_INTERACTIVE": "true",
        # Makes the flag --event-log known, which the Automation API uses too.
        "PULUMI_DEBUG_COMMANDS": "true",
        **command.environment,
        **({} if command.is_released else {"HELM_BINARY": str(toolbox.binary("helm"))}),
    }


def pulumi(
    *arguments: str,
    cwd: Path = CHECKOUT,
    check: bool = True,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs the Pulumi CLI inside the environment's network, without showing what it says.

    Raises:
        LocalEnvironmentError: it failed and `check` is set; carries what it printed.
    """
    done = subprocess.run(
        _command(*arguments),
        cwd=cwd,
        env=engine_environment(),
        text=True,
        input=stdin,
        check=False,
        capture_output=True,
    )
    if check and done.returncode:
        raise LocalEnvironmentError(f"pulumi {arguments[0]} failed:\n{done.stdout}{done.stderr}")
    return done


def _command(*arguments: str) -> list[str]:
    return network.in_hub([*toolbox.pulumi_command().argv, *arguments])


def up(refresh: bool = False) -> Changes:
    """Runs `pulumi up` on the stack, showing its progress, and returns what it changed.

    Args:
        refresh: whether to compare the state with what exists first: for when something of the
            environment had died.

    Raises:
        LocalEnvironmentError: it failed; what Pulumi said is on the terminal.
    """
    if not _release():
        return _operation("up", *_UNATTENDED, *(["--refresh"] if refresh else []))
    changes = _operation("up", *_UNATTENDED, "--refresh", take_over=True)
    # The engine keeps in the state that the provider took objects over: settle that too.
    _operation("up", *_UNATTENDED)
    return changes


def preview() -> Changes:
    """What `pulumi up` would change.

    Raises:
        LocalEnvironmentError: the preview failed.
    """
    return _operation("preview")


def outputs() -> dict[str, Any]:
    """The stack's outputs; secret ones are not shown."""
    return json.loads(pulumi("stack", "output", "--json", *SELECTED).stdout)


def _release() -> bool:
    """Frees the stack from an engine that was killed; whether one was, in the middle of its work.

    The engine locks a stack with a file that names its process, and notes in the state what it has
    begun to make.
    """
    locks = (STATE / "pulumi" / ".pulumi" / "locks").rglob("*.json")
    if any(not psutil.pid_exists(json.loads(lock.read_text())["pid"]) for lock in locks):
        pulumi("cancel", "--yes", *SELECTED)
    state = json.loads(pulumi("stack", "export", *SELECTED).stdout)
    return bool(state["deployment"].get("pending_operations"))


def _operation(name: str, *arguments: str, take_over: bool = False) -> Changes:
    LOGS.mkdir(parents=True, exist_ok=True)
    events = LOGS / f"pulumi-{name}.events"
    events.unlink(missing_ok=True)
    environment = engine_environment()
    if take_over:
        # What was made just before the engine was killed exists, but not in the state.
        environment["PULUMI_K8S_UPSERT_EXISTING_OBJECTS"] = "true"
    argv = _command(name, *arguments, *WORKING, "--event-log", str(events))
    with subprocess.Popen(argv, cwd=CHECKOUT, env=environment) as engine:
        try:
            returncode = engine.wait()
        except KeyboardInterrupt:
            # The engine was interrupted too, and ends what it has begun.
            engine.wait()
            raise
    if returncode:
        raise LocalEnvironmentError(
            f"`pulumi {name}` of the stack {STACK} failed; its messages are above",
            fix="mend what they name and run `make up` again: it goes on from here",
        )
    return summary(events.read_text())


def summary(event_log: str) -> Changes:
    """The changes in the summary event of an engine's event log (one JSON object a line)."""
    for line in reversed(event_log.splitlines()):
        event = json.loads(line)
        if "summaryEvent" in event:
            return Changes(event["summaryEvent"].get("resourceChanges") or {})
    raise LocalEnvironmentError("the engine's event log ends without a summary")


def configure(authority: Authority) -> None:
    """Writes the stack's working configuration, and creates the stack where there is none.

    Keys that were generated before are kept, so that nothing changes without need.

    Args:
        authority: signs the certificates of the gateway's hosts.

    Raises:
        LocalEnvironmentError: Pulumi refused a step; carries what it said.
    """
    _generated(_PASSPHRASE_FILE)
    salt = _ensure_stack()
    config = yaml.safe_load((CHECKOUT / "Pulumi.local.yaml").read_text())
    keys: dict[str, str] = {}
    for index, host in enumerate(config["config"][_HOSTS[0]][_HOSTS[1]]):
        certificate, key = ensure_pair(
            authority,
            authority.certificate_path.parent,
            host["name"],
            common_name=host["name"],
            hosts=[host["name"]],
        )
        host["certificate"] = certificate.read_text()
        keys[f"{_HOSTS[0]}.{_HOSTS[1]}[{index}].privateKey"] = key.read_text()
    config["config"][_AWS]["accessKey"] = "local"
    keys[f"{_AWS}.secretKey"] = _generated(STATE / "pulumi" / "aws-secret-key")
    CONFIG_FILE.write_text(
        yaml.safe_dump({"encryptionsalt": salt, **config}, sort_keys=False, allow_unicode=True)
    )
    for path, key in keys.items():
        # From standard input: the arguments of a process are not secret.
        pulumi("config", "set", "--secret", "--path", path, *WORKING, stdin=key)


def _generated(file: Path) -> str:
    """The secret in a file, made where there is none."""
    if not file.exists():
        write_private(file, secrets.token_urlsafe(32).encode())
    return file.read_text()


def _ensure_stack() -> str:
    """Creates the stack and returns the salt of its passphrase.

    `pulumi stack init` writes the salt beside the project file, so it runs on a project of the
    same name in `STATE`: the backend knows a stack by project and name only.
    """
    project = STATE / "pulumi" / "project"
    config = project / f"Pulumi.{STACK}.yaml"
    if not config.exists():
        project.mkdir(parents=True, exist_ok=True)
        name = yaml.safe_load((CHECKOUT / "Pulumi.yaml").read_text())["name"]
        (project / "Pulumi.yaml").write_text(yaml.safe_dump({"name": name, "runtime": "python"}))
        pulumi("stack", "init", STACK, "--no-select", cwd=project)
    return yaml.safe_load(config.read_text())["encryptionsalt"]
