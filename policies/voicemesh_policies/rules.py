"""All rules of the pack."""

from __future__ import annotations

from typing import Final

from voicemesh_policies import aws, gpu, mesh, stack, workloads
from voicemesh_policies.rule import Rule, unique

ALL: Final[list[Rule]] = unique(
    rule for module in (workloads, gpu, mesh, aws, stack) for rule in module.CONCERN.rules
)
