"""Policies for text-to-speech on Kubernetes, Istio and GPU nodes, as a policy pack of Pulumi.

`voicemesh_policies.pack.policies()` gives them to packs of other teams; `rules.ALL` has the rules
with their metadata, which need neither Pulumi nor an engine.
"""
