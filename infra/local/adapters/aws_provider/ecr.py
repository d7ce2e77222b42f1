"""ECR: repositories and their lifecycle policies."""

from __future__ import annotations

from infra.local.adapters.aws_provider.mapping import (
    JSON_DOCUMENT,
    Autoname,
    Call,
    Codec,
    Field,
    Spec,
    Tagging,
)

_NOT_FOUND = "RepositoryNotFoundException"
_MUTABILITY = {
    "imageTagMutability": "imageTagMutability",
    "imageTagMutabilityExclusionFilters": "imageTagMutabilityExclusionFilters",
}
_SCANNING = {"imageScanningConfiguration": "imageScanningConfiguration"}

REPOSITORY = Spec(
    type="aws:ecr/repository:Repository",
    service="ecr",
    id="{name}",
    fields=(
        Field(
            "name",
            pattern=(
                r"(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*",
                "parts of a-z, 0-9 and single ._- inside, with / between the parts",
            ),
        ),
        Field(
            "encryptionConfigurations",
            computed=True,
            # A list of one, which AWS takes as a structure.
            codec=Codec(encode=lambda items: items[0], decode=lambda item: [item], expects=list),
        ),
        Field(
            "imageScanningConfiguration",
            computed=True,
            fields=(Field("scanOnPush", "scanOnPush"),),
        ),
        Field("imageTagMutability", default="MUTABLE"),
        Field(
            "imageTagMutabilityExclusionFilters",
            fields=(Field("filter", "filter"), Field("filterType", "filterType")),
        ),
        Field("forceDelete", local_type=bool, default=False),
    ),
    autoname=Autoname("name", maximum=256),
    create=Call(
        "CreateRepository",
        {
            "repositoryName": "name",
            "encryptionConfiguration": "encryptionConfigurations",
            "tags": "tags",
            **_SCANNING,
            **_MUTABILITY,
        },
    ),
    updates=(
        Call("PutImageTagMutability", {"repositoryName": "name", **_MUTABILITY}),
        Call("PutImageScanningConfiguration", {"repositoryName": "name", **_SCANNING}),
    ),
    reads=(
        Call(
            "DescribeRepositories",
            {"repositoryNames[0]": "name"},
            {
                "repositories[0].repositoryName": "name",
                "repositories[0].repositoryArn": "arn",
                "repositories[0].repositoryUri": "repositoryUrl",
                "repositories[0].registryId": "registryId",
                "repositories[0].encryptionConfiguration": "encryptionConfigurations",
                **{f"repositories[0].{m}": n for m, n in (_SCANNING | _MUTABILITY).items()},
            },
            absent=(_NOT_FOUND,),
        ),
    ),
    delete=Call(
        "DeleteRepository",
        {"repositoryName": "name", "force": "forceDelete"},
        absent=(_NOT_FOUND,),
    ),
    tagging=Tagging(
        read=Call("ListTagsForResource", {"resourceArn": "arn"}, {"tags": "tags"}),
        put=Call("TagResource", {"resourceArn": "arn", "tags": "tags"}),
        remove=Call("UntagResource", {"resourceArn": "arn", "tagKeys": "removedTagKeys"}),
    ),
    computed=("arn", "registryId", "repositoryUrl"),
)

_PUT_LIFECYCLE = Call(
    "PutLifecyclePolicy", {"repositoryName": "repository", "lifecyclePolicyText": "policy"}
)

LIFECYCLE_POLICY = Spec(
    type="aws:ecr/lifecyclePolicy:LifecyclePolicy",
    service="ecr",
    id="{repository}",
    fields=(Field("repository"), Field("policy", codec=JSON_DOCUMENT)),
    create=_PUT_LIFECYCLE,
    updates=(_PUT_LIFECYCLE,),
    reads=(
        Call(
            "GetLifecyclePolicy",
            {"repositoryName": "repository"},
            {"lifecyclePolicyText": "policy", "registryId": "registryId"},
            absent=(_NOT_FOUND, "LifecyclePolicyNotFoundException"),
        ),
    ),
    delete=Call(
        "DeleteLifecyclePolicy",
        {"repositoryName": "repository"},
        absent=(_NOT_FOUND, "LifecyclePolicyNotFoundException"),
    ),
    computed=("registryId",),
)

SPECS = (REPOSITORY, LIFECYCLE_POLICY)
