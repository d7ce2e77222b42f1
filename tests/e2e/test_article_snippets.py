"""Why the components do not write what the article shows: each of its snippets is seen to fail.

`tests/seed_snippets/` has the least of each that fails alike, with a word on what is wrong with it.
The same checks pass once that is mended.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import kubernetes.client
import pytest
import yaml

from infra.local import images, tokens
from infra.local.topology import SYSTEM
from tests.e2e.environment import eventually
from tests.e2e.lab import (
    GATEWAY,
    HTTP_NODE_PORT,
    Caller,
    Lab,
    Proxy,
    Upstream,
    asking,
    caller_pod,
)
from tests.e2e.load import Answer
from tests.e2e.rendered import Object
from tests.e2e.submission import own_namespace, refusal, submitted, withdrawn
from voicemesh.contract import BATCH_PATH, BATCH_SCOPE, HTTP_PORT, TIER_HEADER, TTS_PATH
from voicemesh.issuers import KeySource, TokenIssuer
from voicemesh.revisions import INJECTION_LABELS

FOLDER: Final = Path(__file__).parents[1] / "seed_snippets"
NAMESPACE: Final = "lab-article"
SERVICE: Final = "glm-tts"
HOST: Final = f"{SERVICE}.{NAMESPACE}.svc.cluster.local"
PUBLIC_HOST: Final = "article.lab.voicemesh.localhost"
MARKETING: Final = "marketing"
VERSIONS: Final = {"stable": "1.0", "experimental": "2.0-beta", "vip": "1.0-vip"}


def snippet(name: str, **changes: Any) -> Object:
    """One of the snippets, with these fields of its spec changed."""
    keys = TokenIssuer(tokens.ISSUER, f"{tokens.ISSUER}{tokens.KEYS_PATH}", [tokens.AUDIENCE])
    text = string.Template((FOLDER / f"{name}.yaml").read_text()).substitute(
        issuer=tokens.ISSUER,
        keys=f"http://{KeySource.of(keys).mesh_address}{tokens.KEYS_PATH}",
        image=images.reference("scripted-upstream"),
    )
    manifest = yaml.safe_load(text)
    manifest["spec"] |= changes
    return manifest


@pytest.fixture(scope="module")
def article(lab: Lab) -> Iterator[Lab]:
    """The lab, with the article's service in a namespace of its own."""
    environment = lab.environment
    with own_namespace(environment, NAMESPACE, INJECTION_LABELS):
        for manifest in _service():
            status, told, _ = submitted(environment, manifest, NAMESPACE, "Strict", dry_run=False)
            assert status < 300, told
        for pod in (*VERSIONS, MARKETING):
            eventually(lambda pod=pod: lab.ready_pods(NAMESPACE, pod=pod), 120, f"{pod} is ready")
        yield lab


def _service() -> Iterator[Object]:
    yield {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": MARKETING},
    }
    for name, app in ((SERVICE, {"app": SERVICE}), (f"{SERVICE}-vip", {"pod": "vip"})):
        port = {"name": "http", "port": HTTP_PORT, "targetPort": HTTP_PORT}
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": app, "ports": [port]},
        }
    for pod, version in VERSIONS.items():
        labels = {"pod": pod, "app": SERVICE, "version": version}
        yield _deployment(f"{SERVICE}-{pod}", labels, images.reference("scripted-upstream"))
    caller = caller_pod("caller", MARKETING)
    yield {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"caller-{MARKETING}", "labels": {"pod": MARKETING}},
        "spec": caller["spec"],
    }
    port = {"number": 80, "name": "http", "protocol": "HTTP"}
    yield {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "article"},
        "spec": {
            "selector": {"istio": GATEWAY},
            "servers": [{"port": port, "hosts": [f"./{PUBLIC_HOST}"]}],
        },
    }


def _deployment(name: str, labels: dict[str, str], image: str) -> Object:
    container = {
        "name": "server",
        "image": image,
        "resources": {"requests": {"cpu": "5m", "memory": "32Mi"}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
            },
        },
    }


@contextmanager
def applied(lab: Lab, *manifests: Object) -> Iterator[None]:
    """For a while, there are these objects, without the fields that the API server drops."""
    with ExitStack() as stack:
        for manifest in manifests:
            status, told, _ = submitted(
                lab.environment, manifest, NAMESPACE, "Ignore", dry_run=False
            )
            assert status < 300, told
            stack.callback(withdrawn, lab.environment, manifest, NAMESPACE)
        yield


