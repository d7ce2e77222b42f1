from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicemesh import ConnectionLimits, VoiceVariant
from voicemesh.service.resilience import connection_pool, falls_back, max_ejection_percent
from voicemesh.service.workload import termination_grace_seconds

ISTIO_DEFAULT_PERCENT = 10


def ejectable(pods: int, percent: int) -> int:
    """How many pods Envoy ejects at most: those whose share stays within the limit."""
    return max(n for n in range(pods + 1) if 100 * n / pods <= percent)


@given(st.integers(1, 1000))
def test_a_single_failing_pod_can_always_be_ejected(replicas: int) -> None:
    assert ejectable(replicas, max_ejection_percent(replicas)) >= 1


@given(st.integers(2, 1000))
def test_a_pool_is_never_emptied(replicas: int) -> None:
    assert ejectable(replicas, max_ejection_percent(replicas)) < replicas


def test_istios_default_would_eject_nothing_in_a_small_pool() -> None:
    assert [n for n in range(1, 11) if ejectable(n, ISTIO_DEFAULT_PERCENT) == 0] == [*range(1, 10)]


@pytest.mark.parametrize(
    ("replicas", "percent", "expected"),
    [(3, 33, 0), (3, 34, 1), (3, 50, 1), (2, 50, 1), (1, 99, 0)],
)
def test_the_model_of_envoy_agrees_with_what_was_measured(
    replicas: int, percent: int, expected: int
) -> None:
    assert ejectable(replicas, percent) == expected


def test_only_a_single_pod_among_several_variants_falls_back_on_the_others() -> None:
    one = VoiceVariant("one", "1", "speech:1", weight=50)
    two = VoiceVariant("two", "1", "speech:1", weight=50, replicas=2)
    assert falls_back(one, [one, two])
    assert not falls_back(two, [one, two])
    assert not falls_back(one, [one])


def test_each_limit_bounds_what_it_is_named_for() -> None:
    pool = connection_pool(ConnectionLimits(1, 2, 3))
    assert pool["tcp"]["maxConnections"] == 1
    assert pool["http"] == {"http1MaxPendingRequests": 2, "http2MaxRequests": 3}


@given(st.integers(1, 10_000))
def test_a_pod_lives_longer_than_its_longest_stream(max_stream_seconds: int) -> None:
    assert termination_grace_seconds(max_stream_seconds) > max_stream_seconds
