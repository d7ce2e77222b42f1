"""The stand-in for AWS: one process that answers the AWS API with moto, in memory.

    python -m infra.local.aws_server --host 10.245.0.1 --port 4566

Stand-in, in these points:

- Everything is kept in memory: buckets, objects and keys are gone when the process ends.
- Any access key is accepted. A request signed with a key that the server's own IAM or STS did
  not make counts as the account's root.
- Bucket policies are evaluated here (`infra.local.aws_policy`), for every S3 call and with their
  conditions: moto by itself ignores conditions, and so refuses everything under a conditional
  Deny. An explicit Deny refuses; the absence of an Allow refuses only anonymous callers.
- The server speaks plain HTTP on the environment's own network, and that hop counts as secure
  transport: `aws:SecureTransport` is true unless the request carries
  `x-aws-local-transport: plain`, with which tests show that a policy really refuses plain HTTP.
- A public policy is refused where the bucket's public access block says so.
- EKS has what moto's lacks and programs see (`infra.local.aws_eks`).

Ready when `GET /moto-api/` answers 200. Ends with exit code 0 on SIGTERM and SIGINT.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

import flask
import moto.s3.models as s3_models
import moto.s3.responses as s3_responses
from moto.iam import access_control
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.s3.exceptions import BucketAccessDeniedError, S3ClientError
from moto.s3.utils import bucket_policy_is_public
from werkzeug.serving import make_server

from infra.local import aws_eks, aws_policy

TRANSPORT_HEADER = "x-aws-local-transport"

_log = logging.getLogger("aws")


class _Handler(MotoRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        del size
        status = int(code) if str(code).isdigit() else 0
        _log.log(logging.INFO if status < 500 else logging.ERROR, "%s %s", status, self.requestline)


class _MalformedPolicy(S3ClientError):
    def __init__(self, reason: str) -> None:
        super().__init__("MalformedPolicy", reason)


_SUBRESOURCE_ACTIONS = {
    ("GET", "encryption"): "GetEncryptionConfiguration",
    ("PUT", "encryption"): "PutEncryptionConfiguration",
    ("DELETE", "encryption"): "PutEncryptionConfiguration",
    ("GET", "ownershipControls"): "GetBucketOwnershipControls",
    ("PUT", "ownershipControls"): "PutBucketOwnershipControls",
    ("DELETE", "ownershipControls"): "PutBucketOwnershipControls",
    ("GET", "publicAccessBlock"): "GetBucketPublicAccessBlock",
    ("PUT", "publicAccessBlock"): "PutBucketPublicAccessBlock",
    ("DELETE", "publicAccessBlock"): "PutBucketPublicAccessBlock",
    ("GET", "replication"): "GetReplicationConfiguration",
    ("PUT", "replication"): "PutReplicationConfiguration",
    ("DELETE", "replication"): "PutReplicationConfiguration",
    ("GET", "object-lock"): "GetBucketObjectLockConfiguration",
    ("PUT", "object-lock"): "PutBucketObjectLockConfiguration",
}
"""IAM actions of bucket calls that moto takes for ListBucket, CreateBucket or DeleteBucket."""

_ROOT_MAY_ALWAYS = frozenset({"s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"})
"""No policy can lock the account's root out of the policy itself."""


def request_context(
    headers: Mapping[str, str], query: Mapping[str, str], source_ip: str, principal: str
) -> dict[str, tuple[str, ...]]:
    """The condition keys, lower case, that an S3 request (header names in lower case) defines.

    `s3:x-amz-…` keys are present if and only if the request carries that header, as on AWS: a
    bucket's default encryption does not define `s3:x-amz-server-side-encryption`.
    """
    secure = headers.get(TRANSPORT_HEADER, "").lower() != "plain"
    values = {
        "aws:securetransport": str(secure).lower(),
        "aws:sourceip": source_ip,
        "aws:useragent": headers.get("user-agent", ""),
    }
    if secure:
        values["s3:tlsversion"] = "1.3"
    if principal != aws_policy.ANONYMOUS:
        values["aws:principalarn"] = aws_policy.role_of_session(principal) or principal
        values["aws:principalaccount"] = principal.split(":")[4]
    values |= {f"s3:{name}": value for name, value in headers.items() if name.startswith("x-amz-")}
    values |= {
        f"s3:{name.lower()}": query[name]
        for name in ("prefix", "delimiter", "max-keys", "versionId")
        if name in query
    }
    return {key: (value,) for key, value in values.items()}


def install_bucket_policies() -> None:
    """Puts `infra.local.aws_policy` in the place of moto's own policy check."""
    s3_models.FakeBucket.get_permission = _get_permission
    s3_models.S3Backend.put_bucket_policy = _put_bucket_policy
    s3_responses.S3Response._authenticate_and_authorize_s3_action = _authorize


