"""Which changes of an object need a new object: the lists of the released provider (4.34)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.local.adapters.property_values import Path
from infra.local.adapters.provider_base import parse_path

_IDENTITY = ("apiVersion", "kind", "metadata.name", "metadata.namespace")
_STATEFUL_SET = (
    "spec.podManagementPolicy",
    "spec.revisionHistoryLimit",
    "spec.selector",
    "spec.serviceName",
    "spec.volumeClaimTemplates",
)
_VOLUME_SOURCES = (
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
)
_POD_SPEC = (
    "affinity",
    "automountServiceAccountToken",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostname",
    "imagePullSecrets",
    "nodeName",
    "nodeSelector",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "readinessGates",
    "restartPolicy",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "serviceAccount",
    "serviceAccountName",
    "shareProcessNamespace",
    "subdomain",
    "terminationGracePeriodSeconds",
    "volumes",
    "containers",
    "initContainers",
)
_PATHS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("apps/v1", "DaemonSet"): ("spec.selector",),
    ("apps/v1", "Deployment"): ("spec.selector",),
    ("apps/v1", "StatefulSet"): _STATEFUL_SET,
    ("batch/v1", "Job"): (
        "spec.completions",
        "spec.parallelism",
        "spec.selector",
        "spec.template",
    ),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): ("roleRef",),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): ("roleRef",),
    ("storage.k8s.io/v1", "StorageClass"): ("parameters", "provisioner"),
    ("v1", "PersistentVolume"): tuple(f"spec.{name}" for name in _VOLUME_SOURCES),
    ("v1", "PersistentVolumeClaim"): (
        "spec.accessModes",
        "spec.selector",
        "spec.storageClassName",
        "spec.volumeName",
    ),
    ("v1", "Pod"): tuple(f"spec.{name}" for name in _POD_SPEC),
    ("v1", "ResourceQuota"): ("spec.scopes",),
    ("v1", "Secret"): ("type",),
    ("v1", "Service"): ("spec.clusterIP",),
}


def forcing_paths(
    old: Mapping[str, Any], *, config_map_mutable: bool, secret_mutable: bool
) -> tuple[Path, ...]:
    """The paths of this object whose change needs a new object.

    Args:
        old: the object's old inputs, plain.
        config_map_mutable: the provider's `enableConfigMapMutable`.
        secret_mutable: the provider's `enableSecretMutable`.
    """
    key = (str(old.get("apiVersion")), str(old.get("kind")))
    texts = [*_IDENTITY, *_PATHS.get(key, ())]
    immutable = bool(old.get("immutable"))
    if key == ("v1", "ConfigMap") and (immutable or not config_map_mutable):
        texts += ["binaryData", "data"]
    if key == ("v1", "Secret") and (immutable or not secret_mutable):
        texts += ["data", "stringData"]
    return tuple(parse_path(text) for text in texts)
