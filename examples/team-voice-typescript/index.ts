import * as kubernetes from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import * as voicemesh from "@pulumi/voicemesh";

interface Issuer {
    issuer: string;
    jwksUri: string;
    audiences: string[];
}

const config = new pulumi.Config();
const platform = new pulumi.StackReference(config.require("platformStack"));
const gateway = platform.requireOutput("gateway");
const cluster = new kubernetes.Provider("cluster");

const tenant = new voicemesh.TenantNamespace(
    "newsroom",
    {
        name: "newsroom",
        quota: { cpuCores: 8, memoryGib: 40, pods: 6, gpus: { "nvidia.com/gpu": 2 } },
        injectionLabels: platform.requireOutput("injectionLabels"),
        network: { gatewayNamespace: gateway.apply((known) => known.namespace) },
    },
    { providers: [cluster] },
);

const voice = new voicemesh.TtsVoiceService(
    "newsroom-reader",
    {
        namespace: tenant.namespace,
        serviceName: "reader",
        hosts: config.getObject<string[]>("hosts") ?? [],
        gatewayRef: gateway.apply((known) => known.ref),
        gatewayPrincipal: gateway.apply((known) => known.principal),
        issuers: config.getObject<Issuer[]>("issuers") ?? [],
        variants: [{ name: "stable", version: "1.0.0", image: config.require("image") }],
    },
    { providers: [cluster] },
);

export const urls = voice.urls;
