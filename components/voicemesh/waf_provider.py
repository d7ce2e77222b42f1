"""How the proxies of a gateway ask its web application firewall: a part of the mesh's settings."""

from dataclasses import dataclass
from typing import Any, Final

from voicemesh import contract
from voicemesh.arguments import Faults

WAF: Final = "waf"
"""Name of the firewall's Service, of its account and of its label."""
WAF_PORT: Final = 9191

MAX_BODY_KIB: Final = 900
"""Proxies buffer no more than 1 MiB of a request."""


@dataclass(frozen=True)
class WafProvider:
    """The firewall of a gateway, as the proxies see it: how long they wait, what they show it."""

    namespace: str = contract.GATEWAY_NAMESPACE
    """Namespace of the gateway, where the firewall's pods are."""

    fail_open: bool = False
    """What becomes of requests while the firewall does not answer: by default they get 503, since
    whoever could overload it would else have got around it. True where an hour without speech
    costs more than one without rules."""

    timeout_milliseconds: int = 2000
    """After this long without an answer, `fail_open` decides. Answers take a few milliseconds:
    only pods without a core to run on, or a node that is lost, make requests wait."""

    max_body_kib: int = 512
    """Largest body of JSON, in KiB, at most 900; a larger one is refused with 413. Of an upload of
    audio, proxies hold back this much until the firewall has answered, and stream the rest."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes a body that is larger than what proxies buffer."""
        faults.dns_label(f"{path}.namespace", self.namespace)
        faults.whole_number(1, f"{path}.timeout_milliseconds", self.timeout_milliseconds)
        faults.whole_number(1, f"{path}.max_body_kib", self.max_body_kib)
        fits = not isinstance(self.max_body_kib, int) or self.max_body_kib <= MAX_BODY_KIB
        faults.require(fits, f"{path}.max_body_kib", self.max_body_kib, f"at most {MAX_BODY_KIB}")


def provider_name(namespace: str) -> str:
    """Name by which a policy of the gateway in this namespace refers to its firewall."""
    return f"voicemesh-{WAF}-{namespace}"


def extension_provider(waf: WafProvider) -> dict[str, Any]:
    """An entry of the mesh's extension providers.

    A part of the body is shown where not all of it fits: so an upload streams on after the first
    part, and the firewall itself refuses JSON of which it would not see the end.
    https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/
    """
    return {
        "name": provider_name(waf.namespace),
        "envoyExtAuthzGrpc": {
            "service": f"{WAF}.{waf.namespace}.svc.cluster.local",
            "port": WAF_PORT,
            "timeout": f"{waf.timeout_milliseconds / 1000:g}s",
            "failOpen": waf.fail_open,
            "statusOnError": "503",
            "includeRequestBodyInCheck": {
                "maxRequestBytes": waf.max_body_kib * 1024,
                "allowPartialMessage": True,
                "packAsBytes": True,
            },
        },
    }
