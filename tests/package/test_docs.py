"""The components' pages say what the code says, and the examples in them run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import voicemesh
from docs import generate
from infra.local.adapters.aws_provider import provider
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
    root = generate.ROOT
    pages = [root / "README.md", *(root / "docs").rglob("*.md"), *root.glob("examples/*/README.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(root)}: {target}"


def test_the_example_of_testing_runs_as_it_is_printed() -> None:
    page = (generate.ROOT / "docs" / "testing.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert "assert" in program
    exec(compile(program, "testing.md", "exec"), {})  # noqa: S102


def _listed(section: str) -> set[str]:
    """The entries of a section of the page about the AWS stand-in."""
    page = (generate.ROOT / "docs" / "aws-stand-in.md").read_text()
    text = page.split(f"## {section}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^- (.*)$", text, re.MULTILINE))


def test_the_page_about_the_aws_stand_in_lists_what_the_provider_does_not_simulate() -> None:
    assert _listed("Not simulated") == {f"`{type_}`" for type_ in provider.UNSIMULATED}
    assert _listed("Taken and not told") == {
        f"`{type_}`: " + ", ".join(f"`{name}`" for name in sorted(names))
        for type_, names in provider.UNTOLD.items()
    }


def test_the_page_lists_the_charts_that_are_not_rendered_with_their_versions() -> None:
    recording = generate.run_example(generate.example_of(voicemesh.ClusterAddons))
    charts = recording.of_type("kubernetes:helm.sh/v3:Release")
    assert _listed("Unrendered charts") == {
        f"`{chart.inputs['chart']}` {chart.inputs['version']}" for chart in charts
    }
