"""The workloads of `TtsVoiceService`: what must hold, and that each check can fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
import pytest

from tests.preview import rules
from tests.preview.rules import DEPLOYMENT, DESTINATION_RULE, VIRTUAL_SERVICE, Rule, mutated
from voicemesh import (
    ArgumentsError,
    Autoscaling,
    ComputeSize,
    ModelWeights,
    ObjectStorage,
    OutputStorage,
    Scaler,
    TokenIssuer,
    TtsVoiceService,
    TtsVoiceServiceArgs,
    VoiceVariant,
    contract,
)
from voicemesh.service.workload import SERVER_CONTAINER
from voicemesh.testing import Recording, Registration, record

SCALED_OBJECT = "kubernetes:keda.sh/v1alpha1:ScaledObject"
CPU_SCALER = "kubernetes:autoscaling/v2:HorizontalPodAutoscaler"
BUDGET = "kubernetes:policy/v1:PodDisruptionBudget"
ACCOUNT = "kubernetes:core/v1:ServiceAccount"

WEIGHTS = ModelWeights("s3://voices/models/glm-tts/1.0/", "0" * 64, size_gib=24)
STABLE = VoiceVariant(
    "stable",
    "1.0",
    "speech:1",
    weight=90,
    autoscaling=Autoscaling(min_replicas=2, max_replicas=8),
    model=WEIGHTS,
)
CANARY = VoiceVariant("canary", "2.0", "speech:2", weight=10)
VIP = VoiceVariant("vip", "1.0", "speech:1", weight=0, replicas=3, node_selector={"pool": "vip"})
LOGIN = TokenIssuer("https://login.example.com", "https://login.example.com/keys", ["voicemesh"])
VOICE = TtsVoiceServiceArgs(
    namespace="tts",
    variants=[STABLE, CANARY, VIP],
    hosts=["tts.example.com"],
    gateway_ref="istio-ingress/public",
    gateway_principal="cluster.local/ns/istio-ingress/sa/public",
    issuers=[LOGIN],
    vip_variant="vip",
    object_storage=ObjectStorage("eu-central-1"),
)
Inputs = dict[str, Any]


def recorded(**voices: TtsVoiceServiceArgs) -> Recording:
    def program() -> None:
        cluster = kubernetes.Provider("cluster", kubeconfig="{}")
        for name, args in voices.items():
            options = pulumi.ResourceOptions(providers=[cluster])
            TtsVoiceService(name.replace("_", "-"), args, options)

    return record(program)


def voice(**arguments: Any) -> Recording:
    return recorded(speech=replace(VOICE, **arguments))


def pod(deployment: Registration) -> Any:
    return deployment.inputs["spec"]["template"]["spec"]


def labels(deployment: Registration) -> Mapping[str, str]:
    return deployment.inputs["spec"]["template"]["metadata"]["labels"]


def bounds(recording: Recording) -> dict[str, tuple[int, int]]:
    """Fewest and most pods of each Deployment that is scaled."""
    found = {}
    for scaler in recording.of_type(SCALED_OBJECT):
        spec = scaler.inputs["spec"]
        target = spec["scaleTargetRef"]["name"]
        found[target] = (spec["minReplicaCount"], spec["maxReplicaCount"])
    for scaler in recording.of_type(CPU_SCALER):
        spec = scaler.inputs["spec"]
        found[spec["scaleTargetRef"]["name"]] = (spec["minReplicas"], spec["maxReplicas"])
    return found


def fewest(recording: Recording, deployment: Registration) -> int:
    name = deployment.inputs["metadata"]["name"]
    return bounds(recording).get(name, (deployment.inputs["spec"].get("replicas", 1), 0))[0]


def one_decides_how_many_pods_there_are(recording: Recording) -> Iterator[str]:
    scaled = bounds(recording)
    deployments = {it.inputs["metadata"]["name"]: it for it in recording.of_type(DEPLOYMENT)}
    for name in scaled.keys() - deployments.keys():
        yield f"{name} is scaled, but there is no such Deployment"
    for name, deployment in deployments.items():
        if ("replicas" in deployment.inputs["spec"]) is (name in scaled):
            yield f"{name} is given replicas, and scaled" if name in scaled else f"{name} by none"


def each_pod_can_be_evicted_and_one_at_a_time(recording: Recording) -> Iterator[str]:
    for deployment in recording.of_type(DEPLOYMENT):
        budgets = [
            budget.inputs["spec"]
            for budget in recording.of_type(BUDGET)
            if budget.inputs["spec"]["selector"]["matchLabels"].items()
            <= labels(deployment).items()
        ]
        if len(budgets) != 1:
            # Kubernetes evicts no pod that two budgets select.
            yield f"{deployment.name} has {len(budgets)} budgets"
        for budget in budgets:
            pods = fewest(recording, deployment)
            may_go = budget.get("maxUnavailable", pods - budget.get("minAvailable", pods))
            if may_go != 1:
                yield f"{deployment.name}: {may_go} of {pods} pods may go"
            if budget.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
                yield f"{deployment.name} keeps pods that do not work"


def pods_are_spread_where_there_is_room(recording: Recording) -> Iterator[str]:
    for deployment in recording.of_type(DEPLOYMENT):
        over = {
            it["topologyKey"]: it for it in pod(deployment).get("topologySpreadConstraints", [])
        }
        if over.keys() != {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}:
            yield f"{deployment.name} is spread over {sorted(over)}"
        for key, constraint in over.items():
            if constraint["whenUnsatisfiable"] != "ScheduleAnyway":
                yield f"{deployment.name} rather waits than share a {key}"
            if constraint.get("matchLabelKeys") != ["pod-template-hash"]:
                yield f"{deployment.name} is spread with pods that go"
            if constraint["labelSelector"] != deployment.inputs["spec"]["selector"]:
                yield f"{deployment.name} is spread with other pods"


def a_deployment_owns_its_pods_alone(recording: Recording) -> Iterator[str]:
    deployments = recording.of_type(DEPLOYMENT)
    for owner in deployments:
        selector = owner.inputs["spec"]["selector"]["matchLabels"].items()
        for other in deployments:
            together = (
                owner.inputs["metadata"]["namespace"] == other.inputs["metadata"]["namespace"]
            )
            selected = together and selector <= labels(other).items()
            if selected is not (owner is other):
                yield f"{owner.name} and the pods of {other.name}"


def one_failing_pod_of_the_fewest_can_be_ejected(recording: Recording) -> Iterator[str]:
    for rule in recording.of_type(DESTINATION_RULE):
        for subset in rule.inputs["spec"]["subsets"]:
            pods = sum(
                fewest(recording, deployment)
                for deployment in recording.of_type(DEPLOYMENT)
                if subset["labels"].items() <= labels(deployment).items()
            )
            percent = subset["trafficPolicy"]["outlierDetection"]["maxEjectionPercent"]
            if percent < 100 / pods or (pods > 1 and percent == 100):
                yield f"{subset['name']} ejects {percent} % of {pods}"


def weights_are_verified_before_the_server_starts(recording: Recording) -> Iterator[str]:
    for deployment in recording.of_type(DEPLOYMENT):
        (server,) = pod(deployment)["containers"]
        variables = {it["name"]: it.get("value") for it in server["env"]}
        folder = variables.get(contract.MODEL_DIRECTORY_VARIABLE)
        if folder is None:
            continue
        fetchers = pod(deployment).get("initContainers") or []
        if not any(_fetches(it, server, pod(deployment)["volumes"], folder) for it in fetchers):
            yield f"{deployment.name} starts without what it reads from {folder}"


def _fetches(fetcher: Inputs, server: Inputs, volumes: list[Inputs], folder: str) -> bool:
    args = fetcher["args"]
    options = dict(zip(args[1::2], args[2::2], strict=True))
    mounts = [
        {it["mountPath"]: it for it in container["volumeMounts"]} for container in (fetcher, server)
    ]
    if options["--folder"] != folder or not all(folder in it for it in mounts):
        return False
    names = {it[folder]["name"] for it in mounts}
    places = [it["emptyDir"] for it in volumes if it["name"] in names and "emptyDir" in it]
    return (
        fetcher["image"] == server["image"]
        and fetcher["command"] == ["python", "-m", "speech_server.weights"]
        and len(options["--sha256"]) == 64
        and len(names) == 1
        and mounts[1][folder].get("readOnly") is True
        # On the node's disk, not in its memory; and there is room.
        and all("medium" not in place for place in places)
        and all(_gib(it["sizeLimit"]) >= float(options["--size-gib"]) for it in places)
        and all(
            _gib(it["resources"]["requests"].get("ephemeral-storage", "0Gi"))
            >= float(options["--size-gib"])
            for it in (fetcher, server)
        )
    )


def _gib(quantity: str) -> float:
    return float(quantity[:-2]) / (1024 if quantity.endswith("Mi") else 1)


def all_containers_are_confined(recording: Recording) -> Iterator[str]:
    for deployment in recording.of_type(DEPLOYMENT):
        template = pod(deployment)
        for container in [*(template.get("initContainers") or []), *template["containers"]]:
            if container.get("securityContext") != {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }:
                yield f"{deployment.name}: {container['name']}"
            if "memory" not in container["resources"]["limits"]:
                yield f"{deployment.name}: {container['name']} takes any memory"


def vip_callers_have_their_pool(recording: Recording) -> Iterator[str]:
    """The gateway's verdict, first match wins, on requests with claims and headers."""
    (public,) = (it for it in recording.of_type(VIRTUAL_SERVICE) if it.name.endswith("-public"))
    routes = public.inputs["spec"]["http"]
    weighted = {"stable": 90, "canary": 10}
    for claims, headers, expected in [
        ({}, {}, weighted),
        ({"tier": "vip"}, {}, {"vip": 100}),
        ({"tier": "basic"}, {}, weighted),
        ({"tier": "vip-not"}, {}, weighted),
        ({}, {"x-user-tier": "vip", "tier": "vip"}, weighted),
    ]:
        found = _shares(routes, contract.SPEECH_PATH, claims, headers)
        if found != expected:
            yield f"claims {claims}, headers {headers}: {found}"
    if _shares(routes, contract.METRICS_PATH, {"tier": "vip"}, {}):
        yield "VIP callers read the metrics"


