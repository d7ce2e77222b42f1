"""The account `reader` of the tenant `newsroom` reads models, and its own voices and outputs."""

import pulumi
import pulumi_aws as aws

from voicemesh import VoiceStorageAccess, VoiceStorageAccessArgs

cluster = pulumi.StackReference("acme/voicemesh/prod-cluster")

access = VoiceStorageAccess(
    "newsroom-reader",
    VoiceStorageAccessArgs(
        cluster_name=cluster.require_output("clusterName"),
        namespace="newsroom",
        service_account="reader",
        tenant="newsroom",
        bucket_arn=cluster.require_output("bucketArn"),
        key_arn=cluster.require_output("bucketKeyArn"),
    ),
    pulumi.ResourceOptions(providers=[aws.Provider("frankfurt", region="eu-central-1")]),
)

pulumi.export("roleArn", access.role_arn)
