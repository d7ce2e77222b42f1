"""What the environment asks of the machine's kernel while it lives, and gives back.

Envoy runs as one user in all pods, and each has three inotify instances or so: without more of them
than the kernel's default of 128, the fortieth proxy ends with "inotify_fd_ >= 0". They count for
the machine, not for a namespace.
"""

from __future__ import annotations

from pathlib import Path

from infra.local.errors import LocalEnvironmentError
from infra.local.paths import RUN

INOTIFY_INSTANCES = 1024
SETTING = Path("/proc/sys/fs/inotify/max_user_instances")
BEFORE = RUN / "inotify-instances"
"""What the setting was, where it was raised."""


def raise_inotify_instances(setting: Path = SETTING, before: Path = BEFORE) -> None:
    """Raises the number of inotify instances that a user may have, where it is too low.

    Raises:
        LocalEnvironmentError: the machine does not allow it.
    """
    found = int(setting.read_text())
    if found >= INOTIFY_INSTANCES:
        return
    before.parent.mkdir(parents=True, exist_ok=True)
    before.write_text(str(found))
    try:
        setting.write_text(str(INOTIFY_INSTANCES))
    except OSError as error:
        before.unlink()
        raise LocalEnvironmentError(
            f"{setting} is {found}, and cannot be raised: {error.strerror}",
            f"on the machine around this one: sysctl fs.inotify.max_user_instances="
            f"{INOTIFY_INSTANCES}",
        ) from error


def restore_inotify_instances(setting: Path = SETTING, before: Path = BEFORE) -> None:
    """Gives back what was raised, unless somebody has changed it since."""
    if not before.exists():
        return
    if int(setting.read_text()) == INOTIFY_INSTANCES:
        setting.write_text(before.read_text())
    before.unlink()
