"""The local AWS server's bucket policies and public access block, asked with boto3."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from infra.local.aws_server import TRANSPORT_HEADER
from infra.local.paths import CHECKOUT
from tests.aws_servers import url_of

_MEMORY_LIMIT = 150 * 1024 * 1024


class Server:
    """A server process on a free loopback port."""

    def __init__(self, log: Path) -> None:
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "infra.local.aws_server", "--port", "0"],
                cwd=CHECKOUT,
                stderr=stream,
            )
        self.log = log
        self.url = url_of(self.process, self.log)

    def s3(self, *, plain: bool = False, **credentials: str) -> Any:
        """A client; `plain` says that its requests came without TLS."""
        made = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="eu-central-1",
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
            **{"aws_access_key_id": "any", "aws_secret_access_key": "thing"} | credentials,
        )
        if plain:

            def say_so(request: Any, **_: Any) -> None:
                request.headers[TRANSPORT_HEADER] = "plain"

            made.meta.events.register("before-send.s3", say_so)
        return made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("aws") / "log")
    yield server
    server.process.terminate()
    assert server.process.wait(timeout=10) == 0


@pytest.fixture
def bucket(server: Server) -> Iterator[str]:
    """A bucket with the object `models/a`."""
    s3 = server.s3()
    s3.create_bucket(
        Bucket="voices", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    s3.put_object(Bucket="voices", Key="models/a", Body=b"a" * 1000)
    yield "voices"
    urllib.request.urlopen(  # noqa: S310
        urllib.request.Request(f"{server.url}/moto-api/reset", method="POST")  # noqa: S310
    ).close()


def put_policy(server: Server, bucket: str, **changed: Any) -> None:
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    } | changed
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    server.s3().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


def calls(s3: Any, bucket: str) -> dict[str, str]:
    """Calls of several kinds, with "" or the code of the error."""
    kinds: dict[str, Any] = {
        "put": lambda: s3.put_object(Bucket=bucket, Key="models/b", Body=b"b"),
        "get": lambda: s3.get_object(Bucket=bucket, Key="models/a"),
        "head": lambda: s3.head_object(Bucket=bucket, Key="models/a"),
        "list": lambda: s3.list_objects_v2(Bucket=bucket),
        "configure": lambda: s3.put_public_access_block(
            Bucket=bucket, PublicAccessBlockConfiguration={"BlockPublicAcls": True}
        ),
        "upload": lambda: s3.create_multipart_upload(Bucket=bucket, Key="models/c"),
    }
    return {kind: _code(call) for kind, call in kinds.items()}


def _code(call: Any) -> str:
    try:
        call()
    except ClientError as error:
        return error.response["Error"]["Code"]
    return ""


REFUSED = {
    "put": "AccessDenied",
    "get": "AccessDenied",
    "head": "403",
    "list": "AccessDenied",
    "configure": "AccessDenied",
    "upload": "AccessDenied",
}
TLS_ONLY = {"Bool": {"aws:SecureTransport": "false"}}


def test_a_deny_whose_condition_does_not_hold_lets_every_call_through(
    server: Server, bucket: str
) -> None:
    put_policy(server, bucket, Condition=TLS_ONLY)
    assert set(calls(server.s3(), bucket).values()) == {""}


def test_a_deny_whose_condition_holds_refuses_every_call(server: Server, bucket: str) -> None:
    put_policy(server, bucket, Condition=TLS_ONLY)
    assert calls(server.s3(plain=True), bucket) == REFUSED


def test_an_unconditional_deny_refuses_every_call_but_the_root_can_take_the_policy_away(
    server: Server, bucket: str
) -> None:
    put_policy(server, bucket)
    assert calls(server.s3(), bucket) == REFUSED
    server.s3().delete_bucket_policy(Bucket=bucket)
    assert set(calls(server.s3(), bucket).values()) == {""}


def test_unencrypted_uploads_alone_are_refused_by_their_header(server: Server, bucket: str) -> None:
    put_policy(
        server,
        bucket,
        Action="s3:PutObject",
        Condition={"StringNotEquals": {"s3:x-amz-server-side-encryption": "aws:kms"}},
    )
    s3 = server.s3()
    upload = {"Bucket": bucket, "Key": "models/b", "Body": b"b"}
    assert _code(lambda: s3.put_object(**upload)) == "AccessDenied"
    assert _code(lambda: s3.put_object(**upload, ServerSideEncryption="AES256")) == "AccessDenied"
    assert _code(lambda: s3.put_object(**upload, ServerSideEncryption="aws:kms")) == ""
    assert s3.get_object(Bucket=bucket, Key="models/a")["Body"].read() == b"a" * 1000


def test_single_objects_of_a_bulk_deletion_are_refused(server: Server, bucket: str) -> None:
    s3 = server.s3()
    s3.put_object(Bucket=bucket, Key="outputs/a", Body=b"")
    put_policy(server, bucket, Action="s3:DeleteObject", Resource=f"arn:aws:s3:::{bucket}/models/*")
    answer = s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "models/a"}, {"Key": "outputs/a"}]}
    )
    assert [deleted["Key"] for deleted in answer["Deleted"]] == ["outputs/a"]
    assert [(e["Key"], e["Code"]) for e in answer["Errors"]] == [("models/a", "AccessDenied")]


def test_a_role_is_told_from_other_callers(server: Server, bucket: str) -> None:
    sts = boto3.client(
        "sts",
        endpoint_url=server.url,
        region_name="eu-central-1",
        aws_access_key_id="any",
        aws_secret_access_key="thing",
    )
    role = "arn:aws:iam::123456789012:role/batch"
    made = sts.assume_role(RoleArn=role, RoleSessionName="job")["Credentials"]
    put_policy(server, bucket, Principal={"AWS": role}, Action="s3:GetObject")
    batch = server.s3(
        aws_access_key_id=made["AccessKeyId"],
        aws_secret_access_key=made["SecretAccessKey"],
        aws_session_token=made["SessionToken"],
    )
    assert _code(lambda: batch.get_object(Bucket=bucket, Key="models/a")) == "AccessDenied"
    assert _code(lambda: server.s3().get_object(Bucket=bucket, Key="models/a")) == ""


def test_a_policy_that_cannot_be_evaluated_is_refused_when_it_is_put(
    server: Server, bucket: str
) -> None:
    with pytest.raises(ClientError, match=r"MalformedPolicy.*operator 'DateLessThan'"):
        put_policy(server, bucket, Condition={"DateLessThan": {"aws:CurrentTime": "2026-01-01"}})


def test_a_public_policy_is_refused_where_the_bucket_blocks_it(server: Server, bucket: str) -> None:
    public = {"Effect": "Allow", "Action": "s3:GetObject"}
    put_policy(server, bucket, **public)
    server.s3().put_public_access_block(
        Bucket=bucket, PublicAccessBlockConfiguration={"BlockPublicPolicy": True}
    )
    with pytest.raises(ClientError, match="AccessDenied"):
        put_policy(server, bucket, **public)


def test_an_unsigned_request_needs_an_allow(server: Server, bucket: str) -> None:
    url = f"{server.url}/{bucket}/models/a"
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        urllib.request.urlopen(url)  # noqa: S310
    refused.value.close()
    put_policy(server, bucket, Effect="Allow", Action="s3:GetObject")
    with urllib.request.urlopen(url) as answer:  # noqa: S310
        assert answer.read() == b"a" * 1000


def test_an_upload_is_told_to_go_on_before_it_sends_its_body(server: Server, bucket: str) -> None:
    # boto3 asks so, and waits a second for an answer that does not come.
    address = urllib.parse.urlsplit(server.url)
    assert address.hostname
    assert address.port
    head = f"PUT /{bucket}/models/b HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 1\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(1024).startswith(b"HTTP/1.1 100 ")


def test_the_server_says_when_it_is_ready_and_stays_small(server: Server) -> None:
    with urllib.request.urlopen(f"{server.url}/moto-api/") as answer:  # noqa: S310
        assert answer.status == 200
    assert psutil.Process(server.process.pid).memory_info().rss < _MEMORY_LIMIT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_server_ends_at_once_and_without_an_error(
    tmp_path: Path, number: signal.Signals
) -> None:
    server = Server(tmp_path / "log")
    server.s3().list_buckets()
    os.kill(server.process.pid, number)
    assert server.process.wait(timeout=5) == 0
    assert "Traceback" not in server.log.read_text()
