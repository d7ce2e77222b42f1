"""The AWS side of an environment: network, EKS cluster, node groups, and the cluster's add-ons.

Nothing here knows Kubernetes but `addons`, so that a stack which owns the cluster alone plans
without reaching one.
"""
