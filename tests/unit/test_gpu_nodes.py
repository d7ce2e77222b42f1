"""What pods see of GPU nodes, and how the nodes start."""

from __future__ import annotations

import email
import subprocess
import sys
from dataclasses import replace
from email.message import Message

import pytest
import yaml

from voicemesh import GpuNodeGroupArgs, contract
from voicemesh.cluster.accelerators import INSTANCES, MIG_PROFILES
from voicemesh.cluster.nodes import NodeTaint, node_view
from voicemesh.cluster.user_data import node_user_data

ONLINE = GpuNodeGroupArgs("prod", "arn", {"us-east-1a": "subnet-a"}, min_size=1, max_size=4)
GPU_TAINT = NodeTaint("nvidia.com/gpu", "true")


class TestWhatPodsSee:
    def test_online_nodes_are_labelled_by_purpose_and_accelerator_and_keep_others_away(
        self,
    ) -> None:
        view = node_view(ONLINE)
        assert view.labels["accelerator"] == "h100"
        assert view.labels["node-type"] == "online-inference"
        assert view.taints == (GPU_TAINT,)

    def test_offline_nodes_keep_online_pods_away_as_well(self) -> None:
        view = node_view(replace(ONLINE, node_type=contract.OFFLINE_NODE_TYPE))
        assert view.labels["node-type"] == "offline-inference"
        assert view.taints == (GPU_TAINT, NodeTaint("workload", "offline"))

    def test_eks_and_kubernetes_spell_the_effect_of_a_taint_differently(self) -> None:
        assert GPU_TAINT.for_eks["effect"] == "NO_SCHEDULE"
        assert GPU_TAINT.for_pods["effect"] == "NoSchedule"

    def test_whole_gpus_are_counted_and_slices_by_what_the_profile_holds(self) -> None:
        eight = replace(ONLINE, instance_types=["p5.48xlarge"])
        whole, sliced = node_view(eight), node_view(replace(eight, mig_profile="1g.20gb"))
        assert (whole.gpu_resource, whole.gpu_resources) == ("nvidia.com/gpu", 8)
        assert (sliced.gpu_resource, sliced.gpu_resources) == ("nvidia.com/mig-1g.20gb", 32)

    def test_the_autoscaler_waits_for_the_device_plugin_of_whole_gpus_only(self) -> None:
        label = "k8s.amazonaws.com/accelerator"
        assert node_view(ONLINE).labels[label] == "h100"
        assert label not in node_view(replace(ONLINE, mig_profile="1g.20gb")).labels

    def test_the_autoscaler_knows_gpus_and_disk_of_nodes_that_do_not_exist_yet(self) -> None:
        start = "k8s.io/cluster-autoscaler/node-template/resources/"
        assert node_view(ONLINE).autoscaler_tags == {
            f"{start}nvidia.com/gpu": "1",
            f"{start}ephemeral-storage": "170Gi",
        }

    def test_the_autoscaler_starts_no_divided_gpu_for_a_pod_that_wants_a_whole_one(self) -> None:
        start = "k8s.io/cluster-autoscaler/node-template/resources/"
        sliced = node_view(replace(ONLINE, mig_profile="3g.40gb", root_volume_gib=400))
        assert sliced.autoscaler_tags == {
            f"{start}nvidia.com/gpu": "0",
            f"{start}nvidia.com/mig-3g.40gb": "2",
            f"{start}ephemeral-storage": "340Gi",
        }

    def test_a_mig_profile_is_named_as_nvidias_manager_knows_it(self) -> None:
        sliced = node_view(replace(ONLINE, mig_profile="1g.20gb"))
        assert sliced.labels["nvidia.com/mig.config"] == "all-1g.20gb"

    def test_given_labels_are_added(self) -> None:
        assert node_view(replace(ONLINE, labels={"team": "a"})).labels["team"] == "a"

    def test_fallbacks_count_as_the_first_type(self) -> None:
        mixed = replace(ONLINE, instance_types=["p5.4xlarge", "p5.48xlarge"])
        assert node_view(mixed).gpu_resources == 1


class TestAccelerators:
    def test_each_divisible_gpu_is_in_some_instance(self) -> None:
        assert set(MIG_PROFILES) <= {instance.accelerator for instance in INSTANCES.values()}

    @pytest.mark.parametrize("accelerator", MIG_PROFILES)
    def test_slices_of_a_profile_fit_into_the_gpus_seven_parts(self, accelerator: str) -> None:
        for profile, count in MIG_PROFILES[accelerator].items():
            assert int(profile[0]) * count <= 7, profile

    def test_the_smallest_slice_that_holds_the_model_has_four_to_a_gpu(self) -> None:
        assert MIG_PROFILES["h100"]["1g.20gb"] == 4


def parts(document: str) -> list[Message]:
    parsed = email.message_from_string(document)
    assert parsed.is_multipart()
    assert not parsed.defects
    found = parsed.get_payload()
    assert isinstance(found, list)
    return [part for part in found if isinstance(part, Message)]


class TestUserData:
    def test_local_nvme_becomes_the_place_of_images_and_pods(self) -> None:
        (config,) = parts(node_user_data())
        assert config.get_content_type() == "application/node.eks.aws"
        content = yaml.safe_load(str(config.get_payload()))
        assert (content["apiVersion"], content["kind"]) == ("node.eks.aws/v1alpha1", "NodeConfig")
        assert content["spec"] == {"instance": {"localStorage": {"strategy": "RAID0"}}}

    def test_slices_are_made_at_each_start_before_the_kubelet(self) -> None:
        config, script = parts(node_user_data("1g.20gb", 4))
        assert config.get_content_type() == "application/node.eks.aws"
        assert script.get_content_type() == "text/x-shellscript"
        text = str(script.get_payload())
        assert text.startswith("#!/bin/bash\n")
        assert "ExecStart=/usr/bin/nvidia-smi -mig 1\n" in text
        assert "mig -cgi 1g.20gb,1g.20gb,1g.20gb,1g.20gb -C\n" in text
        assert "Before=kubelet.service\n" in text
        assert "RequiredBy=kubelet.service\n" in text
        (after,) = (line for line in text.splitlines() if line.startswith("After="))
        assert {"nvidia-kmod-load.service", "nvidia-setup.service"} <= set(after[6:].split())


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("from voicemesh import GpuClusterArgs, GpuNodeGroupArgs", "pulumi_aws"),
        ("from voicemesh import ClusterAddons", "pulumi_aws"),
        ("from voicemesh import GpuNodeGroup", "pulumi_kubernetes"),
        ("import voicemesh.cluster.nodes, voicemesh.preflight", "pulumi_aws"),
        ("import voicemesh.preflight", "boto3"),
    ],
)
def test_each_part_loads_only_what_it_uses(statement: str, unwanted: str) -> None:
    program = f"import sys; {statement}; sys.exit({unwanted!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
