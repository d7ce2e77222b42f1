"""`TenantNamespace`: a tenant's share of the cluster, and the rules its pods live by.

`arguments` says what can be asked for, `network` and `access` decide what follows from it, and
`component` declares the resources.
"""

from voicemesh.tenancy.arguments import Egress, TenantNamespaceArgs, TenantNetwork, TenantQuota
from voicemesh.tenancy.component import TenantNamespace

__all__ = ["Egress", "TenantNamespace", "TenantNamespaceArgs", "TenantNetwork", "TenantQuota"]