def inside(lab: Lab) -> Caller:
    """The account that the article lets call, in the mesh."""
    address = lab.core.read_namespaced_service(SERVICE, NAMESPACE).spec.cluster_ip
    caller = lab.outside(address, HTTP_PORT, f"{SERVICE}.{NAMESPACE}:{HTTP_PORT}")
    return Caller(Proxy(f"caller-{MARKETING}").network, caller.target)


def outside(lab: Lab) -> Caller:
    """A client of the gateway."""
    return lab.outside(SYSTEM.address, HTTP_NODE_PORT, PUBLIC_HOST)


def variants(answers: list[Answer]) -> Counter[str]:
    """Which variant answered how often; what failed counts by its status."""
    return Counter(it.headers.get("x-variant", str(it.status)) for it in answers)


class TestWhatTheApiServerSays:
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("ejection-without-host", "spec.host: Required value"),
            ("ejection-misspelt", "outlierDetection.consecutive_5xx"),
            ("batch-affinity", "trafficPolicy.nodeAffinity"),
        ],
    )
    def test_a_snippet_is_refused_where_validation_is_strict(
        self, article: Lab, name: str, said: str
    ) -> None:
        assert said in refusal(article.environment, snippet(name), NAMESPACE)

    def test_a_snippet_without_a_host_is_refused_even_where_it_is_not(self, article: Lab) -> None:
        manifest = snippet("ejection-without-host")
        assert "spec.host" in refusal(article.environment, manifest, NAMESPACE, "Ignore")
        manifest["spec"]["host"] = HOST
        assert refusal(article.environment, manifest, NAMESPACE) == ""

    def test_what_is_unknown_is_dropped_without_a_word_where_it_is_not(self, article: Lab) -> None:
        ejection = _created(article, snippet("ejection-misspelt"))["spec"]["trafficPolicy"]
        assert ejection["outlierDetection"] == {"interval": "30s", "baseEjectionTime": "5m"}

    def test_istio_refuses_what_is_left_of_a_policy_that_was_dropped(self, article: Lab) -> None:
        with pytest.raises(kubernetes.client.ApiException, match="at least one field"):
            _created(article, snippet("batch-affinity"))

    def test_filters_are_not_served_in_this_version(self, article: Lab) -> None:
        manifest = snippet("filter-version")
        group, version = manifest["apiVersion"].split("/")
        kind = (group, version, NAMESPACE, "envoyfilters")
        with pytest.raises(kubernetes.client.ApiException) as refused:
            article.custom.create_namespaced_custom_object(*kind, manifest, dry_run="All")
        assert refused.value.status == 404
        manifest["apiVersion"] = f"{group}/v1alpha3"
        assert refusal(article.environment, manifest, NAMESPACE) == ""

    def test_istio_only_warns_of_a_field_that_envoy_does_not_have(self, article: Lab) -> None:
        status, _, warning = submitted(
            article.environment, snippet("filter-flush"), NAMESPACE, "Strict"
        )
        assert status < 300
        assert "flush_interval" in warning


