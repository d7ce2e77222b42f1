"""The plugin: configuration, clients, and which types and functions there are."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

import botocore.session
from botocore.client import BaseClient
from botocore.exceptions import BotoCoreError, ClientError

from infra.local.adapters.aws_provider import (
    capacity,
    ec2,
    ecr,
    eks,
    iam,
    kms,
    launch_template,
    logs,
    policy_document,
    s3,
    security_group,
)
from infra.local.adapters.aws_provider.configuration import Configuration
from infra.local.adapters.aws_provider.resource import TableResource
from infra.local.adapters.aws_provider.unsimulated import UnsimulatedResource
from infra.local.adapters.property_values import Properties, changes, has_unknown, plain
from infra.local.adapters.provider_base import (
    Diff,
    Provider,
    ProviderError,
    ResourceType,
    UnsupportedTypeError,
    replaced_by,
)

VERSION = "7.51.1"
"""The released provider whose tokens and property names these are."""

SPECS = {
    spec.type: spec
    for module in (s3, kms, ec2, security_group, launch_template, capacity, eks, iam, ecr, logs)
    for spec in module.SPECS
}

UNSIMULATED = tuple(spec.type for spec in SPECS.values() if not spec.simulated)
"""The types that the local AWS server does not know: checked, and kept in the state alone."""

UNTOLD = {
    spec.type: names
    for spec in SPECS.values()
    if (names := tuple(f.name for f in spec.fields if f.untold))
}
"""The properties that the local AWS server takes and does not tell: drift in them is not seen."""


class AwsProvider(Provider):
    """Pulumi's provider `aws`, as far as the project uses it."""

    def __init__(self) -> None:
        super().__init__("aws", VERSION)
        self._configuration: Configuration | None = None
        self._session = botocore.session.Session()
        self._clients: dict[tuple[str, str], BaseClient] = {}
        self._account = ""
        # A botocore session must not make two clients at once.
        self._lock = threading.Lock()
        self._functions: dict[str, Callable[[Properties], Properties]] = {
            "aws:iam/getPolicyDocument:getPolicyDocument": policy_document.policy_document,
            "aws:index/getCallerIdentity:getCallerIdentity": self._caller_identity,
            "aws:index/getPartition:getPartition": self._partition,
            "aws:index/getRegion:getRegion": self._region,
        }

    def check_config(self, olds: Properties, news: Properties) -> Properties:
        del olds
        Configuration.parse(news)
        return news

    def diff_config(self, olds: Properties, news: Properties) -> Diff:
        """Resources of another region are other resources."""
        changed = changes(olds, news)
        return Diff(changed, replaced_by(changed, [("region",)]))

    def configure(self, config: Properties) -> None:
        if has_unknown(config):
            return
        self._configuration = Configuration.parse(config)
        if self._configuration.profile:
            self._session.set_config_variable("profile", self._configuration.profile)
        if not self._configuration.skip_credentials_validation:
            self._caller_identity({})

    def resource_type(self, token: str) -> ResourceType:
        if token not in SPECS:
            raise UnsupportedTypeError(token, self.name)
        spec = SPECS[token]
        return TableResource(spec, self) if spec.simulated else UnsimulatedResource(spec, self)

    def invoke(self, token: str, arguments: Properties) -> Properties:
        if token not in self._functions:
            raise UnsupportedTypeError(token, self.name)
        return self._functions[token](plain(arguments))

    @property
    def configuration(self) -> Configuration:
        """Raises `ProviderError` while the configuration is not known."""
        if self._configuration is None:
            raise ProviderError("the aws provider's configuration is not known yet")
        return self._configuration

    @property
    def default_tags(self) -> Mapping[str, str]:
        return self._configuration.default_tags if self._configuration else {}

    def region_of(self, properties: Properties) -> str:
        """The region that a resource states, or the provider's."""
        return properties.get("region") or self.configuration.region

    def partition_of(self, region: str) -> str:
        return self._session.get_partition_for_region(region)

    def account(self) -> str:
        """The account that the credentials belong to."""
        if not self._account:
            self._account = self._caller_identity({})["accountId"]
        return self._account

    def endpoint_of(self, service: str) -> str:
        """The URL of a service; empty where it is AWS's own."""
        # botocore's clients follow the variable, too.
        return self.configuration.endpoints.get(service) or os.environ.get("AWS_ENDPOINT_URL", "")

    def model(self, service: str) -> Any:
        """AWS's service model, with which calls are validated."""
        with self._lock:
            return self._session.get_service_model(service)

    def client(self, service: str, region: str) -> BaseClient:
        with self._lock:
            if (service, region) not in self._clients:
                self._clients[service, region] = self._new_client(service, region)
            return self._clients[service, region]

    def _new_client(self, service: str, region: str) -> BaseClient:
        configuration = self.configuration
        return self._session.create_client(
            service,
            region_name=region,
            endpoint_url=self.endpoint_of(service) or None,
            aws_access_key_id=configuration.access_key or None,
            aws_secret_access_key=configuration.secret_key or None,
            aws_session_token=configuration.token or None,
            verify=None if configuration.verify_certificates else False,
            config=configuration.botocore_config(),
        )

    def _caller_identity(self, arguments: Properties) -> Properties:
        del arguments
        try:
            found = self.client("sts", self.configuration.region).get_caller_identity()
        except (BotoCoreError, ClientError) as error:
            raise ProviderError(
                f"AWS does not accept the provider's credentials: {error}; check accessKey, "
                "secretKey and endpoints.sts, or set skipCredentialsValidation"
            ) from error
        account = found["Account"]
        return {"accountId": account, "arn": found["Arn"], "userId": found["UserId"], "id": account}

    def _region(self, arguments: Properties) -> Properties:
        region = self.region_of(arguments)
        return {
            "region": region,
            "name": arguments.get("name") or region,
            "id": region,
            "endpoint": f"ec2.{region}.amazonaws.com",
            "description": region,
        }

    def _partition(self, arguments: Properties) -> Properties:
        del arguments
        partition = self.partition_of(self.configuration.region)
        suffix = "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com"
        reverse = ".".join(reversed(suffix.split(".")))
        return {
            "partition": partition,
            "id": partition,
            "dnsSuffix": suffix,
            "reverseDnsPrefix": reverse,
        }
