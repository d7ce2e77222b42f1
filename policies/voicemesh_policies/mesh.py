"""Istio: routes, resilience, identity, and changes to Envoy's configuration."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, Final

from voicemesh_policies import istio
from voicemesh_policies.objects import Resource, Stack, judged
from voicemesh_policies.rule import Concern, Config, Severity
from voicemesh_policies.view import UNKNOWN, Finding, View
from voicemesh_policies.workloads import destinations

CONCERN: Final = Concern("mesh")

MESH: Final = "mesh"
_DOCS: Final = "https://istio.io/latest/docs/reference/config"
_ROUTES: Final = f"{_DOCS}/networking/virtual-service/"
_RULES: Final = f"{_DOCS}/networking/destination-rule/"
_GATEWAYS: Final = f"{_DOCS}/networking/gateway/"
_FILTERS: Final = f"{_DOCS}/networking/envoy-filter/"
_POLICIES: Final = f"{_DOCS}/security/authorization-policy/"
_ISTIO: Final = "Istio"
_ZERO_TRUST: Final = "NIST SP 800-204B"
_MAX_STREAM: Final = {
    "maxStreamSeconds": {
        "type": "number",
        "minimum": 0,
        "default": 600,
        "description": "Longest audio stream, in seconds",
    }
}


@CONCERN.rule(
    severity=Severity.HIGH,
    what="Istio's resources are written in a version that Istio serves.",
    why="The API server refuses any other; EnvoyFilter, for one, exists as v1alpha3 only.",
    fix="use a version that Istio has for this kind",
    framework=_ISTIO,
    link=f"{_DOCS}/",
)
def istio_version_is_served(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    if resource.is_istio and not _schema(resource):
        served = istio.served_versions(resource.group, resource.kind)
        version = resource.props["apiVersion"]
        shown = version.text or f"{resource.group}/{resource.version}"
        has = f"has {resource.kind} as {', '.join(served) or 'nothing'}"
        yield Finding("apiVersion", shown, f"Istio {istio.istio_version()} {has}")


def _schema(resource: Resource) -> Any:
    return istio.schema(resource.group, resource.version, resource.kind)


@CONCERN.rule(
    severity=Severity.HIGH,
    what="Istio's resources have no field that Istio does not know.",
    why="Such a field is dropped without a word: a misspelt `consecutive5xxErrors` leaves the "
    "default, and nobody learns of it.",
    fix="remove the field, or write it as Istio's reference does",
    framework=_ISTIO,
    link=f"{_DOCS}/",
)
def istio_fields_exist(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    if resource.is_istio and (schema := _schema(resource)):
        yield from istio.unknown_fields(resource.spec, schema)


@CONCERN.rule(
    severity=Severity.HIGH,
    what="Istio's resources have all that Istio requires, in the types that it wants.",
    why="The API server refuses anything else, in the middle of an update.",
    fix="write the value as Istio's reference says",
    framework=_ISTIO,
    link=f"{_DOCS}/",
)
def istio_values_fit(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    if resource.is_istio and (schema := _schema(resource)):
        spec = resource.spec
        yield from istio.wrong_values(spec if spec.present else View({}, "spec"), schema)


@CONCERN.rule(
    kinds={"VirtualService"},
    severity=Severity.HIGH,
    what="Routes say at which gateways they hold.",
    why="Routes without gateways hold for callers in the mesh only: what was meant for the public "
    "gateway, weights included, does nothing there.",
    fix="set spec.gateways, to [mesh] where callers in the mesh are meant",
    framework=_ISTIO,
    link=_ROUTES,
)
def routes_name_their_gateways(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    if not resource.spec["gateways"].items:
        yield resource.spec["gateways"].wrong("leaves the routes to callers in the mesh")


@CONCERN.rule(
    kinds={"VirtualService", "Gateway"},
    severity=Severity.HIGH,
    what="Routes and gateways name their hosts, without wildcards.",
    why="With `*` whoever comes first answers for every tenant's host.",
    fix="name each host",
    framework=_ISTIO,
    link=_GATEWAYS,
)
def hosts_are_named(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    if resource.group != "networking.istio.io":
        return
    servers = resource.spec["servers"].items
    for hosts in (it["hosts"] for it in servers or [resource.spec]):
        if not hosts.items:
            yield hosts.wrong("names no host")
        for host in hosts.items:
            if "*" in host.text.rpartition("/")[2]:
                yield host.wrong("stands for hosts that it does not name")


@CONCERN.rule(
    kinds={"VirtualService"},
    severity=Severity.HIGH,
    what="The weights of a route are 100 together.",
    why="Istio shares requests in proportion: 90 and 20 are not what anybody reads them as, and a "
    "release that is told to stop at 30 % stops somewhere else.",
    fix="make the weights of the route add up to 100",
    framework=_ISTIO,
    link=_ROUTES,
)
def weights_are_100_together(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    for route in resource.spec["http"].items:
        parts = route["route"].items
        weights = [part["weight"].number for part in parts]
        total = sum(weight or 0.0 for weight in weights)
        alone = len(parts) == 1 and weights == [None]
        if parts and not alone and total != 100:
            yield route["route"].wrong(f"shares {total:g} %")


@CONCERN.rule(
    kinds={"VirtualService"},
    severity=Severity.CRITICAL,
    what="No request is tried again once a server may have begun with it.",
    why="Synthesis is not idempotent: trying a POST again on 5xx runs it twice on a GPU, just when "
    "GPUs are short. Without `retries` Istio tries again on conditions of its own.",
    fix="set retries with retryOn: connect-failure,refused-stream,reset-before-request, or "
    "attempts: 0",
    framework="Voice serving",
    link=_ROUTES,
    config={
        "harmless": {
            "type": "array",
            "items": {"type": "string"},
            "default": ["connect-failure", "refused-stream", "reset-before-request"],
            "description": "Conditions under which no server has begun with the request",
        }
    },
)
def no_request_runs_twice(resource: Resource, config: Config) -> Iterator[Finding]:
    harmless = set(config.texts("harmless"))
    for route in resource.spec["http"].items:
        retries = route["retries"]
        no_server = route["redirect"].present or route["directResponse"].present
        if no_server or retries["attempts"].number == 0:
            continue
        conditions = {it.strip() for it in retries["retryOn"].text.split(",")}
        if not conditions <= harmless:
            yield retries["retryOn"].wrong("may run a request a second time")


@CONCERN.rule(
    kinds={"VirtualService"},
    severity=Severity.HIGH,
    what="No route ends a stream before the longest one is over.",
    why="A route's time-out counts the whole response: audio is cut in the middle of a word, after "
    "a status of 200.",
    fix="remove the route's timeout, or set it to 0s",
    framework="Voice serving",
    link=_ROUTES,
    config=_MAX_STREAM,
)
def routes_let_streams_finish(resource: Resource, config: Config) -> Iterator[Finding]:
    longest = config.number("maxStreamSeconds")
    for route in resource.spec["http"].items:
        for timeout in (route["timeout"], route["retries"]["perTryTimeout"]):
            if 0 < (timeout.seconds or 0.0) < longest:
                yield timeout.wrong(f"cuts streams, which take up to {longest:g} seconds")


@CONCERN.rule(
    kinds={"VirtualService"},
    severity=Severity.CRITICAL,
    what="No route is chosen by a header that says who the client is.",
    why="Anybody can send `x-user-tier: vip`, and gets the pool that others pay for.",
    fix="match the verified claim at the gateway, as `@request.auth.claims.tier`",
    framework=_ZERO_TRUST,
    link="https://istio.io/latest/docs/tasks/security/authentication/jwt-route/",
    config={
        "identityHeaders": {
            "type": "array",
            "items": {"type": "string"},
            "default": ["x-tenant", "x-user-tier", "x-scope", "x-subject"],
            "description": "Headers that say who a client is",
        }
    },
)
def identity_headers_do_not_route(resource: Resource, config: Config) -> Iterator[Finding]:
    headers = {it.lower() for it in config.texts("identityHeaders")}
    for match in _matches(resource):
        for group in ("headers", "withoutHeaders"):
            for name, value in match[group].entries:
                if name.lower() in headers:
                    yield value.wrong("is what a client says of itself")


def _matches(routes: Resource) -> Iterator[View]:
    for route in routes.spec["http"].items:
        yield from route["match"].items


@CONCERN.rule(
    kinds={"VirtualService"},
    severity=Severity.HIGH,
    what="Routes by claims of a token hold at gateways only.",
    why="Sidecars of callers verify no tokens: there such a route never matches, and VIPs get the "
    "common pool.",
    fix="give callers in the mesh a VirtualService of their own, without claims",
    framework=_ISTIO,
    link="https://istio.io/latest/docs/tasks/security/authentication/jwt-route/",
)
def claims_route_at_gateways(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    if MESH not in resource.spec["gateways"].texts:
        return
    for match in _matches(resource):
        for name, value in match["headers"].entries:
            if name.startswith("@request.auth.claims"):
                yield value.wrong("never matches in the mesh")


@CONCERN.rule(
    kinds={"VirtualService"},
    severity=Severity.HIGH,
    what="No public route leads to the paths of operators.",
    why="Metrics name tenants and show how much each of them speaks.",
    fix="match the paths of the API one by one",
    framework="OWASP API Security Top 10",
    link=_ROUTES,
    config={
        "paths": {
            "type": "array",
            "items": {"type": "string"},
            "default": ["/metrics"],
            "description": "Paths that are for operators only",
        }
    },
)
def operators_paths_stay_inside(resource: Resource, config: Config) -> Iterator[Finding]:
    if resource.spec["gateways"].texts in ([], [MESH]):
        return
    for route in resource.spec["http"].items:
        leads = route["route"].present
        for match in route["match"].items or ([View({}, route["match"].path)] if leads else []):
            for path in config.texts("paths"):
                if _covers(match["uri"], path):
                    yield match["uri"].wrong(f"leads to {path}")


def _covers(uri: View, path: str) -> bool:
    """Whether a match by path takes this one; by an expression it may."""
    if not uri.entries:
        return True
    exact, prefix = uri["exact"].text, uri["prefix"].text
    return exact == path or bool(prefix and path.startswith(prefix)) or uri["regex"].present


@CONCERN.stack_rule(
    kinds={"VirtualService"},
    severity=Severity.HIGH,
    what="Routes lead to subsets that there are.",
    why="A subset that no DestinationRule has is answered with 503, whatever runs behind it.",
    fix="add the subset to the host's DestinationRule, or correct the name",
    framework=_ISTIO,
    link=_ROUTES,
)
def routes_lead_to_subsets(stack: Stack, config: Config) -> Iterator[Finding]:
    del config
    known: set[tuple[str, str]] = set()

    def collect(rule: Resource) -> Iterator[Finding]:
        host = _full(rule.spec["host"].text, rule.namespace)
        known.update((host, it["name"].text) for it in rule.spec["subsets"].items)
        yield from ()

    def judge(routes: Resource) -> Iterator[Finding]:
        for destination in destinations(routes):
            subset = destination["subset"]
            host = _full(destination["host"].text, routes.namespace)
            if subset.text and destination["host"].text and (host, subset.text) not in known:
                yield subset.wrong(f"is no subset of {host}")

    yield from judged(stack.of("DestinationRule"), collect)
    yield from judged(stack.of("VirtualService"), judge)


def _full(host: str, namespace: str) -> str:
    """Name of a host with all its parts, as Istio reads a short one."""
    return host if "." in host else f"{host}.{namespace}.svc.cluster.local"


def _pods_of_subset(stack: Stack, rule: Resource, subset: View) -> list[Resource] | None:
    """Workloads with pods of a subset; None where those of its host are not in this stack."""
    service = stack.service(rule.spec["host"].text, rule.namespace)
    workloads = stack.behind(service) if service else []
    labels = subset["labels"].labels
    return (
        [it for it in workloads if labels.items() <= it.pod_labels.items()] if workloads else None
    )


@CONCERN.stack_rule(
    kinds={"DestinationRule"},
    severity=Severity.HIGH,
    what="Every subset has pods.",
    why="Subsets go by labels of pods. One that asks for a label of nodes has no endpoint, and its "
    "share of the requests is answered with 503.",
    fix="set labels that the pod template of one of the service's workloads has",
    framework=_ISTIO,
    link=_RULES,
)
def subsets_have_pods(stack: Stack, config: Config) -> Iterator[Finding]:
    del config

    def judge(rule: Resource) -> Iterator[Finding]:
        for subset in rule.spec["subsets"].items:
            if _pods_of_subset(stack, rule, subset) == []:
                yield subset["labels"].wrong("are the labels of no pod of its service")

    yield from judged(stack.of("DestinationRule"), judge)


@CONCERN.stack_rule(
    kinds={"DestinationRule"},
    severity=Severity.HIGH,
    what="Outlier detection can eject one pod of the smallest pool there is.",
    why="Unset, the share is 10 %, which is no pod at all of less than ten: a broken GPU goes on "
    "answering.",
    fix="set outlierDetection.maxEjectionPercent to at least 100 divided by the fewest pods",
    framework="Voice serving",
    link=_RULES,
)
def one_pod_can_be_ejected(stack: Stack, config: Config) -> Iterator[Finding]:
    del config

    def judge(rule: Resource) -> Iterator[Finding]:
        whole = View({}, rule.spec.path)
        for subset in (rule.spec, *rule.spec["subsets"].items):
            detection = subset["trafficPolicy"]["outlierDetection"]
            if not detection.entries:
                continue
            percent = detection["maxEjectionPercent"]
            labels = whole if subset.path == rule.spec.path else subset
            workloads = _pods_of_subset(stack, rule, labels)
            pods = sum(map(stack.fewest_pods, workloads or []))
            if pods and 100 / pods > (10.0 if percent.number is None else percent.number):
                yield percent.wrong(f"ejects none of {pods:g} pods")
            elif workloads is None and not percent.number:
                yield percent.wrong("ejects no pod of a pool of less than ten")

    yield from judged(stack.of("DestinationRule"), judge)


@CONCERN.rule(
    kinds={"DestinationRule"},
    severity=Severity.MEDIUM,
    what="Connections are used for more than one request.",
    why="`maxRequestsPerConnection: 1` opens a connection, with a handshake, for each request, and "
    "does not keep requests from piling up: that is what maxConnections and "
    "http1MaxPendingRequests are for.",
    fix="remove maxRequestsPerConnection; bound http1MaxPendingRequests and http2MaxRequests",
    framework="Voice serving",
    link=_RULES,
)
def connections_are_used_again(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    for policy in (resource.spec, *resource.spec["subsets"].items):
        most = policy.at("trafficPolicy.connectionPool.http.maxRequestsPerConnection")
        if most.number == 1:
            yield most.wrong("opens a connection for each request")


@CONCERN.stack_rule(
    kinds={"Gateway", "VirtualService"},
    severity=Severity.HIGH,
    what="Public routes are bound to a gateway that serves their hosts.",
    why="A host that the gateway does not list is answered with 404, whatever the routes say.",
    fix="add the host to a server of the gateway, for the routes' namespace",
    framework=_ISTIO,
    link=_GATEWAYS,
)
def gateways_serve_their_routes(stack: Stack, config: Config) -> Iterator[Finding]:
    del config
    served: dict[str, list[str]] = {}

    def collect(gateway: Resource) -> Iterator[Finding]:
        hosts = [host for it in gateway.spec["servers"].items for host in it["hosts"].texts]
        served[f"{gateway.namespace}/{gateway.object_name}"] = hosts
        yield from ()

    def judge(routes: Resource) -> Iterator[Finding]:
        for gateway in routes.spec["gateways"].texts:
            full = gateway if "/" in gateway else f"{routes.namespace}/{gateway}"
            # A gateway that is not in this stack serves what its own stack says.
            for host in routes.spec["hosts"].items if full in served else []:
                if not any(_serves(it, full, routes.namespace, host.text) for it in served[full]):
                    yield host.wrong(f"is not served by {full}")

    gateways = [it for it in stack.of("Gateway") if it.group == "networking.istio.io"]
    yield from judged(gateways, collect)
    yield from judged(stack.of("VirtualService"), judge)


def _serves(entry: str, gateway: str, namespace: str, host: str) -> bool:
    of, _, pattern = entry.rpartition("/")
    own = gateway.partition("/")[0]
    near = of in ("", "*") or namespace == (own if of == "." else of)
    return near and fnmatchcase(host, pattern)


@CONCERN.rule(
    kinds={"Gateway"},
    severity=Severity.CRITICAL,
    what="Gateways encrypt, with TLS 1.2 at least; plain HTTP only redirects.",
    why="Texts, voices and tokens would cross the internet for everybody to read.",
    fix="set tls.mode: SIMPLE and minProtocolVersion: TLSV1_2, or tls.httpsRedirect on plain HTTP",
    framework="PCI DSS 4, requirement 4",
    link=_GATEWAYS,
)
def gateways_encrypt(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    if resource.group != "networking.istio.io":
        return
    for server in resource.spec["servers"].items:
        protocol, tls = server["port"]["protocol"].text.upper(), server["tls"]
        oldest = tls["minProtocolVersion"].text
        if protocol in ("HTTP", "HTTP2", "GRPC", "TCP") and not tls["httpsRedirect"].flag:
            yield tls["httpsRedirect"].wrong("leaves the server without encryption")
        if protocol in ("HTTPS", "TLS") and oldest in ("TLSV1_0", "TLSV1_1"):
            yield tls["minProtocolVersion"].wrong("is broken")


@CONCERN.rule(
    kinds={"PeerAuthentication"},
    severity=Severity.CRITICAL,
    what="Pods take connections by mutual TLS only.",
    why="With PERMISSIVE any pod of the cluster reaches a voice in plain text and without a name, "
    "past every policy that goes by principals.",
    fix="set mtls.mode: STRICT",
    framework=_ZERO_TRUST,
    link=f"{_DOCS}/security/peer_authentication/",
)
def mutual_tls_is_strict(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    modes = [resource.spec["mtls"]["mode"]]
    modes += [it["mode"] for _, it in resource.spec["portLevelMtls"].entries]
    for mode in modes:
        if mode.text != "STRICT" and (mode.present or mode is modes[0]):
            yield mode.wrong("lets in callers without a certificate")


@CONCERN.rule(
    kinds={"DestinationRule"},
    severity=Severity.HIGH,
    what="Callers in the mesh do not turn mutual TLS off.",
    why="A DestinationRule with mode DISABLE sends in plain text what the server takes encrypted "
    "only: requests fail, or are read on their way.",
    fix="remove tls from the traffic policy, or set its mode to ISTIO_MUTUAL",
    framework=_ZERO_TRUST,
    link=_RULES,
)
def callers_keep_mutual_tls(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    for part in (resource.spec, *resource.spec["subsets"].items):
        policy = part["trafficPolicy"]
        for settings in (policy, *policy["portLevelSettings"].items):
            if settings["tls"]["mode"].text == "DISABLE":
                yield settings["tls"]["mode"].wrong("sends in plain text")


@CONCERN.stack_rule(
    kinds={"RequestAuthentication"},
    severity=Severity.CRITICAL,
    what="Where tokens are verified they are required.",
    why="RequestAuthentication refuses bad tokens only: a request without any token passes.",
    fix="add an AuthorizationPolicy for the same pods: DENY from notRequestPrincipals: ['*'], or "
    "ALLOW rules that each name callers",
    framework="OWASP API Security Top 10",
    link=f"{_DOCS}/security/request_authentication/",
)
def tokens_are_required(stack: Stack, config: Config) -> Iterator[Finding]:
    del config

    def judge(authentication: Resource) -> Iterator[Finding]:
        selector = authentication.spec["selector"]
        wanted = selector["matchLabels"].labels
        if not authentication.spec["jwtRules"].items:
            return
        for policy in stack.within(authentication.namespace, "AuthorizationPolicy"):
            its = policy.spec["selector"]["matchLabels"].labels
            if its.items() <= wanted.items() and (_denies(policy) or _admits_named_only(policy)):
                return
        yield selector.wrong("selects pods that let in requests without a token")

    yield from judged(stack.of("RequestAuthentication"), judge)


def _denies(policy: Resource) -> bool:
    """Whether it refuses requests without a token, perhaps but for some paths."""
    return policy.spec["action"].text == "DENY" and any(
        source["source"]["notRequestPrincipals"].texts == ["*"]
        for rule in policy.spec["rules"].items
        for source in rule["from"].items
    )


def _admits_named_only(policy: Resource) -> bool:
    """Whether it lets in callers by name only; the gateway asks those from outside for a token."""
    rules = policy.spec["rules"].items
    return policy.spec["action"].text in ("", "ALLOW") and all(
        rule["from"].items
        and all(
            it["source"]["principals"].items or it["source"]["requestPrincipals"].items
            for it in rule["from"].items
        )
        for rule in rules
    )


@CONCERN.rule(
    kinds={"RequestAuthentication"},
    severity=Severity.HIGH,
    what="Tokens have to be meant for us.",
    why="Without audiences a token that the issuer gave for any other service opens this one.",
    fix="set audiences in every JWT rule",
    framework="RFC 8725, JSON Web Token Best Current Practices",
    link=f"{_DOCS}/security/jwt/",
)
def tokens_name_their_audience(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    for rule in resource.spec["jwtRules"].items:
        if not rule["audiences"].items:
            yield rule["audiences"].wrong("takes tokens that are for other services")


def _allowing(resource: Resource) -> Iterator[View]:
    """The rules of an AuthorizationPolicy that lets requests in."""
    if resource.spec["action"].text in ("", "ALLOW"):
        yield from resource.spec["rules"].items


@CONCERN.rule(
    kinds={"AuthorizationPolicy"},
    severity=Severity.CRITICAL,
    what="Whoever is let in is named.",
    why="A rule without `from` lets in anybody, from any namespace and without a certificate.",
    fix="add from.source.principals, or requestPrincipals",
    framework=_ZERO_TRUST,
    link=_POLICIES,
)
def callers_are_named(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    for rule in _allowing(resource):
        if not rule["from"].items:
            yield rule["from"].wrong("lets in anybody")
        for source in rule["from"].items:
            if not source["source"].entries:
                yield source["source"].wrong("lets in anybody")


@CONCERN.rule(
    kinds={"AuthorizationPolicy"},
    severity=Severity.CRITICAL,
    what="Principals and namespaces that are let in are named in full.",
    why="`*` is every account of every namespace, a stranger's pod included.",
    fix="write the account, as cluster.local/ns/<namespace>/sa/<account>",
    framework=_ZERO_TRUST,
    link=_POLICIES,
)
def principals_are_exact(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    for rule in _allowing(resource):
        for source in rule["from"].items:
            for key in ("principals", "namespaces", "serviceAccounts"):
                for name in source["source"][key].items:
                    if "*" in name.text:
                        yield name.wrong("stands for accounts that it does not name")


_SCOPES: Final = {
    "/v1/audio/speech": ["tts.basic", "tts.premium"],
    "/v1/audio/speech/stream": ["tts.basic", "tts.premium"],
    "/tts": ["tts.basic", "tts.premium"],
    "/v1/audio/voices": ["tts.premium"],
    "/batch": ["tts.batch"],
    "/admin": ["tts.admin"],
}
_PATHS: Final = {
    "type": "object",
    "additionalProperties": {"type": "array", "items": {"type": "string"}},
    "default": _SCOPES,
    "description": "Scopes that open a path, and all below it, by path",
}


def _guarded_paths(operation: View, config: Config) -> Iterator[tuple[View, set[str]]]:
    """Paths that a rule opens and that are for holders of certain scopes, with these scopes.

    A rule without paths opens all of them.
    """
    scopes = {path: set(it.texts) for path, it in config.mapping("scopes")}
    paths = operation["paths"].items
    for view in paths or [operation["paths"]]:
        own, below = view.text.removesuffix("*").rstrip("/"), view.text.endswith("*") or not paths
        for path, wanted in scopes.items():
            if own == path or own.startswith(f"{path}/") or (below and path.startswith(own)):
                yield view, wanted
                break


def _scope_conditions(rule: View) -> list[View]:
    return [it for it in rule["when"].items if it["key"].text == "request.auth.claims[scope]"]


def _public_rules(resource: Resource) -> Iterator[tuple[View, list[View]]]:
    """Rules that let requests in over HTTP, with the operations that each opens."""
    for rule in _allowing(resource):
        operations = [it["operation"] for it in rule["to"].items]
        # What opens a port alone, as a database's, opens no path.
        if not operations or any(not it["ports"].items for it in operations):
            yield rule, [it for it in operations if not it["ports"].items] or [rule["to"]]


@CONCERN.rule(
    kinds={"AuthorizationPolicy"},
    severity=Severity.CRITICAL,
    what="Every rule that opens a path of the API asks for a scope.",
    why="Without it every tenant's token opens everything, uploads of voices included.",
    fix="add when: request.auth.claims[scope] with the scopes of these paths",
    framework="OWASP API Security Top 10",
    link=_POLICIES,
    config={"scopes": _PATHS},
)
def public_paths_ask_for_a_scope(resource: Resource, config: Config) -> Iterator[Finding]:
    for rule, operations in _public_rules(resource):
        if _scope_conditions(rule):
            continue
        for operation in operations:
            for path, wanted in _guarded_paths(operation, config):
                yield path.wrong(f"is opened without a scope ({', '.join(sorted(wanted))})")


@CONCERN.rule(
    kinds={"AuthorizationPolicy"},
    severity=Severity.CRITICAL,
    what="A path is opened by its own scopes only.",
    why="With paths and scopes in one rule either scope opens either path: whoever may speak may "
    "also run batches.",
    fix="write one rule for each group of paths, with the scopes of that group",
    framework="OWASP API Security Top 10",
    link=_POLICIES,
    config={"scopes": _PATHS},
)
def scopes_fit_their_paths(resource: Resource, config: Config) -> Iterator[Finding]:
    for rule, operations in _public_rules(resource):
        conditions = _scope_conditions(rule)
        given = {scope for it in conditions for scope in it["values"].texts}
        for operation in operations if conditions else []:
            for path, wanted in _guarded_paths(operation, config):
                if extra := given - wanted:
                    yield path.wrong(f"is opened by {', '.join(sorted(extra))}")


@CONCERN.rule(
    kinds={"EnvoyFilter"},
    severity=Severity.HIGH,
    what="Changes to Envoy's configuration are for named pods.",
    why="An EnvoyFilter without a selector changes every proxy of its namespace, and in "
    "istio-system every proxy there is.",
    fix="set workloadSelector.labels, or targetRefs",
    framework=_ISTIO,
    link=_FILTERS,
)
def filters_are_for_named_pods(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    spec = resource.spec
    selected = spec["workloadSelector"]["labels"].entries
    # Without patches it changes nothing.
    if spec["configPatches"].items and not selected and not spec["targetRefs"].items:
        yield spec["workloadSelector"].wrong("changes all proxies of the namespace")


@CONCERN.rule(
    kinds={"EnvoyFilter"},
    severity=Severity.HIGH,
    what="Changes to Envoy's configuration have no field that Envoy does not know.",
    why="Istio reads them leniently and only warns: `flush_interval` is taken, and does nothing.",
    fix="remove the field, or write it as Envoy's reference does",
    framework=_ISTIO,
    link="https://www.envoyproxy.io/docs/envoy/latest/api-v3/api",
)
def envoy_fields_exist(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    for patch in resource.spec["configPatches"].items:
        message = istio.PATCHED.get(patch["applyTo"].text, "")
        yield from istio.unknown_envoy_fields(patch["patch"]["value"], message)


_TIMEOUTS: Final = frozenset(
    {"stream_idle_timeout", "streamIdleTimeout", "request_timeout", "requestTimeout"}
    | {"max_stream_duration", "maxStreamDuration", "idle_timeout", "idleTimeout"}
    | {"max_connection_duration", "maxConnectionDuration"}
)


@CONCERN.rule(
    kinds={"EnvoyFilter"},
    severity=Severity.HIGH,
    what="No change to Envoy's configuration ends a stream before the longest one is over.",
    why="`stream_idle_timeout: 30s` cuts a voice that thinks for 31 s, after a status of 200.",
    fix="remove the time-out, or make it longer than the longest stream",
    framework="Voice serving",
    link=_FILTERS,
    config=_MAX_STREAM,
)
def filters_let_streams_finish(resource: Resource, config: Config) -> Iterator[Finding]:
    longest = config.number("maxStreamSeconds")
    for patch in resource.spec["configPatches"].items:
        for view in patch["patch"]["value"].walk():
            if view.value is UNKNOWN or view.path.rpartition(".")[2] not in _TIMEOUTS:
                continue
            if 0 < (view.seconds or 0.0) < longest:
                yield view.wrong(f"cuts streams, which take up to {longest:g} seconds")


@CONCERN.stack_rule(
    kinds={"VirtualService"},
    severity=Severity.HIGH,
    what="Each host has one VirtualService at each gateway.",
    why="Of two for callers in the mesh one wins by age; an experiment that is applied beside the "
    "weights takes their place, and the canary gets nothing.",
    fix="write all routes of the host in one VirtualService, the weighted one last",
    framework=_ISTIO,
    link="https://istio.io/latest/docs/ops/best-practices/traffic-management/",
)
def one_owner_routes_a_host(stack: Stack, config: Config) -> Iterator[Finding]:
    del config
    owners: dict[tuple[str, str], Resource] = {}

    def judge(routes: Resource) -> Iterator[Finding]:
        for gateway in routes.spec["gateways"].texts or [MESH]:
            near = gateway == MESH or "/" in gateway
            full = gateway if near else f"{routes.namespace}/{gateway}"
            for host in routes.spec["hosts"].items:
                key = (full, _full(host.text, routes.namespace))
                owner = owners.setdefault(key, routes)
                if owner is not routes:
                    yield host.wrong(f"is routed at {full} by {owner.name!r} already")

    yield from judged(stack.of("VirtualService"), judge)