class TestRouting:
    def test_weights_without_a_gateway_do_not_hold_at_the_gateway(self, article: Lab) -> None:
        token = article.token()
        request = asking({}, token=token, count=100)
        with applied(article, snippet("weights"), _valid_subsets()):
            shared = eventually(lambda: _both(inside(article).load(request)), 30, "weights hold")
            assert shared["stable"] > shared["experimental"]
            assert outside(article).request(asking({}, token=token)).status == 404
        bound = snippet("weights", hosts=[PUBLIC_HOST], gateways=["article"])
        with applied(article, bound, _valid_subsets()):
            eventually(lambda: _both(outside(article).load(request)), 30, "weights hold outside")

    def test_a_label_of_nodes_selects_no_pod(self, article: Lab) -> None:
        for_experiment = {"x-experiment-group": "clear-voices"}
        asked = asking({}, headers=for_experiment)
        with applied(article, snippet("subsets"), snippet("experiment")):
            eventually(lambda: inside(article).request(asked).status == 503, 30, "503")
            assert "no healthy upstream" in inside(article).request(asked).text
            assert inside(article).request(asking({})).headers["x-variant"] == "stable"
            with applied(article, _valid_subsets()):
                eventually(
                    lambda: variants([inside(article).request(asked)])["experimental"], 30, "200"
                )

    def test_an_experiment_takes_the_place_of_the_weights(self, article: Lab) -> None:
        request = asking({}, count=100)
        with applied(article, snippet("weights"), _valid_subsets()):
            eventually(lambda: _both(inside(article).load(request)), 30, "weights hold")
            with applied(article, snippet("experiment")):
                eventually(
                    lambda: variants(inside(article).load(request)) == {"stable": 100},
                    30,
                    "nobody gets to the experimental variant",
                )

    def test_a_header_that_anybody_can_send_leads_to_the_vip_pool(self, article: Lab) -> None:
        forged = asking({}, token=article.token(), headers={TIER_HEADER: "vip"}, count=20)
        with applied(article, snippet("tier-by-header")):
            eventually(
                lambda: variants(outside(article).load(forged)) == {"vip": 20}, 30, "the vip pool"
            )
        by_claim = snippet("tier-by-header")
        by_claim["spec"]["http"][0]["match"] = [
            {"headers": {"@request.auth.claims.tier": {"exact": "vip"}}}
        ]
        with applied(article, by_claim):
            eventually(
                lambda: variants(outside(article).load(forged))["stable"] > 0, 30, "others as well"
            )
            vip = asking({}, token=article.token(tier="vip"), count=20)
            assert variants(outside(article).load(vip)) == {"vip": 20}


class TestResilience:
    def test_without_a_percentage_nobody_is_ejected(self, article: Lab) -> None:
        failing = _upstream(article, "experimental")
        failing.always(status=500)
        try:
            with applied(article, snippet("ejection-without-percentage")):
                _await_round_robin(article)
                assert _failures(article, 60) == 20
            mended = snippet("ejection-without-percentage")
            mended["spec"]["trafficPolicy"]["outlierDetection"]["maxEjectionPercent"] = 34
            with applied(article, mended):
                eventually(lambda: _failures(article, 30) == 0, 30, "the failing pod is ejected")
        finally:
            failing.always()

    def test_a_connection_for_each_request_does_not_keep_requests_from_piling_up(
        self, article: Lab
    ) -> None:
        slow = asking({"head_ms": 300}, count=16)
        with applied(article, snippet("one-request-per-connection")):
            eventually(lambda: _connections(article, asking({}, count=10)) >= 10, 30, "it holds")
            for name in VERSIONS:
                _upstream(article, name).forget()
            answers = inside(article).load(slow, concurrency=16)
            assert {it.status for it in answers} == {200}
            assert sum(_upstream(article, name).counts()["most_open"] for name in VERSIONS) >= 15
        eventually(lambda: _connections(article, asking({}, count=10)) < 5, 30, "it is over")

    def test_a_batch_job_gets_requests_of_the_service(self, article: Lab) -> None:
        with applied(article, snippet("batch-labels")):
            eventually(lambda: "batch" in _endpoints(article), 90, "the job is an endpoint")
            answered = eventually(
                lambda: [
                    it
                    for it in inside(article).load(asking({}, count=30))
                    if it.headers.get("x-pod", "").startswith("batch-")
                ],
                30,
                "the job answers",
            )
            assert answered
        eventually(lambda: "batch" not in _endpoints(article), 60, "the job is gone")


class TestStreaming:
    def test_a_flush_interval_is_ignored_and_its_companion_cuts_streams(self, article: Lab) -> None:
        paused = asking({"chunks": 2, "gaps": {"1": 4000}})
        assert inside(article).request(paused).outcome == "complete"
        with applied(article, snippet("filter-flush")):
            sidecar = Proxy(article.ready_pods(NAMESPACE, pod="stable")[0].metadata.name)
            eventually(lambda: '"stream_idle_timeout": "2s"' in sidecar.config(), 30, "it is there")
            assert "flush_interval" not in sidecar.config()
            cut = eventually(
                lambda: [
                    it
                    for it in [inside(article).request(paused)]
                    if (it.status, it.outcome) == (200, "truncated")
                ],
                60,
                "a stream that pauses is cut",
            )
            assert cut


