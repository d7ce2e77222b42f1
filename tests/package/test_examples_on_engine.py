"""The AWS half of the example of a whole platform, from the wheel, on the real engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from infra.local import toolbox
from tests.aws_servers import AwsServer, recording_server
from tests.engine.engine import Stack
from tests.package.clean_install import Installation
from tests.stacks import ROOT

EXAMPLE = ROOT / "examples" / "regional-platform"
STACK = "ireland"
REGION = "eu-west-1"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsServer]:
    with recording_server(tmp_path_factory.mktemp("aws")) as server:
        yield server


@pytest.fixture
def stack(tmp_path: Path, aws: AwsServer, installation: Installation) -> Stack:
    """The example's stack, run by the Python of the clean installation."""
    toolbox.ensure_tools(["pulumi", "helm"])
    stack = Stack(tmp_path / "project", tmp_path / "no-kubeconfig")
    project = yaml.safe_load((EXAMPLE / "Pulumi.yaml").read_text())
    project["main"] = str(EXAMPLE)
    project["runtime"]["options"]["virtualenv"] = str(installation.python.parents[1])
    (stack.folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
    stack.environment |= {
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "else",
    }
    stack.cli("stack", "init", STACK)
    written = yaml.safe_load((stack.folder / f"Pulumi.{STACK}.yaml").read_text())
    config = yaml.safe_load((EXAMPLE / f"Pulumi.{STACK}.yaml").read_text())["config"]
    del config["regional-platform:image"]
    (stack.folder / f"Pulumi.{STACK}.yaml").write_text(
        yaml.safe_dump({**written, "config": config})
    )
    return stack


def test_the_aws_half_comes_up_from_the_wheel(stack: Stack, aws: AwsServer) -> None:
    stack.cli("up", "--yes", "--skip-preview")
    cluster = aws.client("eks", REGION).describe_cluster(name="voicemesh-ireland")["cluster"]
    assert cluster["resourcesVpcConfig"]["endpointPrivateAccess"]
    groups = aws.client("eks", REGION).list_nodegroups(clusterName="voicemesh-ireland")
    assert any(name.startswith("online") for name in groups["nodegroups"])
    buckets = aws.client("s3", REGION).list_buckets()["Buckets"]
    assert [bucket["Name"] for bucket in buckets if bucket["Name"].startswith("voices")]
    stack.cli("preview", "--expect-no-changes")
