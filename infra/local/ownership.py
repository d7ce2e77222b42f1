"""Who owns the machine's environment: one checkout at a time.

Namespaces, addresses and ports are the machine's, so two checkouts cannot each have an environment.
A live one is refused by name; what is left of one in which nothing runs any more is cleared away.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from infra.local import cgroups, cleanup
from infra.local.errors import LocalEnvironmentError
from infra.local.paths import CHECKOUT, RUN
from infra.local.progress import Progress, silent

OWNER_FILE = RUN / "environment.json"
LOCK_FILE = RUN / "lock"

_LOCK_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Owner:
    """The checkout whose environment this machine has.

    Attributes:
        checkout: its folder.
        started_at: when `up` began it, in seconds since 1970.
    """

    checkout: Path
    started_at: float


@dataclass(frozen=True)
class Refuse:
    """The environment must not be touched; `message` and `fix` say why and what to do."""

    message: str
    fix: str


@dataclass(frozen=True)
class Clear:
    """What is left of an earlier environment must be cleared away first."""

    reason: str


@dataclass(frozen=True)
class Continue:
    """The environment is this checkout's own and alive: complete it."""


@dataclass(frozen=True)
class Begin:
    """There is nothing: begin."""


Decision = Refuse | Clear | Continue | Begin


def decide(
    checkout: Path, owner: Owner | None, live_processes: int, has_remains: bool, owner_exists: bool
) -> Decision:
    """What `checkout` may do with the machine's environment.

    Args:
        checkout: who asks.
        owner: whose environment it is according to its record.
        live_processes: how many processes of an environment are running.
        has_remains: whether anything of an environment is left: namespaces, groups, files.
        owner_exists: whether the owner's folder still exists.
    """
    if live_processes and (owner is None or owner.checkout != checkout):
        return _refusal(owner, live_processes, owner_exists)
    if live_processes:
        return Continue()
    if has_remains:
        whose = f" of {owner.checkout}" if owner else ""
        return Clear(f"what an earlier environment{whose} left, in which nothing runs")
    return Begin()


def claim(progress: Progress = silent) -> None:
    """Makes this checkout the owner of the machine's environment.

    Call it with `lock()` held. The environment of this checkout is kept; what is left of any that
    is not alive is cleared away.

    Raises:
        LocalEnvironmentError: another checkout's environment is alive; names that checkout.
    """
    decision = current_decision()
    if isinstance(decision, Refuse):
        raise LocalEnvironmentError(decision.message, fix=decision.fix)
    if isinstance(decision, Continue):
        return
    if isinstance(decision, Clear):
        progress(f"clearing away {decision.reason}")
        cleanup.clear()
    _write(Owner(CHECKOUT, time.time()))


def forget() -> None:
    """Removes the last of the environment, the lock; call it with `lock()` held, after clearing."""
    LOCK_FILE.unlink(missing_ok=True)
    with suppress(OSError):  # another command may have made a lock of its own in between
        RUN.rmdir()


def check_may_stop() -> None:
    """Raises where `down` of this checkout must not stop the machine's environment.

    The environment of a checkout that no longer exists may be stopped by any.
    """
    decision = current_decision()
    owner = read_owner()
    if isinstance(decision, Refuse) and owner is not None and owner.checkout.exists():
        raise LocalEnvironmentError(decision.message, fix=decision.fix)


def current_decision() -> Decision:
    owner = read_owner()
    return decide(
        CHECKOUT,
        owner,
        live_processes=len(cgroups.members()),
        has_remains=bool(cleanup.remains()),
        owner_exists=owner is not None and owner.checkout.exists(),
    )


def read_owner() -> Owner | None:
    """The owner on record; None where there is none or its record is torn."""
    try:
        record = json.loads(OWNER_FILE.read_text())
        return Owner(Path(record["checkout"]), float(record["started_at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def lock(progress: Progress = silent) -> Iterator[None]:
    """Holds the machine's environment for one command: another `up` or `down` waits, or is refused.

    Raises:
        LocalEnvironmentError: another checkout is at work; names it.
    """
    file = _acquire(progress)
    try:
        yield
    finally:
        file.close()


def _acquire(progress: Progress) -> IO[str]:
    told = False
    while True:
        file = _open_lock()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_holder(file)
            file.close()
            if holder is not None and holder != CHECKOUT:
                raise LocalEnvironmentError(
                    f"a command of the checkout {holder} is working on this machine's environment",
                    fix=f"wait for it, then run `make down` in {holder}",
                ) from None
            if not told:
                progress("waiting for another command of this checkout to end")
                told = True
            time.sleep(_LOCK_POLL_SECONDS)
            continue
        if _is_current(file):
            file.truncate(0)
            file.write(str(CHECKOUT))
            file.flush()
            return file
        file.close()


def _open_lock() -> IO[str]:
    while True:
        try:
            RUN.mkdir(parents=True, exist_ok=True)
            return os.fdopen(os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600), "r+")
        except FileNotFoundError:
            continue  # `down` removed the folder in between
        except PermissionError as error:
            raise LocalEnvironmentError(
                f"{RUN} belongs to root, and so does the environment",
                fix="run the command as root, or with sudo",
            ) from error


def _is_current(file: IO[str]) -> bool:
    """Whether the locked file is still the one at its path: `down` removes it while it holds it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), LOCK_FILE.stat())
    except FileNotFoundError:
        return False


def _read_holder(file: IO[str]) -> Path | None:
    text = file.read().strip()
    return Path(text) if text else None


def _write(owner: Owner) -> None:
    OWNER_FILE.parent.mkdir(parents=True, exist_ok=True)
    new = OWNER_FILE.with_suffix(".new")
    new.write_text(json.dumps({"checkout": str(owner.checkout), "started_at": owner.started_at}))
    new.replace(OWNER_FILE)


def _refusal(owner: Owner | None, live_processes: int, owner_exists: bool) -> Refuse:
    if owner is None:
        return Refuse(
            f"{live_processes} processes of an environment without an owner are running",
            fix="run `make down`, which ends them",
        )
    message = f"this machine's environment belongs to the checkout {owner.checkout} and is running"
    if owner_exists:
        return Refuse(message, fix=f"run `make down` in {owner.checkout} first")
    return Refuse(f"{message}, but that folder is gone", fix="run `make down` here, which ends it")
