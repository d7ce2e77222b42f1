"""What a rule is, and what it says of a resource or a stack.

A rule is a short function that yields what is wrong, with metadata that says the rest. Unknown
values, waivers and messages are the same for all rules, and are here:

- What depends on a value that is not known yet is a violation. A rule's `unknownValues` can say
  `advisory` instead, for what nobody can know before the first update; the update itself judges it
  again before the resource is made.
- A waiver excuses a resource from a rule up to and including a day, in UTC; after it, or if it is
  not written as it should be, it is a violation itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any, Final

from voicemesh_policies.objects import Resource, Stack, unknown
from voicemesh_policies.view import Finding, UnknownError, View

UNKNOWN_VALUES: Final = "unknownValues"
WAIVERS: Final = "waivers"

COMMON_CONFIG: Final[Mapping[str, Mapping[str, Any]]] = {
    UNKNOWN_VALUES: {
        "type": "string",
        "enum": ["violation", "advisory"],
        "default": "violation",
        "description": "What it is where the rule needs a value that is not known yet",
    },
    WAIVERS: {
        "type": "array",
        "default": [],
        "description": "Resources that may break the rule for a while",
        "items": {
            "type": "object",
            "required": ["resource", "reason", "expires"],
            "additionalProperties": False,
            "properties": {
                "resource": {
                    "type": "string",
                    "minLength": 1,
                    "description": "Name or URN; `*` stands for any characters",
                },
                "reason": {"type": "string", "minLength": 1},
                "expires": {
                    "type": "string",
                    "pattern": r"^\d{4}-\d{2}-\d{2}$",
                    "description": "Last day on which it counts, in UTC",
                },
            },
        },
    },
}


class Severity(Enum):
    """How bad it is to break a rule."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


@dataclass(frozen=True)
class Config:
    """The settings of one rule: what the environment says, and the rule's defaults."""

    values: Mapping[str, Any]

    def texts(self, key: str) -> list[str]:
        return View(self.values)[key].texts

    def text(self, key: str) -> str:
        return View(self.values)[key].text

    def number(self, key: str) -> float:
        return View(self.values)[key].number or 0.0

    def flag(self, key: str) -> bool:
        return bool(View(self.values)[key].flag)

    def mapping(self, key: str) -> list[tuple[str, View]]:
        return View(self.values)[key].entries


OnResource = Callable[[Resource, Config], Iterator[Finding]]
OnStack = Callable[[Stack, Config], Iterator[Finding]]


@dataclass(frozen=True)
class Rule:
    """One thing that resources have to keep to.

    Attributes:
        name: says what holds where it is kept, as in `memory-is-limited`.
        concern: the module that it is in.
        what: a sentence on what it wants.
        why: what happens where it is broken.
        fix: what to change, as an order.
        framework: the standard or guide that asks for it.
        link: a page that explains it.
        kinds: of the resources that it judges; of a rule about a stack, those that its waivers and
            findings may name.
        config: JSON schemas of its own settings.
        on_resource, on_stack: the rule itself; one of the two.
    """

    name: str
    concern: str
    severity: Severity
    what: str
    why: str
    fix: str
    framework: str
    link: str
    kinds: frozenset[str]
    config: Mapping[str, Mapping[str, Any]]
    on_resource: OnResource | None = None
    on_stack: OnStack | None = None

    def applies_to(self, resource: Resource) -> bool:
        """Whether it judges this kind of resource at all."""
        return not self.kinds or resource.kind in self.kinds

    def settings(self, given: Mapping[str, Any]) -> Config:
        """Its settings with the defaults of those that are not given."""
        schemas = {**COMMON_CONFIG, **self.config}
        defaults = {key: it["default"] for key, it in schemas.items() if "default" in it}
        return Config({**defaults, **given})

    def judge_resource(self, resource: Resource, config: Config) -> Iterator[Finding]:
        """What is wrong with one resource, before waivers."""
        if self.on_resource is None or not self.applies_to(resource):
            return
        for finding in _guarded(self.on_resource(resource, config), resource.urn):
            yield resource.found(finding)

    def judge_stack(self, stack: Stack, config: Config) -> Iterator[Finding]:
        """What is wrong with a stack, before waivers."""
        if self.on_stack is not None:
            yield from _guarded(self.on_stack(stack, config), "")


@dataclass(frozen=True)
class Violation:
    """A message about a resource, or about the stack where `urn` is empty.

    Attributes:
        unjudged: path of a property that is not known, and that the rule takes as advice only.
    """

    message: str
    urn: str = ""
    unjudged: str = ""


@dataclass(frozen=True)
class Waiver:
    """Excuses resources from a rule until a day is over."""

    resource: str
    reason: str
    expires: date

    def covers(self, resource: Resource) -> bool:
        return any(fnmatchcase(it, self.resource) for it in (resource.name, resource.urn))


