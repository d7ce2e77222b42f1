"""Versions of what the embedded environment is made of.

The go.mod of each tool pins the same versions; a unit test compares them.
"""

from __future__ import annotations

PULUMI_VERSION = "3.259.0"
KUBERNETES_VERSION = "1.35.4"
ISTIO_VERSION = "1.31.0"
HELM_VERSION = "3.22.0"
COREDNS_VERSION = "1.15.0"
METRICS_SERVER_VERSION = "0.9.0"
NETWORK_POLICIES_VERSION = "1.1.0"
"""Of kube-network-policies, which the tool `network-policies` is made of."""
RATELIMIT_VERSION = "1.4.1-0.20260122083618-3fb702589d36"
"""Of envoyproxy/ratelimit, which releases commits only."""
RATELIMIT_COMMIT = "3fb70258"
"""The same commit, as its project tags images."""
CORE_RULE_SET_VERSION = "4.25.0"
"""Of OWASP's rules, which the gateway's firewall is made of and named by."""
REDIS_VERSION = "7.0.15"
"""Of Debian's package."""
KWOK_VERSION = "0.8.0"
"""Simulates nodes, for `python -m tests.bench scale` only."""

GO_VERSION = "1.26.0"
"""The oldest Go that compiles every tool."""
GO_PACKAGE_VERSION = "1.26.6"
"""The Go toolchain installed where the machine has none or an older one."""

ISTIO_MODULE_VERSION = "v0.0.0-20260827124520-eed52ebb66ad"
"""Istio's release tags have no `v`, so its Go module is known by a commit: one of release-1.31."""
