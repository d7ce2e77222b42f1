"""A name for a bucket, which stays as long as the prefix does."""

import pulumi

from voicemesh import UniqueName, UniqueNameArgs

bucket = UniqueName("bucket", UniqueNameArgs(prefix="voicemesh-prod"))

pulumi.export("bucket", bucket.value)