def _shares(
    routes: list[Inputs], path: str, claims: Mapping[str, str], headers: Mapping[str, str]
) -> dict[str, int]:
    seen = {**{f"@request.auth.claims.{it}": value for it, value in claims.items()}, **headers}
    for route in routes:
        for match in route["match"]:
            wanted = {name: it["exact"] for name, it in match.get("headers", {}).items()}
            uri = match["uri"]
            meant = path == uri.get("exact") or path.startswith(uri.get("prefix", path + "/"))
            if meant and wanted.items() <= seen.items():
                return {it["destination"]["subset"]: it["weight"] for it in route["route"]}
    return {}


def in_template(change: Callable[[Inputs], Any]) -> Callable[[Inputs], Any]:
    return lambda inputs: change(inputs["spec"]["template"]["spec"])


def in_fetcher(change: Callable[[Inputs], Any]) -> Callable[[Inputs], Any]:
    return in_template(lambda spec: [change(it) for it in spec.get("initContainers") or []])


def in_spread(change: Callable[[Inputs], Any]) -> Callable[[Inputs], Any]:
    return in_template(lambda spec: [change(it) for it in spec["topologySpreadConstraints"]])


def in_spec(change: Callable[[Inputs], Any]) -> Callable[[Inputs], Any]:
    return lambda inputs: change(inputs["spec"])