def violations(
    rule: Rule,
    resources: Sequence[Resource],
    given: Mapping[str, Any],
    today: date | None = None,
) -> Iterator[Violation]:
    """What a rule says of one resource, or of all resources of a stack.

    Args:
        given: the rule's settings, as the environment gives them.
        today: the day in UTC; by default it is asked for.
    """
    # Programs declare in any order; what is said of a stack is always the same.
    resources = sorted(resources, key=lambda it: it.urn)
    config = rule.settings(given)
    waivers, faults = _waivers(config)
    today = today or datetime.now(UTC).date()
    yield from (Violation(f"{fault}. Fix: correct or remove the waiver.") for fault in faults)
    by_urn = {it.urn: it for it in resources}
    for waiver in waivers:
        if waiver.expires < today:
            covered = (it for it in resources if rule.applies_to(it) and waiver.covers(it))
            if resource := next(covered, None):
                yield Violation(_about_expired(rule, waiver), resource.urn)
    valid = [waiver for waiver in waivers if waiver.expires >= today]
    advises = config.text(UNKNOWN_VALUES) == "advisory"
    for finding in _findings(rule, resources, config):
        resource = by_urn.get(finding.urn)
        if resource is None or not any(it.covers(resource) for it in valid):
            unjudged = finding.path if advises and finding.problem == _UNJUDGED else ""
            yield Violation(message(rule, finding, resource), finding.urn, unjudged)


def message(rule: Rule, finding: Finding, resource: Resource | None) -> str:
    """Names resource, property and value, and says what to do."""
    where = f"{resource.type} {resource.name!r}" if resource else "the stack"
    what = f"{finding.path} is {finding.shown}" if finding.path else finding.shown
    return f"{where}: {what}: {finding.problem}. Fix: {rule.fix}"


_UNJUDGED = unknown(UnknownError("")).problem


def _findings(rule: Rule, resources: Sequence[Resource], config: Config) -> Iterator[Finding]:
    if rule.on_resource is None:
        yield from rule.judge_stack(Stack(tuple(resources)), config)
        return
    for resource in resources:
        yield from rule.judge_resource(resource, config)


def _guarded(findings: Iterator[Finding], urn: str) -> Iterator[Finding]:
    """Turns what a rule cannot judge into something that it found."""
    try:
        yield from findings
    except UnknownError as error:
        yield unknown(error, urn)
    except Exception as error:
        reason = f"{type(error).__name__} in the rule itself, which has a fault; please report it"
        yield Finding("", "what is declared", reason, urn)


def _about_expired(rule: Rule, waiver: Waiver) -> str:
    return (
        f"the waiver of {rule.name} for {waiver.resource!r} expired on {waiver.expires} "
        f"(reason: {waiver.reason}). Fix: mend the resource, or renew or remove the waiver."
    )


def _waivers(config: Config) -> tuple[list[Waiver], list[str]]:
    """Those that are written as they should be, and what is wrong with the others."""
    waivers, faults = [], []
    for it in View(config.values)[WAIVERS].items:
        texts = [it[key].text for key in ("resource", "reason", "expires")]
        try:
            if not all(texts):
                raise ValueError("it needs resource, reason and expires")
            waivers.append(Waiver(texts[0], texts[1], date.fromisoformat(texts[2])))
        except ValueError as error:
            faults.append(f"{it.path} is {it.shown}: {error}")
    return waivers, faults


@dataclass
class Concern:
    """The rules of one module, in the order in which they are declared."""

    name: str
    rules: list[Rule] = field(default_factory=list)

    def rule(self, **metadata: Any) -> Callable[[OnResource], Rule]:
        """Declares a rule about one resource; its name is the function's."""
        return lambda function: self._add(function, on_resource=function, **metadata)

    def stack_rule(self, **metadata: Any) -> Callable[[OnStack], Rule]:
        """Declares a rule about a stack; its name is the function's."""
        return lambda function: self._add(function, on_stack=function, **metadata)

    def _add(self, function: Any, *, kinds: Iterable[str] = (), **metadata: Any) -> Rule:
        rule = Rule(
            name=re.sub("_+", "-", function.__name__),
            concern=self.name,
            kinds=frozenset(kinds),
            **{"config": {}, **metadata},
        )
        self.rules.append(rule)
        return rule


def unique(rules: Iterable[Rule]) -> list[Rule]:
    """The rules, of which no two have the same name.

    Raises:
        ValueError: two have.
    """
    found: dict[str, Rule] = {}
    for rule in rules:
        if rule.name in found:
            raise ValueError(f"two rules are called {rule.name}")
        found[rule.name] = rule
    return list(found.values())
