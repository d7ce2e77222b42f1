"""Starts an adapter: `python -m infra.local.adapters.start MODULE ARGUMENT…`.

Adapters start with every operation of the engine, so their start counts. All that they need of
Pulumi's SDK are the protocol's stubs; importing those in the usual way runs the SDK's `__init__`,
which takes longer than everything else that an adapter loads.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
import types
from pathlib import Path


def stand_in_for_sdk() -> None:
    """Lets `pulumi.runtime.proto` be imported alone, from the place where the SDK is installed."""
    spec = importlib.util.find_spec("pulumi")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the Pulumi SDK is not installed in this Python", name="pulumi")
    root = Path(spec.origin).parent
    for name, folder in (("pulumi", root), ("pulumi.runtime", root / "runtime")):
        module = types.ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module


if __name__ == "__main__":
    stand_in_for_sdk()
    adapter = sys.argv.pop(1)
    runpy.run_module(f"infra.local.adapters.{adapter}", run_name="__main__", alter_sys=True)