def in_http(change: Callable[[list[Inputs]], Any]) -> Callable[[Inputs], Any]:
    return lambda inputs: change(inputs["spec"]["http"])


def _of_max_replicas(spec: Inputs) -> None:
    for subset in spec["subsets"]:
        subset["trafficPolicy"]["outlierDetection"]["maxEjectionPercent"] = 100 // 8


def _client_header(http: list[Inputs]) -> None:
    for match in http[0]["match"] if len(http) > 1 else []:
        match["headers"] = {"x-user-tier": {"exact": "vip"}}


# A rule, the type in which a fault is made, and the fault that it must catch.
CHECKED: list[tuple[Rule, str, Callable[[Inputs], Any]]] = [
    (one_decides_how_many_pods_there_are, DEPLOYMENT, in_spec(lambda it: it.update(replicas=2))),
    (one_decides_how_many_pods_there_are, DEPLOYMENT, in_spec(lambda it: it.pop("replicas", 0))),
    (
        one_decides_how_many_pods_there_are,
        SCALED_OBJECT,
        in_spec(lambda it: it["scaleTargetRef"].update(name="speech")),
    ),
    (
        each_pod_can_be_evicted_and_one_at_a_time,
        BUDGET,
        in_spec(lambda it: it.update(minAvailable=1) or it.pop("maxUnavailable")),
    ),
    (
        each_pod_can_be_evicted_and_one_at_a_time,
        BUDGET,
        in_spec(lambda it: it.pop("unhealthyPodEvictionPolicy")),
    ),
    (
        each_pod_can_be_evicted_and_one_at_a_time,
        BUDGET,
        in_spec(lambda it: it["selector"]["matchLabels"].pop(contract.VARIANT_LABEL)),
    ),
    (
        pods_are_spread_where_there_is_room,
        DEPLOYMENT,
        in_spread(lambda it: it.update(whenUnsatisfiable="DoNotSchedule")),
    ),
    (
        pods_are_spread_where_there_is_room,
        DEPLOYMENT,
        in_spread(lambda it: it["labelSelector"]["matchLabels"].pop(contract.VARIANT_LABEL)),
    ),
    (
        pods_are_spread_where_there_is_room,
        DEPLOYMENT,
        in_spread(lambda it: it.pop("matchLabelKeys")),
    ),
    (
        pods_are_spread_where_there_is_room,
        DEPLOYMENT,
        in_template(lambda it: it.pop("topologySpreadConstraints")),
    ),
    (
        a_deployment_owns_its_pods_alone,
        DEPLOYMENT,
        in_spec(lambda it: it["selector"]["matchLabels"].pop(contract.VARIANT_LABEL)),
    ),
    (one_failing_pod_of_the_fewest_can_be_ejected, DESTINATION_RULE, in_spec(_of_max_replicas)),
    (
        weights_are_verified_before_the_server_starts,
        DEPLOYMENT,
        in_template(lambda it: it.pop("initContainers", 0)),
    ),
    (
        weights_are_verified_before_the_server_starts,
        DEPLOYMENT,
        in_fetcher(lambda it: it.update(image="speech:0")),
    ),
    (
        weights_are_verified_before_the_server_starts,
        DEPLOYMENT,
        in_fetcher(lambda it: it.update(args=[*it["args"][:-1], "/elsewhere"])),
    ),
    (
        weights_are_verified_before_the_server_starts,
        DEPLOYMENT,
        in_fetcher(lambda it: it["resources"]["requests"].pop("ephemeral-storage")),
    ),
    (
        weights_are_verified_before_the_server_starts,
        DEPLOYMENT,
        in_template(lambda it: it["volumes"][-1]["emptyDir"].update(sizeLimit="23Gi")),
    ),
    (all_containers_are_confined, DEPLOYMENT, in_fetcher(lambda it: it.pop("securityContext"))),
    (vip_callers_have_their_pool, VIRTUAL_SERVICE, in_http(lambda it: it.reverse())),
    (vip_callers_have_their_pool, VIRTUAL_SERVICE, in_http(_client_header)),
    (
        vip_callers_have_their_pool,
        VIRTUAL_SERVICE,
        in_http(
            lambda it: it[0].pop("match", 0) and it[0].update(match=[{"uri": {"prefix": "/"}}])
        ),
    ),
]


