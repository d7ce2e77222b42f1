"""Each snippet of the article is refused for what is wrong with it, and passes once it is mended.

`tests/e2e/test_article_snippets.py` shows on a cluster that they fail for these reasons.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest
import yaml

from tests.policies.recorded import RULES, judged
from tests.stacks import ROOT
from voicemesh_policies.objects import Resource

FOLDER: Final = ROOT / "tests" / "seed_snippets"
NAMESPACE: Final = "lab-article"
HOST: Final = f"glm-tts.{NAMESPACE}.svc.cluster.local"
FILLED: Final = {
    "issuer": "https://auth.example.com",
    "keys": "https://auth.example.com/.well-known/jwks.json",
    "image": "localhost/voicemesh/speech-server:0.1.0",
}


def snippet(name: str) -> Resource:
    text = (FOLDER / f"{name}.yaml").read_text()
    return declared(name, yaml.safe_load(string.Template(text).substitute(FILLED)))


def declared(name: str, manifest: Any) -> Resource:
    """What Pulumi makes of a manifest."""
    manifest["metadata"]["namespace"] = NAMESPACE
    group = (
        manifest["apiVersion"]
        if "/" in manifest["apiVersion"]
        else f"core/{manifest['apiVersion']}"
    )
    type_ = f"kubernetes:{group}:{manifest['kind']}"
    return Resource(type_, name, f"urn:pulumi:lab::lab::{type_}::{name}", lambda: manifest)


def service() -> list[Resource]:
    """The article's service with its two versions, and three pods in all."""
    versions = {"stable": "1.0", "experimental": "2.0-beta", "vip": "1.0-vip"}
    return [
        declared(
            "glm-tts",
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "glm-tts"},
                "spec": {"selector": {"app": "glm-tts"}},
            },
        ),
        *(
            declared(
                pod,
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "metadata": {"name": f"glm-tts-{pod}"},
                    "spec": {
                        "template": {
                            "metadata": {"labels": {"app": "glm-tts", "version": version}},
                            "spec": {"containers": []},
                        }
                    },
                },
            )
            for pod, version in versions.items()
        ),
    ]


@dataclass(frozen=True)
class Refusal:
    """Why a snippet is refused, and how it is mended.

    Attributes:
        beside: the other snippet that the article applies to the same stack.
    """

    snippet: str
    rule: str
    says: Sequence[str]
    mend: Callable[[Any], Any]
    beside: str = ""


def _set(*path: str | int, to: Any) -> Callable[[Any], None]:
    def mend(manifest: Any) -> None:
        target = manifest
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = to

    return mend


def _without(*path: str | int) -> Callable[[Any], None]:
    def mend(manifest: Any) -> None:
        target = manifest
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]

    return mend


