"""Waiting, commands and mounts: what an error tells of what went wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local.commands import run_command
from infra.local.errors import LocalEnvironmentError
from infra.local.mounts import mount_points
from infra.local.waiting import log_end, wait_until


def test_a_condition_that_comes_true_ends_the_wait() -> None:
    answers = iter(["one missing", None])
    wait_until(lambda: next(answers), "two of them", timeout_seconds=10)
    assert list(answers) == []


def test_a_wait_that_is_over_tells_what_is_missing_and_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "etcd.log"
    log.write_text("".join(f"line {number}\n" for number in range(1000)))
    with pytest.raises(LocalEnvironmentError) as caught:
        wait_until(lambda: "no answer", "etcd to listen", timeout_seconds=0, log=log)
    message = caught.value.message
    assert message.startswith("waited 0 s for etcd to listen: no answer")
    assert str(log) in message
    assert message.endswith("line 999")
    assert "line 100\n" not in message


def test_a_log_that_was_not_written_adds_nothing(tmp_path: Path) -> None:
    assert log_end(tmp_path / "none.log") == ""
    assert log_end(None) == ""


def test_a_command_gives_what_it_printed() -> None:
    assert run_command(["cat"], "reading", stdin="text") == "text"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["sh", "-c", "echo no such bridge >&2; exit 3"], "sh ended with 3: no such bridge"),
        (["no-such-command"], "no-such-command is not on this machine"),
    ],
)
def test_a_command_that_fails_is_named_with_its_complaint(argv: list[str], said: str) -> None:
    with pytest.raises(LocalEnvironmentError) as caught:
        run_command(argv, "making the bridge")
    assert caught.value.message == f"making the bridge: {said}"


def test_a_command_that_does_not_end_is_ended() -> None:
    with pytest.raises(LocalEnvironmentError, match="sleep did not end within"):
        run_command(["sleep", "60"], "waiting", timeout_seconds=0.1)


def test_a_mount_point_with_a_blank_is_read_as_it_is() -> None:
    line = r"36 35 98:0 /a /my\040files/x rw,noatime master:1 - ext3 /dev/root rw"
    assert mount_points(line) == [Path("/my files/x")]
