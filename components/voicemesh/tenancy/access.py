"""What the users of a tenant may do in its namespace.

The tenant is the boundary: by a Job, an administrator reaches what the tenant's own pods reach, the
data of its role included. Nobody is given what leads beyond that, or what no object would show:

- the quota, the limits, NetworkPolicies and Istio's objects are the tenant's bounds;
- `pods/exec`, `attach`, `portforward` and ephemeral containers change what runs behind the back of
  its declaration, and a forwarded port goes round the mesh's authorization;
- Deployments are changed where releases are reviewed; deleting a pod restarts it;
- Services and EndpointSlices: `externalIPs` of a Service take over addresses of others
  (https://github.com/kubernetes/kubernetes/issues/97076);
- Roles, RoleBindings and tokens of ServiceAccounts.
"""

from typing import Final

from pulumi_kubernetes.rbac.v1 import PolicyRuleArgs

_READ: Final = ("get", "list", "watch")
_WRITE: Final = ("create", "update", "patch", "delete")

_VISIBLE: Final = {
    "": (
        "configmaps",
        "endpoints",
        "events",
        "limitranges",
        "persistentvolumeclaims",
        "pods",
        "pods/log",
        "resourcequotas",
        "serviceaccounts",
        "services",
    ),
    "apps": ("deployments", "replicasets", "statefulsets"),
    "autoscaling": ("horizontalpodautoscalers",),
    "batch": ("cronjobs", "jobs"),
    "discovery.k8s.io": ("endpointslices",),
    "events.k8s.io": ("events",),
    "keda.sh": ("scaledjobs", "scaledobjects"),
    "metrics.k8s.io": ("pods",),
    "networking.istio.io": ("destinationrules", "virtualservices"),
    "networking.k8s.io": ("networkpolicies",),
    "policy": ("poddisruptionbudgets",),
    "security.istio.io": ("authorizationpolicies", "requestauthentications"),
}

_OPERATED: Final = (
    ("", ("pods",), ("delete",)),
    ("", ("pods/eviction",), ("create",)),
    ("apps", ("deployments/scale", "statefulsets/scale"), ("get", "patch", "update")),
    ("batch", ("cronjobs", "jobs"), _WRITE),
    ("", ("configmaps",), _WRITE),
    ("", ("secrets",), (*_READ, *_WRITE)),
)


def viewer_rules() -> list[PolicyRuleArgs]:
    """Everything that explains how the tenant's voices do, without a secret among it."""
    return [_rule(group, resources, _READ) for group, resources in _VISIBLE.items()]


def administrator_rules() -> list[PolicyRuleArgs]:
    """What viewers may do; and to run what is deployed: restart, scale, Jobs, settings, Secrets."""
    return [*viewer_rules(), *(_rule(*rule) for rule in _OPERATED)]


def _rule(group: str, resources: tuple[str, ...], verbs: tuple[str, ...]) -> PolicyRuleArgs:
    return PolicyRuleArgs(api_groups=[group], resources=list(resources), verbs=list(verbs))
