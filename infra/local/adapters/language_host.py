"""The language host: runs Python programs and policy packs for the engine.

The engine starts it as `pulumi-language-python`. Programs run with the Python of the virtual
environment that the project's runtime options name (`virtualenv`), else with this one.
"""

from __future__ import annotations

import json
import os
import platform
import queue
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import grpc
from google.protobuf import empty_pb2
from google.protobuf.json_format import MessageToDict
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

from infra.local.adapters.provider_base import run_server
from voicemesh.policy import program_runner

_RUNNER = Path(program_runner.__file__)
_READ_BYTES = 64 * 1024


def interpreter(options: Mapping[str, Any], root: Path) -> Path:
    """The Python that runs a program whose project has these runtime options and root folder.

    Raises:
        FileNotFoundError: the virtual environment that the project names has no Python.
    """
    virtualenv = options.get("virtualenv")
    if not virtualenv:
        return Path(sys.executable)
    python = root / str(virtualenv) / "bin" / "python"
    if not python.exists():
        raise FileNotFoundError(
            f"runtime.options.virtualenv is {virtualenv!r}, but {python} does not exist; "
            "create the virtual environment first"
        )
    return python


def runner_arguments(request: language_pb2.RunRequest, engine: str) -> list[str]:
    """What `program_runner` is told about the operation."""
    settings = {
        "monitor": request.monitor_address,
        "engine": engine,
        "project": request.project,
        "stack": request.stack,
        "organization": request.organization,
        "root_directory": request.info.root_directory,
        "parallel": str(request.parallel),
        "dry_run": str(request.dryRun).lower(),
        "pwd": request.pwd,
    }
    program = str(Path(request.info.program_directory) / request.info.entry_point)
    flags = [f"--{name}={value}" for name, value in settings.items() if value]
    return [*flags, "--", program, *request.args]


def plugin_arguments(request: language_pb2.RunPluginRequest) -> list[str]:
    """What Python runs for a plugin: a policy pack, a package that can be built, or a folder."""
    folder = Path(request.info.program_directory)
    if request.kind == "analyzer":
        return ["-m", "pulumi.policy", *request.args, str(folder)]
    project = folder / "pyproject.toml"
    described = tomllib.loads(project.read_text()) if project.exists() else {}
    if "build-system" not in described:
        return [str(folder), *request.args]
    return ["-m", "pulumi.run.plugin", described["project"]["name"], *request.args]


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """What the engine asks of a language."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._children: set[subprocess.Popen[bytes]] = set()

    def Handshake(self, request, context):
        del context
        self._engine = request.engine_address or self._engine
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request, context):
        del request, context
        return plugin_pb2.PluginInfo(version=metadata.version("pulumi"))

    def GetRequiredPackages(self, request, context):
        # Providers are found on PATH by the resources that need them; naming them here would
        # make the engine look for the released ones.
        del request, context
        return language_pb2.GetRequiredPackagesResponse()

    def GetRequiredPlugins(self, request, context):
        del request, context
        return language_pb2.GetRequiredPluginsResponse()

    def GetProgramDependencies(self, request, context):
        del request, context
        installed = sorted((d.metadata["Name"], d.version) for d in metadata.distributions())
        return language_pb2.GetProgramDependenciesResponse(
            dependencies=[language_pb2.DependencyInfo(name=n, version=v) for n, v in installed]
        )

    def About(self, request, context):
        del request, context
        return language_pb2.AboutResponse(
            executable=sys.executable, version=platform.python_version()
        )

    def InstallDependencies(self, request, context):
        del request, context
        yield language_pb2.InstallDependenciesResponse()

    def RuntimeOptionsPrompts(self, request, context):
        del request, context
        return language_pb2.RuntimeOptionsResponse()

    def Run(self, request, context):
        try:
            python = self._interpreter(request.info)
        except FileNotFoundError as error:
            return language_pb2.RunResponse(error=str(error))
        environment = {
            **os.environ,
            "PULUMI_CONFIG": json.dumps(dict(request.config)),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
            "PYTHONUNBUFFERED": "1",
        }
        command = [str(python), "-u", str(_RUNNER), *runner_arguments(request, self._engine)]
        child = self._start(command, context, request.pwd, environment)
        code = self._wait(child)
        if code == 0:
            return language_pb2.RunResponse()
        if code == program_runner.EXIT_AFTER_USER_MESSAGE:
            return language_pb2.RunResponse(bail=True)
        return language_pb2.RunResponse(error=f"Program exited with non-zero exit code: {code}")

    def RunPlugin(self, request, context):
        python = self._interpreter(request.info)
        child = self._start(
            [str(python), "-u", *plugin_arguments(request)],
            context,
            request.pwd,
            dict(entry.partition("=")[::2] for entry in request.env),
            output=subprocess.PIPE,
        )
        for stream, data in _outputs(child):
            if stream == "stdout":
                yield language_pb2.RunPluginResponse(stdout=data)
            else:
                yield language_pb2.RunPluginResponse(stderr=data)
        yield language_pb2.RunPluginResponse(exitcode=self._wait(child))

    def Cancel(self, request, context):
        del request, context
        self.interrupt_children()
        return empty_pb2.Empty()

    def interrupt_children(self) -> None:
        for child in tuple(self._children):
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)

    def _interpreter(self, info: language_pb2.ProgramInfo) -> Path:
        return interpreter(MessageToDict(info.options), Path(info.root_directory))

    def _start(
        self,
        command: list[str],
        context: grpc.ServicerContext,
        folder: str,
        environment: dict[str, str],
        output: int | None = None,
    ) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            command,
            cwd=folder or None,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        self._children.add(child)

        def end() -> None:
            if child.poll() is None:
                child.terminate()

        if not context.add_callback(end):
            end()
        return child

    def _wait(self, child: subprocess.Popen[bytes]) -> int:
        code = child.wait()
        self._children.discard(child)
        return code


def _outputs(child: subprocess.Popen[bytes]) -> Iterator[tuple[str, bytes]]:
    """What the process writes, as it writes it: pairs of stream name and bytes."""
    pieces: queue.Queue[tuple[str, bytes]] = queue.Queue()

    def read(name: str, stream: IO[bytes]) -> None:
        while data := os.read(stream.fileno(), _READ_BYTES):
            pieces.put((name, data))
        pieces.put((name, b""))

    streams = {"stdout": child.stdout, "stderr": child.stderr}
    for name, stream in streams.items():
        if stream is None:
            raise ValueError(f"{name} of the process is not captured")
        threading.Thread(target=read, args=(name, stream), daemon=True).start()
    open_streams = len(streams)
    while open_streams:
        name, data = pieces.get()
        if data:
            yield name, data
        else:
            open_streams -= 1


def main() -> None:
    engine = next((arg for arg in reversed(sys.argv[1:]) if not arg.startswith("-")), "")
    host = LanguageHost(engine)
    run_server(
        lambda server: language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server),
        on_interrupt=host.interrupt_children,
    )


if __name__ == "__main__":
    main()
