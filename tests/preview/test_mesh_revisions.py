"""Control planes side by side: what a mesh declares at each step of its way to another one."""

from __future__ import annotations

import pytest

from voicemesh import ArgumentsError, IstioMesh, IstioMeshArgs, MeshRevision
from voicemesh.testing import Recording, record

RELEASE = "kubernetes:helm.sh/v3:Release"
TAG = "kubernetes:admissionregistration.k8s.io/v1:MutatingWebhookConfiguration"
FIRST, SECOND = MeshRevision("default"), MeshRevision("1-31-1", image_tag="1.31.1")


def mesh(*revisions: MeshRevision, current: str = "default") -> Recording:
    args = IstioMeshArgs(revisions=revisions, current_revision=current)
    return record(lambda: IstioMesh("mesh", args) and None)


def test_a_mesh_that_is_never_upgraded_is_the_same_with_its_revision_named() -> None:
    unnamed, named = mesh(), mesh(FIRST)
    assert {(it.urn, str(it.inputs)) for it in unnamed.registrations} == {
        (it.urn, str(it.inputs)) for it in named.registrations
    }


def test_a_second_control_plane_changes_nothing_about_the_first() -> None:
    before, beside = mesh(), mesh(FIRST, SECOND)
    kept = {it.urn: it.inputs for it in beside.registrations}
    assert all(kept[it.urn] == it.inputs for it in before.registrations)
    known = {it.urn for it in before.registrations}
    (added,) = [it for it in beside.of_type(RELEASE) if it.urn not in known]
    assert added.inputs["name"] == "istiod-1-31-1"
    assert added.inputs["values"]["revision"] == "1-31-1"
    assert added.inputs["values"]["global"]["tag"] == "1.31.1"


def test_tag_and_validation_move_once_the_next_control_plane_runs() -> None:
    moved = mesh(FIRST, SECOND, current="1-31-1")
    (tag,) = moved.of_type(TAG)
    (webhook,) = tag.inputs["webhooks"]
    assert tag.inputs["metadata"]["labels"]["istio.io/rev"] == "1-31-1"
    assert webhook["clientConfig"]["service"]["name"] == "istiod-1-31-1"
    releases = {it.name: it for it in moved.of_type(RELEASE)}
    assert releases["mesh-base"].inputs["values"] == {"defaultRevision": "1-31-1"}
    assert releases["mesh-istiod-1-31-1"].urn in tag.depends_on


def test_a_current_revision_that_there_is_not_is_refused() -> None:
    with pytest.raises(ArgumentsError, match="one of default"):
        IstioMeshArgs(revisions=[FIRST], current_revision="1-31-1")
    with pytest.raises(ArgumentsError, match="'voicemesh' is the tag"):
        IstioMeshArgs(revisions=[MeshRevision("voicemesh")], current_revision="voicemesh")
