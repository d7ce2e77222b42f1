"""Kubernetes objects on the real engine and a real API server."""

from __future__ import annotations

from typing import Any

from infra.local.adapters.kubernetes_provider.api import Api

from .engine import Stack

WORKLOAD = """
here = {{"namespace": "{namespace}"}}
limits = k8s.core.v1.ResourceQuota(
    "limits",
    metadata={{**here, "name": "limits"}},
    spec={{"hard": {{"requests.cpu": "4000m", "pods": {pods}}}}},
)
settings = k8s.core.v1.ConfigMap("settings", metadata=here, data={{"level": "low"}})
server = k8s.apps.v1.Deployment(
    "server",
    metadata={{**here, "name": "server", "annotations": {{{annotation}}}}},
    spec={{
        "replicas": {replicas},
        "selector": {{"match_labels": {{"app": "{app}"}}}},
        "template": {{
            "metadata": {{"labels": {{"app": "{app}"}}}},
            "spec": {{
                "containers": [
                    {{
                        "name": "main",
                        "{image}": "localhost/none:1",
                        "resources": {{"requests": {{"cpu": "1000m", "memory": "1024Mi"}}}},
                    }},
                ],
            }},
        }},
    }},
    opts=pulumi.ResourceOptions(depends_on=[limits]),
)
pulumi.export("settings", settings.metadata.name)
pulumi.export("uid", server.metadata.uid)
"""
NO_AWAIT = '"pulumi.com/skipAwait": "true"'


def workload(
    namespace: str,
    *,
    annotation: str = NO_AWAIT,
    replicas: int = 1,
    app: str = "x",
    pods: int = 5,
    image: str = "image",
) -> str:
    """A program with a quota, a ConfigMap and a Deployment, of which one thing may be changed."""
    return WORKLOAD.format(
        namespace=namespace,
        annotation=annotation,
        replicas=replicas,
        app=app,
        pods=pods,
        image=image,
    )


def live(api: Api, api_version: str, kind: str, namespace: str, name: str) -> dict[str, Any]:
    found = api.get(api.kind(api_version, kind), namespace, name)
    assert found is not None, f"{kind} {namespace}/{name}"
    return found


def test_objects_live_as_long_as_the_program_wants_them(stack: Stack, home: str, api: Api) -> None:
    stack.up(workload(home))
    stack.unchanged()
    first = stack.outputs()
    assert first["settings"].startswith("settings-")

    stack.up(workload(home, replicas=2, pods=6))
    assert stack.outputs() == first, "names and uid stay: everything was changed in place"
    assert live(api, "apps/v1", "Deployment", home, "server")["spec"]["replicas"] == 2
    assert live(api, "v1", "ResourceQuota", home, "limits")["spec"]["hard"]["pods"] == "6"

    refreshed = stack.refresh()
    assert "4 unchanged" in refreshed.text
    assert "updated" not in refreshed.text
    stack.unchanged()

    replaced = stack.up(workload(home, replicas=2, pods=6, app="y"))
    assert "1 replaced" in replaced.text
    last = stack.outputs()
    assert last["uid"] != first["uid"], "a selector cannot be changed in place"
    assert last["settings"] == first["settings"]

    stack.destroy()
    assert stack.names() == []
    assert api.get(api.kind("apps/v1", "Deployment"), home, "server") is None


SPACE = """
space = k8s.core.v1.Namespace("space", metadata={{"labels": {{"team": "{team}"}}}})
inside = k8s.core.v1.ServiceAccount("inside", metadata={{"namespace": space.metadata.name}})
pulumi.export("space", space.metadata.name)
"""


def test_a_namespace_is_made_before_what_is_in_it_and_gone_after_it(stack: Stack, api: Api) -> None:
    stack.preview(SPACE.format(team="a"))
    stack.up()
    space = stack.outputs()["space"]
    assert space.startswith("space-")
    stack.up(SPACE.format(team="b"))
    assert stack.outputs()["space"] == space
    assert live(api, "v1", "Namespace", "", space)["metadata"]["labels"]["team"] == "b"
    stack.destroy()
    assert api.get(api.kind("v1", "Namespace"), "", space) is None


