"""What the cluster has besides its control plane: DNS, metrics, volumes, advertised GPUs."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Mapping
from typing import Any

from infra.local import images
from infra.local.control_plane import NETWORK_POLICIES_USER, Credentials
from infra.local.kube import KubeApi
from infra.local.node_root import node_root
from infra.local.topology import DNS_SERVICE_ADDRESS, NODES, SYSTEM, Node
from infra.local.waiting import wait_until
from voicemesh.contract import GPU_RESOURCE

STORAGE_CLASS = "local"
VOLUME_GIBIBYTES = 10

_HOSTNAME_LABEL = "kubernetes.io/hostname"
_NAMESPACE = "kube-system"
_DNS = "coredns"
_DNS_APP = "kube-dns"
"""Label of the DNS's pods, and its Service's name, in every cluster: policies go by it."""
_METRICS = "metrics-server"
_VOLUMES = "var/lib/voicemesh/volumes"
_READY_SECONDS = 90.0

# Names outside the cluster do not exist here: an answer at once, in place of a time-out.
_COREFILE = """\
cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 5
    }
    loadbalance
}
.:53 {
    errors
    template ANY ANY {
        rcode NXDOMAIN
    }
}
"""


def ensure_addons(api: KubeApi, credentials: Credentials) -> None:
    """Applies what belongs to every cluster, and waits until its DNS answers.

    metrics-server is not waited for: nothing of the environment needs its figures to begin.

    Raises:
        LocalEnvironmentError: the API server refused an object, or the DNS was not ready in time.
    """
    advertise_gpus(api)
    for manifest in (*dns_manifests(), *metrics_manifests(credentials)):
        api.apply(manifest)
    ensure_volumes(api)
    wait_until(
        lambda: unavailable_reason(api.get("Deployment", _DNS, _NAMESPACE)),
        "the cluster's DNS to be ready",
        _READY_SECONDS,
    )


def allow_policy_enforcers(api: KubeApi) -> None:
    """Lets the nodes' enforcers of NetworkPolicies read what they decide by."""
    rules = [
        _rule("", ["pods", "namespaces"], ["get", "list", "watch"]),
        _rule("networking.k8s.io", ["networkpolicies"], ["get", "list", "watch"]),
    ]
    group = "rbac.authorization.k8s.io"
    user = {"apiGroup": group, "kind": "User", "name": NETWORK_POLICIES_USER}
    for manifest in _cluster_role("voicemesh:network-policies", rules, user):
        api.apply(manifest)


def advertise_gpus(api: KubeApi) -> None:
    """Makes the GPU nodes offer GPUs that do not exist.

    This is how Kubernetes lets an administrator advertise a resource that no device plugin knows.
    """
    for node in NODES:
        if node.gpus:
            count = {GPU_RESOURCE: str(node.gpus)}
            api.patch(
                "Node", node.name, {"status": {"capacity": count, "allocatable": count}}, "status"
            )


def ensure_volumes(api: KubeApi) -> None:
    """Offers the volumes of each node, and those again, emptied, whose claim was deleted."""
    api.apply(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        }
    )
    present = {volume["metadata"]["name"]: volume for volume in api.list("PersistentVolume")}
    for node in NODES:
        for number in range(1, node.volumes + 1):
            manifest = volume_manifest(node, number)
            name = manifest["metadata"]["name"]
            folder = node_root(node) / _VOLUMES / str(number)
            if is_released(present.get(name)):
                shutil.rmtree(folder)
                api.patch("PersistentVolume", name, {"spec": {"claimRef": None}})
            folder.mkdir(parents=True, exist_ok=True)
            api.apply(manifest)


def is_released(volume: Mapping[str, Any] | None) -> bool:
    """Whether a PersistentVolume was used by a claim that is gone."""
    return volume is not None and volume.get("status", {}).get("phase") == "Released"


def unavailable_reason(deployment: Mapping[str, Any] | None) -> str | None:
    """Why a Deployment does not serve yet; None once it does."""
    if deployment is None:
        return "its Deployment does not exist"
    status = deployment.get("status", {})
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return "its Deployment was not looked at yet"
    if status.get("availableReplicas", 0) >= deployment["spec"]["replicas"]:
        return None
    reasons = (c.get("message", "") for c in status.get("conditions", []) if c["status"] != "True")
    return "; ".join(filter(None, reasons)) or "its pods are not ready"


