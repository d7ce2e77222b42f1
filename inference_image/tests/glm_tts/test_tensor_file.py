"""Tensor files are those of the safetensors library, and a damaged one is refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from glm_tts import tensor_file
from glm_tts.tensor_file import TensorFileError

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]
TENSORS = {
    "scalar": torch.tensor(3, dtype=torch.int64),
    "odd": torch.tensor([1, 2, 3], dtype=torch.uint8),
    "matrix": torch.arange(6.0).view(2, 3),
    "half": torch.tensor([[1.5], [2.5]], dtype=torch.bfloat16),
    "nothing": torch.empty(0, 4),
    "true": torch.tensor([True, False]),
}


def write(path: Path, tensors: dict[str, Tensor], **metadata: str) -> str:
    layout = [(name, it.dtype, tuple(it.shape)) for name, it in tensors.items()]
    return tensor_file.write(path, layout, tensors.values(), metadata)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("mapped", [False, True])
def test_what_the_library_writes_is_read(tmp_path: Path, *, mapped: bool) -> None:
    safetensors.torch.save_file(TENSORS, tmp_path / "file", {"by": "library"})
    assert_same(tensor_file.read(tmp_path / "file", mapped=mapped), TENSORS)
    assert tensor_file.read_header(tmp_path / "file").metadata == {"by": "library"}


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    digest = write(tmp_path / "file", TENSORS, by="us")
    assert_same(safetensors.torch.load_file(tmp_path / "file"), TENSORS)
    assert digest == hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()


@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)), max_size=6
    ),
    st.booleans(),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_tensors_come_back_in_any_order_and_alignment(
    tmp_path: Path, kinds: list[tuple[torch.dtype, list[int]]], mapped: bool
) -> None:
    tensors = {
        f"tensor.{number}": torch.randint(0, 2, shape).to(dtype)
        for number, (dtype, shape) in enumerate(kinds)
    }
    path = tmp_path / "file"
    path.unlink(missing_ok=True)
    write(path, tensors)
    assert_same(tensor_file.read(path, mapped=mapped), tensors)
    assert_same(safetensors.torch.load_file(path), tensors)


def test_some_of_a_file_is_read_in_one_piece_where_it_lies_together(tmp_path: Path) -> None:
    write(tmp_path / "file", TENSORS)
    entries = {it.name: it for it in tensor_file.read_header(tmp_path / "file").entries}
    names = ["half", "matrix", "true"]
    some = tensor_file.read(tmp_path / "file", [entries[name] for name in names])
    assert_same({name: some[name] for name in names}, {name: TENSORS[name] for name in names})
    assert list(tensor_file.read(tmp_path / "file")) == list(TENSORS)


def header(path: Path, **changed: object) -> None:
    """Replaces fields of the header of the file, and keeps the bytes of its tensors."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    fields = json.loads(content[8 : 8 + length])
    fields["matrix"] |= changed
    fields = json.dumps(fields).encode()
    path.write_bytes(len(fields).to_bytes(8, "little") + fields + content[8 + length :])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dtype": "F8"}, "header is damaged"),
        ({"shape": [2, 4]}, r"matrix: \(2, 4\) does not fit into bytes"),
        ({"shape": [-2, -3]}, r"matrix: \(-2, -3\) does not fit"),
        ({"shape": [2.0, 3]}, "does not fit"),
        ({"shape": 6}, "header is damaged"),
        ({"data_offsets": [0, 24]}, "matrix begins at"),
        ({"data_offsets": [11]}, "header is damaged"),
        ({"data_offsets": [-13, 11]}, "does not fit"),
        ({"data_offsets": [10**12, 10**12 + 24]}, "begins at"),
    ],
)
def test_a_header_that_lies_is_refused(
    tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    path = tmp_path / "file"
    write(path, TENSORS)
    header(path)
    assert_same(tensor_file.read(path), TENSORS)
    header(path, **changed)
    with pytest.raises(TensorFileError, match=message) as caught:
        tensor_file.read(path)
    assert str(path) in str(caught.value)


@given(st.data())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_file_that_was_cut_off_or_went_on_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "file"
    write(path, TENSORS)
    whole = path.read_bytes()
    kept = data.draw(st.integers(0, len(whole) - 1))
    more = data.draw(st.binary(min_size=1, max_size=9))
    for content in (whole[:kept], whole + more):
        path.write_bytes(content)
        with pytest.raises(TensorFileError):
            tensor_file.read(path)


@given(st.binary(max_size=64), st.integers(0, 80))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_bytes_do_anything_but_be_refused(tmp_path: Path, content: bytes, length: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(length.to_bytes(8, "little") + content)
    with contextlib.suppress(TensorFileError):
        assert tensor_file.read(path) == {}


def test_a_tensor_that_is_not_as_planned_is_not_written(tmp_path: Path) -> None:
    layout = [("a", torch.float32, (2,))]
    with pytest.raises(ValueError, match=r"a is torch.float32 \(3,\), not torch.float32 \(2,\)"):
        tensor_file.write(tmp_path / "file", layout, [torch.zeros(3)])
    with pytest.raises(ValueError, match="zip"):
        tensor_file.write(tmp_path / "file", layout, [])
    with pytest.raises(ValueError, match="a is there twice"):
        tensor_file.write(tmp_path / "file", layout * 2, [torch.zeros(2)] * 2)
