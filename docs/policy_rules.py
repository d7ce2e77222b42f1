"""The page of the policy pack's rules, written from their metadata: a part of `make docs`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from voicemesh_policies import istio, rules
from voicemesh_policies.rule import Rule

PAGE = Path(__file__).with_name("policy-rules.md")

_HEADINGS = {
    "workloads": "Workloads",
    "gpu": "GPUs",
    "mesh": "Mesh",
    "aws": "AWS",
    "stack": "Whole stacks",
}


def page() -> str:
    """The text of the page."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "# The rules of the policy pack"
    yield ""
    yield f"There are {len(rules.ALL)}; [how to use them](policies.md) is on a page of its own."
    yield f"Fields of Istio's resources are those of Istio {istio.istio_version()}."
    yield "Rules marked with a \\* look at a whole stack."
    yield ""
    for concern, found in groupby(rules.ALL, key=lambda it: it.concern):
        chosen = list(found)
        yield f"## {_HEADINGS[concern]}"
        yield ""
        yield "| rule | severity | what it wants |"
        yield "|---|---|---|"
        for rule in chosen:
            star = " \\*" if rule.on_stack else ""
            yield f"| [`{rule.name}`](#{rule.name}){star} | {rule.severity.value} | {rule.what} |"
        yield ""
        for rule in chosen:
            yield from _section(rule)


def _section(rule: Rule) -> Iterator[str]:
    yield f"### {rule.name}"
    yield ""
    yield f"{rule.what} {rule.why}"
    yield ""
    yield f"- **Fix**: {rule.fix}."
    yield f"- **Severity**: {rule.severity.value}. **Framework**: {rule.framework}."
    yield f"- **Read more**: <{rule.link}>"
    for key, schema in rule.config.items():
        default = json.dumps(schema["default"], ensure_ascii=False)
        yield f"- **Setting** `{key}`, by default `{default}`: {schema['description']}."
    yield ""


def main() -> None:
    PAGE.write_text(page())
    print(f"{len(rules.ALL)} rules in {PAGE.name}")


if __name__ == "__main__":
    main()
