from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicemesh.sizes import ComputeSize, cpu_quantity, memory_quantity


@pytest.mark.parametrize(
    ("cores", "quantity"), [(0.001, "1m"), (0.25, "250m"), (1, "1"), (1.5, "1500m"), (0.1, "100m")]
)
def test_cores_are_written_as_kubernetes_writes_them(cores: float, quantity: str) -> None:
    assert cpu_quantity(cores) == quantity


@pytest.mark.parametrize(("gib", "quantity"), [(0.0625, "64Mi"), (0.75, "768Mi"), (16, "16Gi")])
def test_memory_is_written_as_kubernetes_writes_it(gib: float, quantity: str) -> None:
    assert memory_quantity(gib) == quantity


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_quantities_lose_nothing_that_kubernetes_can_count(millicores: int, mebibytes: int) -> None:
    requests = ComputeSize(millicores / 1000, mebibytes / 1024).requests
    assert _millicores(requests["cpu"]) == millicores
    assert _mebibytes(requests["memory"]) == mebibytes


def _millicores(quantity: str) -> int:
    return int(quantity[:-1]) if quantity.endswith("m") else int(quantity) * 1000


def _mebibytes(quantity: str) -> int:
    return int(quantity[:-2]) * (1024 if quantity.endswith("Gi") else 1)
