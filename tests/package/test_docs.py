"""The components' pages say what the code says, and the examples in them run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import generate
from tests.preview import rules
from voicemesh import package

EXAMPLES = [generate.example_of(component) for component in package.components()]


@pytest.fixture(scope="module")
def pages() -> dict[Path, str]:
    return generate.pages()


def test_every_component_has_a_page_that_is_up_to_date(pages: dict[Path, str]) -> None:
    assert len(pages) == len(package.components()) + 1
    assert generate.stale(pages, generate.PAGES) == [], "write them with `make docs`"


def test_stale_missing_and_leftover_pages_are_noticed(
    pages: dict[Path, str], tmp_path: Path
) -> None:
    for path, text in pages.items():
        (tmp_path / path.name).write_text(text)
    assert generate.stale(pages, tmp_path) == []
    (tmp_path / "istio-mesh.md").unlink()
    (tmp_path / "gone.md").write_text("# Gone")
    voice = tmp_path / "tts-voice-service.md"
    voice.write_text(voice.read_text().replace("`int`, default `600`", "`int`, default `60`"))
    assert generate.stale(pages, tmp_path) == [
        "istio-mesh.md is missing",
        "gone.md is of no component",
        "tts-voice-service.md differs from the code",
    ]


def test_every_argument_and_output_has_a_text(pages: dict[Path, str]) -> None:
    for path, text in pages.items():
        silent = re.findall(r"^- `\w+`: .*\.$(?!\n  )", text, re.MULTILINE)
        assert silent == [], path.name


def test_no_example_is_left_over() -> None:
    assert sorted(generate.EXAMPLES.glob("*.py")) == sorted(EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_declares_its_component_with_outputs(example: Path) -> None:
    recording = generate.run_example(example)
    types = {registration.type.rpartition(":")[2] for registration in recording.components()}
    names = {
        component.__name__: generate.example_of(component) for component in package.components()
    }
    assert example in {names[type_] for type_ in types}
    assert list(rules.every_component_registers_outputs(recording)) == []


def test_links_between_pages_lead_somewhere() -> None:
    folder = generate.ROOT / "docs"
    for page in folder.rglob("*.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(folder)}: {target}"
