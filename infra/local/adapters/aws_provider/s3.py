"""S3: buckets, what is configured on them, and objects."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from botocore.client import BaseClient

from infra.local.adapters.aws_provider.mapping import (
    JSON_DOCUMENT,
    KEY_REFERENCE,
    TIMESTAMP,
    Autoname,
    Call,
    Codec,
    Field,
    Members,
    Scope,
    Spec,
    Tagging,
    tags_as_list,
)
from infra.local.adapters.property_values import Properties
from infra.local.adapters.provider_base import ProviderError

_BUCKET = Field("bucket", required=True)
_NO_BUCKET = "NoSuchBucket"
_AT_MOST_A_THOUSAND = 1000


def _located(request: Members, properties: Properties) -> Members:
    """us-east-1 is the one region that may not be named as a location constraint."""
    if properties["region"] != "us-east-1":
        request["CreateBucketConfiguration"] = {"LocationConstraint": properties["region"]}
    return request


def _bucket_outputs(properties: Properties, scope: Scope) -> Properties:
    bucket = properties["bucket"]
    return {
        "arn": f"arn:{scope.partition}:s3:::{bucket}",
        "bucketDomainName": f"{bucket}.s3.amazonaws.com",
        "bucketRegionalDomainName": f"{bucket}.s3.{scope.region}.amazonaws.com",
        "bucketRegion": scope.region,
    }


def _empty_bucket(client: BaseClient, properties: Properties) -> None:
    """With `forceDestroy`, deletes every version of every object, and unfinished uploads."""
    if properties.get("forceDestroy"):
        _delete_versions(client, properties["bucket"])
        _abort_uploads(client, properties["bucket"])


def _delete_versions(client: BaseClient, bucket: str, key: str = "") -> None:
    pages = client.get_paginator("list_object_versions").paginate(
        Bucket=bucket, Prefix=key, PaginationConfig={"PageSize": _AT_MOST_A_THOUSAND}
    )
    for page in pages:
        versions = [
            {"Key": version["Key"], "VersionId": version["VersionId"]}
            for kind in ("Versions", "DeleteMarkers")
            for version in page.get(kind, [])
            if not key or version["Key"] == key
        ]
        if versions:
            answer = client.delete_objects(
                Bucket=bucket, Delete={"Objects": versions, "Quiet": True}
            )
            _refuse_errors(bucket, answer.get("Errors", []))


def _refuse_errors(bucket: str, errors: list[dict[str, str]]) -> None:
    if errors:
        first = errors[0]
        raise ProviderError(
            f"{len(errors)} objects of bucket {bucket} could not be deleted, the first being "
            f"{first.get('Key')}: {first.get('Code')}: {first.get('Message')}"
        )


def _abort_uploads(client: BaseClient, bucket: str) -> None:
    for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
        for upload in page.get("Uploads", []):
            client.abort_multipart_upload(
                Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )


BUCKET = Spec(
    type="aws:s3/bucket:Bucket",
    service="s3",
    id="{bucket}",
    fields=(
        Field(
            "bucket",
            pattern=(
                r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
                "3 to 63 of a-z, 0-9, hyphen and dot, with a letter or digit at both ends",
            ),
        ),
        Field("bucketPrefix", local_type=str),
        Field("forceDestroy", local_type=bool, default=False),
        Field(
            "objectLockEnabled",
            default=False,
            codec=Codec(decode=lambda enabled: enabled == "Enabled", expects=bool),
        ),
    ),
    autoname=Autoname("bucket", maximum=63, prefix_property="bucketPrefix"),
    create=Call(
        "CreateBucket",
        {"Bucket": "bucket", "ObjectLockEnabledForBucket": "objectLockEnabled"},
        finish=_located,
    ),
    reads=(
        Call("HeadBucket", {"Bucket": "bucket"}, absent=("404", _NO_BUCKET)),
        Call(
            "GetObjectLockConfiguration",
            {"Bucket": "bucket"},
            {"ObjectLockConfiguration.ObjectLockEnabled": "objectLockEnabled"},
            absent=("ObjectLockConfigurationNotFoundError",),
        ),
    ),
    delete=Call("DeleteBucket", {"Bucket": "bucket"}, absent=(_NO_BUCKET,)),
    tagging=Tagging(
        read=Call(
            "GetBucketTagging",
            {"Bucket": "bucket"},
            {"TagSet": "tags"},
            absent=("NoSuchTagSet", _NO_BUCKET),
        ),
        put=Call("PutBucketTagging", {"Bucket": "bucket", "Tagging.TagSet": "tags"}),
        remove=Call("DeleteBucketTagging", {"Bucket": "bucket"}),
        put_replaces_all=True,
    ),
    derive=_bucket_outputs,
    computed=("arn", "bucketDomainName", "bucketRegionalDomainName", "bucketRegion"),
    before_delete=_empty_bucket,
    instead={
        "accelerationStatus": "aws.s3.BucketAccelerateConfiguration",
        "acl": "aws.s3.BucketOwnershipControls and aws.s3.BucketPolicy",
        "corsRules": "aws.s3.BucketCorsConfiguration",
        "grants": "aws.s3.BucketPolicy",
        "lifecycleRules": "aws.s3.BucketLifecycleConfiguration",
        "logging": "aws.s3.BucketLogging",
        "policy": "aws.s3.BucketPolicy",
        "serverSideEncryptionConfiguration": "aws.s3.BucketServerSideEncryptionConfiguration",
        "versioning": "aws.s3.BucketVersioning",
        "website": "aws.s3.BucketWebsiteConfiguration",
    },
)

_SUSPENDED = {"VersioningConfiguration.Status": "Suspended"}
_PUT_VERSIONING = Call(
    "PutBucketVersioning",
    {"Bucket": "bucket", "VersioningConfiguration": "versioningConfiguration", "MFA": "mfa"},
)

VERSIONING = Spec(
    type="aws:s3/bucketVersioning:BucketVersioning",
    service="s3",
    id="{bucket}",
    fields=(
        _BUCKET,
        Field("mfa"),
        Field(
            "versioningConfiguration",
            required=True,
            fields=(
                Field("status", "Status", required=True),
                Field("mfaDelete", "MFADelete", default="Disabled"),
            ),
        ),
    ),
    create=_PUT_VERSIONING,
    updates=(_PUT_VERSIONING,),
    reads=(
        Call(
            "GetBucketVersioning",
            {"Bucket": "bucket"},
            {"": "versioningConfiguration"},
            absent=(_NO_BUCKET,),
        ),
    ),
    gone=lambda response: "Status" not in response,
    delete=Call(
        "PutBucketVersioning", {"Bucket": "bucket"}, constants=_SUSPENDED, absent=(_NO_BUCKET,)
    ),
)

_PUT_ENCRYPTION = Call(
    "PutBucketEncryption",
    {"Bucket": "bucket", "ServerSideEncryptionConfiguration.Rules": "rules"},
)

ENCRYPTION = Spec(
    type="aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
    service="s3",
    id="{bucket}",
    fields=(
        _BUCKET,
        Field(
            "rules",
            required=True,
            fields=(
                Field(
                    "applyServerSideEncryptionByDefault",
                    "ApplyServerSideEncryptionByDefault",
                    fields=(
                        Field("sseAlgorithm", "SSEAlgorithm"),
                        Field("kmsMasterKeyId", "KMSMasterKeyID"),
                    ),
                ),
                Field("bucketKeyEnabled", "BucketKeyEnabled", default=False),
                Field(
                    "blockedEncryptionTypes",
                    "BlockedEncryptionTypes.EncryptionType",
                    computed=True,
                ),
            ),
        ),
    ),
    create=_PUT_ENCRYPTION,
    updates=(_PUT_ENCRYPTION,),
    reads=(
        Call(
            "GetBucketEncryption",
            {"Bucket": "bucket"},
            {"ServerSideEncryptionConfiguration.Rules": "rules"},
            absent=("ServerSideEncryptionConfigurationNotFoundError", _NO_BUCKET),
        ),
    ),
    delete=Call("DeleteBucketEncryption", {"Bucket": "bucket"}, absent=(_NO_BUCKET,)),
)

_STORAGE_CLASS = Field("storageClass", "StorageClass", required=True)


def _filtered(request: Members, properties: Properties) -> Members:
    """S3 wants a filter in each rule; an empty one selects every object."""
    del properties
    for rule in request["LifecycleConfiguration"]["Rules"]:
        if not rule.get("Filter") and "Prefix" not in rule:
            rule["Filter"] = {"Prefix": ""}
    return request


_PUT_LIFECYCLE = Call(
    "PutBucketLifecycleConfiguration",
    {
        "Bucket": "bucket",
        "LifecycleConfiguration.Rules": "rules",
        "TransitionDefaultMinimumObjectSize": "transitionDefaultMinimumObjectSize",
    },
    finish=_filtered,
)

LIFECYCLE = Spec(
    type="aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
    service="s3",
    id="{bucket}",
    fields=(
        _BUCKET,
        Field("transitionDefaultMinimumObjectSize", computed=True),
        Field(
            "rules",
            required=True,
            fields=(
                Field("id", "ID", required=True),
                Field("status", "Status"),
                Field("prefix", "Prefix", default=""),
                Field(
                    "filter",
                    "Filter",
                    fields=(
                        Field("prefix", "Prefix", default=""),
                        Field("objectSizeGreaterThan", "ObjectSizeGreaterThan", minimum=0),
                        Field("objectSizeLessThan", "ObjectSizeLessThan", minimum=1),
                        Field(
                            "tag",
                            "Tag",
                            fields=(Field("key", "Key"), Field("value", "Value")),
                        ),
                        Field(
                            "and",
                            "And",
                            fields=(
                                Field("prefix", "Prefix", default=""),
                                Field("objectSizeGreaterThan", "ObjectSizeGreaterThan", minimum=0),
                                Field("objectSizeLessThan", "ObjectSizeLessThan", minimum=1),
                                Field("tags", "Tags", codec=tags_as_list()),
                            ),
                        ),
                    ),
                ),
                Field(
                    "expiration",
                    "Expiration",
                    fields=(
                        Field("date", "Date", codec=TIMESTAMP),
                        Field("days", "Days", minimum=1),
                        Field(
                            "expiredObjectDeleteMarker", "ExpiredObjectDeleteMarker", default=False
                        ),
                    ),
                ),
                Field(
                    "noncurrentVersionExpiration",
                    "NoncurrentVersionExpiration",
                    fields=(
                        Field("noncurrentDays", "NoncurrentDays", required=True, minimum=1),
                        Field("newerNoncurrentVersions", "NewerNoncurrentVersions", minimum=1),
                    ),
                ),
                Field(
                    "abortIncompleteMultipartUpload",
                    "AbortIncompleteMultipartUpload",
                    fields=(Field("daysAfterInitiation", "DaysAfterInitiation", minimum=1),),
                ),
                Field(
                    "transitions",
                    "Transitions",
                    fields=(
                        Field("date", "Date", codec=TIMESTAMP),
                        Field("days", "Days", minimum=0),
                        _STORAGE_CLASS,
                    ),
                ),
                Field(
                    "noncurrentVersionTransitions",
                    "NoncurrentVersionTransitions",
                    fields=(
                        Field("noncurrentDays", "NoncurrentDays", required=True, minimum=0),
                        Field("newerNoncurrentVersions", "NewerNoncurrentVersions", minimum=1),
                        _STORAGE_CLASS,
                    ),
                ),
            ),
        ),
    ),
    create=_PUT_LIFECYCLE,
    updates=(_PUT_LIFECYCLE,),
    reads=(
        Call(
            "GetBucketLifecycleConfiguration",
            {"Bucket": "bucket"},
            {
                "Rules": "rules",
                "TransitionDefaultMinimumObjectSize": "transitionDefaultMinimumObjectSize",
            },
            absent=("NoSuchLifecycleConfiguration", _NO_BUCKET),
        ),
    ),
    delete=Call("DeleteBucketLifecycle", {"Bucket": "bucket"}, absent=(_NO_BUCKET,)),
)

_PUBLIC_ACCESS = {
    "PublicAccessBlockConfiguration.BlockPublicAcls": "blockPublicAcls",
    "PublicAccessBlockConfiguration.BlockPublicPolicy": "blockPublicPolicy",
    "PublicAccessBlockConfiguration.IgnorePublicAcls": "ignorePublicAcls",
    "PublicAccessBlockConfiguration.RestrictPublicBuckets": "restrictPublicBuckets",
}
_PUT_PUBLIC_ACCESS = Call("PutPublicAccessBlock", {"Bucket": "bucket", **_PUBLIC_ACCESS})

PUBLIC_ACCESS_BLOCK = Spec(
    type="aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
    service="s3",
    id="{bucket}",
    fields=(_BUCKET, *(Field(name, default=False) for name in _PUBLIC_ACCESS.values())),
    create=_PUT_PUBLIC_ACCESS,
    updates=(_PUT_PUBLIC_ACCESS,),
    reads=(
        Call(
            "GetPublicAccessBlock",
            {"Bucket": "bucket"},
            _PUBLIC_ACCESS,
            absent=("NoSuchPublicAccessBlockConfiguration", _NO_BUCKET),
        ),
    ),
    delete=Call("DeletePublicAccessBlock", {"Bucket": "bucket"}, absent=(_NO_BUCKET,)),
)

_PUT_OWNERSHIP = Call(
    "PutBucketOwnershipControls", {"Bucket": "bucket", "OwnershipControls.Rules[0]": "rule"}
)

OWNERSHIP_CONTROLS = Spec(
    type="aws:s3/bucketOwnershipControls:BucketOwnershipControls",
    service="s3",
    id="{bucket}",
    fields=(
        _BUCKET,
        Field("rule", required=True, fields=(Field("objectOwnership", "ObjectOwnership"),)),
    ),
    create=_PUT_OWNERSHIP,
    updates=(_PUT_OWNERSHIP,),
    reads=(
        Call(
            "GetBucketOwnershipControls",
            {"Bucket": "bucket"},
            {"OwnershipControls.Rules[0]": "rule"},
            absent=("OwnershipControlsNotFoundError", _NO_BUCKET),
        ),
    ),
    delete=Call("DeleteBucketOwnershipControls", {"Bucket": "bucket"}, absent=(_NO_BUCKET,)),
)

_PUT_POLICY = Call("PutBucketPolicy", {"Bucket": "bucket", "Policy": "policy"})

POLICY = Spec(
    type="aws:s3/bucketPolicy:BucketPolicy",
    service="s3",
    id="{bucket}",
    fields=(_BUCKET, Field("policy", codec=JSON_DOCUMENT)),
    create=_PUT_POLICY,
    updates=(_PUT_POLICY,),
    reads=(
        Call(
            "GetBucketPolicy",
            {"Bucket": "bucket"},
            {"Policy": "policy"},
            absent=("NoSuchBucketPolicy", _NO_BUCKET),
        ),
    ),
    delete=Call("DeleteBucketPolicy", {"Bucket": "bucket"}, absent=(_NO_BUCKET,)),
)

_CONTENT = ("content", "contentBase64", "source")


def _asset_bytes(source: Any) -> bytes:
    if source.get("text"):
        return source["text"].encode()
    if source.get("path"):
        return Path(source["path"]).read_bytes()
    raise ProviderError("source: only assets from a text or a file are supported here")


def _with_body(request: Members, properties: Properties) -> Members:
    """The object's bytes, and its tags, which every new version needs again."""
    if properties.get("contentBase64") is not None:
        request["Body"] = base64.b64decode(properties["contentBase64"])
    elif properties.get("source") is not None:
        request["Body"] = _asset_bytes(properties["source"])
    else:
        request["Body"] = (properties.get("content") or "").encode()
    if properties.get("tags"):
        request["Tagging"] = urlencode(properties["tags"])
    return request