def test_what_others_changed_is_found_and_healed(stack: Stack, home: str, api: Api) -> None:
    program = workload(home, replicas=2)
    stack.up(program)
    settings = stack.outputs()["settings"]
    deployments = api.kind("apps/v1", "Deployment")
    changed = live(api, "apps/v1", "Deployment", home, "server")
    changed["spec"]["replicas"] = 7
    changed["metadata"]["labels"] = {"added": "by-others"}
    api.replace(deployments, changed)
    api.delete(api.kind("v1", "ConfigMap"), home, settings, "Background")

    refreshed = stack.refresh()
    assert "replicas" in refreshed.text
    assert "added" not in refreshed.text, "a field that the program does not set is no drift"
    assert "settings" not in stack.names()
    assert stack.resource("server")["inputs"]["spec"]["replicas"] == 7

    stack.up()
    assert live(api, "apps/v1", "Deployment", home, "server")["spec"]["replicas"] == 2
    assert "settings" in stack.names()
    stack.unchanged()


SERVICE = """
k8s.core.v1.Service(
    "front",
    metadata={{"namespace": "default", "annotations": {{"pulumi.com/skipAwait": "true"}}}},
    spec={{"type": "{type}", "{ports}": [{{"port": 80}}], "selector": {{"app": "x"}}}},
)
"""


def test_a_preview_names_the_field_that_the_server_refuses(stack: Stack) -> None:
    stack.preview(SERVICE.format(type="ClusterIP", ports="ports"))
    unknown = stack.preview(SERVICE.format(type="ClusterIP", ports="portz"), fails=True)
    assert "spec.portz" in unknown.text
    assert "Service default/front-" in unknown.text
    bad = stack.preview(SERVICE.format(type="Bogus", ports="ports"), fails=True)
    assert "spec.type" in bad.text


def test_a_refused_change_leaves_the_running_object_alone(
    stack: Stack, home: str, api: Api
) -> None:
    stack.up(workload(home))
    before = live(api, "apps/v1", "Deployment", home, "server")["metadata"]["generation"]
    refused = stack.up(workload(home, image="imagee"), fails=True)
    assert ".imagee" in refused.text
    missing = stack.up(workload("nowhere"), fails=True)
    assert 'namespaces "nowhere" not found' in missing.text
    after = live(api, "apps/v1", "Deployment", home, "server")["metadata"]["generation"]
    assert after == before
    stack.unchanged(workload(home))


def test_secrets_are_nowhere_in_clear(stack: Stack, api: Api) -> None:
    program = """
    import pulumi_random
    drawn = pulumi_random.RandomPassword("drawn", length=24, keepers={"round": "%s"})
    k8s.core.v1.Secret(
        "hidden",
        metadata={"namespace": "default", "name": "hidden"},
        string_data={"word": "correct-horse-battery", "drawn": drawn.result},
    )
    k8s.core.v1.ConfigMap(
        "shown",
        metadata={"namespace": "default", "name": "shown"},
        data={"word": "plainly-visible", "covered": pulumi.Output.secret("covered-text")},
    )
    """
    told = stack.up(program % 1).text + stack.preview(program % 2).text
    encoded = live(api, "v1", "Secret", "default", "hidden")["data"]
    assert encoded["word"] == "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5"
    exported = stack.export()
    opened = stack.export(secrets=True)
    for text in ("correct-horse-battery", encoded["word"], encoded["drawn"], "covered-text"):
        assert text not in exported + told
    assert "plainly-visible" in exported, "the export does hold the values that are no secret"
    assert encoded["drawn"] in opened, "the export with secrets does hold them"
    stack.refresh()
    stack.up(program % 2)
    assert live(api, "v1", "Secret", "default", "hidden")["data"]["drawn"] != encoded["drawn"]
    assert encoded["word"] not in stack.export()


