"""Compiles the tools that tests need, before the time of any test runs.

    python -m tests.tools        those of the tests that need no embedded environment
    python -m tests.tools e2e    those of the environment and of its tests as well, and its images

A first time takes about 20 minutes on two cores; pytest allows a test, fixtures included, ten.
"""

from __future__ import annotations

import sys

from infra.local import debian, images, toolbox
from infra.local.display import errors, phase
from infra.local.errors import LocalEnvironmentError

_FAST = ("pulumi", "helm", "kubernetes", "package-sdk", "waf-tests")
_ENVIRONMENT = (*_FAST, *toolbox.needed_for_up(), "istioctl")


def main(arguments: list[str]) -> None:
    """Ends with exit code 1 if something could not be built."""
    with_environment = arguments == ["e2e"]
    try:
        with phase("tools of the tests") as progress:
            toolbox.ensure_tools(_ENVIRONMENT if with_environment else _FAST, progress)
            packages = tuple(debian.PACKAGES) if with_environment else ["etcd-server"]
            debian.ensure_packages(progress, packages)
        if with_environment:
            with phase("images") as progress:
                images.ensure_images(progress)
    except LocalEnvironmentError as error:
        errors.print(str(error), markup=False)
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