def _delete_object_versions(client: BaseClient, properties: Properties) -> None:
    """In a versioned bucket, deletes the versions; a plain deletion would only hide them."""
    if properties.get("versionId"):
        _delete_versions(client, properties["bucket"], properties["key"])


def _forget_changed_content(inputs: Properties, old: Properties, new: Properties) -> Properties:
    """S3 does not tell an object's content; another ETag means that it is not ours any more."""
    if old.get("etag") in (None, new.get("etag")):
        return inputs
    return {name: value for name, value in inputs.items() if name not in _CONTENT}


_TOLD_OF_OBJECT = {
    "CacheControl": "cacheControl",
    "ContentDisposition": "contentDisposition",
    "ContentEncoding": "contentEncoding",
    "ContentLanguage": "contentLanguage",
    "ContentType": "contentType",
    "Metadata": "metadata",
    "ServerSideEncryption": "serverSideEncryption",
    "SSEKMSKeyId": "kmsKeyId",
    "BucketKeyEnabled": "bucketKeyEnabled",
    "StorageClass": "storageClass",
}
_PUT_OBJECT = Call(
    "PutObject",
    {"Bucket": "bucket", "Key": "key", **_TOLD_OF_OBJECT},
    {"VersionId": "versionId"},
    finish=_with_body,
    also=_CONTENT,
)

