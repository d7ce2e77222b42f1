"""What the rules know of instance types of EC2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

GPUS: Final[Mapping[str, tuple[str, int]]] = {
    "p5.4xlarge": ("h100", 1),
    "p5.48xlarge": ("h100", 8),
    "p5e.48xlarge": ("h200", 8),
    "p5en.48xlarge": ("h200", 8),
    "p6-b200.48xlarge": ("b200", 8),
    "p4d.24xlarge": ("a100-40gb", 8),
    "p4de.24xlarge": ("a100-80gb", 8),
    **{f"g6e.{size}xlarge": ("l40s", 1) for size in ("", 2, 4, 8, 16)},
    **{f"g6e.{size}xlarge": ("l40s", gpus) for size, gpus in ((12, 4), (24, 4), (48, 8))},
    **{f"g6.{size}xlarge": ("l4", 1) for size in ("", 2, 4, 8, 16)},
    **{f"g6.{size}xlarge": ("l4", gpus) for size, gpus in ((12, 4), (24, 4), (48, 8))},
    **{f"g5.{size}xlarge": ("a10g", 1) for size in ("", 2, 4, 8, 16)},
    **{f"g5.{size}xlarge": ("a10g", gpus) for size, gpus in ((12, 4), (24, 4), (48, 8))},
}
"""Accelerator, as in the label of the nodes, and GPUs, by instance type.
https://docs.aws.amazon.com/ec2/latest/instancetypes/ac.html"""

SLICES: Final[Mapping[str, int]] = {
    "1g.10gb": 7,
    "1g.20gb": 4,
    "2g.20gb": 3,
    "3g.40gb": 2,
    "4g.40gb": 1,
    "7g.80gb": 1,
    "1g.18gb": 7,
    "1g.35gb": 4,
    "2g.35gb": 3,
    "3g.71gb": 2,
    "4g.71gb": 1,
    "7g.141gb": 1,
    "1g.23gb": 7,
    "1g.45gb": 4,
    "2g.45gb": 3,
    "3g.90gb": 2,
    "4g.90gb": 1,
    "7g.180gb": 1,
}
"""How many slices of a MIG profile one GPU holds.
https://docs.nvidia.com/datacenter/tesla/mig-user-guide/supported-mig-profiles.html"""

PRICES: Final[Mapping[str, float]] = {
    "p5.4xlarge": 6.88,
    "p5.48xlarge": 55.04,
    "p5en.48xlarge": 63.296,
    "p4d.24xlarge": 21.957642,
    "p4de.24xlarge": 27.44705,
    "p6-b200.48xlarge": 113.9328,
    "g6e.xlarge": 1.861,
    "g6e.2xlarge": 2.24208,
    "g6e.4xlarge": 3.00424,
    "g6e.8xlarge": 4.52856,
    "g6e.12xlarge": 10.49264,
    "g6e.16xlarge": 7.57719,
    "g6e.24xlarge": 15.06559,
    "g6e.48xlarge": 30.13118,
    "g6.xlarge": 0.8048,
    "g6.2xlarge": 0.9776,
    "g6.4xlarge": 1.3232,
    "g6.8xlarge": 2.0144,
    "g6.12xlarge": 4.6016,
    "g6.16xlarge": 3.3968,
    "g6.24xlarge": 6.6752,
    "g6.48xlarge": 13.3504,
    "g5.xlarge": 1.006,
    "g5.2xlarge": 1.212,
    "g5.4xlarge": 1.624,
    "g5.8xlarge": 2.448,
    "g5.12xlarge": 5.672,
    "g5.16xlarge": 4.096,
    "g5.24xlarge": 8.144,
    "g5.48xlarge": 16.288,
    "m6i.large": 0.096,
    "m6i.xlarge": 0.192,
    "m6i.2xlarge": 0.384,
    "m6i.4xlarge": 0.768,
    "m7i.large": 0.1008,
    "m7i.xlarge": 0.2016,
    "m7i.2xlarge": 0.4032,
    "m7i.4xlarge": 0.8064,
    "m7a.large": 0.11592,
    "m7a.xlarge": 0.23184,
    "m7a.2xlarge": 0.46368,
    "m7a.4xlarge": 0.92736,
    "m7g.large": 0.0816,
    "m7g.xlarge": 0.1632,
    "m7g.2xlarge": 0.3264,
    "m7g.4xlarge": 0.6528,
}
"""Dollars an hour, on demand, Linux, us-east-1, of January 2026."""

CONTROL_PLANE_PRICE: Final = 0.10
"""Dollars an hour for a cluster of EKS in standard support: https://aws.amazon.com/eks/pricing/"""
NAT_GATEWAY_PRICE: Final = 0.045
"""Dollars an hour, without what goes through: https://aws.amazon.com/vpc/pricing/"""
HOURS_PER_MONTH: Final = 730
