"""`voicemesh models publish`: what servers fetch is what was published, or nothing is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.exceptions import S3UploadFailedError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws
from typer.testing import CliRunner

from speech_server.weights import Bucket, fetch, parse_manifest
from voicemesh.cli import app
from voicemesh.publication import PROVENANCE, PublicationError, Release, file_names, publish

URI = "s3://acme-voices/models/choir/1.0/"
PREFIX = "models/choir/1.0/"
FILES = {"config.json": b"{}", "llm/a.safetensors": b"a" * 70_000, "llm/b.safetensors": b"b"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "weights", FILES)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "DEFAULT_REGION"):
        monkeypatch.setenv(f"AWS_{name}", "us-east-1")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="acme-voices")
        yield client


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def objects(storage: Any) -> dict[str, Any]:
    """When each object was made, by its name."""
    listed = storage.list_objects_v2(Bucket="acme-voices", Prefix=PREFIX).get("Contents", [])
    return {each["Key"].removeprefix(PREFIX): each["LastModified"] for each in listed}


def sends(storage: Any) -> list[str]:
    """Names of the objects that are made from now on."""
    made: list[str] = []
    storage.meta.events.register(
        "before-parameter-build.s3.PutObject",
        lambda params, **_: made.append(params["Key"].removeprefix(PREFIX)),
    )
    return made


def test_a_server_fetches_what_was_published_with_its_licence(
    folder: Path, storage: Any, tmp_path: Path
) -> None:
    release = Release.of(folder, "apache-2.0", "https://models.example.com/choir@4f1c")
    assert publish(storage, release, URI)
    limit = round(release.size_gib * 2**30)
    fetched = fetch(Bucket(storage, URI), release.sha256, tmp_path / "disk", limit)
    assert fetched == release.size_bytes
    assert {name: (tmp_path / "disk" / name).read_bytes() for name in FILES} == FILES
    assert json.loads((tmp_path / "disk" / PROVENANCE).read_bytes()) == {
        "license": "Apache-2.0",
        "source": "https://models.example.com/choir@4f1c",
    }


def test_publishing_again_sends_nothing(folder: Path, storage: Any) -> None:
    release = Release.of(folder, "MIT")
    publish(storage, release, URI)
    made = sends(storage)
    assert not publish(storage, release, URI)
    assert made == []


def test_an_interrupted_publication_is_none_and_goes_on_where_it_stopped(
    folder: Path, storage: Any
) -> None:
    release = Release.of(folder, "MIT")
    gone = replace(release, folder=folder.with_name("gone"))
    write(gone.folder, {name: FILES[name] for name in ("config.json", "llm/a.safetensors")})
    with pytest.raises((S3UploadFailedError, FileNotFoundError)):
        publish(storage, gone, URI)
    assert objects(storage).keys() == {"config.json", "llm/a.safetensors"}

    made = sends(storage)
    assert publish(storage, release, URI)
    assert made == ["llm/b.safetensors", PROVENANCE, "SHA256SUMS"]


def test_an_object_that_was_lost_or_replaced_is_sent_again(folder: Path, storage: Any) -> None:
    release = Release.of(folder, "MIT")
    publish(storage, release, URI)
    storage.delete_object(Bucket="acme-voices", Key=PREFIX + "config.json")
    storage.put_object(Bucket="acme-voices", Key=PREFIX + "llm/b.safetensors", Body=b"c")
    made = sends(storage)
    assert publish(storage, release, URI)
    assert {"config.json", "llm/b.safetensors"} <= {*made}
    assert "llm/a.safetensors" not in made


@pytest.mark.parametrize("change", ["content", "licence"])
def test_other_weights_do_not_replace_what_is_published(
    folder: Path, storage: Any, change: str
) -> None:
    published = Release.of(folder, "MIT")
    publish(storage, published, URI)
    before = objects(storage)
    if change == "content":
        (folder / "config.json").write_bytes(b"[]")
    other = Release.of(folder, "MIT" if change == "content" else "BSD-3-Clause")
    with pytest.raises(PublicationError, match="a version of their own") as refusal:
        publish(storage, other, URI)
    assert published.sha256 in str(refusal.value)
    assert objects(storage) == before


def test_of_two_that_publish_at_once_only_one_is_told_that_it_did(
    folder: Path, storage: Any, tmp_path: Path
) -> None:
    """The other one is through when this one is about to put its manifest."""
    other = Release.of(write(tmp_path / "other", {"config.json": b"other"}), "MIT")
    ours = Release.of(folder, "MIT")

    def overtake(params: dict[str, Any], **_: object) -> None:
        if params["Key"].endswith(PROVENANCE) and "SHA256SUMS" not in objects(storage):
            bucket, key = params["Bucket"], PREFIX + "SHA256SUMS"
            storage.put_object(Bucket=bucket, Key=key, Body=other.manifest)

    storage.meta.events.register("before-parameter-build.s3.PutObject", overtake)
    with pytest.raises(PublicationError, match=other.sha256):
        publish(storage, ours, URI)


def test_links_to_files_are_followed_and_hidden_files_left_out(tmp_path: Path) -> None:
    blobs = write(tmp_path / "blobs", {"4f1c": b"weights"})
    folder = write(tmp_path / "snapshot", {".cache/lock": b"", ".gitattributes": b""})
    (folder / "model.safetensors").symlink_to(blobs / "4f1c")
    release = Release.of(folder, "MIT")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert release.files == {"model.safetensors": (len(b"weights"), digest)}


def test_what_cannot_be_published_is_named_whole(tmp_path: Path) -> None:
    folder = write(tmp_path / "weights", {"a\nb": b"", "fine": b""})
    (folder / "broken").symlink_to("nowhere")
    with pytest.raises(PublicationError) as refusal:
        file_names(folder)
    lines = str(refusal.value).splitlines()
    assert lines == [
        r"'a\nb': a name that sha256sum writes in another way; rename it",
        "broken: neither a file nor a link to one",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(PublicationError, match="has no files"):
        file_names(tmp_path / "empty")
    with pytest.raises(PublicationError, match="is no folder"):
        file_names(tmp_path / "absent")


def test_files_are_held_to_the_sums_that_came_with_them(folder: Path) -> None:
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    listing = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    (folder / "SHA256SUMS").write_text(listing)
    assert Release.of(folder, "MIT").files.keys() == FILES.keys()

    (folder / "config.json").write_bytes(b"[]")
    (folder / "further").write_bytes(b"")
    (folder / "llm/b.safetensors").unlink()
    with pytest.raises(PublicationError) as refusal:
        Release.of(folder, "MIT")
    lines = str(refusal.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "config.json",
        "further",
        "llm/b.safetensors",
    ]
    assert sums["config.json"] in lines[0]


_NAMES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1),
    min_size=1,
    max_size=3,
).map("/".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_NAMES)
def test_every_name_is_refused_or_listed_so_that_servers_read_it(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = tmp_path_factory.mktemp("named")
    try:
        write(folder, {"always": b"", name: b"x"})
    except (OSError, ValueError):  # the file system knows no such name
        return
    try:
        release = Release.of(folder, "MIT")
    except PublicationError:
        return
    listed = {entry.name for entry in parse_manifest(release.manifest.decode())}
    assert listed == {*release.files, PROVENANCE}


class TestCommand:
    def run(self, *arguments: object) -> Any:
        return CliRunner().invoke(app, ["models", "publish", *map(str, arguments)])

    def test_it_says_how_a_stack_pins_the_weights(self, folder: Path, storage: Any) -> None:
        release = Release.of(folder, "MIT")
        pinned = f"model:\n  uri: {URI}\n  sha256: {release.sha256}\n  sizeGib: 0.001\n"
        done = self.run(folder, URI, "--license", "MIT")
        assert done.exit_code == 0, done.output
        assert done.stdout.startswith("published: 3 files")
        assert done.stdout.endswith(pinned)
        again = self.run(folder, URI, "--license", "MIT")
        assert again.stdout.startswith("published already: 3 files")
        assert again.stdout.endswith(pinned)

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["s3://acme-voices/models/choir/1.0", "--license", "MIT"], "with a slash at last"),
            (["acme-voices/models/", "--license", "MIT"], "is no URI as s3://"),
            ([URI, "--license", "free"], "'free'"),
            (["s3://nobodys-voices/models/a/", "--license", "MIT"], "NoSuchBucket"),
        ],
    )
    def test_what_is_wrong_is_named_before_anything_is_sent(
        self, folder: Path, storage: Any, arguments: list[str], named: str
    ) -> None:
        done = self.run(folder, *arguments)
        assert done.exit_code == 1
        assert named in done.stderr
        assert objects(storage) == {}

    def test_a_licence_is_asked_for(self, folder: Path) -> None:
        done = self.run(folder, URI)
        assert done.exit_code == 2
        assert "--license" in done.output

    def test_without_credentials_it_says_how_to_sign_in(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
        done = self.run(folder, URI, "--license", "MIT")
        assert done.exit_code == 1
        assert "aws sso login" in done.stderr
