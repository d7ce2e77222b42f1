"""How many requests a tenant may make, and how the gateway asks whether one more is too many.

A filter of the gateway's proxies asks envoyproxy/ratelimit (`quota_service`) about each request,
with the tenant that the verified token names. It counts in fixed windows that begin at whole units
of UTC. https://github.com/envoyproxy/ratelimit
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from voicemesh import contract
from voicemesh.arguments import Faults
from voicemesh.gateway.authentication import OPEN_PATHS
from voicemesh.istio.specs import EnvoyFilterSpec
from voicemesh.refusals import answer_with
from voicemesh.sizes import ComputeSize

RATELIMIT: Final = "ratelimit"
"""Name of the service that counts, of its account and of its label."""
RATELIMIT_PORT: Final = 8081
DOMAIN: Final = "voicemesh"
"""The service keeps limits of several askers apart by this name."""

NO_TENANT: Final = "(none)"
"""Stands for the tenant of a token without the claim. No tenant can be named so."""

_KIND: Final = "kind"
_REQUEST: Final = "request"
_TENANT: Final = "tenant"
_MAX_REQUESTS: Final = 2**32 - 1
_JWT_METADATA: Final = "envoy.filters.http.jwt_authn"
_FILTER: Final = "envoy.filters.http.ratelimit"
_FILTER_TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit"
_BEFORE_THE_ROUTER: Final = {
    "filter": {
        "name": "envoy.filters.network.http_connection_manager",
        "subFilter": {"name": "envoy.filters.http.router"},
    }
}
_RESET_HEADER: Final = "x-ratelimit-reset"


class QuotaUnit(StrEnum):
    """The time after which a tenant's requests are counted from zero again."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


class WhenUnavailable(StrEnum):
    """What becomes of requests that nobody can count."""

    ALLOW = "allow"
    """They are served: an outage of the counter costs tenants nothing."""

    DENY = "deny"
    """They are answered with 503: nobody ever has more than its quota."""


@dataclass(frozen=True)
class RequestQuota:
    """Requests that each tenant may make at the gateway in a unit of time.

    Further ones are answered with 429 and `Retry-After`. The page, health and CORS preflight do not
    count. All of the gateway's pods count together, in one Redis without persistence.
    """

    requests: int
    """Requests per unit of each tenant that `tenants` does not name; 1 to 4294967295."""

    unit: QuotaUnit = QuotaUnit.MINUTE
    """The unit. It begins at a whole second, minute, hour or day of UTC: within a unit's time
    across such a boundary, a tenant may make twice as many."""

    tenants: Mapping[str, int] = field(default_factory=dict)
    """Requests per unit of certain tenants, by their names in the claim `tenant`."""

    requests_without_tenant: int | None = None
    """Requests per unit of all tokens together that have no claim `tenant`; by default a tenth of
    `requests`, at least 1."""

    when_unavailable: WhenUnavailable = WhenUnavailable.ALLOW
    """What becomes of requests while Redis or the service that counts is down. The quota keeps
    tenants from each other's share; what protects the voices from overload are limits of their own,
    which hold on. `DENY` where a quota is a promise to somebody, a budget for instance."""

    timeout_seconds: float = 0.5
    """A request that has waited this long for its answer counts as one that nobody can count. The
    answer takes a millisecond or two. While Redis is down, some requests wait so long: proxies do
    not ask pods that know to have lost it."""

    ratelimit_image: str = "docker.io/envoyproxy/ratelimit:3fb70258"
    """Image of envoyproxy/ratelimit, which releases commits only."""

    redis_image: str = "docker.io/valkey/valkey:8.1.4"
    """Image of Redis or Valkey whose entry point takes the server's options."""

    replicas: int = 2
    """Pods of the service that counts."""

    ratelimit: ComputeSize = field(default_factory=lambda: ComputeSize(0.1, 0.125))
    """What each pod of the service that counts requests; its memory is its limit."""

    redis: ComputeSize = field(default_factory=lambda: ComputeSize(0.1, 0.125))
    """What Redis requests; its memory is its limit. A counter takes about 100 bytes."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes limits that cannot be counted, and tenants that no claim can name."""
        self._check_requests(faults, f"{path}.requests", self.requests)
        if self.requests_without_tenant is not None:
            here = f"{path}.requests_without_tenant"
            self._check_requests(faults, here, self.requests_without_tenant)
        for tenant, requests in self.tenants.items():
            faults.dns_label(f"{path}.tenants", tenant)
            self._check_requests(faults, f"{path}.tenants[{tenant}]", requests)
        for name, kind in (("unit", QuotaUnit), ("when_unavailable", WhenUnavailable)):
            value = getattr(self, name)
            choices = ", ".join(f"{kind.__name__}.{choice.name}" for choice in kind)
            faults.require(isinstance(value, kind), f"{path}.{name}", value, choices)
        faults.at_least(0.001, f"{path}.timeout_seconds", self.timeout_seconds)
        faults.whole_number(1, f"{path}.replicas", self.replicas)
        self.ratelimit.check(faults, f"{path}.ratelimit")
        self.redis.check(faults, f"{path}.redis")

    def _check_requests(self, faults: Faults, path: str, requests: int) -> None:
        faults.whole_number(1, path, requests)
        too_many = isinstance(requests, int) and requests > _MAX_REQUESTS
        faults.require(not too_many, path, requests, f"at most {_MAX_REQUESTS}")


