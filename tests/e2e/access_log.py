"""What proxies logged of requests: kept as it is written, so that it outlives its pods."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, TextIO

from infra.local.paths import STATE
from infra.local.topology import NODES

_LINE: Final = re.compile(
    r'\[(?P<start>20[^\]]+)\] "(?P<method>\S+) (?P<path>\S+) \S+" (?P<status>\d+) (?P<flags>\S+) '
    r'(?P<details>\S+) (?P<termination>\S+) "(?P<transport>[^"]*)" \d+ \d+ (?P<milliseconds>\d+) '
    r'\S+ "[^"]*" "[^"]*" "(?P<request_id>[^"]*)" "(?P<authority>[^"]*)" "(?P<upstream>[^"]*)" '
    r"(?P<cluster>\S+)"
)
_LOG_NAME: Final = re.compile(r"\d+\.log(\.\d{8}-\d{6})?")
_POLL_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Entry:
    """A line of Istio's default access log.

    Attributes:
        path: path and query.
        status: that the proxy sent.
        flags: https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log
        details: why the proxy answered so.
        upstream: address of the pod that was called last.
        text: the whole line.
    """

    path: str
    status: int
    flags: frozenset[str]
    details: str
    upstream: str
    text: str

    @classmethod
    def parse(cls, line: str) -> Entry | None:
        """From a line; None where it is no access log's."""
        found = _LINE.search(line)
        if found is None:
            return None
        flags = frozenset(found["flags"].split(",")) - {"-"}
        return cls(
            found["path"],
            int(found["status"]),
            flags,
            found["details"],
            found["upstream"].rpartition(":")[0],
            found[0],
        )


class AccessLogs:
    """Follows the logs of pods from when they are first there; a context manager.

    Args:
        pods: beginnings of NAMESPACE_POD.
    """

    def __init__(self, *pods: str) -> None:
        self._pods = pods
        self._files: dict[int, TextIO] = {}
        self._entries: dict[str, Entry] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow)

    def __enter__(self) -> AccessLogs:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        for file in self._files.values():
            file.close()

    def by_path(self) -> dict[str, Entry]:
        """The last entry of each path, among those that were written until now."""
        self._read()
        return dict(self._entries)

    def _follow(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            self._read()

    def _read(self) -> None:
        for path in _log_files(self._pods):
            if path.stat().st_ino not in self._files:
                self._files[path.stat().st_ino] = path.open()
        # What is deleted or renamed can be read as long as it is open.
        for file in self._files.values():
            for line in _whole_lines(file):
                if entry := Entry.parse(line):
                    self._entries[entry.path] = entry


def _whole_lines(file: TextIO) -> Iterator[str]:
    """Lines from where it was read last; what is not a whole line yet is left for the next time."""
    place = file.tell()
    while (line := file.readline()).endswith("\n"):
        yield line
        place = file.tell()
    file.seek(place)


def _log_files(pods: Sequence[str]) -> list[Path]:
    """Their logs, those that were rotated and not yet compressed included."""
    folders = [STATE / "nodes" / node.name / "root/var/log/pods" for node in NODES]
    patterns = [f"{pod}*/istio-proxy/*.log*" for pod in pods]
    found = [path for folder in folders for pattern in patterns for path in folder.glob(pattern)]
    return [path for path in found if _LOG_NAME.fullmatch(path.name)]
