"""Who may do what with the machine's one environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local import cleanup, ownership
from infra.local.errors import LocalEnvironmentError
from infra.local.ownership import Begin, Clear, Continue, Owner, Refuse, decide

HERE, ELSEWHERE = Path("/src/here"), Path("/src/elsewhere")


def owned_by(checkout: Path) -> Owner:
    return Owner(checkout, started_at=1.0)


@pytest.mark.parametrize(
    ("owner", "live", "remains", "decision"),
    [
        (None, 0, False, Begin),
        (owned_by(HERE), 0, False, Begin),
        (owned_by(HERE), 3, True, Continue),
        (owned_by(HERE), 0, True, Clear),
        (owned_by(ELSEWHERE), 0, True, Clear),
        (None, 0, True, Clear),
        (owned_by(ELSEWHERE), 1, True, Refuse),
        (None, 1, True, Refuse),
    ],
)
def test_what_lives_is_kept_or_refused_and_what_is_dead_is_cleared(
    owner: Owner | None, live: int, remains: bool, decision: type
) -> None:
    assert isinstance(decide(HERE, owner, live, remains, owner_exists=True), decision)


def test_a_refusal_names_the_other_checkout_and_how_to_stop_it() -> None:
    refusal = decide(HERE, owned_by(ELSEWHERE), 5, True, owner_exists=True)
    assert isinstance(refusal, Refuse)
    assert str(ELSEWHERE) in refusal.message
    assert refusal.fix == f"run `make down` in {ELSEWHERE} first"


def test_where_the_other_checkout_is_gone_it_is_stopped_from_here() -> None:
    refusal = decide(HERE, owned_by(ELSEWHERE), 5, True, owner_exists=False)
    assert isinstance(refusal, Refuse)
    assert str(ELSEWHERE) in refusal.message
    assert "here" in refusal.fix


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without an environment; returns the checkout that acts on it."""
    run, checkout = tmp_path / "run", tmp_path / "checkout"
    checkout.mkdir()
    monkeypatch.setattr(ownership, "RUN", run)
    monkeypatch.setattr(ownership, "OWNER_FILE", run / "environment.json")
    monkeypatch.setattr(ownership, "LOCK_FILE", run / "lock")
    monkeypatch.setattr(ownership, "CHECKOUT", checkout)
    monkeypatch.setattr(ownership.cgroups, "members", set)
    monkeypatch.setattr(cleanup, "remains", list)
    return checkout


def test_a_claim_is_on_record(machine: Path) -> None:
    with ownership.lock():
        ownership.claim()
    owner = ownership.read_owner()
    assert owner is not None
    assert owner.checkout == machine


def test_a_claim_of_a_live_environment_of_another_checkout_is_refused(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ownership.lock():
        ownership.claim()
    monkeypatch.setattr(ownership, "CHECKOUT", ELSEWHERE)
    monkeypatch.setattr(ownership.cgroups, "members", lambda: {1})
    with ownership.lock(), pytest.raises(LocalEnvironmentError, match=str(machine)):
        ownership.claim()
    owner = ownership.read_owner()
    assert owner is not None
    assert owner.checkout == machine


def test_remains_are_cleared_before_the_claim(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    cleared: list[bool] = []
    monkeypatch.setattr(cleanup, "remains", lambda: ["mount /x"])
    monkeypatch.setattr(cleanup, "clear", lambda: cleared.append(ownership.read_owner() is None))
    with ownership.lock():
        ownership.claim(lambda line: said.append(line))
    assert cleared == [True]
    assert "clearing away" in said[0]


def test_two_commands_of_one_checkout_do_not_work_at_once(machine: Path) -> None:
    said: list[str] = []

    class Waited(Exception):
        pass

    def stop_waiting(line: str) -> None:
        said.append(line)
        raise Waited

    with ownership.lock(), pytest.raises(Waited), ownership.lock(stop_waiting):
        pytest.fail("the lock was taken twice")
    assert said == ["waiting for another command of this checkout to end"]
    with ownership.lock(stop_waiting):
        pass


def test_a_command_of_another_checkout_is_named_and_not_waited_for(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ownership.lock():
        monkeypatch.setattr(ownership, "CHECKOUT", ELSEWHERE)
        with pytest.raises(LocalEnvironmentError, match=str(machine)), ownership.lock():
            pytest.fail("the lock was taken twice")


def test_the_lock_of_an_environment_that_was_forgotten_is_not_held_by_anyone(
    machine: Path,
) -> None:
    with ownership.lock():
        ownership.forget()
        assert not ownership.RUN.exists()
        with ownership.lock():
            assert ownership.LOCK_FILE.exists()


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"checkout": "/x"}'])
def test_a_torn_record_names_no_owner(machine: Path, torn: str) -> None:
    ownership.RUN.mkdir()
    ownership.OWNER_FILE.write_text(torn)
    assert ownership.read_owner() is None


def test_down_stops_the_environment_of_a_checkout_that_is_gone(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ownership.lock():
        ownership.claim()
    monkeypatch.setattr(ownership, "CHECKOUT", ELSEWHERE)
    monkeypatch.setattr(ownership.cgroups, "members", lambda: {1})
    with pytest.raises(LocalEnvironmentError, match=str(machine)):
        ownership.check_may_stop()
    machine.rmdir()
    ownership.check_may_stop()
