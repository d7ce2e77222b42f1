"""What the end-to-end tests measured: one report, and a summary at their end.

The report is `build/figures.json`. A figure that is measured again replaces the one from before, so
that it holds the last value of each, whichever tests ran.
"""

from __future__ import annotations

import datetime
import fcntl
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from infra.local.paths import CHECKOUT

REPORT: Final = CHECKOUT / "build" / "figures.json"


@dataclass(frozen=True)
class Figure:
    """Something that was measured.

    Attributes:
        area: what it is about, as in `streaming`.
        name: what was measured.
        value: what came out.
        unit: of the value; empty for a count or a share.
        measured: when, in UTC.
    """

    area: str
    name: str
    value: float | str
    unit: str
    measured: str


_noted: list[Figure] = []


def note(area: str, name: str, value: float | str, unit: str = "", report: Path = REPORT) -> None:
    """Puts a figure into the report and the summary."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    figure = Figure(area, name, round(value, 4) if isinstance(value, float) else value, unit, now)
    if report == REPORT:
        _noted.append(figure)
    report.parent.mkdir(parents=True, exist_ok=True)
    with (report.parent / f".{report.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = {(each.area, each.name): each for each in recorded(report)}
        kept[figure.area, figure.name] = figure
        rows = sorted(map(asdict, kept.values()), key=lambda row: (row["area"], row["name"]))
        report.write_text(json.dumps(rows, indent=1) + "\n")


def recorded(report: Path = REPORT) -> list[Figure]:
    """The figures in the report."""
    if not report.exists():
        return []
    return [Figure(**row) for row in json.loads(report.read_text())]


def summary() -> list[str]:
    """A line for each figure of this run."""
    last = {(figure.area, figure.name): figure for figure in _noted}
    return [
        f"{figure.area:<12} {figure.name}: {figure.value} {figure.unit}".rstrip()
        for figure in last.values()
    ]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Shows this run's figures after its tests."""
    if lines := summary():
        terminalreporter.section("figures")
        for line in [*lines, f"all figures: {REPORT.relative_to(CHECKOUT)}"]:
            terminalreporter.line(line)
