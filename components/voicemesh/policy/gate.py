"""Checks the program of a stack with a policy pack."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from google.protobuf import struct_pb2
from pulumi.runtime.proto import analyzer_pb2

from voicemesh.policy.charts import Charts, Unchecked, is_chart
from voicemesh.policy.errors import ConfigurationError
from voicemesh.policy.monitor import Notes, Surroundings
from voicemesh.policy.pack import Level, Pack, Settings, Violation, read_settings, started
from voicemesh.policy.program import run_program
from voicemesh.policy.project import Project, StackConfiguration, mapping_of, opened
from voicemesh.policy.resources import secret, struct
from voicemesh.urns import STACK_TYPE, child_urn

_FOLDER: Final = "policies"
"""Where a project keeps what concerns policies: `gate.yaml`, and `config/<stack>.json`."""
_GATE_FILE: Final = f"{_FOLDER}/gate.yaml"
_SECTIONS: Final = ("config", "outputs", "invokes")


_Rendered = list[analyzer_pb2.AnalyzerResource] | Unchecked


@dataclass(frozen=True)
class StandIns:
    """What takes a deployment, as a project describes it: `policies/gate.yaml` in its folder."""

    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Configuration by stack and path, where a stack's file lacks it before deployment."""
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Outputs of stacks that programs refer to, by the names that they use: all of a stack of
    another project, and what a preview of another stack of this project leaves unknown."""
    invokes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Results of provider functions, by token."""

    @classmethod
    def of_project(cls, project: Project) -> StandIns:
        """What the file says; nothing where there is none.

        Raises:
            ConfigurationError: it has other sections, or sections that are no mappings.
        """
        file = project.folder / _GATE_FILE
        content = mapping_of(file) if file.is_file() else {}
        for section, entries in content.items():
            if section not in _SECTIONS:
                known = ", ".join(_SECTIONS)
                raise ConfigurationError(f"{file}: {section}: unknown key; known ones are {known}")
            if not isinstance(entries, dict) or not all(map(_is_mapping, entries.values())):
                raise ConfigurationError(f"{file}: {section}: allowed: a mapping of mappings")
        return cls(**content)


@dataclass(frozen=True)
class Gate:
    """How programs are checked."""

    pack: Path
    """Folder of the policy pack."""
    charts: Charts = field(default_factory=Charts)


@dataclass(frozen=True)
class Verdict:
    """What a policy pack says of a stack."""

    stack: str
    file: Path
    """The stack's configuration file."""
    pack: str
    """Name of the pack, with its version."""
    policies: tuple[analyzer_pb2.PolicyInfo, ...]
    """Those that were not disabled."""
    resources: tuple[str, ...]
    """URNs of what was checked, manifests of charts included."""
    violations: tuple[Violation, ...]
    unchecked: tuple[Unchecked, ...]

    @property
    def refused(self) -> bool:
        """Whether a mandatory policy is violated."""
        return refuses(self.violations)


def refuses(violations: Iterable[Violation]) -> bool:
    """Whether one of the violations is of a mandatory policy."""
    return any(violation.level is Level.MANDATORY for violation in violations)


def check(project: Project, stack: str, gate: Gate) -> Verdict:
    """The pack's verdict on a stack.

    Raises:
        GateError: there is none; see `voicemesh.policy.errors`.
    """
    configuration = _configuration(project, stack, StandIns.of_project(project))
    settings = settings_of(project, stack)
    found: list[Future[list[Violation]]] = []
    charts: list[Future[_Rendered]] = []
    # The program takes the longest: the pack starts and judges beside it, and charts are rendered.
    with (
        ExitStack() as packs,
        ThreadPoolExecutor(1) as analysis,
        ThreadPoolExecutor(os.cpu_count()) as renderers,
    ):

        def start() -> Pack:
            pack = packs.enter_context(started(gate.pack, project.working_directory))
            pack.configure(stack, project.name, configuration, settings)
            return pack

        starting = analysis.submit(start)

        def judge(resource: analyzer_pb2.AnalyzerResource) -> None:
            found.append(analysis.submit(lambda: starting.result().analyze(resource)))
            if is_chart(resource):
                charts.append(renderers.submit(gate.charts.render, resource))

        notes = declarations(project, stack, gate, judge)
        pack = starting.result()
        rendered, unchecked = _sorted(chart.result() for chart in charts)
        for manifest in rendered:
            judge(manifest)
        resources = [*_settled(notes), *rendered]
        root = child_urn(stack, project.name, "", STACK_TYPE, f"{project.name}-{stack}")
        violations = [violation for future in found for violation in future.result()]
        violations += pack.analyze_stack(resources, root)
        return Verdict(
            stack,
            project.file_of(stack),
            _title(pack),
            tuple(pack.enforced),
            tuple(resource.urn for resource in resources),
            # In one order, whatever the order was in which the program declared its resources.
            tuple(sorted(violations, key=lambda it: (it.urn, it.policy, it.message))),
            tuple(sorted([*_opaque(notes), *unchecked, *_unknown_stacks(notes)])),
        )


