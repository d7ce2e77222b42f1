"""How many pods a variant has, and what decides it."""

from dataclasses import dataclass
from enum import StrEnum

from voicemesh.arguments import Faults


class Scaler(StrEnum):
    """What scales the variants that have `Autoscaling`."""

    KEDA = "keda"
    """KEDA, by what Prometheus knows: requests that wait, then use of the GPUs.
    https://keda.sh/docs/latest/scalers/prometheus/"""

    CPU = "cpu"
    """Kubernetes itself, by use of the CPU: for clusters without KEDA, which need metrics-server.
    https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/"""


@dataclass(frozen=True)
class Autoscaling:
    """Bounds and goals of a variant's number of pods; the goal that asks for most pods decides."""

    min_replicas: int
    """Pods that there always are. One has the same drawbacks as a single replica."""

    max_replicas: int
    """Pods that there are at most. The tenant's quota has to allow them."""

    queue_depth_per_replica: int = 4
    """Requests waiting for a turn, per pod, above which pods are added. With KEDA only."""

    gpu_utilization_percent: int | None = 80
    """Share of time in which the GPUs, or slices, work, above which pods are added; None to leave
    it out. With KEDA only, and not for a variant without GPUs. One stream keeps a GPU busy for
    most of the time, so this keeps pods that work rather than add pods that are needed."""

    cpu_percent: int = 70
    """Share of the requested CPU that the speech server uses, above which pods are added. Without
    KEDA only."""

    scale_down_stabilization_seconds: int = 300
    """How long fewer pods must have been enough before any is taken away."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes bounds and goals that no autoscaler could follow."""
        faults.at_least(1, f"{path}.min_replicas", self.min_replicas)
        faults.require(
            self.max_replicas >= self.min_replicas,
            f"{path}.max_replicas",
            self.max_replicas,
            f"min_replicas ({self.min_replicas}) or more",
        )
        faults.at_least(1, f"{path}.queue_depth_per_replica", self.queue_depth_per_replica)
        for name in ("gpu_utilization_percent", "cpu_percent"):
            percent = getattr(self, name)
            fits = percent is None or 1 <= percent <= 100
            faults.require(fits, f"{path}.{name}", percent, "a percentage from 1 to 100")
        window = self.scale_down_stabilization_seconds
        # Kubernetes refuses more than an hour.
        faults.require(
            0 <= window <= 3600,
            f"{path}.scale_down_stabilization_seconds",
            window,
            "0 to 3600 seconds",
        )
