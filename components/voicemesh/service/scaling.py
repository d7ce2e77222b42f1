"""How many pods a variant has, and what decides it."""

from dataclasses import dataclass
from enum import StrEnum

from voicemesh.arguments import Faults


class Scaler(StrEnum):
    """What scales the variants that have `Autoscaling`."""

    KEDA = "keda"
    """KEDA, by what Prometheus knows: requests that wait, then use of the GPUs. It refuses a
    variant that is still scaled by CPU: to change over, take `autoscaling` away in one update and
    give it again in the next.
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
        faults.whole_number(1, f"{path}.min_replicas", self.min_replicas)
        minimum = self.min_replicas if isinstance(self.min_replicas, int) else 1
        faults.whole_number(max(1, minimum), f"{path}.max_replicas", self.max_replicas)
        faults.whole_number(1, f"{path}.queue_depth_per_replica", self.queue_depth_per_replica)
        if self.gpu_utilization_percent is not None:
            gpu_goal = self.gpu_utilization_percent
            _check_range(faults, f"{path}.gpu_utilization_percent", gpu_goal, 1, 100)
        _check_range(faults, f"{path}.cpu_percent", self.cpu_percent, 1, 100)
        # Kubernetes refuses more than an hour.
        window = self.scale_down_stabilization_seconds
        _check_range(faults, f"{path}.scale_down_stabilization_seconds", window, 0, 3600)


def _check_range(faults: Faults, path: str, value: object, low: int, high: int) -> None:
    fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    faults.require(fits, path, value, f"a whole number from {low} to {high}")