def limits(quota: RequestQuota) -> str:
    """The configuration of envoyproxy/ratelimit: JSON, which its YAML includes."""
    without_tenant = quota.requests_without_tenant or max(1, quota.requests // 10)
    named = {NO_TENANT: without_tenant, **quota.tenants}
    tenants = [
        {"key": _TENANT, "rate_limit": _limit(quota, quota.requests)},
        *(
            {"key": _TENANT, "value": tenant, "rate_limit": _limit(quota, requests)}
            for tenant, requests in sorted(named.items())
        ),
    ]
    kinds = [{"key": _KIND, "value": _REQUEST, "descriptors": tenants}]
    return json.dumps({"domain": DOMAIN, "descriptors": kinds}, indent=2) + "\n"


def _limit(quota: RequestQuota, requests: int) -> dict[str, Any]:
    return {"unit": quota.unit.value, "requests_per_unit": requests}


def quota_filter(gateway: str, namespace: str, quota: RequestQuota) -> EnvoyFilterSpec:
    """What the gateway's proxies do besides what istiod makes of the mesh's resources.

    The filter comes right before the router: CORS preflight is answered by then, and a refusal
    gets the headers that let a page read it.
    """
    return {
        "workloadSelector": {"labels": {"istio": gateway}},
        "configPatches": [
            {
                "applyTo": "HTTP_FILTER",
                "match": {"context": "GATEWAY", "listener": {"filterChain": _BEFORE_THE_ROUTER}},
                "patch": {
                    "operation": "INSERT_BEFORE",
                    "value": {"name": _FILTER, "typed_config": _ask(namespace, quota)},
                },
            },
            answer_with("GATEWAY", [_refusal()]),
        ],
    }


def _ask(namespace: str, quota: RequestQuota) -> dict[str, Any]:
    """https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/rate_limit_filter"""
    host = f"{RATELIMIT}.{namespace}.svc.cluster.local"
    return {
        "@type": _FILTER_TYPE,
        "domain": DOMAIN,
        "timeout": f"{quota.timeout_seconds:g}s",
        "failure_mode_deny": quota.when_unavailable is WhenUnavailable.DENY,
        "status_on_error": {"code": "ServiceUnavailable"},
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        "rate_limit_service": {
            "transport_api_version": "V3",
            "grpc_service": {
                "envoy_grpc": {
                    "cluster_name": f"outbound|{RATELIMIT_PORT}||{host}",
                    "authority": host,
                }
            },
        },
        "rate_limits": [{"actions": [_what_counts(), _tenant()]}],
    }


def _what_counts() -> dict[str, Any]:
    free = "|".join(re.escape(path) for path in OPEN_PATHS)
    return {
        "header_value_match": {
            "descriptor_key": _KIND,
            "descriptor_value": _REQUEST,
            "headers": [
                {"name": ":method", "string_match": {"exact": "OPTIONS"}, "invert_match": True},
                {
                    "name": ":path",
                    "string_match": {"safe_regex": {"regex": rf"({free})(\?.*)?"}},
                    "invert_match": True,
                },
            ],
        }
    }


def _tenant() -> dict[str, Any]:
    """The verified claim: what a client says of itself in a header is not looked at."""
    return {
        "metadata": {
            "descriptor_key": _TENANT,
            "metadata_key": {
                "key": _JWT_METADATA,
                "path": [{"key": "payload"}, {"key": contract.TENANT_CLAIM}],
            },
            "source": "DYNAMIC",
            "default_value": NO_TENANT,
        }
    }


def _refusal() -> dict[str, Any]:
    """The form of 429s that the proxy itself answers with; those of voices have it already."""
    message = "The quota of requests is used up; wait as long as Retry-After says."
    error = {"message": message, "type": "rate_limit_error", "param": None}
    body = json.dumps({"error": {**error, "code": "rate_limit_exceeded"}})
    is_429 = {"op": "EQ", "value": {"default_value": 429, "runtime_key": "voicemesh.quota_status"}}
    seconds = {"key": "retry-after", "value": f"%RESPONSE_HEADER({_RESET_HEADER})%"}
    return {
        "filter": {"status_code_filter": {"comparison": is_429}},
        "headers_to_add": [{"header": seconds, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
        "body_format_override": {
            # As text, since a null in an object would not reach the API server.
            "text_format_source": {"inline_string": body},
            "content_type": "application/json",
        },
    }