def volume_manifest(node: Node, number: int) -> dict[str, Any]:
    """A PersistentVolume that is a folder of the node, and outlives the pods that use it."""
    here = {"key": _HOSTNAME_LABEL, "operator": "In", "values": [node.name]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{node.name}-{number}"},
        "spec": {
            "capacity": {"storage": f"{VOLUME_GIBIBYTES}Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": STORAGE_CLASS,
            "local": {"path": f"/{_VOLUMES}/{number}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


def dns_manifests() -> list[dict[str, Any]]:
    """CoreDNS, which answers for the cluster's own names and for no others."""
    rules = [
        _rule("", ["services", "pods", "namespaces"], ["list", "watch"]),
        _rule("discovery.k8s.io", ["endpointslices"], ["list", "watch"]),
    ]
    container = {
        "image": images.reference(_DNS),
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "failureThreshold": 5},
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "170Mi"}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
    }
    volume = {"name": "config", "configMap": {"name": _DNS}}
    # A user other than root may listen on port 53.
    sysctls = [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]
    pod = {"dnsPolicy": "Default", "securityContext": {"sysctls": sysctls}}
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    return [
        _object("v1", "ServiceAccount", _DNS),
        *_cluster_role("system:coredns", rules, _account(_DNS)),
        _object("v1", "ConfigMap", _DNS, data={"Corefile": _COREFILE}),
        _deployment(_DNS, _DNS_APP, container, volume, pod),
        _service(_DNS_APP, _DNS_APP, ports, {"clusterIP": DNS_SERVICE_ADDRESS}),
    ]


def metrics_manifests(credentials: Credentials) -> list[dict[str, Any]]:
    """metrics-server, with certificates that are verified on both of its sides."""
    host = f"{_METRICS}.{_NAMESPACE}.svc"
    certificate, key = credentials.pair(_METRICS, host, hosts=(host,))
    rules = [
        _rule("", ["nodes/metrics"], ["get"]),
        _rule("", ["pods", "nodes"], ["get", "list", "watch"]),
    ]
    container = {
        "image": images.reference(_METRICS),
        "args": [
            "--secure-port=10250",
            "--tls-cert-file=/etc/metrics-server/tls.crt",
            "--tls-private-key-file=/etc/metrics-server/tls.key",
            "--kubelet-certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
            "--kubelet-preferred-address-types=InternalIP",
            "--kubelet-use-node-status-port",
            "--metric-resolution=15s",
        ],
        "ports": [{"name": "https", "containerPort": 10250}],
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "https", "scheme": "HTTPS"},
            "periodSeconds": 5,
        },
        "resources": {"requests": {"cpu": "20m", "memory": "40Mi"}},
        "volumeMounts": [{"name": "tls", "mountPath": "/etc/metrics-server", "readOnly": True}],
    }
    volume = {"name": "tls", "secret": {"secretName": f"{_METRICS}-tls"}}
    pair = {"tls.crt": _base64(certificate.read_bytes()), "tls.key": _base64(key.read_bytes())}
    ports = [{"name": "https", "port": 443, "targetPort": "https", "protocol": "TCP"}]
    subject = _account(_METRICS)
    reader = _object("rbac.authorization.k8s.io/v1", "RoleBinding", f"{_METRICS}-auth-reader")
    reader["roleRef"] = _role("Role", "extension-apiserver-authentication-reader")
    reader["subjects"] = [subject]
    delegator = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"{_METRICS}:system:auth-delegator"},
        "roleRef": _role("ClusterRole", "system:auth-delegator"),
        "subjects": [subject],
    }
    return [
        _object("v1", "ServiceAccount", _METRICS),
        *_cluster_role(f"system:{_METRICS}", rules, _account(_METRICS)),
        reader,
        delegator,
        _object("v1", "Secret", f"{_METRICS}-tls", type="kubernetes.io/tls", data=pair),
        _deployment(_METRICS, _METRICS, container, volume, {}),
        _service(_METRICS, _METRICS, ports, {}),
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "caBundle": _base64(credentials.cluster.certificate),
                "service": {"name": _METRICS, "namespace": _NAMESPACE, "port": 443},
            },
        },
    ]


def _deployment(
    name: str, app: str, container: dict[str, Any], volume: dict[str, Any], pod: dict[str, Any]
) -> dict[str, Any]:
    """One replica on the system node, as restricted as Pod Security asks of anyone."""
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    whole = {
        "serviceAccountName": name,
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {_HOSTNAME_LABEL: SYSTEM.name},
        "containers": [{"name": name, **container, "securityContext": restricted}],
        "volumes": [volume],
        **pod,
        "securityContext": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            **pod.get("securityContext", {}),
        },
    }
    labels = {"k8s-app": app}
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": whole},
    }
    return _object("apps/v1", "Deployment", name, spec=spec)


def _service(
    name: str, app: str, ports: list[dict[str, Any]], more: dict[str, Any]
) -> dict[str, Any]:
    return _object(
        "v1", "Service", name, spec={"selector": {"k8s-app": app}, "ports": ports, **more}
    )


def _cluster_role(
    name: str, rules: list[dict[str, Any]], subject: dict[str, str]
) -> list[dict[str, Any]]:
    version = "rbac.authorization.k8s.io/v1"
    meta = {"name": name}
    return [
        {"apiVersion": version, "kind": "ClusterRole", "metadata": meta, "rules": rules},
        {
            "apiVersion": version,
            "kind": "ClusterRoleBinding",
            "metadata": meta,
            "roleRef": _role("ClusterRole", name),
            "subjects": [subject],
        },
    ]


def _account(name: str) -> dict[str, str]:
    return {"kind": "ServiceAccount", "name": name, "namespace": _NAMESPACE}


def _object(version: str, kind: str, name: str, **content: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": _NAMESPACE}
    return {"apiVersion": version, "kind": kind, "metadata": meta, **content}


def _rule(group: str, resources: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _role(kind: str, name: str) -> dict[str, str]:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
