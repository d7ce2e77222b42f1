"""The `kubernetes` provider: objects by server-side apply, and Helm releases by the real helm.

- `kubeconfig`, `api`, `helm`: how a cluster is reached.
- `objects`, `replacement`, `drift`, `readiness`: decisions about objects, without a cluster.
- `waiting`: waits for readiness and deletion.
- `object_client`, `object_type`, `helm_release`: the two kinds of resource.
- `provider`: configuration, and which token is which.
"""