@pytest.mark.parametrize(
    ("rule", "type_", "fault"),
    CHECKED,
    ids=[f"{rule.__name__}-{number}" for number, (rule, _, _) in enumerate(CHECKED)],
)
def test_it_holds_for_a_voice_with_everything_and_a_fault_is_noticed(
    rule: Rule, type_: str, fault: Callable[[Inputs], Any]
) -> None:
    everything = voice()
    assert list(rule(everything)) == []
    assert list(rule(mutated(everything, type_, _lenient(fault)))) != []


def _lenient(fault: Callable[[Inputs], Any]) -> Callable[[Inputs], Any]:
    """Some faults can be made in some of the resources only."""

    def make(inputs: Inputs) -> None:
        try:
            fault(inputs)
        except (KeyError, IndexError):
            return

    return make


@dataclass(frozen=True)
class Node:
    labels: Mapping[str, str]
    taints: tuple[str, ...] = field(default=("nvidia.com/gpu=true:NoSchedule",))


ONLINE = {"accelerator": "h100", "node-type": "online-inference"}
NODES = {
    "cpu": Node({}, ()),
    "online": Node(ONLINE),
    "vip": Node({**ONLINE, "pool": "vip"}),
    "other accelerator": Node({**ONLINE, "accelerator": "l40s", "pool": "vip"}),
    "offline": Node(
        {**ONLINE, "node-type": "offline-inference", "pool": "vip"},
        ("nvidia.com/gpu=true:NoSchedule", "workload=offline:NoSchedule"),
    ),
    "offline with wrong labels": Node(
        {**ONLINE, "pool": "vip"},
        ("nvidia.com/gpu=true:NoSchedule", "workload=offline:NoSchedule"),
    ),
}


