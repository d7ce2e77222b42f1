"""Which GPUs the instance types carry, and how those can be divided."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from voicemesh import contract

INSTANCE_TYPE: Final = re.compile(r"[a-z][a-z0-9-]*\.([a-z0-9]+|metal-[0-9]+xl)")


@dataclass(frozen=True)
class GpuInstance:
    """The GPUs of one instance type."""

    accelerator: str
    """As in the label `accelerator` of its nodes."""

    gpus: int


INSTANCES: Final[Mapping[str, GpuInstance]] = {
    "p5.4xlarge": GpuInstance(contract.H100, 1),
    "p5.48xlarge": GpuInstance(contract.H100, 8),
    "p5e.48xlarge": GpuInstance("h200", 8),
    "p5en.48xlarge": GpuInstance("h200", 8),
    "p6-b200.48xlarge": GpuInstance("b200", 8),
    "p4d.24xlarge": GpuInstance("a100-40gb", 8),
    "p4de.24xlarge": GpuInstance("a100-80gb", 8),
    "g6e.xlarge": GpuInstance("l40s", 1),
    "g6e.2xlarge": GpuInstance("l40s", 1),
    "g6e.4xlarge": GpuInstance("l40s", 1),
    "g6e.8xlarge": GpuInstance("l40s", 1),
    "g6e.16xlarge": GpuInstance("l40s", 1),
    "g6e.12xlarge": GpuInstance("l40s", 4),
    "g6e.24xlarge": GpuInstance("l40s", 4),
    "g6e.48xlarge": GpuInstance("l40s", 8),
    "g6.xlarge": GpuInstance("l4", 1),
    "g6.2xlarge": GpuInstance("l4", 1),
    "g6.4xlarge": GpuInstance("l4", 1),
    "g6.8xlarge": GpuInstance("l4", 1),
    "g6.12xlarge": GpuInstance("l4", 4),
    "g5.xlarge": GpuInstance("a10g", 1),
    "g5.2xlarge": GpuInstance("a10g", 1),
    "g5.4xlarge": GpuInstance("a10g", 1),
    "g5.8xlarge": GpuInstance("a10g", 1),
    "g5.12xlarge": GpuInstance("a10g", 4),
}
"""https://docs.aws.amazon.com/ec2/latest/instancetypes/ac.html"""

MIG_PROFILES: Final[Mapping[str, Mapping[str, int]]] = {
    contract.H100: {
        "1g.10gb": 7,
        "1g.20gb": 4,
        "2g.20gb": 3,
        "3g.40gb": 2,
        "4g.40gb": 1,
        "7g.80gb": 1,
    },
    "h200": {
        "1g.18gb": 7,
        "1g.35gb": 4,
        "2g.35gb": 3,
        "3g.71gb": 2,
        "4g.71gb": 1,
        "7g.141gb": 1,
    },
    "b200": {
        "1g.23gb": 7,
        "1g.45gb": 4,
        "2g.45gb": 3,
        "3g.90gb": 2,
        "4g.90gb": 1,
        "7g.180gb": 1,
    },
}
"""By accelerator: how many slices of a profile one GPU holds. An A100 can be divided as well, but
has to be reset for that, which its fabric manager prevents while a node starts.

https://docs.nvidia.com/datacenter/tesla/mig-user-guide/supported-mig-profiles.html"""
