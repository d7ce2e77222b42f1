"""The components on the real engine for programs in other languages: `PulumiPlugin.yaml`."""

from __future__ import annotations

import json

import pytest

from infra.local.adapters.kubernetes_provider.api import Api
from tests.stacks import ROOT

from .engine import Stack

# What a generated SDK does: the component is registered as a remote one, under its wire names.
TENANT = """
class TenantNamespace(pulumi.ComponentResource):
    namespace: pulumi.Output[str]

    def __init__(self, name, props, opts=None):
        outputs = {{"namespace": None}}
        token = "voicemesh:index:TenantNamespace"
        super().__init__(token, name, {{**props, **outputs}}, opts, True)


provider = k8s.Provider("cluster")
tenant = TenantNamespace(
    "tenant",
    {inputs},
    pulumi.ResourceOptions(providers=[provider]),
)
pulumi.export("namespace", tenant.namespace)
"""


@pytest.fixture
def remote(stack: Stack) -> Stack:
    """A stack whose project finds the package in the checkout."""
    project = stack.folder / "Pulumi.yaml"
    plugins = f"plugins: {{providers: [{{name: voicemesh, path: '{ROOT}'}}]}}\n"
    project.write_text(project.read_text() + plugins)
    return stack


def test_the_cli_reads_the_schema_from_the_folder_of_the_package(stack: Stack) -> None:
    text = stack.cli("package", "get-schema", str(ROOT)).text
    seen = json.loads(text[text.index("{") : text.rindex("}") + 1])
    committed = json.loads((ROOT / "schema.json").read_text())
    for part in ("inputProperties", "requiredInputs", "required"):
        assert {
            token: resource.get(part) or [] for token, resource in seen["resources"].items()
        } == {token: resource.get(part) or [] for token, resource in committed["resources"].items()}


def test_a_component_of_the_package_goes_up_and_down(remote: Stack, home: str, api: Api) -> None:
    inputs = {"name": f"{home}-a", "quota": {"cpuCores": 8, "memoryGib": 16, "pods": 10}}
    remote.up(TENANT.format(inputs=inputs))
    assert remote.outputs() == {"namespace": f"{home}-a"}
    quotas = api.list(api.kind("v1", "ResourceQuota"), f"{home}-a")
    assert [quota["spec"]["hard"]["requests.cpu"] for quota in quotas] == ["8"]
    remote.unchanged()
    remote.destroy()
    assert remote.names() == []


def test_a_refused_argument_is_named_as_the_caller_wrote_it(remote: Stack) -> None:
    inputs = {"name": "Tenant A", "quota": {"cpuCores": -0.5, "memoryGib": 16, "pods": 10}}
    text = remote.preview(TENANT.format(inputs=inputs), fails=True).text
    assert "property quota.cpuCores with value '{-0.5}' has a problem: is -0.5; allowed: " in text
    assert "property name with value '{Tenant A}' has a problem: is 'Tenant A'; allowed: " in text
