"""Tensors in files of the safetensors format, read from beginning to end or mapped.

The format is a length, a JSON header and the tensors' bytes without gaps. It is read here and not
by its own library because that maps a file and touches it in the order in which tensors are asked
for: from a network's disk the same bytes come several times faster in one go. Nothing in such a
file is executed, and nothing in it is believed before the header has been compared with its size.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

HEADER_LIMIT: Final = 100_000_000
"""Bytes of header that the format allows."""

_CHUNK: Final = 2**26
_DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_CODES: Final = {dtype: code for code, dtype in _DTYPES.items()}


class TensorFileError(ValueError):
    """The file is not whole, or not of the format; the message names it and says what is wrong."""


@dataclass(frozen=True)
class Entry:
    """A tensor's place in a file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    """First byte, counted from the beginning of the file."""

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def end(self) -> int:
        return self.begin + self.bytes


@dataclass(frozen=True)
class Header:
    """What a file contains, in the order in which it lies there."""

    entries: tuple[Entry, ...]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """The header of a file, compared with the file's size.

    Raises:
        TensorFileError: it is damaged, or the file is shorter or longer than it says.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(HEADER_LIMIT, size - 8):
            raise TensorFileError(f"{path}: its header is {length} bytes, the file only {size}")
        content = file.read(length)
    try:
        fields = json.loads(content)
        metadata = {str(name): str(it) for name, it in fields.pop("__metadata__", {}).items()}
        entries = [_entry(name, field, 8 + length) for name, field in fields.items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TensorFileError(f"{path}: its header is damaged ({error!r})") from error
    entries.sort(key=lambda it: (it.begin, it.end))
    end = 8 + length
    for entry in entries:
        if entry.begin != end:
            raise TensorFileError(f"{path}: {entry.name} begins at {entry.begin}, not at {end}")
        end = entry.end
    if end != size:
        raise TensorFileError(f"{path}: its tensors end at byte {end}, the file at {size}")
    return Header(tuple(entries), metadata)


def _entry(name: str, field: Mapping[str, Any], data: int) -> Entry:
    begin, end = field["data_offsets"]
    entry = Entry(name, _DTYPES[field["dtype"]], tuple(field["shape"]), data + begin)
    sizes = (begin, end, *entry.shape)
    if not all(type(it) is int and it >= 0 for it in sizes) or end - begin != entry.bytes:
        raise ValueError(f"{name}: {entry.shape} does not fit into bytes {begin} to {end}")
    return entry


def read(
    path: Path, entries: Sequence[Entry] | None = None, *, mapped: bool = False
) -> dict[str, Tensor]:
    """The tensors of a file, by name, in its order.

    Args:
        entries: those wanted, of the file's own header; all by default. What lies together is
            read, and lies in memory, together.
        mapped: leave it to the system to read a tensor when it is first used: quicker where the
            file is in memory already, or on a local disk.

    Raises:
        TensorFileError: the file is damaged.
        OSError: the file cannot be read.
    """
    wanted = read_header(path).entries if entries is None else entries
    if mapped and wanted:
        whole = torch.from_file(str(path), size=path.stat().st_size, dtype=torch.uint8)
        return {it.name: _view(whole, it, 0) for it in wanted}
    tensors: dict[str, Tensor] = {}
    with path.open("rb", buffering=0) as file:
        for run in _runs(wanted):
            block = _read_block(file, run[0].begin, run[-1].end)
            tensors |= {it.name: _view(block, it, run[0].begin) for it in run}
    return tensors


def _runs(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Entries in the file's order, those that follow one another without a gap together."""
    runs: list[list[Entry]] = []
    for entry in sorted(entries, key=lambda it: (it.begin, it.end)):
        if runs and runs[-1][-1].end == entry.begin:
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return runs


def _read_block(file: FileIO, begin: int, end: int) -> Tensor:
    block = torch.empty(end - begin, dtype=torch.uint8)
    view = block.numpy().data
    file.seek(begin)
    done = 0
    while done < len(view):
        count = file.readinto(view[done : done + _CHUNK])
        if not count:
            raise TensorFileError(f"{file.name}: it ends at byte {begin + done}, before {end}")
        done += count
    return block


def _view(block: Tensor, entry: Entry, offset: int) -> Tensor:
    """A tensor over its bytes in a block that begins at a byte of the file."""
    content = block[entry.begin - offset : entry.end - offset]
    if (entry.begin - offset) % entry.dtype.itemsize:
        content = content.clone()  # the format does not align what it holds
    return content.view(entry.dtype).view(entry.shape)


def write(
    path: Path,
    layout: Sequence[tuple[str, torch.dtype, tuple[int, ...]]],
    tensors: Iterable[Tensor],
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Writes tensors in the order given, one at a time, and returns the file's SHA-256.

    Args:
        layout: name, type and shape of each; `tensors` must turn out so.
    """
    header = _header(layout, metadata or {})
    digest = hashlib.sha256(header)
    with path.open("wb") as file:
        file.write(header)
        for (name, dtype, shape), tensor in zip(layout, tensors, strict=True):
            if (tensor.dtype, tuple(tensor.shape)) != (dtype, shape):
                found = f"{tensor.dtype} {tuple(tensor.shape)}"
                raise ValueError(f"{name} is {found}, not {dtype} {shape} as planned")
            flat = tensor.detach().cpu().contiguous().view(-1)
            content = flat.view(torch.uint8).numpy().data
            digest.update(content)
            file.write(content)
    return digest.hexdigest()


def _header(
    layout: Sequence[tuple[str, torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str]
) -> bytes:
    fields: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    begin = 0
    for name, dtype, shape in layout:
        if name in fields:
            raise ValueError(f"{name} is there twice")
        end = begin + math.prod(shape) * dtype.itemsize
        fields[name] = {
            "dtype": _CODES[dtype],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
        begin = end
    content = json.dumps(fields, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)  # so that what follows is aligned
    return len(content).to_bytes(8, "little") + content
