"""The firewall's own tests, which are in Go."""

from __future__ import annotations

import subprocess

import pytest

from infra.local import toolbox


@pytest.fixture(scope="module")
def listed() -> list[str]:
    toolbox.ensure_tools(["waf-tests"])
    told = subprocess.run(
        [toolbox.binary("waf-tests"), "-test.list", "^Test"],
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.split()


def test_the_firewalls_own_tests_pass(listed: list[str]) -> None:
    run = subprocess.run(
        [toolbox.binary("waf-tests"), "-test.v"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert [name for name in listed if f"--- PASS: {name} " not in run.stdout] == []
