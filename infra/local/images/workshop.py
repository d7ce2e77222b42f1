"""Where images are built, so that no process, mount or half-made file can outlive the build."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.local.errors import LocalEnvironmentError
from infra.local.waiting import log_end

_TICK_SECONDS = 1.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The programs come from packages that were unpacked and not installed. Laid over /usr in a mount
# namespace of their own they find their libraries and data where they expect them; a library path
# in the environment would not do, because buildah clears it where it starts itself again.
# The paths are relative because a mount has room for 4096 bytes of them.
_OVER_USR = 'cd "$1"; mount -t overlay -o "lowerdir=$2:/usr" overlay /usr; cd /; shift 2; exec "$@"'


@dataclass(frozen=True)
class Workshop:
    """A folder for what is made on the way, and programs that run in namespaces of their own.

    Attributes:
        folder: a folder in the cache; its owner deletes it after the build.
        packages: the folders into which the Debian packages of the programs were unpacked.
        log: gets what the programs print.
        tick: called with what is being done, at its start and then about once a second.
    """

    folder: Path
    packages: Sequence[Path]
    log: Path
    tick: Callable[[str], None]

    def run(
        self,
        command: Sequence[str],
        what: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Runs a program to its end, and kills it when this process is interrupted or dies.

        Args:
            command: the command line.
            what: names the step, such as "building the image pilot".
            environment: variables besides those of this process.

        Raises:
            LocalEnvironmentError: the program failed; shows the end of its log.
        """
        self.tick(what)
        with (
            self.log.open("ab") as output,
            subprocess.Popen(
                isolated(command, self.packages),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": _PATH, **(environment or {})},
                start_new_session=True,
            ) as process,
        ):
            try:
                while process.returncode is None:
                    self._wait(process, what)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise LocalEnvironmentError(
                f"{what} failed{log_end(self.log)}",
                "a build needs this machine's Debian mirrors and Python package index; "
                "what is finished is kept, so that another try goes on from there",
            )

    def _wait(self, process: subprocess.Popen[bytes], what: str) -> None:
        try:
            process.wait(_TICK_SECONDS)
        except subprocess.TimeoutExpired:
            self.tick(what)


def isolated(command: Sequence[str], packages: Sequence[Path]) -> list[str]:
    """A command line that runs a program as root in mount and process namespaces of its own.

    When the caller dies, however it dies, every process of the program is killed, and its mounts
    go with the last of them.

    Args:
        command: the command line; its program may be one of the packages'.
        packages: the folders into which Debian packages were unpacked.
    """
    roots = [root for root in packages if (root / "usr").is_dir()]
    over_usr: list[str] = []
    if roots:
        parent = os.path.commonpath([root.parent for root in roots])
        folders = ":".join(f"{root.relative_to(parent)}/usr" for root in roots)
        over_usr = ["sh", "-ec", _OVER_USR, "sh", parent, folders]
    return [
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--propagation", "private"),
        *("--pid", "--fork", "--kill-child=KILL", "--mount-proc"),
        *over_usr,
        *command,
    ]