@pytest.mark.parametrize(
    ("variant", "expected"), [(VIP, {"vip"}), (replace(VIP, node_selector={}), {"online", "vip"})]
)
def test_pods_run_on_the_nodes_with_all_labels_and_never_on_offline_ones(
    variant: VoiceVariant, expected: set[str]
) -> None:
    alone = voice(variants=[replace(variant, weight=100)], object_storage=None)
    assert list(rules.pods_run_on_these_nodes_only(NODES, expected)(alone)) == []
    tolerant = mutated(
        alone,
        DEPLOYMENT,
        in_template(
            lambda it: it["tolerations"].append(
                {"key": "workload", "value": "offline", "effect": "NoSchedule"}
            )
        ),
    )
    assert list(rules.pods_run_on_these_nodes_only(NODES, expected)(tolerant)) != []


class TestAutoscaling:
    def test_keda_asks_for_the_queue_first_and_the_gpus_second(self) -> None:
        spec = voice().one(SCALED_OBJECT).inputs["spec"]
        queue, gpus = spec["triggers"]
        assert queue["metadata"] == {
            "serverAddress": contract.PROMETHEUS_URL,
            "query": "sum(voicemesh_queue_depth_requests"
            '{namespace="tts",pod=~"speech-stable-[a-z0-9]+-[a-z0-9]+"})',
            "threshold": "4",
            "ignoreNullValues": "false",
        }
        # A share of one, by whichever labels a scrape gives the pod.
        assert gpus["metadata"]["query"] == (
            "100 * (sum(DCGM_FI_PROF_GR_ENGINE_ACTIVE"
            '{namespace="tts",pod=~"speech-stable-[a-z0-9]+-[a-z0-9]+"}) or '
            "sum(DCGM_FI_PROF_GR_ENGINE_ACTIVE{exported_namespace="
            '"tts",exported_pod=~"speech-stable-[a-z0-9]+-[a-z0-9]+"}))'
        )
        assert (gpus["metadata"]["threshold"], gpus["metadata"]["ignoreNullValues"]) == (
            "80",
            "true",
        )
        assert {trigger["metricType"] for trigger in spec["triggers"]} == {"AverageValue"}

    def test_without_prometheus_the_pods_that_there_are_stay(self) -> None:
        spec = voice().one(SCALED_OBJECT).inputs["spec"]
        # To it, KEDA would scale at the first failed poll; to none, never.
        assert "fallback" not in spec
        # And a value for what nobody counted would be taken for an empty queue.
        assert spec["triggers"][0]["metadata"]["ignoreNullValues"] == "false"

    @pytest.mark.parametrize(
        "change",
        [{"gpu_count": 0}, {"autoscaling": Autoscaling(2, 8, gpu_utilization_percent=None)}],
    )
    def test_without_gpus_or_their_goal_the_queue_decides_alone(self, change: Inputs) -> None:
        variants = [replace(STABLE, **change), CANARY, VIP]
        (trigger,) = voice(variants=variants).one(SCALED_OBJECT).inputs["spec"]["triggers"]
        assert trigger["name"] == "queue-depth"

    def test_a_pod_of_two_gpus_may_use_both(self) -> None:
        variants = [replace(STABLE, gpu_count=2), CANARY, VIP]
        triggers = voice(variants=variants).one(SCALED_OBJECT).inputs["spec"]["triggers"]
        assert triggers[1]["metadata"]["threshold"] == "160"

    def test_fewer_pods_come_slowly_with_either_scaler(self) -> None:
        keda = voice().one(SCALED_OBJECT).inputs["spec"]["advanced"]
        cpu = voice(scaler=Scaler.CPU).one(CPU_SCALER).inputs["spec"]
        expected = {
            "stabilizationWindowSeconds": 300,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        }
        assert keda["horizontalPodAutoscalerConfig"]["behavior"] == {"scaleDown": expected}
        assert cpu["behavior"] == {"scaleDown": expected}

    def test_the_cpu_scaler_counts_the_speech_server_and_not_its_sidecar(self) -> None:
        recording = voice(scaler=Scaler.CPU)
        assert list(one_decides_how_many_pods_there_are(recording)) == []
        assert recording.of_type(SCALED_OBJECT) == []
        (metric,) = recording.one(CPU_SCALER).inputs["spec"]["metrics"]
        assert metric == {
            "type": "ContainerResource",
            "containerResource": {
                "name": "cpu",
                "container": SERVER_CONTAINER,
                "target": {"type": "Utilization", "averageUtilization": 70},
            },
        }

    def test_a_pool_that_may_shrink_to_one_pod_is_ejected_from_as_one(self) -> None:
        alone = replace(STABLE, weight=100, autoscaling=Autoscaling(1, 8))
        recording = voice(variants=[alone], vip_variant=None)
        (subset,) = recording.one(DESTINATION_RULE).inputs["spec"]["subsets"]
        assert subset["trafficPolicy"]["outlierDetection"]["maxEjectionPercent"] == 100

    def test_the_scaler_waits_for_its_deployment(self) -> None:
        recording = voice()
        deployment = recording.one(DEPLOYMENT, "speech-stable").urn
        assert deployment in recording.one(SCALED_OBJECT).depends_on


