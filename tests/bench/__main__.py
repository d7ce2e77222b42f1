"""`make bench`: figures of this machine, as tables; `make bench PARTS=scale` for a long one."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.table import Table

from tests.bench import environment, imports, mesh, models, policy, registrations, scale, waf

Figures = Callable[[], Iterator[tuple[str, str]]]

PARTS: dict[str, tuple[Figures, str]] = {
    "environment": (
        environment.figures,
        "the embedded environment comes up and speaks; needs root, ends with it down",
    ),
    "imports": (imports.figures, "importing voicemesh, against the SDKs that it uses"),
    "mesh": (
        mesh.figures,
        "what gateways and sidecars add to the first byte, by a lab on the embedded environment; "
        "needs root, leaves down what was down",
    ),
    "models": (models.figures, "weights from object storage to a disk"),
    "policy": (
        policy.figures,
        "the policy gate over production, and over about 100, 1,000 and 5,000 resources",
    ),
    "registrations": (registrations.figures, "1, 10 and 50 voices of 20 tenants in one program"),
    "scale": (
        scale.figures,
        "1,000 simulated nodes and 2,000 pods on the embedded cluster; compiles kwok at first, "
        "needs root, ends with the environment down",
    ),
    "waf": (
        waf.figures,
        "what the web application firewall adds to the first byte at 20 requests a second, by a "
        "lab on the embedded environment; needs root, leaves down what was down",
    ),
}
DEFAULT = ("environment", "mesh", "waf", "imports", "models", "registrations", "policy")


def main() -> None:
    """Measures the parts that are named, one after the other, and shows what came out."""
    # So that an ending by SIGTERM cleans up as one by Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    for name in _chosen():
        measure, _ = PARTS[name]
        table = Table(name, "figure", box=None)
        with console.status(name) as status:
            for what, figure in measure():
                status.update(f"{name}: {what}")
                table.add_row(what, figure)
        console.print(table)


def _chosen() -> list[str]:
    listed = "\n".join(f"  {name:<14} {about}" for name, (_, about) in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=f"parts:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", nargs="*", type=_part, help=f"by default {', '.join(DEFAULT)}")
    return parser.parse_args().part or list(DEFAULT)


def _part(name: str) -> str:
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(PARTS)}")
    return name


try:
    main()
except KeyboardInterrupt:
    raise SystemExit(130) from None
