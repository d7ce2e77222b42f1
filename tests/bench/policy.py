"""How long the policy gate takes: over production, and over programs of more and more resources."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local import toolbox
from tests.stacks import PROJECT, ROOT, many_services
from voicemesh.policy.gate import Gate, check
from voicemesh.policy.project import Project

PACK = ROOT / "policies"
# Voices with their tenants, chosen for about 100, 1,000 and 5,000 resources.
SIZES = ((1, 1), (50, 10), (250, 50))
_RUNS = 5
_PROGRAM = f"""\
import json
import runpy
from pathlib import Path

import pulumi

pulumi.runtime.set_all_config(json.loads(Path("config.json").read_text()))
runpy.run_path({str(ROOT / "infra")!r}, run_name="__main__")
"""


@dataclass(frozen=True)
class Checked:
    """What one check took."""

    resources: int
    seconds: float
    cpu_seconds: float
    """Of the gate, the program and the pack together."""


def figures() -> Iterator[tuple[str, str]]:
    """`voicemesh policy check prod` as a user runs it, then programs of other sizes."""
    toolbox.ensure_tools(["helm", "istio"])
    took = [_check_production() for _ in range(_RUNS)]
    seconds = sorted(wall for wall, _ in took)
    cpu = sorted(cpu for _, cpu in took)
    middle = _RUNS // 2
    yield (
        "voicemesh policy check prod, charts at hand",
        f"{seconds[middle]:.1f} s, {seconds[0]:.1f} to {seconds[-1]:.1f} in {_RUNS} runs; "
        f"{cpu[middle]:.1f} s of CPU",
    )
    smaller: Checked | None = None
    for voices, tenants in SIZES:
        checked = _check_many(many_services(voices, tenants))
        figure = f"{checked.seconds:.1f} s, {checked.cpu_seconds:.1f} s of CPU"
        if smaller is not None:
            more = checked.resources - smaller.resources
            each = (checked.cpu_seconds - smaller.cpu_seconds) / more
            figure += f"; each further resource {each * 1e3:.1f} ms of CPU"
        yield f"{checked.resources} resources", figure
        smaller = checked


def _check_production() -> tuple[float, float]:
    """Seconds, and seconds of CPU."""
    command = [sys.executable, "-c", "from voicemesh.cli import app; app()", "policy", "check"]
    flags = ["--helm", str(toolbox.binary("helm")), "--charts", str(toolbox.istio_charts())]
    began, used = time.monotonic(), _cpu_seconds()
    subprocess.run([*command, "prod", *flags], cwd=ROOT, check=True, capture_output=True)
    return time.monotonic() - began, _cpu_seconds() - used


def _check_many(values: Mapping[str, Any]) -> Checked:
    """The real program with a configuration that would be too long for its environment."""
    with tempfile.TemporaryDirectory(prefix="voicemesh-") as name:
        folder = Path(name)
        (folder / "Pulumi.yaml").write_text(f"name: {PROJECT}\nruntime: python\n")
        (folder / "Pulumi.many.yaml").write_text("")
        config = {f"{PROJECT}:{key}": json.dumps(value) for key, value in values.items()}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "__main__.py").write_text(_PROGRAM)
        began, used = time.monotonic(), _cpu_seconds()
        verdict = check(Project.at(folder), "many", Gate(PACK))
        return Checked(len(verdict.resources), time.monotonic() - began, _cpu_seconds() - used)


def _cpu_seconds() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
