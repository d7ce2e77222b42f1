"""A stack with one DestinationRule, which its configuration can spoil."""

import pulumi
import pulumi_kubernetes as kubernetes

config = pulumi.Config()
outlier_detection: dict[str, object] = {"interval": "30s"}
if field := config.get("field"):
    outlier_detection[field] = 3

kubernetes.apiextensions.CustomResource(
    "other",
    api_version="networking.istio.io/v1",
    kind="DestinationRule",
    metadata={"name": "other", "namespace": config.get("namespace") or "tts"},
    spec={
        "host": "other.example.com",
        "trafficPolicy": {
            "outlierDetection": outlier_detection,
            "tls": {"mode": config.get("mode") or "DISABLE"},
        },
    },
    opts=pulumi.ResourceOptions(
        provider=kubernetes.Provider("cluster", kubeconfig=config.require("kubeconfig"))
    ),
)
