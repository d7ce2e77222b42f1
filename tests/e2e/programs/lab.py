"""A gateway of the tests' own, two tenants, and voices that are servers which do as they are asked.

A voice is reached from outside as NAME.lab.voicemesh.localhost. Tests add the voices they need to
`VOICES`; whoever changes a voice while the tests run uses one of its own.
"""

from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from voicemesh import (
    ChartSource,
    ComputeSize,
    ConnectionLimits,
    Egress,
    Ejection,
    GatewayHost,
    Mirroring,
    PublicGateway,
    PublicGatewayArgs,
    RequestQuota,
    ServiceType,
    TenantNamespace,
    TenantNamespaceArgs,
    TenantNetwork,
    TenantQuota,
    TokenIssuer,
    TtsVoiceService,
    TtsVoiceServiceArgs,
    VoiceAccess,
    VoiceVariant,
    WebApplicationFirewall,
)

TINY = ComputeSize(0.005, 0.05)
GATEWAY_NAMESPACE = "lab-ingress"
METERED_NAMESPACE = "lab-metered"
WALLED_NAMESPACE = "lab-walled"
DOMAIN = "lab.voicemesh.localhost"
# For voices that fail more often than any test of ejection wants.
NEVER = Ejection(consecutive_errors=100_000)

config = pulumi.Config()


