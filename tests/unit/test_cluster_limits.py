"""What is raised of the machine's settings is given back."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local.errors import LocalEnvironmentError
from infra.local.limits import (
    INOTIFY_INSTANCES,
    raise_inotify_instances,
    restore_inotify_instances,
)


@pytest.mark.parametrize(
    ("found", "while_up", "changed", "after"),
    [
        (128, INOTIFY_INSTANCES, None, 128),
        (INOTIFY_INSTANCES, INOTIFY_INSTANCES, None, INOTIFY_INSTANCES),
        (8192, 8192, None, 8192),
        (128, INOTIFY_INSTANCES, 2048, 2048),
    ],
)
def test_a_setting_that_was_raised_is_given_back(
    tmp_path: Path, found: int, while_up: int, changed: int | None, after: int
) -> None:
    setting, before = tmp_path / "setting", tmp_path / "run" / "before"
    setting.write_text(f"{found}\n")
    raise_inotify_instances(setting, before)
    raise_inotify_instances(setting, before)
    assert int(setting.read_text()) == while_up
    if changed is not None:
        setting.write_text(str(changed))
    restore_inotify_instances(setting, before)
    restore_inotify_instances(setting, before)
    assert int(setting.read_text()) == after
    assert not before.exists()


def test_a_machine_that_does_not_allow_it_is_told_how(tmp_path: Path) -> None:
    class Refusing(type(tmp_path)):
        def write_text(self, *_: object, **__: object) -> int:
            raise PermissionError(1, "Operation not permitted")

    setting, before = tmp_path / "setting", tmp_path / "before"
    setting.write_text("128")
    with pytest.raises(LocalEnvironmentError, match=r"is 128, and cannot be raised.*not permitted"):
        raise_inotify_instances(Refusing(setting), before)
    assert not before.exists()
