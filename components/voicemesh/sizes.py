"""Amounts of compute, in units that people write."""

from dataclasses import dataclass

from voicemesh.arguments import Faults

_MEBIBYTES_PER_GIBIBYTE = 1024


@dataclass(frozen=True)
class ComputeSize:
    """CPU and memory of one container."""

    cpu_cores: float
    """Cores that are requested; a container may use more while they are idle."""

    memory_gib: float
    """Memory in GiB."""

    def check(self, faults: Faults, path: str) -> None:
        """Notes sizes that no container can have."""
        faults.at_least(0.001, f"{path}.cpu_cores", self.cpu_cores)
        faults.at_least(1 / _MEBIBYTES_PER_GIBIBYTE, f"{path}.memory_gib", self.memory_gib)

    @property
    def requests(self) -> dict[str, str]:
        """As Kubernetes writes it."""
        return {"cpu": cpu_quantity(self.cpu_cores), "memory": memory_quantity(self.memory_gib)}

    @property
    def millicores(self) -> int:
        """The cores in thousandths, as Kubernetes counts them."""
        return round(self.cpu_cores * 1000)

    @property
    def mebibytes(self) -> int:
        """The memory in MiB."""
        return round(self.memory_gib * _MEBIBYTES_PER_GIBIBYTE)


DEFAULT_SIDECAR = ComputeSize(cpu_cores=0.1, memory_gib=0.125)
"""What Istio's charts request for a sidecar."""


def cpu_quantity(cores: float) -> str:
    """Cores as a Kubernetes quantity: 0.25 is 250m, 4 is 4."""
    millicores = round(cores * 1000)
    return str(millicores // 1000) if millicores % 1000 == 0 else f"{millicores}m"


def memory_quantity(gib: float) -> str:
    """GiB as a Kubernetes quantity: 0.5 is 512Mi, 8 is 8Gi."""
    mebibytes = round(gib * _MEBIBYTES_PER_GIBIBYTE)
    whole = mebibytes % _MEBIBYTES_PER_GIBIBYTE == 0
    return f"{mebibytes // _MEBIBYTES_PER_GIBIBYTE}Gi" if whole else f"{mebibytes}Mi"