OBJECT = Spec(
    type="aws:s3/bucketObjectv2:BucketObjectv2",
    service="s3",
    id="{bucket}/{key}",
    fields=(
        _BUCKET,
        Field("key"),
        Field("content", local_type=str),
        Field("contentBase64", local_type=str),
        Field("source", local_type=dict),
        Field("sourceHash", local_type=str),
        Field("forceDestroy", local_type=bool, default=False),
        Field("cacheControl"),
        Field("contentDisposition"),
        Field("contentEncoding"),
        Field("contentLanguage"),
        Field("contentType", computed=True),
        Field("metadata"),
        Field("serverSideEncryption", computed=True),
        Field("kmsKeyId", computed=True, codec=KEY_REFERENCE),
        Field("bucketKeyEnabled", computed=True),
        Field("storageClass", default="STANDARD"),
    ),
    autoname=Autoname("key", maximum=1024),
    create=_PUT_OBJECT,
    updates=(_PUT_OBJECT,),
    reads=(
        Call(
            "HeadObject",
            {"Bucket": "bucket", "Key": "key"},
            {**_TOLD_OF_OBJECT, "ETag": "etag", "VersionId": "versionId"},
            absent=("404", "NoSuchKey", _NO_BUCKET),
        ),
    ),
    delete=Call("DeleteObject", {"Bucket": "bucket", "Key": "key"}, absent=(_NO_BUCKET,)),
    tagging=Tagging(
        read=Call("GetObjectTagging", {"Bucket": "bucket", "Key": "key"}, {"TagSet": "tags"}),
        put=Call("PutObjectTagging", {"Bucket": "bucket", "Key": "key", "Tagging.TagSet": "tags"}),
        remove=Call("DeleteObjectTagging", {"Bucket": "bucket", "Key": "key"}),
        put_replaces_all=True,
    ),
    derive=lambda properties, scope: {
        "arn": f"arn:{scope.partition}:s3:::{properties['bucket']}/{properties['key']}"
    },
    computed=("arn", "etag", "versionId"),
    before_delete=_delete_object_versions,
    after_read=_forget_changed_content,
)

SPECS = (
    BUCKET,
    VERSIONING,
    ENCRYPTION,
    LIFECYCLE,
    PUBLIC_ACCESS_BLOCK,
    OWNERSHIP_CONTROLS,
    POLICY,
    OBJECT,
)