def _authorize(
    self: s3_responses.S3Response, bucket_name: str | None = None, key_name: str | None = None
) -> None:
    """Runs before every S3 call, with the name of the action known."""
    bucket = self.backend.buckets.get(bucket_name) if bucket_name else None
    if bucket is None or bucket.policy is None:
        return
    action = _iam_action(flask.request.method, flask.request.args, str(self.data["Action"]))
    resource = f"{bucket.arn}/{key_name}" if key_name else bucket.arn
    if _is_denied(_decide(bucket, f"s3:{action}", resource), action, resource):
        raise BucketAccessDeniedError(bucket=bucket.name)


def _is_denied(decision: aws_policy.Decision, action: str, resource: str) -> bool:
    denied = decision.verdict is aws_policy.Verdict.DENY
    if denied:
        _log.info("policy statement %s denies %s on %s", decision.statement, action, resource)
    return denied


def _iam_action(method: str, query: Mapping[str, str], moto_action: str) -> str:
    for name in query:
        if (method, name) in _SUBRESOURCE_ACTIONS:
            return _SUBRESOURCE_ACTIONS[method, name]
    return "ListBucket" if moto_action == "HeadBucket" else moto_action


def _get_permission(
    self: s3_models.FakeBucket, action: str, resource: str
) -> access_control.PermissionResult:
    """moto asks for the single objects of a DeleteObjects call, and before object calls.

    Before object calls it knows the HTTP method only ("s3:HeadObject"), and refuses without an
    error code; `_authorize` refuses those, and here only an Allow for anonymous callers counts.
    """
    decision = _decide(self, action, resource)
    if decision.verdict is aws_policy.Verdict.ALLOW:
        return access_control.PermissionResult.PERMITTED
    if "delete" in flask.request.args and _is_denied(decision, action, resource):
        return access_control.PermissionResult.DENIED
    return access_control.PermissionResult.NEUTRAL


def _decide(bucket: s3_models.FakeBucket, action: str, resource: str) -> aws_policy.Decision:
    if bucket.policy is None:
        return aws_policy.Decision(aws_policy.Verdict.SILENT)
    principal = _caller(bucket)
    if action in _ROOT_MAY_ALWAYS and principal.endswith(":root"):
        return aws_policy.Decision(aws_policy.Verdict.ALLOW)
    context = request_context(
        _headers(), flask.request.args, flask.request.remote_addr or "", principal
    )
    return aws_policy.decide(
        json.loads(bucket.policy), aws_policy.Request(action, resource, principal, context)
    )


def _caller(bucket: s3_models.FakeBucket) -> str:
    access_key = _access_key_id(_headers(), flask.request.args)
    if not access_key:
        return aws_policy.ANONYMOUS
    try:
        return access_control.create_access_key(
            bucket.account_id, bucket.partition, access_key, dict(flask.request.headers)
        ).arn
    except access_control.CreateAccessKeyFailure:
        return f"arn:{bucket.partition}:iam::{bucket.account_id}:root"


def _headers() -> dict[str, str]:
    return {name.lower(): value for name, value in flask.request.headers.items()}


def _access_key_id(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """From the Authorization header or a presigned URL; "" for an unsigned request."""
    signed = headers.get("authorization", "").partition("Credential=")[2]
    presigned = query.get("X-Amz-Credential", "")
    return (signed or presigned).partition("/")[0] or query.get("AWSAccessKeyId", "")


def _put_bucket_policy(self: s3_models.S3Backend, bucket_name: str, policy: bytes) -> None:
    bucket = self.get_bucket(bucket_name)
    try:
        aws_policy.validate(json.loads(policy))
    except json.JSONDecodeError as error:
        raise _MalformedPolicy(f"Policies must be valid JSON: {error}") from error
    except aws_policy.PolicyError as error:
        raise _MalformedPolicy(str(error)) from error
    block = bucket.public_access_block
    if block and block.block_public_policy and bucket_policy_is_public(policy):
        raise BucketAccessDeniedError(bucket=bucket_name)
    bucket.policy = policy


def serve(host: str, port: int) -> None:
    """Serves until SIGTERM or SIGINT."""
    install_bucket_policies()
    aws_eks.install()
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server(host, port, application, threaded=True, request_handler=_Handler)

    def stop(signum: int, frame: Any) -> None:
        del signum, frame
        # shutdown() waits for the loop that this very thread runs.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    _log.info("listening on http://%s:%d", host, server.port)
    server.serve_forever(poll_interval=0.1)
    server.server_close()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.local.aws_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to bind")
    parser.add_argument("--port", type=int, default=4566, help="TCP port to bind; 0 picks one")
    options = parser.parse_args(arguments)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    serve(options.host, options.port)


if __name__ == "__main__":
    main()
