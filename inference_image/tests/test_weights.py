"""Weights come whole, as they were pinned, and not twice."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from speech_server import weights
from speech_server.weights import Bucket, Entry, WeightsError, fetch, main, parse_manifest

URI = "s3://voices/models/choir/1.0/"
OBJECTS = {"config.json": b"{}", "layers/0.bin": b"0" * 300_000, "layers/1.bin": b"1" * 200_000}
TOTAL = sum(map(len, OBJECTS.values()))


class Store:
    """Weights in a bucket, and what was asked of it."""

    def __init__(self) -> None:
        self.client = boto3.client("s3", region_name="us-east-1")
        self.client.create_bucket(Bucket="voices")
        self.read: list[tuple[str, str]] = []
        self.client.meta.events.register("before-parameter-build.s3.GetObject", self._note)
        for name, content in OBJECTS.items():
            self.put(name, content)
        self.sha256 = self.put_manifest()

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket="voices", Key=f"models/choir/1.0/{name}", Body=content)

    def put_manifest(self, **changed: str) -> str:
        digests = {name: hashlib.sha256(it).hexdigest() for name, it in OBJECTS.items()} | changed
        manifest = "".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()
        self.put("SHA256SUMS", manifest)
        return hashlib.sha256(manifest).hexdigest()

    def fetch(self, folder: Path, limit: int = TOTAL) -> int:
        self.read.clear()
        return fetch(Bucket(self.client, URI), self.sha256, folder, limit)

    def _note(self, params: dict[str, Any], **_: object) -> None:
        self.read.append((params["Key"].removeprefix("models/choir/1.0/"), params.get("Range", "")))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION"):
        monkeypatch.setenv(f"AWS_{name}", "us-east-1")
    with mock_aws():
        yield Store()


def test_every_object_is_there_under_its_name(store: Store, tmp_path: Path) -> None:
    assert store.fetch(tmp_path) == TOTAL
    assert {name: (tmp_path / name).read_bytes() for name in OBJECTS} == OBJECTS


def test_a_large_object_is_read_in_ranges_of_which_several_are_on_their_way(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "RANGE", 1000)
    monkeypatch.setattr(weights, "PARALLEL_READS", 4)
    all_on_their_way = threading.Barrier(4, timeout=60)

    class Meeting(Bucket):
        def read(self, name: str, start: int = 0, end: int | None = None) -> Any:
            if name == "layers/0.bin" and start < 4000:
                all_on_their_way.wait()
            return super().read(name, start, end)

    store.put("layers/0.bin", bytes(range(250)) * 1200)
    store.sha256 = store.put_manifest(
        **{"layers/0.bin": hashlib.sha256(bytes(range(250)) * 1200).hexdigest()}
    )
    assert fetch(Meeting(store.client, URI), store.sha256, tmp_path, TOTAL) == TOTAL
    assert (tmp_path / "layers/0.bin").read_bytes() == bytes(range(250)) * 1200


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(size=st.integers(0, 400), begun=st.integers(0, 400), range_bytes=st.integers(1, 200))
def test_whatever_is_there_of_an_object_all_of_it_arrives_in_order(
    store: Store, tmp_path_factory: pytest.TempPathFactory, size: int, begun: int, range_bytes: int
) -> None:
    content = bytes(n * n % 251 for n in range(size))
    store.put("config.json", content)
    digest = hashlib.sha256(content).hexdigest()
    store.sha256 = store.put_manifest(**{"config.json": digest})
    folder = tmp_path_factory.mktemp("weights")
    (folder / ".incomplete").mkdir()
    (folder / ".incomplete" / Entry("config.json", digest).part).write_bytes(content[:begun])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "RANGE", range_bytes)
        patch.setattr(weights, "PARALLEL_READS", 3)
        # The others are not what is tried here, and would be read in thousands of ranges.
        for name in ("layers/0.bin", "layers/1.bin"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
        store.fetch(folder, limit=2 * TOTAL)
    assert (folder / "config.json").read_bytes() == content


def test_what_is_complete_is_not_fetched_again(store: Store, tmp_path: Path) -> None:
    store.fetch(tmp_path)
    store.fetch(tmp_path)
    assert store.read == [("SHA256SUMS", "")]
    (tmp_path / "config.json").unlink()
    store.fetch(tmp_path)
    assert store.read == [("SHA256SUMS", ""), ("config.json", "bytes=0-1")]


def test_what_was_interrupted_goes_on_where_it_stopped(store: Store, tmp_path: Path) -> None:
    entry = Entry("layers/0.bin", hashlib.sha256(OBJECTS["layers/0.bin"]).hexdigest())
    (tmp_path / ".incomplete").mkdir()
    (tmp_path / ".incomplete" / entry.part).write_bytes(b"0" * 100_000)
    store.fetch(tmp_path)
    assert ("layers/0.bin", "bytes=100000-299999") in store.read
    assert (tmp_path / "layers/0.bin").read_bytes() == OBJECTS["layers/0.bin"]


def test_a_stream_that_breaks_is_taken_up_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks = iter([True])

    class Breaking(Bucket):
        def read(self, name: str, start: int = 0, end: int | None = None) -> Any:
            stream = super().read(name, start, end)
            if name == "layers/0.bin" and next(breaks, False):
                return _Broken(stream)
            return stream

    monkeypatch.setattr(weights, "CHUNK", 64 * 1024)
    monkeypatch.setattr(weights.time, "sleep", lambda _: None)
    assert fetch(Breaking(store.client, URI), store.sha256, tmp_path, TOTAL) == TOTAL
    assert ("layers/0.bin", "bytes=65536-299999") in store.read
    assert (tmp_path / "layers/0.bin").read_bytes() == OBJECTS["layers/0.bin"]


class _Broken:
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._chunks = 0

    def read(self, amount: int) -> bytes:
        self._chunks += 1
        if self._chunks > 1:
            self._stream.close()
            raise botocore.exceptions.ReadTimeoutError(endpoint_url="s3")
        return self._stream.read(amount)


def test_an_object_with_another_digest_is_named_and_not_kept(store: Store, tmp_path: Path) -> None:
    store.put("layers/1.bin", b"2" * 200_000)
    found, pinned = (hashlib.sha256(c * 200_000).hexdigest() for c in (b"2", b"1"))
    message = f"{URI}layers/1.bin has the SHA-256 {found}, but {pinned} was pinned"
    with pytest.raises(WeightsError, match=re.escape(message)):
        store.fetch(tmp_path)
    assert not (tmp_path / "layers/1.bin").exists()
    # Put right, it is fetched from its beginning.
    store.put("layers/1.bin", OBJECTS["layers/1.bin"])
    store.fetch(tmp_path)
    assert ("layers/1.bin", "bytes=0-199999") in store.read
    assert (tmp_path / "layers/1.bin").read_bytes() == OBJECTS["layers/1.bin"]


def test_another_manifest_than_the_pinned_one_is_refused(store: Store, tmp_path: Path) -> None:
    store.put_manifest(**{"config.json": "0" * 64})
    with pytest.raises(WeightsError, match=rf"{URI}SHA256SUMS has the SHA-256 .* {store.sha256}"):
        store.fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_larger_than_their_disk_are_refused_before_any_is_read(
    store: Store, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=f"{URI} has .* GiB of weights, but only"):
        store.fetch(tmp_path, limit=TOTAL - 1)
    assert store.read == [("SHA256SUMS", "")]


def test_objects_of_equal_content_do_not_disturb_each_other(store: Store, tmp_path: Path) -> None:
    same = hashlib.sha256(b"1" * 200_000).hexdigest()
    store.put("layers/2.bin", b"1" * 200_000)
    store.sha256 = store.put_manifest(**{"layers/2.bin": same})
    store.fetch(tmp_path, limit=2 * TOTAL)
    assert (tmp_path / "layers/2.bin").read_bytes() == (tmp_path / "layers/1.bin").read_bytes()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: s.put("config.json", b"[]"), f"no weights: {URI}config.json has the SHA-256"),
        (
            lambda s: s.client.delete_object(Bucket="voices", Key="models/choir/1.0/config.json"),
            f"no weights: {URI}config.json: An error occurred (404)",
        ),
        (lambda s: None, ""),
    ],
    ids=["changed", "missing", "whole"],
)
def test_the_process_says_which_object_and_ends_with_an_error(
    spoil: Any, said: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(store)
    arguments = [URI, "--sha256", store.sha256, "--size-gib", "1", "--folder", str(tmp_path)]
    assert main(arguments) == (1 if said else 0)
    assert capsys.readouterr().err.startswith(said)


DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
PARTS = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\", exclude_categories=["C", "Z"])
)
NAMES = st.lists(PARTS.filter(lambda it: it not in ("", ".", "..", ".incomplete")), min_size=1).map(
    "/".join
)


@given(st.dictionaries(NAMES, DIGESTS, min_size=1))
def test_a_manifest_is_read_as_sha256sum_writes_it(digests: dict[str, str]) -> None:
    text = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    assert {entry.name: entry.sha256 for entry in parse_manifest(text)} == digests


@pytest.mark.parametrize(
    "line",
    ["", "abc  name", f"{'0' * 64} name", f"{'0' * 64}  ", f"\\{'0' * 64}  a\\nb", "# a comment"]
    + [
        f"{'0' * 64}  {name}" for name in ("/etc/passwd", "../a", "a/../b", "a//b", ".incomplete/a")
    ],
)
def test_a_line_that_means_nothing_or_leaves_the_folder_is_refused(line: str) -> None:
    good = f"{'0' * 64}  good\n"
    assert parse_manifest(good)
    with pytest.raises(WeightsError, match=r"line 2"):
        parse_manifest(f"{good}{line}\n")


def test_a_manifest_without_objects_or_with_one_twice_is_refused() -> None:
    with pytest.raises(WeightsError, match="lists nothing"):
        parse_manifest("")
    with pytest.raises(WeightsError, match=r"line 2: good is there twice"):
        parse_manifest(f"{'0' * 64}  good\n{'1' * 64}  good\n")
