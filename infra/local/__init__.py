"""The embedded environment: a real Kubernetes, Istio and Pulumi engine on one Debian machine."""