def test_types_that_an_adapter_does_not_know_are_refused_by_name(stack: Stack) -> None:
    group = 'k8s.yaml.v2.ConfigGroup("group", yaml="")'
    assert "kubernetes:yaml/v2:ConfigGroup" in stack.preview(group, fails=True).text
    pet = 'import pulumi_random\npulumi_random.RandomPet("pet")'
    assert "random:index/randomPet:RandomPet" in stack.preview(pet, fails=True).text


def test_a_kind_that_the_server_does_not_serve_is_refused_by_name(stack: Stack) -> None:
    program = """
    k8s.apiextensions.CustomResource(
        "thing", api_version="%s", kind="Thing", metadata={"namespace": "default"}
    )
    """
    refused = stack.preview(program % "apps/v1", fails=True)
    assert "does not serve Thing in apps/v1" in refused.text
    stack.preview(program % "example.org/v1")


CRD = """
definition = k8s.apiextensions.CustomResource(
    "definition",
    api_version="apiextensions.k8s.io/v1",
    kind="CustomResourceDefinition",
    metadata={"name": "voices.example.org"},
    spec={
        "group": "example.org",
        "names": {"kind": "Voice", "plural": "voices", "singular": "voice"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "pitch": {"type": "string", "enum": ["LOW", "HIGH"]},
                                    "weight": {"type": "integer"},
                                },
                            }
                        },
                    }
                },
            }
        ],
    },
)
voice = k8s.apiextensions.CustomResource(
    "voice",
    api_version="example.org/v1",
    kind="Voice",
    metadata={"namespace": "default", "name": "voice"},
    spec={"pitch": "LOW", "weight": 10},
    opts=pulumi.ResourceOptions(depends_on=[definition]),
)
"""


def test_a_custom_resource_is_validated_by_its_definition(stack: Stack, api: Api) -> None:
    stack.preview(CRD)
    stack.up()
    stack.unchanged()
    stored = live(api, "example.org/v1", "Voice", "default", "voice")
    assert stored["spec"] == {"pitch": "LOW", "weight": 10}
    assert "spec.pitch" in stack.preview(CRD.replace('"LOW", "w', '"FLAT", "w'), fails=True).text
    assert (
        "spec.volume" in stack.preview(CRD.replace('"weight": 10', '"volume": 1'), fails=True).text
    )
    stack.up(CRD.replace('"weight": 10', '"weight": 90'))
    assert live(api, "example.org/v1", "Voice", "default", "voice")["spec"]["weight"] == 90


def test_an_existing_object_is_imported_but_never_silently_taken(
    stack: Stack, home: str, api: Api
) -> None:
    obj = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "found", "namespace": home},
        "spec": {"ports": [{"port": 80}]},
    }
    api.apply(api.kind("v1", "Service"), obj, force=True)
    program = """
    k8s.core.v1.Service(
        "found",
        metadata={"name": "found", "namespace": "%s"},
        spec={"ports": [{"port": %s}]},
        opts=pulumi.ResourceOptions(import_=%s),
    )
    """
    refused = stack.up(program % (home, 80, None), fails=True)
    assert f"Service {home}/found already exists" in refused.text
    stack.up(program % (home, 80, f"'{home}/found'"))
    assert stack.resource("found")["id"] == f"{home}/found"
    stack.unchanged(program % (home, 80, None))
    stack.up(program % (home, 82, None))
    assert live(api, "v1", "Service", home, "found")["spec"]["ports"][0]["port"] == 82


def test_an_object_that_does_not_become_ready_stays_in_the_state(stack: Stack, home: str) -> None:
    impatient = workload(home, annotation='"pulumi.com/timeoutSeconds": "3"')
    failed = stack.up(impatient, fails=True)
    assert f"Deployment {home}/server exists, but did not become ready" in failed.text
    assert "0 available" in failed.text
    kept = stack.resource("server")
    assert kept["id"] == f"{home}/server"
    assert kept["initErrors"]
    stack.up(workload(home))
    assert "initErrors" not in stack.resource("server")


def test_the_quota_that_refuses_pods_is_named(stack: Stack, home: str) -> None:
    short = '"pulumi.com/timeoutSeconds": "3"'
    failed = stack.up(workload(home, annotation=short, pods=0), fails=True)
    assert "exceeded quota: limits" in failed.text
