"""Checks the program of a stack with a policy pack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from google.protobuf import struct_pb2
from pulumi.runtime.proto import analyzer_pb2

from voicemesh.policy.charts import Charts, Unchecked
from voicemesh.policy.errors import ConfigurationError
from voicemesh.policy.monitor import Notes, Surroundings
from voicemesh.policy.pack import Level, Pack, Settings, Violation, read_settings, started
from voicemesh.policy.program import run_program
from voicemesh.policy.project import Project, StackConfiguration, mapping_of
from voicemesh.policy.resources import struct
from voicemesh.urns import STACK_TYPE, child_urn

_GATE_FILE: Final = "gate.yaml"
_SECTIONS: Final = ("config", "outputs", "invokes")


@dataclass(frozen=True)
class StandIns:
    """What takes a deployment, in a project's own words: the file `gate.yaml` of a pack's folder."""

    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Configuration by stack and path, where a stack's file lacks it before deployment."""
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Outputs of stacks that programs refer to, by the names that they use."""
    invokes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Results of provider functions, by token."""

    @classmethod
    def of_pack(cls, folder: Path) -> StandIns:
        """What the file says; nothing where there is none.

        Raises:
            ConfigurationError: it has other sections, or sections that are no mappings.
        """
        file = folder / _GATE_FILE
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

    def settings_of(self, stack: str) -> Settings:
        """The pack's configuration for a stack: `config/<stack>.json` in its folder, if any.

        Raises:
            ConfigurationError: the file is faulty.
        """
        file = self.pack / "config" / f"{stack}.json"
        return read_settings(file) if file.is_file() else {}


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
        return any(violation.level is Level.MANDATORY for violation in self.violations)


def check(project: Project, stack: str, gate: Gate) -> Verdict:
    """The pack's verdict on a stack.

    Raises:
        GateError: there is none; see `voicemesh.policy.errors`.
    """
    configuration = _configuration(project, stack, StandIns.of_pack(gate.pack))
    with started(gate.pack, project.working_directory) as pack, ThreadPoolExecutor(1) as analysis:
        pack.configure(stack, project.name, configuration, gate.settings_of(stack))
        found: list[Future[list[Violation]]] = []

        def judge(resource: analyzer_pb2.AnalyzerResource) -> None:
            found.append(analysis.submit(pack.analyze, resource))

        notes = declarations(project, stack, gate, judge)
        rendered, unchecked = gate.charts.render(notes.resources, notes.remote_components)
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
            tuple(violations),
            (*unchecked, *_unknown_stacks(notes)),
        )


def declarations(
    project: Project, stack: str, gate: Gate, declare: Any = lambda _: None, *, within: Any = ()
) -> Notes:
    """Everything that the program of a stack declares, without any policy.

    Args:
        declare: called with each resource as soon as it is declared.
        within: stacks whose programs are running, and wait for this one's outputs.

    Raises:
        GateError: the program failed; see `voicemesh.policy.errors`.
    """
    stand_ins = StandIns.of_pack(gate.pack)
    configuration = _configuration(project, stack, stand_ins)

    def outputs_of(name: str) -> struct_pb2.Struct | None:
        given = stand_ins.outputs.get(name, {})
        *_, owner_project, owner = [project.name, *name.split("/")]
        running = (*within, stack)
        if owner_project != project.name or owner not in project.stacks() or owner in running:
            return struct(given) if given else None
        outputs = declarations(project, owner, gate, within=running).stack_outputs
        outputs.update(given)
        return outputs

    surroundings = Surroundings(
        project.name, stack, configuration.values, outputs_of, stand_ins.invokes
    )
    return run_program(project, configuration, surroundings, declare)


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


def _unknown_stacks(notes: Notes) -> list[Unchecked]:
    return [
        Unchecked(
            name,
            "its outputs are not known here, so what depends on them is not; give them in the "
            f"pack's {_GATE_FILE}, under outputs",
        )
        for name in dict.fromkeys(notes.unknown_stacks)
    ]


def _title(pack: Pack) -> str:
    return f"{pack.info.name} {pack.version}".strip()


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)
