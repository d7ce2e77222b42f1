from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_server.admission import Admission, QueueFullError, Turn, retry_after_seconds


def test_slots_are_taken_then_places_in_line_then_nothing() -> None:
    async def scenario() -> None:
        admission = Admission(concurrency=2, queue_limit=1)
        turns = [admission.enter() for _ in range(3)]
        assert [turn.settled for turn in turns] == [True, True, False]
        assert (admission.running, admission.waiting) == (2, 1)
        with pytest.raises(QueueFullError):
            admission.enter()
        admission.release(service_seconds=1)
        assert await turns[2].granted()
        assert (admission.running, admission.waiting) == (2, 0)

    asyncio.run(scenario())


def test_the_line_is_served_in_order_and_who_gives_up_is_passed_over() -> None:
    async def scenario() -> None:
        admission = Admission(concurrency=1, queue_limit=3)
        _, second, third, fourth = (admission.enter() for _ in range(4))
        admission.give_up(second)
        admission.release(service_seconds=1)
        assert not await second.granted()
        assert third.settled
        assert not fourth.settled

    asyncio.run(scenario())


@given(st.lists(st.sampled_from(["enter", "release", "give up"])), st.integers(1, 3))
def test_no_sequence_of_events_loses_or_invents_a_slot(events: list[str], slots: int) -> None:
    async def scenario() -> None:
        admission = Admission(slots, queue_limit=2)
        turns: list[Turn] = []
        for event in events:
            waiting = [turn for turn in turns if not turn.settled]
            if event == "enter":
                try:
                    turns.append(admission.enter())
                except QueueFullError:
                    assert (admission.running, admission.waiting) == (slots, 2)
            elif event == "release" and admission.running:
                admission.release(service_seconds=0.1)
            elif event == "give up" and waiting:
                admission.give_up(waiting[-1])
            assert 0 <= admission.running <= slots
            assert admission.waiting == sum(not turn.settled for turn in turns)
            assert admission.waiting == 0 or admission.running == slots

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("waiting", "concurrency", "mean_seconds", "expected"),
    [(0, 8, 0.1, 1), (31, 8, 1.0, 4), (31, 8, 1.1, 5), (9, 1, 30.0, 60)],
)
def test_retry_after_is_the_time_until_those_ahead_were_served(
    waiting: int, concurrency: int, mean_seconds: float, expected: int
) -> None:
    assert retry_after_seconds(waiting, concurrency, mean_seconds) == expected


def test_retry_after_follows_the_observed_service_time() -> None:
    async def scenario() -> None:
        admission = Admission(concurrency=1, queue_limit=0, initial_service_seconds=1.0)
        for _ in range(50):
            admission.enter()
            admission.release(service_seconds=20.0)
        assert admission.retry_after_seconds() == 20

    asyncio.run(scenario())
