"""The mesh, for voices whose streams last ten minutes at most."""

import pulumi
import pulumi_kubernetes as kubernetes

from voicemesh import IstioMesh, IstioMeshArgs

mesh = IstioMesh(
    "mesh",
    IstioMeshArgs(max_stream_seconds=600, istiod_replicas=3),
    pulumi.ResourceOptions(providers=[kubernetes.Provider("cluster")]),
)

pulumi.export("injectionLabels", mesh.injection_labels)
