"""Who may call a voice."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from voicemesh import contract
from voicemesh.arguments import PRINCIPAL, Faults


@dataclass(frozen=True)
class VoiceAccess:
    """Who may call a voice, and what their tokens must allow.

    Paths at the voice: `speech_scopes` are for `/v1/audio/speech`, `/v1/audio/speech/stream` and
    `/tts`, `voices_scopes` for `/v1/audio/voices`, `batch_scopes` for `/batch` and `admin_scopes`
    for `/admin`, each with what is below. One of the scopes is enough; without any, nobody may call
    these paths through the gateway.
    """

    tenants: Sequence[str] = ()
    """Tenants, by the claim `tenant` of tokens, that may call through the gateway; none for any."""

    callers: Sequence[pulumi.Input[str]] = ()
    """Identities of workloads in the mesh, as in `cluster.local/ns/studio/sa/editor`, that may call
    directly and without a token, on all paths. Their tenant is their namespace."""

    speech_scopes: Sequence[str] = (contract.BASIC_SCOPE, contract.PREMIUM_SCOPE)
    """Scopes of those that may have text spoken. The server lets none but `tts.premium` speak with
    reference voices, since the voice is named in the body."""

    voices_scopes: Sequence[str] = (contract.PREMIUM_SCOPE,)
    """Scopes of those that may manage reference voices."""

    batch_scopes: Sequence[str] = (contract.BATCH_SCOPE,)
    """Scopes of those that may submit work for later."""

    admin_scopes: Sequence[str] = (contract.ADMIN_SCOPE,)
    """Scopes of those that may administer the voice."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes identities that no certificate of the mesh has, and names that are empty."""
        allowed = "an identity as in 'cluster.local/ns/studio/sa/editor'"
        for index, caller in enumerate(self.callers):
            faults.matches(PRINCIPAL, f"{path}.callers[{index}]", caller, allowed)
        for name in (
            "tenants",
            "speech_scopes",
            "voices_scopes",
            "batch_scopes",
            "admin_scopes",
        ):
            for index, value in enumerate(getattr(self, name)):
                given = isinstance(value, str) and bool(value) and not set(value) & set(" *")
                allowed = "a name without blanks and wildcards"
                faults.require(given, f"{path}.{name}[{index}]", value, allowed)
