"""A language host for compiled TypeScript: the embedded environment's, but it runs Node.

Pulumi's own cannot be had from a package registry; what runs the program is Pulumi's npm package.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from pulumi.runtime.proto import language_pb2, language_pb2_grpc

from infra.local.adapters.language_host import LanguageHost
from infra.local.adapters.provider_base import run_server
from tests.package.node import NODE
from tests.stacks import ROOT


class NodeLanguageHost(LanguageHost):
    def Run(self, request, context):
        folder = Path(request.info.program_directory)
        settings = {
            "monitor": request.monitor_address,
            "engine": self._engine,
            "organization": request.organization,
            "project": request.project,
            "stack": request.stack,
            "parallel": request.parallel,
            "pwd": request.pwd,
            "root-directory": request.info.root_directory,
        }
        flags = [f"--{name}={value}" for name, value in settings.items() if value]
        runner = folder.parent / "node_modules" / "@pulumi" / "pulumi" / "cmd" / "run" / "index.js"
        program = [*(["--dry-run"] if request.dryRun else []), str(folder)]
        environment = {
            **os.environ,
            "PULUMI_CONFIG": json.dumps(dict(request.config)),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
        }
        child = self._start(
            [str(NODE), str(runner), *flags, *program], context, request.pwd, environment
        )
        code = self._wait(child)
        return language_pb2.RunResponse(error=f"exit code {code}" if code else "")


def write_executable(folder: Path) -> None:
    """Writes `pulumi-language-nodejs`, by whose name the engine looks for it on PATH."""
    program = folder / "pulumi-language-nodejs"
    program.write_text(
        f"#!{sys.executable}\n"
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"from {__name__} import main; main()\n"
    )
    program.chmod(0o755)


def main() -> None:
    engine = next((arg for arg in reversed(sys.argv[1:]) if not arg.startswith("-")), "")
    host = NodeLanguageHost(engine)
    run_server(
        lambda server: language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server),
        on_interrupt=host.interrupt_children,
    )
