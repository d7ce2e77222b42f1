"""What a policy pack says, by the gate and by Pulumi's engine, in one form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from voicemesh.policy.gate import Verdict

Key = tuple[str, str]
"""URN and policy."""
Said = tuple[str, str, str]
"""Level, severity and message."""
Verdicts = dict[Key, list[Said]]


def of_gate(verdict: Verdict) -> Verdicts:
    """What a pack says by the gate."""
    return _sorted(
        ((v.urn, v.policy), (v.level, v.severity, v.message)) for v in verdict.violations
    )


def of_engine(event_log: Path) -> Verdicts:
    """What packs say by the engine, from the events of a preview that came to its end."""
    events = [json.loads(line) for line in event_log.read_text().splitlines()]
    assert any("summaryEvent" in event for event in events), "the preview broke off"
    return _sorted(_as_gate_says(e["policyEvent"]) for e in events if "policyEvent" in e)


def _as_gate_says(event: Mapping[str, Any]) -> tuple[Key, Said]:
    description, _, said = event["message"].strip().partition("\n")
    message = (said or description).partition(" Fix: ")[0].strip()
    severity = event.get("severity") or "unspecified"
    return (
        (event["resourceUrn"], event["policyName"]),
        (event["enforcementLevel"], severity, message),
    )


def _sorted(verdicts: Iterable[tuple[Key, Said]]) -> Verdicts:
    found: Verdicts = {}
    for key, said in verdicts:
        found.setdefault(key, []).append(said)
    return {key: sorted(said) for key, said in found.items()}
