"""Names that the library, the image and the embedded environment must agree on.

Imports nothing, so that the image can carry it: `speech_server/contract.py` is a link to this file.
"""

from __future__ import annotations

from typing import Final

HTTP_PORT: Final = 8080
"""Port on which the speech server listens in its pod, and the port of its Service."""

SPEECH_PATH: Final = "/v1/audio/speech"
SPEECH_STREAM_PATH: Final = "/v1/audio/speech/stream"
"""A WebSocket: text as it is written, audio as it is made."""
TTS_PATH: Final = "/tts"
VOICES_PATH: Final = "/v1/audio/voices"
"""Reference voices: uploaded, listed, deleted."""
BATCH_PATH: Final = "/batch"
ADMIN_PATH: Final = "/admin"
PAGE_PATH: Final = "/"
HEALTH_PATH: Final = "/healthz"
READY_PATH: Final = "/readyz"
METRICS_PATH: Final = "/metrics"

REQUEST_ID_HEADER: Final = "x-request-id"

APP_LABEL: Final = "app"
VERSION_LABEL: Final = "version"
VARIANT_LABEL: Final = "voicemesh.io/variant"
"""Which variant of its service a pod belongs to. Unlike the version, it never changes in place."""
BACKUP_LABEL: Final = "voicemesh.io/backup"
"""Whether a pod answers for variants whose single pod is down or ejected: "true" or "false"."""
ACCELERATOR_LABEL: Final = "accelerator"
NODE_TYPE_LABEL: Final = "node-type"
TENANT_LABEL: Final = "voicemesh.io/tenant"

GATEWAY_NAMESPACE: Final = "istio-ingress"
MONITORING_NAMESPACE: Final = "monitoring"
"""Where Prometheus and the collector of traces run."""

H100: Final = "h100"
ONLINE_NODE_TYPE: Final = "online-inference"
OFFLINE_NODE_TYPE: Final = "offline-inference"

GPU_RESOURCE: Final = "nvidia.com/gpu"
GPU_TAINT_KEY: Final = "nvidia.com/gpu"
GPU_TAINT_VALUE: Final = "true"
WORKLOAD_TAINT_KEY: Final = "workload"
OFFLINE_WORKLOAD: Final = "offline"

# What the speech server counts: the names of its Prometheus metrics (counters without "_total").
REQUESTS_METRIC: Final = "voicemesh_speech_requests"
"""Requests by `outcome`: served, refused (4xx), shed (429), failed (5xx), broken, abandoned."""
FIRST_AUDIO_METRIC: Final = "voicemesh_first_audio_seconds"
SYNTHESIS_SECONDS_METRIC: Final = "voicemesh_synthesis_seconds"
AUDIO_SECONDS_METRIC: Final = "voicemesh_audio_seconds"
CHARACTERS_METRIC: Final = "voicemesh_characters"
QUEUE_DEPTH_METRIC: Final = "voicemesh_queue_depth_requests"
RUNNING_METRIC: Final = "voicemesh_running_syntheses"
UNREAD_AUDIO_METRIC: Final = "voicemesh_unread_audio_bytes"
READY_METRIC: Final = "voicemesh_ready"

# Where object storage and volumes keep what: a tenant's part is `<prefix><tenant>/`.
MODELS_PREFIX: Final = "models/"
VOICES_PREFIX: Final = "voices/"
"""Reference voices. They never expire."""
OUTPUTS_PREFIX: Final = "outputs/"
QUALITY_PREFIX: Final = "quality/"
"""Audio kept for a while to judge its quality."""

LIVE_TAG_PREFIX: Final = "live-"
"""Images with a tag that begins so serve requests somewhere: the registry never expires them."""
ROLLBACK_TAG_PREFIX: Final = "rollback-"
"""Images with a tag that begins so are what some voice would go back to: they never expire."""

# Settings of the speech server that components give it.
DRAIN_VARIABLE: Final = "SPEECH_DRAIN_SECONDS"
MODEL_DIRECTORY_VARIABLE: Final = "SPEECH_MODEL_DIRECTORY"
OUTPUTS_VARIABLE: Final = "SPEECH_OUTPUTS_URI"
GATEWAY_PRINCIPAL_VARIABLE: Final = "SPEECH_GATEWAY_PRINCIPAL"

WEIGHTS_MODULE: Final = "speech_server.weights"
"""What an image runs to fetch the weights of its engine."""
WEIGHTS_MANIFEST: Final = "SHA256SUMS"
"""Object beside the weights that has the digest of each."""

# Claims of access tokens, and the headers that the gateway sets from them.
TENANT_CLAIM: Final = "tenant"
TIER_CLAIM: Final = "tier"
SCOPE_CLAIM: Final = "scope"
"""Scopes of a token: one text with spaces between them, or a list."""
VIP_TIER: Final = "vip"
BASIC_SCOPE: Final = "tts.basic"
"""May speak with preset voices."""
PREMIUM_SCOPE: Final = "tts.premium"
"""May also manage and speak with reference voices."""
BATCH_SCOPE: Final = "tts.batch"
ADMIN_SCOPE: Final = "tts.admin"

# Headers that the public gateway takes from a verified token, whatever a client sends in them. The
# server trusts them only if the last element of CLIENT_CERT_HEADER names the gateway.
TENANT_HEADER: Final = "x-tenant"
TIER_HEADER: Final = "x-user-tier"
SCOPE_HEADER: Final = "x-scope"
SUBJECT_HEADER: Final = "x-subject"
CLIENT_CERT_HEADER: Final = "x-forwarded-client-cert"
"""Identities of the callers on the way, the last one the caller of this server. Proxies write it:
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers"""

VARIANT_HEADER: Final = "x-voice-variant"
"""Name of the variant that a request is to reach, for experiments."""
VOICE_ID_HEADER: Final = "x-voice-id"
"""Requests with the same value may be led to the same pod, which then has the voice at hand."""

PROMETHEUS_URL: Final = f"http://prometheus.{MONITORING_NAMESPACE}.svc.cluster.local:9090"
"""Where Prometheus is unless somebody says otherwise."""
GPU_ACTIVITY_METRIC: Final = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
"""Share of time, 0 to 1, in which a GPU or slice works. DCGM_FI_DEV_GPU_UTIL is not reported for
slices (NVIDIA/dcgm-exporter issue 430)."""

UNPRIVILEGED_USER: Final = 10001
"""User and group of the bundled image, and owner of the files that it writes."""

GPU_SYSTEM_NAMESPACE: Final = "gpu-system"
"""Namespace of the GPUs' device plugin and of the exporter of their metrics."""
CONTROLLER_NAMESPACE: Final = "cluster-controllers"
"""Namespace of the controllers that call AWS: load balancers and the size of node groups."""
LOAD_BALANCER_CONTROLLER: Final = "aws-load-balancer-controller"
CLUSTER_AUTOSCALER: Final = "cluster-autoscaler"
MIG_CONFIG_LABEL: Final = "nvidia.com/mig.config"
MIG_RESOURCE_PREFIX: Final = "nvidia.com/mig-"
GPU_PRESENT_LABEL: Final = "nvidia.com/gpu.present"
"""Says "true" on nodes with GPUs: NVIDIA's DaemonSets run where it does."""

MESH_REVISION_ANNOTATION: Final = "voicemesh.io/mesh-revision"
"""Which control plane a pod was made for: with another one, the pod is made again."""
