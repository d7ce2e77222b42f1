"""`pulumi-resource-aws`: see `infra.local.adapters.aws_provider`."""

from infra.local.adapters.aws_provider.provider import AwsProvider
from infra.local.adapters.provider_base import serve

if __name__ == "__main__":
    serve(AwsProvider())
