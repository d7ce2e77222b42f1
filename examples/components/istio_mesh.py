"""The mesh, for voices whose streams last ten minutes at most. Its proxies know where the keys of
tokens are."""

import pulumi
import pulumi_kubernetes as kubernetes

from voicemesh import IstioMesh, IstioMeshArgs, TokenIssuer

login = TokenIssuer(
    "https://login.example.com/", "https://login.example.com/.well-known/jwks.json", ["voicemesh"]
)
mesh = IstioMesh(
    "mesh",
    IstioMeshArgs(issuers=[login], max_stream_seconds=600, istiod_replicas=3),
    pulumi.ResourceOptions(providers=[kubernetes.Provider("cluster")]),
)

pulumi.export("injectionLabels", mesh.injection_labels)
