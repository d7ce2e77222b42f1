"""What a GPU node does before it joins: it makes its NVMe the place of images and pods, and divides
its GPUs."""

from __future__ import annotations

from typing import Final

_BOUNDARY: Final = "VOICEMESH"

# Local NVMe becomes one volume for containerd, the kubelet and the pods' logs and scratch space.
# EKS adds a document of its own, with the cluster to join; nodeadm merges the two.
# https://awslabs.github.io/amazon-eks-ami/nodeadm/doc/api/
_NODE_CONFIG: Final = """\
apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  instance:
    localStorage:
      strategy: RAID0
"""

# Slices do not survive a reboot, and node repair reboots: so a unit makes them, not the script
# itself. The kubelet requires it: a node without its slices does not join.
# From Hopper on, MIG mode needs no reset of the GPU.
# https://docs.nvidia.com/datacenter/tesla/mig-user-guide/getting-started-with-mig.html
# User data runs before nodeadm starts the kubelet. The driver is loaded by one of two units, by the
# age of the image: https://github.com/awslabs/amazon-eks-ami/tree/main/templates/al2023/runtime/gpu
_MIG_SCRIPT: Final = """\
#!/bin/bash
set -euo pipefail
cat >/etc/systemd/system/mig-slices.service <<'UNIT'
[Unit]
Description=Divide each GPU into slices of {profile}
After=nvidia-kmod-load.service nvidia-setup.service nvidia-persistenced.service
Before=kubelet.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/nvidia-smi -mig 1
ExecStart=/usr/bin/nvidia-smi mig -cgi {slices} -C
[Install]
RequiredBy=kubelet.service
UNIT
systemctl daemon-reload
systemctl enable mig-slices.service
"""


def node_user_data(mig_profile: str | None = None, slices_per_gpu: int = 0) -> str:
    """User data of a GPU node, as a MIME document.

    Args:
        mig_profile: profile of the slices; None leaves the GPUs whole.
        slices_per_gpu: how many slices each GPU is divided into.
    """
    parts = [_part("application/node.eks.aws", _NODE_CONFIG)]
    if mig_profile is not None:
        slices = ",".join([mig_profile] * slices_per_gpu)
        script = _MIG_SCRIPT.format(profile=mig_profile, slices=slices)
        parts.append(_part('text/x-shellscript; charset="us-ascii"', script))
    head = f'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="{_BOUNDARY}"\n\n'
    return f"{head}{''.join(parts)}--{_BOUNDARY}--\n"


def _part(content_type: str, content: str) -> str:
    return f"--{_BOUNDARY}\nContent-Type: {content_type}\n\n{content}\n"
