"""A bucket for models, reference voices and outputs, which expire after three days."""

import pulumi
import pulumi_aws as aws

from voicemesh import VoiceStorage, VoiceStorageArgs

storage = VoiceStorage(
    "voices",
    VoiceStorageArgs(output_days=3, tags={"team": "speech"}),
    pulumi.ResourceOptions(providers=[aws.Provider("frankfurt", region="eu-central-1")]),
)

pulumi.export("bucket", storage.bucket)