def settings_of(project: Project, stack: str) -> Settings:
    """A stack's configuration of the pack: `policies/config/<stack>.json`, if it is there.

    Raises:
        ConfigurationError: the file is faulty.
    """
    file = project.folder / _FOLDER / "config" / f"{stack}.json"
    return read_settings(file) if file.is_file() else {}


def declarations(
    project: Project,
    stack: str,
    gate: Gate,
    declare: Callable[[analyzer_pb2.AnalyzerResource], None] = lambda _: None,
    *,
    within: tuple[str, ...] = (),
) -> Notes:
    """Everything that the program of a stack declares, without any policy.

    A stack of the same project that the program refers to has the outputs of a preview of its own.

    Args:
        declare: called with each resource as soon as it is declared.
        within: stacks whose programs wait for this one's outputs.

    Raises:
        GateError: the program failed; see `voicemesh.policy.errors`.
    """
    stand_ins = StandIns.of_project(project)
    configuration = _configuration(project, stack, stand_ins)
    others = frozenset(project.stacks()) - {stack, *within}

    @cache
    def preview(owner: str) -> Future[struct_pb2.Struct]:
        return previews.submit(
            lambda: declarations(project, owner, gate, within=(*within, stack)).stack_outputs
        )

    def outputs_of(name: str) -> struct_pb2.Struct | None:
        outputs = struct(opened(stand_ins.outputs.get(name, {}), secret))
        owner = _owner(name, project.name)
        if owner not in others:
            return outputs if outputs.fields else None
        known = struct_pb2.Struct()
        known.CopyFrom(preview(owner).result())
        known.MergeFrom(outputs)
        return known

    surroundings = Surroundings(
        project.name, stack, configuration.values, outputs_of, stand_ins.invokes
    )
    with ThreadPoolExecutor() as previews:
        # Those that the configuration names are run beside it: the program will ask for them.
        for owner in others & {_owner(text, project.name) for text in configuration.texts()}:
            preview(owner)
        return run_program(project, configuration, surroundings, declare)


def _owner(name: str, project: str) -> str:
    """The stack of the project that a stack's full name means; empty for one of another project."""
    *_, its_project, stack = [project, *name.split("/")]
    return stack if its_project == project else ""


def _configuration(project: Project, stack: str, stand_ins: StandIns) -> StackConfiguration:
    return project.configuration_of(stack, stand_ins.config.get(stack))


def _settled(notes: Notes) -> Iterable[analyzer_pb2.AnalyzerResource]:
    """All resources as they are at the end: components with what they registered as outputs."""
    for resource in notes.resources:
        outputs = notes.component_outputs.get(resource.urn)
        if outputs is not None:
            settled = analyzer_pb2.AnalyzerResource()
            settled.CopyFrom(resource)
            settled.properties.CopyFrom(outputs)
            yield settled
        else:
            yield resource


def _sorted(
    results: Iterable[_Rendered],
) -> tuple[list[analyzer_pb2.AnalyzerResource], list[Unchecked]]:
    """The manifests of the charts that were rendered, and the other charts."""
    rendered: list[analyzer_pb2.AnalyzerResource] = []
    unchecked: list[Unchecked] = []
    for result in results:
        if isinstance(result, Unchecked):
            unchecked.append(result)
        else:
            rendered += result
    return rendered, unchecked


def _opaque(notes: Notes) -> list[Unchecked]:
    charts = {resource.urn for resource in notes.resources if is_chart(resource)}
    return [
        Unchecked(urn, "a provider makes its children")
        for urn in sorted({*notes.remote_components} - charts)
    ]


def _unknown_stacks(notes: Notes) -> list[Unchecked]:
    return [
        Unchecked(
            name,
            "its outputs are not known here, so what depends on them is not; give them in "
            f"{_GATE_FILE}, under outputs",
        )
        for name in dict.fromkeys(notes.unknown_stacks)
    ]


def _title(pack: Pack) -> str:
    return f"{pack.info.name} {pack.version}".strip()


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)