_TYPED: Final = ("spec", "configPatches", 0, "patch", "value", "typed_config")
REFUSALS: Final = [
    Refusal(
        "batch-affinity",
        "istio-fields-exist",
        ["spec.subsets[0].trafficPolicy.nodeAffinity"],
        _without("spec", "subsets", 0, "trafficPolicy"),
    ),
    Refusal(
        "batch-labels",
        "jobs-get-no-requests",
        ["spec.template.metadata.labels", "glm-tts"],
        _set("spec", "template", "metadata", "labels", "app", to="glm-tts-batch"),
    ),
    Refusal(
        "ejection-misspelt",
        "istio-fields-exist",
        ["outlierDetection.consecutive_5xx is 3"],
        _without("spec", "trafficPolicy", "outlierDetection", "consecutive_5xx"),
    ),
    Refusal(
        "ejection-without-host",
        "istio-values-fit",
        ["spec.host is missing", "is required"],
        _set("spec", "host", to=HOST),
    ),
    Refusal(
        "ejection-without-percentage",
        "one-pod-can-be-ejected",
        ["outlierDetection.maxEjectionPercent is missing", "none of 3 pods"],
        _set("spec", "trafficPolicy", "outlierDetection", "maxEjectionPercent", to=34),
    ),
    Refusal(
        "experiment",
        "one-owner-routes-a-host",
        ["spec.hosts[0]", HOST, "weights"],
        _set("spec", "hosts", to=[f"experiment.{NAMESPACE}.svc.cluster.local"]),
        beside="weights",
    ),
    Refusal(
        "filter-flush",
        "envoy-fields-exist",
        ["flush_interval", '"10ms"'],
        _without(*_TYPED, "flush_interval"),
    ),
    Refusal(
        "filter-flush",
        "filters-let-streams-finish",
        ["stream_idle_timeout", '"2s"'],
        _without(*_TYPED, "stream_idle_timeout"),
    ),
    Refusal(
        "filter-flush",
        "filters-are-for-named-pods",
        ["spec.workloadSelector is missing"],
        _set("spec", "workloadSelector", to={"labels": {"app": "glm-tts"}}),
    ),
    Refusal(
        "filter-version",
        "istio-version-is-served",
        ["networking.istio.io/v1beta1", "v1alpha3"],
        _set("apiVersion", to="networking.istio.io/v1alpha3"),
    ),
    Refusal(
        "one-request-per-connection",
        "connections-are-used-again",
        ["connectionPool.http.maxRequestsPerConnection is 1"],
        _set("spec", "trafficPolicy", "connectionPool", to={"http": {"http2MaxRequests": 64}}),
    ),
    Refusal(
        "scopes",
        "scopes-fit-their-paths",
        ["spec.rules[0].to[0].operation.paths[1]", '"/batch"', "tts.basic"],
        _set("spec", "rules", 0, "to", 0, "operation", "paths", to=["/tts"]),
    ),
    Refusal(
        "subsets",
        "subsets-have-pods",
        ["spec.subsets[1].labels", '"accelerator": "h100"'],
        _without("spec", "subsets", 1, "labels", "accelerator"),
    ),
    Refusal(
        "tier-by-header",
        "identity-headers-do-not-route",
        ["headers.x-user-tier", '"vip"'],
        _set(
            *("spec", "http", 0, "match"),
            to=[{"headers": {"@request.auth.claims.tier": {"exact": "vip"}}}],
        ),
    ),
    Refusal(
        "token",
        "tokens-are-required",
        ["spec.selector", "without a token"],
        # A policy for the same pods would mend it as well; here nothing is verified any more.
        _without("spec", "jwtRules"),
    ),
    Refusal(
        "token",
        "tokens-name-their-audience",
        ["spec.jwtRules[0].audiences is missing"],
        _set("spec", "jwtRules", 0, "audiences", to=["voicemesh"]),
    ),
    Refusal(
        "weights",
        "routes-name-their-gateways",
        ["spec.gateways is missing"],
        _set("spec", "gateways", to=["mesh"]),
    ),
]
each_refusal = pytest.mark.parametrize(
    "refusal", REFUSALS, ids=lambda it: f"{it.snippet}-{it.rule}"
)


def said(refusal: Refusal, resource: Resource) -> list[str]:
    beside = [snippet(refusal.beside)] if refusal.beside else []
    return judged(RULES.values(), [resource, *beside, *service()], {}).get(refusal.rule, [])


def test_every_snippet_is_refused() -> None:
    assert {it.snippet for it in REFUSALS} == {path.stem for path in FOLDER.glob("*.yaml")}


@each_refusal
def test_a_snippet_is_refused_for_what_is_wrong_with_it(refusal: Refusal) -> None:
    messages = said(refusal, snippet(refusal.snippet))
    assert any(all(part in message for part in refusal.says) for message in messages), messages


@each_refusal
def test_a_mended_snippet_is_no_longer_refused_for_it(refusal: Refusal) -> None:
    mended = snippet(refusal.snippet)
    manifest = mended.load()
    refusal.mend(manifest)
    assert not [
        message
        for message in said(refusal, declared(mended.name, manifest))
        if all(part in message for part in refusal.says)
    ]


def test_a_policy_that_denies_requests_without_a_token_mends_the_token() -> None:
    denial = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "no-token"},
        "spec": {
            "selector": {"matchLabels": {"app": "glm-tts"}},
            "action": "DENY",
            "rules": [{"from": [{"source": {"notRequestPrincipals": ["*"]}}]}],
        },
    }
    resources = [snippet("token"), declared("no-token", denial), *service()]
    assert "tokens-are-required" not in judged(RULES.values(), resources, {})