class TestStorage:
    def test_the_server_has_no_credentials_for_what_it_never_asks(self) -> None:
        keys = ObjectStorage("us-east-1", "http://minio:9000", credentials_secret="s3")
        deployment = voice(object_storage=keys).one(DEPLOYMENT, "speech-stable")
        (fetcher,), (server,) = pod(deployment)["initContainers"], pod(deployment)["containers"]
        assert _environment(fetcher) == {
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": "http://minio:9000",
            "AWS_ACCESS_KEY_ID": {"secretKeyRef": {"name": "s3", "key": "AWS_ACCESS_KEY_ID"}},
            "AWS_SECRET_ACCESS_KEY": {
                "secretKeyRef": {"name": "s3", "key": "AWS_SECRET_ACCESS_KEY"}
            },
        }
        assert _environment(server) == {
            "SPEECH_DRAIN_SECONDS": "600",
            "SPEECH_GATEWAY_PRINCIPAL": "cluster.local/ns/istio-ingress/sa/public",
            "SPEECH_MODEL_DIRECTORY": "/models",
        }

    def test_outputs_in_a_bucket_have_the_tenants_prefix(self) -> None:
        recording = voice(outputs=OutputStorage(bucket="voices"))
        (server,) = pod(recording.one(DEPLOYMENT, "speech-canary"))["containers"]
        assert _environment(server) == {
            "SPEECH_DRAIN_SECONDS": "600",
            "SPEECH_GATEWAY_PRINCIPAL": "cluster.local/ns/istio-ingress/sa/public",
            "SPEECH_OUTPUTS_URI": "s3://voices/outputs/tts/",
            "AWS_REGION": "eu-central-1",
        }

    def test_outputs_on_a_volume_are_mounted(self) -> None:
        recording = voice(outputs=OutputStorage(claim_name="outputs"))
        template = pod(recording.one(DEPLOYMENT, "speech-canary"))
        (server,) = template["containers"]
        assert _environment(server)["SPEECH_OUTPUTS_URI"] == "file:///outputs/"
        mount = {"name": "outputs", "mountPath": "/outputs", "subPath": "outputs"}
        assert mount in server["volumeMounts"]
        claim = {"name": "outputs", "persistentVolumeClaim": {"claimName": "outputs"}}
        assert claim in template["volumes"]

    def test_pods_are_replaced_with_the_role_behind_their_credentials(self) -> None:
        def of(role: str) -> Inputs:
            storage = ObjectStorage("eu-central-1", role_arn=role)
            template = voice(object_storage=storage).one(DEPLOYMENT, "speech-stable")
            return template.inputs["spec"]["template"]

        assert of("arn:aws:iam::1:role/a") != of("arn:aws:iam::1:role/b")
        role = of("arn:aws:iam::1:role/a")["metadata"]["annotations"]["voicemesh.io/storage-role"]
        assert role == "arn:aws:iam::1:role/a"

    def test_the_engine_waits_for_weights_too(self) -> None:
        recording = voice(image_pull_seconds=1000, startup_seconds=500)
        with_weights, without = (
            int(recording.one(DEPLOYMENT, name).custom_timeouts["create"].rstrip("s"))
            for name in ("speech-stable", "speech-canary")
        )
        assert without == 1500
        assert with_weights > 1500 + 24 * 10

    def test_a_rollout_may_take_its_time_for_as_many_pods_as_there_can_be(self) -> None:
        recording = voice(max_stream_seconds=100, image_pull_seconds=100, startup_seconds=100)
        update, progress = (
            [
                int(recording.one(DEPLOYMENT, name).custom_timeouts["update"].rstrip("s")),
                recording.one(DEPLOYMENT, name).inputs["spec"]["progressDeadlineSeconds"],
            ]
            for name in ("speech-stable", "speech-vip")
        )
        assert [update[0] / update[1], progress[0] / progress[1]] == [8, 3]