def take_over(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult:
    """Lets an update have its way with what a test has changed, and whose fields are the test's."""
    metadata = args.props.get("metadata")
    if isinstance(metadata, dict):
        metadata = kubernetes.meta.v1.ObjectMetaArgs(**metadata)
    if isinstance(metadata, kubernetes.meta.v1.ObjectMetaArgs):
        known: pulumi.Output[Any] = pulumi.Output.from_input(metadata.annotations or {})
        metadata.annotations = known.apply(lambda it: {**it, "pulumi.com/patchForce": "true"})
        args = pulumi.ResourceTransformationArgs(
            args.resource, args.type_, args.name, {**args.props, "metadata": metadata}, args.opts
        )
    return pulumi.ResourceTransformationResult(args.props, args.opts)


cluster = pulumi.ResourceOptions(
    providers=[kubernetes.Provider("cluster", kubeconfig=config.require("kubeconfig"))],
    transformations=[take_over],
)


def variant(name="stable", weight=100, **fields):
    """A variant whose pods are scripted servers."""
    wanted = {
        "image": config.require("image"),
        "version": "1.0",
        "size": TINY,
        "gpu_count": 0,
        "accelerator": None,
        **fields,
    }
    return VoiceVariant(name=name, weight=weight, **wanted)


ISSUERS = [TokenIssuer("http://10.245.0.1:4567", "http://10.245.0.1:4567/jwks.json", ["voicemesh"])]
# Accounts of pods that call in the mesh.
CALLERS = [f"cluster.local/ns/lab-a/sa/{account}" for account in ("caller", "soak")]

# By the name of each voice: its tenant, and its arguments besides those that all have.
VOICES = {
    "plain": ("lab-a", {"variants": [variant(replicas=2)]}),
    "neighbour": ("lab-b", {"variants": [variant()]}),
    "streams": ("lab-a", {"variants": [variant()]}),
    "steady": ("lab-a", {"variants": [variant("stable", 90, replicas=3), variant("canary", 10)]}),
    "chorus": ("lab-b", {"variants": [variant(replicas=2)]}),
    "routed": (
        "lab-a",
        {
            "variants": [
                variant("stable", 90, replicas=2),
                variant("experimental", 10),
                variant("vip", 0),
            ],
            "vip_variant": "vip",
            "experiments": ["experimental"],
        },
    ),
    "familiar": (
        "lab-a",
        {"variants": [variant(replicas=3)], "voice_affinity": True, "ejection": NEVER},
    ),
    "copied": (
        "lab-a",
        {
            "variants": [variant(), variant("dark", 0)],
            "mirroring": Mirroring("dark", 100),
            "ejection": NEVER,
        },
    ),
    "pools": (
        "lab-a",
        {
            "variants": [
                variant("stable", 90, replicas=5),
                variant("canary", 10),
                variant("vip", 0),
            ],
            "vip_variant": "vip",
            "experiments": ["stable", "canary"],
            "ejection": Ejection(base_seconds=6, interval_seconds=1),
            "warmup_seconds": 10,
        },
    ),
    "narrow": (
        "lab-a",
        {
            "variants": [variant()],
            "connection_limits": ConnectionLimits(8, 4, 16),
            "ejection": Ejection(base_seconds=6, interval_seconds=1),
        },
    ),
    "guarded": (
        "lab-a",
        {"variants": [variant()], "allowed_origins": ["https://studio.example.com"]},
    ),
    "exclusive": (
        "lab-b",
        {"variants": [variant()], "access": VoiceAccess(tenants=["lab-b"])},
    ),
    "lasting": ("lab-a", {"variants": [variant("stable", 90), variant("canary", 10)]}),
    "named": ("lab-a", {"variants": [variant()]}),
    "metered": ("lab-b", {"variants": [variant()]}),
    "walled": (
        "lab-b",
        {"variants": [variant()], "allowed_origins": ["https://studio.example.com"]},
    ),
}

certificate = Path(config.require("certificate")).read_text()
key = pulumi.Output.secret(Path(config.require("key")).read_text())


def public_gateway(name, namespace, hosts, http_node_port, https_node_port, **fields):
    """A gateway for voices with these names."""
    wanted = {"size": ComputeSize(0.05, 0.0625), **fields}
    args = PublicGatewayArgs(
        hosts=[
            GatewayHost(f"{host}.{DOMAIN}", certificate=certificate, private_key=key)
            for host in hosts
        ],
        issuers=ISSUERS,
        namespace=namespace,
        charts=ChartSource(directory=config.require("charts")),
        service_type=ServiceType.NODE_PORT,
        http_node_port=http_node_port,
        https_node_port=https_node_port,
        replicas=1,
        **wanted,
    )
    return PublicGateway(name, args, cluster)


# Some tests' own stacks have a voice behind it, too.
gateway = public_gateway("lab-gateway", GATEWAY_NAMESPACE, [*VOICES, "glm"], 30081, 30044)
# Besides the quota, all is the same behind it.
metered = public_gateway(
    *("metered-gateway", METERED_NAMESPACE, ["metered"], 30082, 30046),
    size=ComputeSize(0.01, 0.0625),
    quota=RequestQuota(
        requests=30,
        tenants={"lab-a": 100_000, "lab-b": 100_000, "generous": 45},
        requests_without_tenant=7,
        # All of the lab shares a few cores with all of its load.
        timeout_seconds=10,
        replicas=1,
        ratelimit_image=config.require("ratelimit"),
        redis_image=config.require("redis"),
        ratelimit=TINY,
        redis=TINY,
    ),
)
# Its policy refuses everything until the mesh knows the firewall, which the tests of it tell it.
walled = public_gateway(
    *("walled-gateway", WALLED_NAMESPACE, ["walled"], 30083, 30045),
    size=ComputeSize(0.01, 0.0625),
    waf=WebApplicationFirewall(config.require("waf"), replicas=1, size=ComputeSize(0.01, 0.25)),
)
GATEWAYS = {"metered": metered, "walled": walled}
kubernetes.apiextensions.CustomResource(
    "lab-access-log",
    api_version="telemetry.istio.io/v1",
    kind="Telemetry",
    metadata={"name": "access-log", "namespace": gateway.namespace},
    spec={"accessLogging": [{"providers": [{"name": "envoy"}]}]},
    opts=cluster,
)
tenants = {
    name: TenantNamespace(
        name,
        TenantNamespaceArgs(
            name=name,
            quota=TenantQuota(3, 8, 60),
            network=TenantNetwork(
                gateway_namespace=gateway.namespace,
                caller_namespaces=[METERED_NAMESPACE, WALLED_NAMESPACE],
                egress=[Egress("10.245.0.1/32", [4567])],
            ),
        ),
        cluster,
    )
    for name in ("lab-a", "lab-b")
}
# Its sidecars get new certificates twice a minute.
short_lived = kubernetes.apiextensions.CustomResource(
    "lasting-certificates",
    api_version="networking.istio.io/v1beta1",
    kind="ProxyConfig",
    metadata={"name": "lasting", "namespace": tenants["lab-a"].namespace},
    spec={
        "selector": {"matchLabels": {"app": "lasting"}},
        "environmentVariables": {"SECRET_TTL": "60s"},
    },
    opts=cluster,
)
for name, (tenant, fields) in VOICES.items():
    wanted = {
        "node_type": None,
        "startup_seconds": 60,
        "image_pull_seconds": 60,
        "hosts": [f"{name}.{DOMAIN}"],
        "gateway_ref": GATEWAYS.get(name, gateway).gateway_ref,
        "gateway_principal": GATEWAYS.get(name, gateway).principal,
        "issuers": ISSUERS,
        "access": VoiceAccess(callers=CALLERS),
        **fields,
    }
    TtsVoiceService(
        f"{tenant}-{name}",
        TtsVoiceServiceArgs(namespace=tenants[tenant].namespace, service_name=name, **wanted),
        pulumi.ResourceOptions.merge(
            cluster, pulumi.ResourceOptions(depends_on=[short_lived] if name == "lasting" else [])
        ),
    )
pulumi.export("voices", {name: tenant for name, (tenant, _) in VOICES.items()})
