"""A shared file system of the class `efs`, from which outputs are deleted after a day."""

import pulumi
import pulumi_kubernetes as kubernetes

from voicemesh import VoiceVolume, VoiceVolumeArgs

volume = VoiceVolume(
    "newsroom",
    VoiceVolumeArgs(
        namespace="newsroom",
        storage_class="efs",
        cleanup_image="registry.example.com/speech-server:1.4.2",
        output_days=1,
    ),
    pulumi.ResourceOptions(providers=[kubernetes.Provider("cluster")]),
)

pulumi.export("claimName", volume.claim_name)