def _environment(container: Inputs) -> Inputs:
    return {it["name"]: it.get("value") or it["valueFrom"] for it in container["env"]}


def test_a_pod_that_ends_takes_requests_until_proxies_know_and_then_finishes_its_streams() -> None:
    for deployment in voice(max_stream_seconds=900).of_type(DEPLOYMENT):
        (server,) = pod(deployment)["containers"]
        pause = server["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pause >= 5
        assert pod(deployment)["terminationGracePeriodSeconds"] > pause + 900


def test_proxies_are_told_the_protocol_in_words_that_no_port_name_can_contradict() -> None:
    (port,) = voice().one(rules.SERVICE).inputs["spec"]["ports"]
    assert (port["appProtocol"], port["port"], port["targetPort"]) == ("http", 8080, "http")


def test_a_service_named_as_the_servers_settings_begin_is_none_of_them() -> None:
    for deployment in voice().of_type(DEPLOYMENT):
        assert pod(deployment)["enableServiceLinks"] is False


def test_the_server_may_write_where_its_volumes_are() -> None:
    for deployment in voice(outputs=OutputStorage(claim_name="outputs")).of_type(DEPLOYMENT):
        context = pod(deployment)["securityContext"]
        assert context["fsGroup"] == context["runAsGroup"] == context["runAsUser"] != 0


def test_the_cluster_autoscaler_evicts_no_voice() -> None:
    for deployment in voice().of_type(DEPLOYMENT):
        annotations = _pod_annotations(deployment)
        assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"


def _pod_annotations(deployment: Registration) -> Inputs:
    return deployment.inputs["spec"]["template"]["metadata"]["annotations"]


def test_prometheus_finds_the_servers_metrics_through_the_sidecar() -> None:
    for deployment in voice().of_type(DEPLOYMENT):
        annotations = _pod_annotations(deployment)
        found = [annotations[f"prometheus.io/{name}"] for name in ("scrape", "port", "path")]
        assert found == ["true", str(contract.HTTP_PORT), contract.METRICS_PATH]


def test_the_pods_account_is_known_and_exists() -> None:
    recording = voice()
    component = recording.one("voicemesh:index:TtsVoiceService")
    assert component.outputs is not None
    account = recording.one(ACCOUNT).inputs["metadata"]["name"]
    assert component.outputs["service_account"] == account
    assert {pod(it)["serviceAccountName"] for it in recording.of_type(DEPLOYMENT)} == {account}


SMALL = TtsVoiceServiceArgs(
    namespace="tts",
    variants=[
        VoiceVariant(
            "stable",
            "1.0",
            "speech:1",
            autoscaling=Autoscaling(1, 2),
            size=ComputeSize(0.1, 0.5),
        )
    ],
    hosts=["a.example.com"],
    gateway_ref="istio-ingress/public",
    gateway_principal="cluster.local/ns/istio-ingress/sa/public",
    issuers=[LOGIN],
)


def test_services_beside_each_other_share_no_object_and_no_pod() -> None:
    # Their names are parts of each other's, and one is in two namespaces.
    together = recorded(
        speech=SMALL,
        speech_mesh=SMALL,
        speech_public=SMALL,
        speech_stable=SMALL,
        another=replace(SMALL, namespace="other", service_name="speech"),
    )
    checks = [
        rules.no_object_is_declared_twice,
        a_deployment_owns_its_pods_alone,
        each_pod_can_be_evicted_and_one_at_a_time,
        one_decides_how_many_pods_there_are,
    ]
    in_tenant = _within(together, "tts")
    assert [list(check(in_tenant)) for check in checks] == [[]] * 4
    assert list(rules.no_object_is_declared_twice(together)) == []

    same_name = recorded(speech=SMALL, another=replace(SMALL, service_name="speech"))
    assert list(rules.no_object_is_declared_twice(same_name)) != []
    assert list(a_deployment_owns_its_pods_alone(same_name)) != []


def test_a_component_whose_name_no_service_can_have_is_refused() -> None:
    options = {"Speech": "a letter first", "s" * 40: "up to 39 characters"}
    for name, allowed in options.items():
        with pytest.raises(ArgumentsError, match=rf"^TtsVoiceService: name is '{name}'.*{allowed}"):
            TtsVoiceService(name, SMALL)


def _within(recording: Recording, namespace: str) -> Recording:
    kept = [
        it
        for it in recording.registrations
        if it.inputs.get("metadata", {}).get("namespace") == namespace
    ]
    return replace(recording, registrations=tuple(kept))
