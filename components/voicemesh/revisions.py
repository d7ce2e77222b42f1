"""Control planes side by side, and the tag that says which of them the mesh's namespaces follow.

https://istio.io/latest/docs/setup/upgrade/canary/
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_kubernetes.admissionregistration.v1 import (
    MutatingWebhookArgs,
    MutatingWebhookConfiguration,
    RuleWithOperationsArgs,
    ServiceReferenceArgs,
    WebhookClientConfigArgs,
)
from pulumi_kubernetes.meta.v1 import (
    LabelSelectorArgs,
    LabelSelectorRequirementArgs,
    ObjectMetaArgs,
)

from voicemesh import contract
from voicemesh.arguments import Faults
from voicemesh.charts import ChartSource

DEFAULT_REVISION: Final = "default"
"""What Istio calls the control plane that was installed without a revision."""

REVISION_TAG: Final = "voicemesh"
REVISION_LABEL: Final = "istio.io/rev"
INJECTION_LABELS: Final = {REVISION_LABEL: REVISION_TAG}

_LEGACY_LABEL: Final = "istio-injection"
NO_INJECTION: Final = {_LEGACY_LABEL: "disabled"}
"""Labels of a namespace that is not meant to have sidecars."""

_WEBHOOK_NAME: Final = "rev.namespace.sidecar-injector.istio.io"


@dataclass(frozen=True)
class MeshRevision:
    """A control plane beside others."""

    name: str
    """Name of the revision, as in 1-31-1; `default` for the one that a mesh begins with."""

    image_tag: str | None = None
    """Tag of the images of istiod, and of the proxies that follow it; by default the mesh's."""

    charts: ChartSource | None = None
    """Where its chart comes from; by default where the mesh's come from."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes a name that Kubernetes or Istio has another meaning for."""
        faults.dns_label(f"{path}.name", self.name)
        allowed = f"another name: {REVISION_TAG!r} is the tag that follows `current_revision`"
        faults.require(self.name != REVISION_TAG, f"{path}.name", self.name, allowed)
        if self.charts is not None:
            self.charts.check(faults, f"{path}.charts")


THE_DEFAULT: Final = MeshRevision(DEFAULT_REVISION)


def check_revisions(faults: Faults, revisions: Sequence[MeshRevision], current: str) -> None:
    """Notes names that occur twice, and a current revision that there is not."""
    for index, revision in enumerate(revisions):
        revision.check(faults, f"revisions[{index}]")
    names = [revision.name for revision in revisions]
    faults.unique("revisions", names, "name")
    known = names or [DEFAULT_REVISION]
    faults.require(current in known, "current_revision", current, f"one of {', '.join(known)}")


def suffixed(text: str, revision: str) -> str:
    """How Istio names what belongs to a revision."""
    return text if revision == DEFAULT_REVISION else f"{text}-{revision}"


def restart_annotations(revision: pulumi.Input[str] | None) -> dict[str, pulumi.Input[str]]:
    """Annotations of pods that are to be made again when they follow another control plane.

    The label of their namespace stays the same then, and a proxy stays what it was injected as.
    """
    return {} if revision is None else {contract.MESH_REVISION_ANNOTATION: revision}


def declare_tag(
    name: str, namespace: str, revision: str, opts: pulumi.ResourceOptions
) -> MutatingWebhookConfiguration:
    """Lets a revision inject the pods of all namespaces that have the tag.

    The tag of Istio's chart would belong to the release of one revision, and could not leave it.
    istiod adds the authority by which the API server knows it, here as to the chart's own
    (https://istio.io/latest/docs/ops/configuration/mesh/webhook/).
    """
    return MutatingWebhookConfiguration(
        name,
        metadata=ObjectMetaArgs(
            name=f"istio-revision-tag-{REVISION_TAG}",
            labels={
                "app": "sidecar-injector",
                REVISION_LABEL: revision,
                "istio.io/tag": REVISION_TAG,
            },
        ),
        webhooks=[
            MutatingWebhookArgs(
                name=_WEBHOOK_NAME,
                client_config=WebhookClientConfigArgs(
                    service=ServiceReferenceArgs(
                        name=suffixed("istiod", revision),
                        namespace=namespace,
                        path="/inject",
                        port=443,
                    )
                ),
                namespace_selector=LabelSelectorArgs(
                    match_expressions=[
                        _requirement(REVISION_LABEL, "In", REVISION_TAG),
                        _requirement(_LEGACY_LABEL, "DoesNotExist"),
                    ]
                ),
                object_selector=LabelSelectorArgs(
                    match_expressions=[_requirement("sidecar.istio.io/inject", "NotIn", "false")]
                ),
                rules=[
                    RuleWithOperationsArgs(
                        operations=["CREATE"],
                        api_groups=[""],
                        api_versions=["v1"],
                        resources=["pods"],
                    )
                ],
                # A pod without its sidecar would be out of reach, and out of the mesh's rules.
                failure_policy="Fail",
                side_effects="None",
                admission_review_versions=["v1"],
            )
        ],
        opts=opts,
    )


def _requirement(key: str, operator: str, *values: str) -> LabelSelectorRequirementArgs:
    return LabelSelectorRequirementArgs(key=key, operator=operator, values=list(values) or None)
