"""Resources of types that the local AWS server does not know.

Their inputs are checked like those of any other type, and the requests that would make them by
AWS's service model; nothing is sent. The stack's state is the only place where they are.
"""

from __future__ import annotations

from botocore.validate import ParamValidator

from infra.local.adapters.aws_provider.checking import input_shape
from infra.local.adapters.aws_provider.mapping import PREVIOUS, request_of
from infra.local.adapters.aws_provider.mapping import Call as AwsCall
from infra.local.adapters.aws_provider.resource import TableResource
from infra.local.adapters.property_values import Properties, plain
from infra.local.adapters.provider_base import Call, Live, ProviderError


class UnsimulatedResource(TableResource):
    """A resource that is kept in the state alone."""

    def create(self, call: Call, inputs: Properties) -> tuple[str, Properties]:
        properties = {**plain(inputs), "region": self.cloud.region_of(plain(inputs))}
        self._validate(call, self.spec.create, properties)
        outputs = self._outputs(properties)
        call.info(f"not simulated by the local AWS server: {self._title(outputs)}")
        return self.spec.id_of(outputs), outputs

    def read(self, call: Call, id_: str, inputs: Properties, outputs: Properties) -> Live | None:
        if not inputs:
            raise ProviderError(
                f"{call.type} {call.name} ({id_}): cannot be imported, since the local AWS server "
                "does not simulate its type"
            )
        return Live(id_, outputs, inputs)

    def update(
        self,
        call: Call,
        id_: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
    ) -> Properties:
        del id_
        properties = plain(self._desired(old_outputs, news))
        properties["region"] = self.cloud.region_of(properties)
        changed = {str(path[0]) for path in self._changed(old_inputs, news)}
        for aws_call in self.spec.updates:
            if changed & aws_call.carries:
                told = {**self._told(aws_call, properties, changed), PREVIOUS: plain(old_outputs)}
                self._validate(call, aws_call, told)
        call.info(f"change not simulated by the local AWS server: {self._title(properties)}")
        return self._outputs(properties)

    def delete(self, call: Call, id_: str, inputs: Properties, outputs: Properties) -> None:
        """Nothing was made."""

    def _title(self, properties: Properties) -> str:
        kind = self.spec.type.rpartition(":")[2]
        return f"{self.spec.service} {kind} {self.spec.id_of(properties)}"

    def _validate(self, call: Call, aws_call: AwsCall, properties: Properties) -> None:
        where = f"{call.type} {call.name}: {aws_call.operation}"
        if not self.cloud.endpoint_of(self.spec.service):
            raise ProviderError(
                f"{where}: only the local AWS server may be told less than is asked for; install "
                "Pulumi's released plugin to use this type on AWS"
            )
        request = request_of(self.spec, aws_call, properties)
        shape = input_shape(self.cloud.model(self.spec.service), aws_call.operation)
        report = ParamValidator().validate(request or {}, shape)
        if report.has_errors():
            raise ProviderError(f"{where}: {report.generate_report()}")
