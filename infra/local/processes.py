"""Daemons of the environment: started detached, recorded, found again, stopped by id.

A record holds a process id with the time at which that process started, so that an id that came to
mean another process is never taken for the daemon.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.local import cgroups
from infra.local.errors import LocalEnvironmentError
from infra.local.paths import LOGS, RUN
from infra.local.waiting import log_end, wait_until

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a daemon finds programs unless its environment says otherwise."""

RECORDS = RUN / "processes"

# Puts itself into the groups and writes its record before it becomes the daemon: a daemon without
# a record cannot exist, wherever its starter is killed. Field 22 of /proc/<pid>/stat is the start
# time, which `exec` keeps; the name in field 2 is this shell's and has no blanks.
_BECOME = """
record=$1; shift
fail() { echo failed > "$record"; exit 1; }
while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || fail; shift; done
shift
read -r _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ started _ < /proc/$$/stat
echo "$$ $started" > "$record.new" && mv "$record.new" "$record" || fail
exec "$@"
"""
# The daemon is nobody's child but init's, which reaps it.
_DETACH = 'become=$1; shift; sh -c "$become" sh "$@" &'

_LISTEN = "0A"
_ACCEPTS_CONNECTIONS = "00010000"
_START_SECONDS = 10.0
_TERM_SECONDS = 10.0


@dataclass(frozen=True)
class Daemon:
    """A program that runs until it is stopped.

    Attributes:
        name: its name, unique in the environment; also that of its log and control group.
        argv: its command, with what leads into its namespaces.
        environment: its variables, besides `PATH` and `HOME`.
        configuration: the file that it reads at its start, if it reads one.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    configuration: Path | None = None

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"

    @property
    def group(self) -> str:
        return f"daemons/{self.name}"


@dataclass(frozen=True)
class Process:
    """A process as its record and the kernel both know it."""

    pid: int
    started_ticks: int


def ensure_daemon(daemon: Daemon) -> bool:
    """Starts a daemon that is not running, or that runs with another command or configuration.

    Returns:
        Whether it was started now.

    Raises:
        LocalEnvironmentError: it could not be started.
    """
    command = _command_file(daemon.name)
    wanted = identity(daemon)
    if running(daemon.name):
        if command.exists() and command.read_text() == wanted:
            return False
        stop_daemon(daemon.name)
    LOGS.mkdir(parents=True, exist_ok=True)
    RECORDS.mkdir(parents=True, exist_ok=True)
    _record_file(daemon.name).unlink(missing_ok=True)
    command.write_text(wanted)
    _start(daemon)
    return True


def running(name: str) -> Process | None:
    """The daemon's process, if it is alive."""
    recorded = parse_record(_read(_record_file(name)))
    if recorded and started_ticks(recorded.pid) == recorded.started_ticks:
        return recorded
    return None


def check_running(names: Iterable[str]) -> None:
    """Makes sure that daemons are still running.

    Raises:
        LocalEnvironmentError: one has ended; shows the last lines of its log.
    """
    for name in names:
        still_running(Daemon(name, ()))


def stop_daemon(name: str) -> None:
    """Asks a daemon to end, kills it when it does not, and forgets it.

    What it started is left alone.
    """
    process = running(name)
    if process:
        _end(process, name)
    _record_file(name).unlink(missing_ok=True)
    _command_file(name).unlink(missing_ok=True)


def still_running(daemon: Daemon) -> Process:
    """The process of a daemon that should be running.

    Raises:
        LocalEnvironmentError: it has ended; shows the last lines of its log.
    """
    process = running(daemon.name)
    if process is None:
        raise LocalEnvironmentError(f"{daemon.name} ended on its own{log_end(daemon.log)}")
    return process


def started_at(process: Process) -> float:
    """When a process started, in seconds since 1970; the kernel tells it to a second or so."""
    stat = Path("/proc/stat").read_text().splitlines()
    boot = next(float(line.split()[1]) for line in stat if line.startswith("btime "))
    return boot + process.started_ticks / os.sysconf("SC_CLK_TCK")


