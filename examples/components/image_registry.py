"""A repository for the speech server and one for an engine of the team's own."""

import pulumi
import pulumi_aws as aws

from voicemesh import ImageRegistry, ImageRegistryArgs

registry = ImageRegistry(
    "images",
    ImageRegistryArgs(
        repositories=["speech-server", "whisper-scorer"],
        name_prefix="voicemesh-prod",
        unused_days=60,
    ),
    pulumi.ResourceOptions(providers=[aws.Provider("frankfurt", region="eu-central-1")]),
)

pulumi.export("speechServer", registry.urls["speech-server"])
