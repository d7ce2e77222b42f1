"""What importing the library costs, against importing what it uses of the providers' SDKs.

All times are CPU times, the best of several runs.
"""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import voicemesh

_RUNS = 10
_SDKS = ("pulumi_aws", "pulumi_kubernetes", "pulumi_random")
_ALL_NAMES = "import voicemesh\nfor name in voicemesh.__all__: getattr(voicemesh, name)\n"


def figures() -> Iterator[tuple[str, str]]:
    """Both sides end with the same SDK modules loaded, in a process of their own each time."""
    modules = sorted(used_modules())
    # Modules of pulumi_aws are loaded when something of them is first asked for.
    loaded = "import importlib\n" + "".join(
        f"getattr(importlib.import_module({name!r}), '__all__', None)\n" for name in modules
    )
    programs = {
        "nothing": "",
        "voicemesh": _ALL_NAMES,
        "loaded": _ALL_NAMES + loaded,
        "sdks": "import pulumi\n" + loaded,
    }
    seconds = {name: float("inf") for name in programs}
    for run in range(_RUNS + 1):
        for name, program in programs.items():
            took = _seconds(program)
            if run:  # the first one compiles bytecode
                seconds[name] = min(seconds[name], took)
    own, sdks = (seconds[name] - seconds["nothing"] for name in ("loaded", "sdks"))
    count = len(voicemesh.__all__)
    yield f"import voicemesh and all {count} names", f"{seconds['voicemesh'] * 1e3:.0f} ms"
    yield (
        "the same, with every SDK module loaded that they use",
        f"{seconds['loaded'] * 1e3:.0f} ms",
    )
    yield f"pulumi and these {len(modules)} modules alone", f"{seconds['sdks'] * 1e3:.0f} ms"
    yield "ratio, without the start of Python (budget: 1.2)", f"{own / sdks:.2f}"


def used_modules() -> set[str]:
    """Modules of the SDKs that the library's own modules name in their imports."""
    package = Path(voicemesh.__file__).parent
    return {
        module
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for module in _modules_of(node)
        if module.split(".")[0] in _SDKS
    }


def _modules_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module in _SDKS:
        # A module if its name is in lower case, else a class of the package itself.
        yield from (
            f"{node.module}.{alias.name}" if alias.name.islower() else node.module
            for alias in node.names
        )
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module


def _seconds(program: str) -> float:
    """CPU time, which other processes of the machine disturb least."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
