"""The lab's gateway with a web application firewall, as tests use and change it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import kubernetes.client
import yaml

from tests.e2e.environment import eventually
from tests.e2e.lab import Lab, Proxy
from tests.e2e.load import Answer, Request
from tests.waf import corpus
from voicemesh import contract
from voicemesh.mesh import SYSTEM_NAMESPACE
from voicemesh.waf_provider import WAF, WafProvider, extension_provider, provider_name

# As programs/lab.py has them.
VOICE: Final = "walled"
NAMESPACE: Final = "lab-walled"
GATEWAY: Final = "walled-gateway"

POLICY: Final = ("AuthorizationPolicy", NAMESPACE, f"{GATEWAY}-{WAF}-check")
SCOPES: Final = [
    contract.BASIC_SCOPE,
    contract.PREMIUM_SCOPE,
    contract.BATCH_SCOPE,
    contract.ADMIN_SCOPE,
]
CONNECTIONS: Final = 4

_MESH_CONFIG: Final = "istio"
_ATTACK: Final = f"{contract.VOICES_PATH}?name=%3Cscript%3Ealert(1)%3C/script%3E"


@dataclass(frozen=True)
class Walled:
    """That gateway and its firewall."""

    lab: Lab

    def send(self, requests: Sequence[Request]) -> dict[str, Answer]:
        """Sends requests with a token that may do everything; their answers by their tags."""
        token = self.lab.token(scope=SCOPES)
        authorized = [
            Request(
                **{**vars(each), "headers": {"authorization": f"Bearer {token}", **each.headers}}
            )
            for each in requests
        ]
        answers = self.lab.load(*authorized, voice=VOICE, concurrency=CONNECTIONS)
        return {answer.tag: answer for answer in answers}

    def ask(self, path: str, body: str = "", method: str = "POST", **fields: Any) -> Answer:
        """Sends one request, as `send` does."""
        request = corpus.request(path, body, "one", fields.pop("headers", None), method)
        (answer,) = self.send([Request(**{**vars(request), **fields})]).values()
        return answer

    def is_walled(self) -> bool:
        """Whether an attack is refused and a good request is not."""
        attack = self.ask(_ATTACK, method="GET")
        good = self.ask(contract.SPEECH_PATH, corpus.speech("alloy"))
        return (attack.status, good.status) == (403, 200)

    def gateway(self) -> Proxy:
        """The proxy of the gateway's only pod."""
        (pod,) = self.lab.ready_pods(NAMESPACE, app=GATEWAY)
        return Proxy(pod.metadata.name)

    def log(self) -> list[dict[str, Any]]:
        """What the firewall's pods have logged."""
        lines = [
            line
            for pod in self.lab.ready_pods(NAMESPACE, app=WAF)
            for line in self.lab.core.read_namespaced_pod_log(
                pod.metadata.name, NAMESPACE, container=WAF
            ).splitlines()
        ]
        return [json.loads(line) for line in lines]

    @contextmanager
    def asked(self) -> Iterator[None]:
        """For a while, the mesh knows the firewall."""
        with self._mesh_config(lambda config: self._set_provider(config)):
            eventually(self.is_walled, 60, "the firewall is asked")
            yield

    @contextmanager
    def asked_otherwise(
        self, change: Callable[[dict[str, Any]], object], is_seen: Callable[[], bool]
    ) -> Iterator[None]:
        """For a while, what the mesh says about the firewall is changed so."""
        with self._mesh_config(lambda config: self._set_provider(config, change)):
            eventually(is_seen, 60, "the mesh's change has arrived")
            yield

    @contextmanager
    def not_asked(self) -> Iterator[None]:
        """For a while, the gateway has no policy to ask the firewall."""
        with self.lab.without(*POLICY):
            eventually(lambda: self.ask(_ATTACK, method="GET").status == 200, 30, "it is gone")
            yield
        eventually(self.is_walled, 30, "the firewall is asked again")

    @contextmanager
    def other_options(self, change: Callable[[list[str]], list[str]]) -> Iterator[None]:
        """For a while, the firewall runs with other options."""
        before = self._options()
        self._set_options(change(before))
        try:
            yield
        finally:
            self._set_options(before)

    @contextmanager
    def down(self) -> Iterator[None]:
        """For a while, the firewall has no pod."""
        self._scale(0)
        eventually(lambda: not self.lab.ready_pods(NAMESPACE, app=WAF), 60, "it has no pod")
        try:
            yield
        finally:
            self._scale(1)
            eventually(self.is_walled, 120, "the firewall answers again")

    @property
    def _deployments(self) -> Any:
        return kubernetes.client.AppsV1Api(self.lab.core.api_client)

    def _scale(self, replicas: int) -> None:
        body = {"spec": {"replicas": replicas}}
        self._deployments.patch_namespaced_deployment_scale(WAF, NAMESPACE, body)

    def _options(self) -> list[str]:
        deployment = self._deployments.read_namespaced_deployment(WAF, NAMESPACE)
        return list(deployment.spec.template.spec.containers[0].args)

    def _set_options(self, options: list[str]) -> None:
        container = {"name": WAF, "args": options}
        body = {"spec": {"template": {"spec": {"containers": [container]}}}}
        self._deployments.patch_namespaced_deployment(WAF, NAMESPACE, body)
        eventually(lambda: self._runs_with(options), 120, "the firewall has these options")

    def _runs_with(self, options: list[str]) -> bool:
        pods = self.lab.core.list_namespaced_pod(NAMESPACE, label_selector=f"app={WAF}").items
        alive = [pod for pod in pods if not pod.metadata.deletion_timestamp]
        ready = self.lab.ready_pods(NAMESPACE, app=WAF)
        given = [each.args for pod in alive for each in pod.spec.containers if each.name == WAF]
        return len(ready) == len(alive) == 1 and given == [options]

    def _set_provider(
        self, config: dict[str, Any], change: Callable[[dict[str, Any]], object] | None = None
    ) -> None:
        others = [
            provider
            for provider in config.get("extensionProviders", [])
            if provider["name"] != provider_name(NAMESPACE)
        ]
        provider = extension_provider(WafProvider(NAMESPACE))
        if change is not None:
            change(provider["envoyExtAuthzGrpc"])
        config["extensionProviders"] = [*others, provider]

    @contextmanager
    def _mesh_config(self, change: Callable[[dict[str, Any]], object]) -> Iterator[None]:
        before = self._read_mesh_config()
        config = copy.deepcopy(before)
        change(config)
        self._write_mesh_config(config)
        try:
            yield
        finally:
            self._write_mesh_config(before)

    def _read_mesh_config(self) -> dict[str, Any]:
        data = self.lab.core.read_namespaced_config_map(_MESH_CONFIG, SYSTEM_NAMESPACE).data
        return yaml.safe_load(data["mesh"])

    def _write_mesh_config(self, config: dict[str, Any]) -> None:
        body = {"data": {"mesh": yaml.safe_dump(config)}}
        self.lab.core.patch_namespaced_config_map(_MESH_CONFIG, SYSTEM_NAMESPACE, body)
