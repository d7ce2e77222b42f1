"""Started by the engine as `pulumi-resource-kubernetes`."""

from infra.local.adapters.kubernetes_provider.provider import KubernetesProvider
from infra.local.adapters.provider_base import serve

if __name__ == "__main__":
    serve(KubernetesProvider())