class TestIdentity:
    def test_a_request_without_a_token_passes(self, article: Lab) -> None:
        garbage = asking({}, token="garbage")
        with applied(article, snippet("token")):
            eventually(lambda: inside(article).request(garbage).status == 401, 30, "401")
            assert inside(article).request(asking({})).status == 200
            with applied(article, _deny_without_token()):
                eventually(lambda: inside(article).request(asking({})).status == 403, 30, "403")

    def test_either_scope_opens_either_path_and_nobody_comes_through_the_gateway(
        self, article: Lab
    ) -> None:
        basic = article.token()
        route = snippet("tier-by-header", http=[{"route": [{"destination": {"host": HOST}}]}])
        spoken, batch = (asking({}, token=basic, path=path) for path in (TTS_PATH, BATCH_PATH))
        with applied(article, route, snippet("token")):
            eventually(lambda: outside(article).request(spoken).status == 200, 30, "a way in")
            with applied(article, snippet("scopes")):
                eventually(lambda: outside(article).request(spoken).status == 403, 30, "none")
                assert inside(article).request(spoken).status == 200
                assert inside(article).request(batch).status == 200
            mended = snippet("scopes")
            (rule,) = mended["spec"]["rules"]
            rule["from"][0]["source"]["principals"] = ["*"]
            by_path = [
                {
                    **rule,
                    "to": [{"operation": {"paths": [path]}}],
                    "when": [{**rule["when"][0], "values": scopes}],
                }
                for path, scopes in (
                    (TTS_PATH, rule["when"][0]["values"]),
                    (BATCH_PATH, [BATCH_SCOPE]),
                )
            ]
            mended["spec"]["rules"] = by_path
            with applied(article, mended):
                eventually(lambda: outside(article).request(spoken).status == 200, 30, "a way in")
                every_pod = replace(batch, count=20)
                eventually(lambda: _statuses(inside(article).load(every_pod)) == {403}, 30, "none")


def _created(lab: Lab, manifest: Object) -> Object:
    """What the API server would make of an object if it drops the fields that it does not know."""
    group, version = manifest["apiVersion"].split("/")
    kind = (group, version, NAMESPACE, f"{manifest['kind'].lower()}s")
    return lab.custom.create_namespaced_custom_object(
        *kind, manifest, dry_run="All", field_validation="Ignore"
    )


def _valid_subsets() -> Object:
    manifest = snippet("subsets")
    for subset in manifest["spec"]["subsets"]:
        subset["labels"] = {"pod": subset["name"]}
    return manifest


def _deny_without_token() -> Object:
    manifest = snippet("scopes", action="DENY")
    manifest["metadata"]["name"] = "no-token"
    manifest["spec"]["rules"] = [{"from": [{"source": {"notRequestPrincipals": ["*"]}}]}]
    return manifest


def _both(answers: list[Answer]) -> Counter[str]:
    counted = variants(answers)
    assert set(counted) == {"stable", "experimental"}, counted
    return counted


def _statuses(answers: list[Answer]) -> set[int | None]:
    return {it.status for it in answers}


def _upstream(lab: Lab, pod: str) -> Upstream:
    return Upstream(lab.ready_pods(NAMESPACE, pod=pod)[0].metadata.name)


def _failures(lab: Lab, requests: int) -> int:
    return variants(inside(lab).load(asking({}, count=requests)))["experimental"]


def _await_round_robin(lab: Lab) -> None:
    eventually(lambda: _failures(lab, 30) == 10, 30, "requests go round")


def _connections(lab: Lab, request: Any) -> int:
    """New connections to the service for one run of a request."""
    proxy = Proxy(f"caller-{MARKETING}")
    cluster = f"^cluster.outbound.{HTTP_PORT}.*{SERVICE}.{NAMESPACE}.*upstream_cx_total$"
    before = sum(proxy.stats(cluster).values())
    inside(lab).load(request)
    return sum(proxy.stats(cluster).values()) - before


def _endpoints(lab: Lab) -> set[str]:
    """Beginnings of the names of the pods behind the service."""
    api: Any = kubernetes.client.DiscoveryV1Api(lab.core.api_client)
    slices = api.list_namespaced_endpoint_slice(
        NAMESPACE, label_selector=f"kubernetes.io/service-name={SERVICE}"
    ).items
    pods = [it.target_ref.name for found in slices for it in found.endpoints or []]
    return {name.split("-")[0] for name in pods}
