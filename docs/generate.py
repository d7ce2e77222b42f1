"""Writes the components' pages from their code and the examples, and that of the policies' rules:
`make docs`.

A page has the component's docstring, the program in `examples/components/` with what it makes, all
arguments with types and defaults, and the outputs.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import runpy
from collections import Counter
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from docs import policy_rules
from voicemesh import package
from voicemesh.testing import Recording, Registration, SecretValue, record

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "components"
EXAMPLES = ROOT / "examples" / "components"

_PEM = "-----BEGIN EXAMPLE-----"
_STACKS = {
    "acme/voicemesh/prod-cluster": {
        "clusterName": "voices",
        "kubeconfig": SecretValue("{}"),
        "nodeRoleArn": "arn:aws:iam::123456789012:role/nodes",
        "privateSubnets": {"eu-central-1a": "subnet-1", "eu-central-1b": "subnet-2"},
        "vpcId": "vpc-1",
        "bucketArn": "arn:aws:s3:::acme-voices",
        "bucketKeyArn": "arn:aws:kms:eu-central-1:123456789012:key/1",
    },
    "acme/voicemesh/prod": {
        "gateway": {
            "ref": "istio-ingress/public-gateway",
            "namespace": "istio-ingress",
            "principal": "cluster.local/ns/istio-ingress/sa/public-gateway",
        },
        "injectionLabels": {"istio-injection": "enabled"},
    },
}


@dataclasses.dataclass(frozen=True)
class Attribute:
    """An attribute of a class as its source has it."""

    name: str
    annotation: str
    text: str


def pages() -> dict[Path, str]:
    """The text of each page, by its path."""
    written = {page_of(component): page(component) for component in package.components()}
    return {**written, PAGES / "README.md": index()}


def page_of(component: package.Component) -> Path:
    return PAGES / f"{_words(component.__name__, '-')}.md"


def example_of(component: package.Component) -> Path:
    return EXAMPLES / f"{_words(component.__name__, '_')}.py"


def run_example(path: Path) -> Recording:
    """What a program of the examples declares."""
    return record(
        lambda: runpy.run_path(str(path)),
        project="example",
        config={"certificate": _PEM, "privateKey": SecretValue(_PEM)},
        stacks=_STACKS,
    )


def index() -> str:
    """The list of all components."""
    lines = [
        f"- [{component.__name__}]({page_of(component).name}): {_first_sentence(component)}"
        for component in package.components()
    ]
    return "\n".join(["# Components", "", *lines, ""])


def page(component: package.Component) -> str:
    """One component's page."""
    program = example_of(component)
    source = program.read_text()
    head = ast.get_docstring(ast.parse(source)) or ""
    arguments = package.arguments_class(component)
    parts = [
        f"# {component.__name__}",
        inspect.cleandoc(component.__doc__ or ""),
        "## Example",
        head,
        f"```python\n{_without_docstring(source)}```",
        f"It is [examples/components/{program.name}](../../examples/components/{program.name}).",
        "## What it makes",
        *_made_by(component, run_example(program)),
        f"## Arguments: {arguments.__name__}",
        *list(_class_section(arguments))[1:],
        *[
            part
            for nested in _nested(arguments)
            for part in (f"### {nested.__name__}", *_class_section(nested))
        ],
        "## Outputs",
        "\n".join(
            _item(f"`{attribute.name}`: `{_type(attribute)}`", attribute.text)
            for attribute in attributes(component)
        ),
        "_Written by `make docs`._",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def attributes(class_: type) -> list[Attribute]:
    """The annotated attributes of a class, or the members of an enumeration, with docstrings."""
    (tree,) = ast.parse(inspect.getsource(class_)).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    found = []
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            annotation = ast.unparse(statement.annotation)
            found.append(Attribute(statement.target.id, annotation, _string(following)))
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            value = ast.unparse(statement.value)
            found.append(Attribute(statement.targets[0].id, value, _string(following)))
    return [attribute for attribute in found if not attribute.name.startswith("_")]


def _made_by(component: package.Component, recording: Recording) -> Iterator[str]:
    components = recording.of_type(f"{package.NAME}:index:{component.__name__}")
    yield f"In the example, `{components[0].name}` makes:"
    made = Counter(
        child.type for child in recording.registrations if _is_under(child, components[0])
    )
    yield "\n".join(
        f"- `{type_}`" + (f", {count} times" if count > 1 else "")
        for type_, count in sorted(made.items())
    )


def _is_under(child: Registration, parent: Registration) -> bool:
    ancestors = parent.urn.split("::")[2]
    return child.custom and child.urn.split("::")[2].startswith(f"{ancestors}$")


def _class_section(class_: Any) -> Iterator[str]:
    yield inspect.cleandoc(class_.__doc__ or "")
    if issubclass(class_, Enum):
        yield "\n".join(
            _item(f"`{class_.__name__}.{member.name}`, {member.annotation}", member.text)
            for member in attributes(class_)
        )
        return
    fields = {field.name: field for field in dataclasses.fields(class_)}
    yield "\n".join(
        _item(
            f"`{attribute.name}`: `{_type(attribute)}`, {_need(fields[attribute.name])}",
            attribute.text,
        )
        for attribute in attributes(class_)
        if attribute.name in fields
    )


def _need(field: dataclasses.Field[Any]) -> str:
    if package.is_required(field):
        return "required"
    return f"default `{_default(package.default_of(field))}`"


def _default(value: Any) -> str:
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if not dataclasses.is_dataclass(value):
        return repr(value)
    given = [
        f"{field.name}={_default(getattr(value, field.name))}"
        for field in dataclasses.fields(value)
        if package.is_required(field) or getattr(value, field.name) != package.default_of(field)
    ]
    return f"{type(value).__name__}({', '.join(given)})"


def _nested(class_: Any) -> list[Any]:
    """The classes in the arguments of a class, each after the first that uses it."""
    found: list[Any] = []

    def visit(outer: Any) -> None:
        for field in dataclasses.fields(outer):
            inner = package.nested_class(package.annotations_of(outer)[field.name])
            is_ours = dataclasses.is_dataclass(inner) or issubclass(inner, Enum)
            if is_ours and inner not in found:
                found.append(inner)
                if dataclasses.is_dataclass(inner):
                    visit(inner)

    visit(class_)
    return found


def _type(attribute: Attribute) -> str:
    return attribute.annotation.replace("pulumi.", "")


def _string(statement: ast.stmt | None) -> str:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return inspect.cleandoc(str(value.value)) if isinstance(value, ast.Constant) else ""


def _without_docstring(source: str) -> str:
    first = ast.parse(source).body[0]
    return "".join(source.splitlines(keepends=True)[first.end_lineno :]).lstrip("\n")


def _first_sentence(component: package.Component) -> str:
    return " ".join(re.split(r"(?<=\.)\s", inspect.cleandoc(component.__doc__ or ""))[0].split())


def _item(head: str, text: str) -> str:
    return "\n  ".join([f"- {head}.", *text.splitlines()])


def _words(name: str, separator: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", separator, name).lower()


def stale(written: Mapping[Path, str], folder: Path) -> list[str]:
    """What is wrong with the pages in a folder, compared with what they should be."""
    there = {path.name: path.read_text() for path in folder.glob("*.md")}
    wanted = {path.name: text for path, text in written.items()}
    return [
        *(f"{name} is missing" for name in sorted(wanted.keys() - there.keys())),
        *(f"{name} is of no component" for name in sorted(there.keys() - wanted.keys())),
        *(
            f"{name} differs from the code"
            for name in sorted(wanted.keys() & there.keys())
            if wanted[name] != there[name]
        ),
    ]


def main() -> None:
    PAGES.mkdir(exist_ok=True)
    written = pages()
    for path in set(PAGES.glob("*.md")) - written.keys():
        path.unlink()
    for path, text in written.items():
        path.write_text(text)
    print(f"{len(written)} pages in {PAGES.relative_to(ROOT)}")
    policy_rules.main()


if __name__ == "__main__":
    main()