def listening_ports(pid: int) -> set[int]:
    """TCP ports on which anything listens in the network namespace of a process."""
    tables = (_read(Path(f"/proc/{pid}/net/{name}")) for name in ("tcp", "tcp6"))
    return {port for table in tables for port in parse_listening_ports(table)}


def parse_listening_ports(table: str) -> set[int]:
    """Ports in state LISTEN in the text of /proc/<pid>/net/tcp."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTEN}


def listens_on_socket(pid: int, path: str) -> bool:
    """Whether anything in a process' network namespace listens on a Unix socket of this path."""
    return path in parse_listening_sockets(_read(Path(f"/proc/{pid}/net/unix")))


def parse_listening_sockets(table: str) -> set[str]:
    """Paths of listening sockets in the text of /proc/<pid>/net/unix.

    A socket's file stays when its process is killed; this table knows the living only.
    """
    rows = (line.split(maxsplit=7) for line in table.splitlines()[1:])
    return {row[7] for row in rows if len(row) == 8 and row[3] == _ACCEPTS_CONNECTIONS}


def recorded_daemons() -> list[str]:
    """Names of the daemons that were started in this life of the environment and not stopped."""
    return sorted(path.stem for path in RECORDS.glob("*.pid"))


def parse_record(text: str) -> Process | None:
    """The process in a record's text; None where it is empty or torn."""
    parts = text.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        return None
    return Process(int(parts[0]), int(parts[1]))


def started_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None where it is gone or a zombie."""
    return parse_stat(_read(Path(f"/proc/{pid}/stat")))


def parse_stat(stat: str) -> int | None:
    """Start time in the text of /proc/<pid>/stat; None for a zombie and for no text."""
    # The command's name may hold blanks and brackets, so fields count from its last bracket.
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in "ZX":
        return None
    return int(fields[19])


def identity(daemon: Daemon) -> str:
    """What a running daemon must have been started with for it to be the one that is wanted."""
    parts = {
        "argv": list(daemon.argv),
        "environment": dict(daemon.environment),
        "configuration": daemon.configuration.read_text() if daemon.configuration else None,
    }
    return json.dumps(parts)


def _start(daemon: Daemon) -> None:
    _check_program(daemon)
    folders = [str(folder) for folder in cgroups.ensure_group(daemon.group)]
    record = _record_file(daemon.name)
    with daemon.log.open("ab") as log:
        subprocess.run(
            ["sh", "-c", _DETACH, "sh", _BECOME, str(record), *folders, "--", *daemon.argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # None of this process' own variables: a proxy's, say, would lead the daemon astray.
            env={"PATH": PATH, "HOME": "/root", **daemon.environment},
            start_new_session=True,
            cwd="/",
            check=True,
        )
    wait_until(
        lambda: None if record.exists() else "it has not begun",
        f"{daemon.name} to start",
        _START_SECONDS,
        daemon.log,
    )
    if parse_record(_read(record)) is None:
        raise LocalEnvironmentError(
            f"{daemon.name} could not be put into its control group{log_end(daemon.log)}"
        )


def _end(process: Process, name: str) -> None:
    _signal(process, signal.SIGTERM)
    try:
        wait_until(lambda: _alive(process), f"{name} to end", _TERM_SECONDS)
    except LocalEnvironmentError:
        _signal(process, signal.SIGKILL)
        wait_until(lambda: _alive(process), f"{name} to be killed", _TERM_SECONDS)


def _check_program(daemon: Daemon) -> None:
    if shutil.which(daemon.argv[0]) is None:
        raise LocalEnvironmentError(f"{daemon.name}: there is no program {daemon.argv[0]}")


def _alive(process: Process) -> str | None:
    alive = started_ticks(process.pid) == process.started_ticks
    return f"process {process.pid} is still there" if alive else None


def _signal(process: Process, number: signal.Signals) -> None:
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if started_ticks(process.pid) == process.started_ticks:
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def _record_file(name: str) -> Path:
    return RECORDS / f"{name}.pid"


def _command_file(name: str) -> Path:
    return RECORDS / f"{name}.command"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
