"""Runs one Pulumi program, in the program's own Python: only the SDK and the standard library.

Started with what an engine, or the policy gate in place of one, says about the operation; see
`--help`. The configuration is in the environment, as `PULUMI_CONFIG`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import runpy
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor

EXIT_AFTER_USER_MESSAGE = 32
"""Exit status that says: the program failed, and its user has been told why."""


def main() -> int:
    arguments = _arguments()
    # The SDK is imported after the arguments are known, so that who starts this can import this
    # module cheaply.
    import pulumi
    import pulumi.runtime

    pulumi.runtime.set_all_config(
        pulumi.runtime.get_config_env(), pulumi.runtime.get_config_secret_keys_env()
    )
    pulumi.runtime.configure(
        pulumi.runtime.Settings(
            monitor=arguments.monitor,
            engine=arguments.engine,
            project=arguments.project,
            stack=arguments.stack,
            organization=arguments.organization,
            root_directory=arguments.root_directory,
            parallel=arguments.parallel,
            dry_run=arguments.dry_run == "true",
        )
    )
    if arguments.debug == "false":
        # The SDK sends several for each resource, and awaits an answer to each.
        pulumi.log.debug = lambda *_, **__: None
    if arguments.pwd:
        os.chdir(arguments.pwd)
    program = os.path.abspath(arguments.program)
    sys.argv = [arguments.program, *arguments.arguments]
    # A failed program leaves futures behind that nobody awaits; asyncio would report each.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        _run_to_the_end(program, arguments.parallel)
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
    except Exception as error:
        pulumi.log.error(_failure(program, error))
    else:
        return 0
    return EXIT_AFTER_USER_MESSAGE


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run a Pulumi program.")
    for name in ("monitor", "engine", "project", "stack", "organization", "root_directory", "pwd"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--dry_run", choices=("true", "false"), default="false")
    parser.add_argument("--debug", choices=("true", "false"), default="true")
    parser.add_argument("program")
    parser.add_argument("arguments", nargs="*")
    return parser.parse_args()


def _run_to_the_end(program: str, parallel: int) -> None:
    """Runs the program and every resource operation that it started."""
    import pulumi.runtime

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    # Each resource in flight blocks a thread of the default executor.
    executor = ThreadPoolExecutor(max_workers=max(parallel, 1) * 4)
    loop.set_default_executor(executor)

    def run() -> None:
        runpy.run_path(program, run_name="__main__")

    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(run))
    finally:
        executor.shutdown(wait=True)
        loop.close()


def _failure(program: str, error: Exception) -> str:
    """The traceback, from the program's first own frame on."""
    frames = traceback.extract_tb(error.__traceback__)
    folder = program if os.path.isdir(program) else os.path.dirname(program)
    own = next((i for i, frame in enumerate(frames) if frame.filename.startswith(folder)), 0)
    text = "".join(traceback.format_list(frames[own:]))
    description = "".join(traceback.format_exception_only(error))
    return f"Program failed with an unhandled exception:\n{text}{description}"


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)
