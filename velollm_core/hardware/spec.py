"""The machine as data. What counts is what this process may use; the host's totals are kept."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen

Vendor = Literal["nvidia", "amd", "apple", "intel", "other"]


@frozen(kw_only=True)
class GpuInfo:
    """One graphics processor. ``None`` means that no tool told.

    ``uuid`` is the vendor's own identifier, or ``vendor:bus_id`` where there is none: two sources
    that describe the same card are merged by it. ``unified_memory`` is true where the card shares
    the host's memory.
    """

    uuid: str
    vendor: Vendor
    name: str
    index: int = 0
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    unified_memory: bool = False
    driver_version: str | None = None
    runtime_version: str | None = None
    compute_capability: str | None = None
    power_limit_w: float | None = None
    memory_bandwidth_bytes_per_s: float | None = None
    source: str = ""


@frozen(kw_only=True)
class CacheInfo:
    """One level of processor cache: size of one instance, and how many instances there are."""

    level: int
    kind: Literal["data", "instruction", "unified"]
    size_bytes: int
    instances: int = 1


@frozen(kw_only=True)
class NumaNode:
    """A memory node: its processors, and its memory where the system tells."""

    id: int
    cpus: tuple[int, ...]
    memory_bytes: int | None = None


@frozen(kw_only=True)
class CpuInfo:
    """The processors.

    ``logical`` and ``physical`` are the host's. ``usable_cpus`` are those that the affinity mask
    leaves to this process, ``quota_cpus`` is the cgroup's CPU quota in processors (``None``: no
    limit), and ``usable`` is what may really run at once: the smaller of the two.
    ``instruction_sets`` holds only those that matter for inference, in llama.cpp's spelling
    (``AVX2``, ``AVX512_VNNI``, ``AMX_INT8``, ``NEON``, ``DOTPROD``, ``SVE`` ...). ``clock_hz`` is
    measured with all cores at work, ``None`` where it was not.
    """

    model: str
    architecture: str
    logical: int
    physical: int
    packages: int = 1
    performance_cores: int | None = None
    efficiency_cores: int | None = None
    instruction_sets: tuple[str, ...] = ()
    caches: tuple[CacheInfo, ...] = ()
    numa_nodes: tuple[NumaNode, ...] = ()
    usable_cpus: tuple[int, ...] = ()
    quota_cpus: float | None = None
    clock_hz: float | None = None
    usable: float = field()

    @usable.default
    def _usable_default(self) -> float:
        allowed = float(len(self.usable_cpus) or self.logical)
        return allowed if self.quota_cpus is None else min(allowed, self.quota_cpus)


@frozen(kw_only=True)
class MemoryInfo:
    """Main memory, bytes.

    ``limit_bytes`` is the cgroup's; ``usable_bytes`` is what this process may still take.
    """

    total_bytes: int
    available_bytes: int
    swap_total_bytes: int = 0
    swap_used_bytes: int = 0
    limit_bytes: int | None = None
    limit_used_bytes: int | None = None
    bandwidth_bytes_per_s: float | None = None
    bandwidth_method: str | None = None

    @property
    def usable_bytes(self) -> int:
        """The smaller of what the host has available and what the cgroup's limit leaves."""
        if self.limit_bytes is None:
            return self.available_bytes
        return max(0, min(self.available_bytes, self.limit_bytes - (self.limit_used_bytes or 0)))


@frozen(kw_only=True)
class OsInfo:
    """The operating system: ``system`` is ``Linux``, ``Darwin`` or ``Windows``."""

    system: str
    release: str
    version: str = ""
    distribution: str | None = None


@frozen(kw_only=True)
class ContainerInfo:
    """The container or virtual environment that this process runs in, and how it was recognised."""

    kind: str
    evidence: str


@frozen(kw_only=True)
class HardwareSpec:
    """One machine as this process sees it.

    ``notes`` names every tool that failed or hung, and cards that are there but cannot be used.
    """

    cpu: CpuInfo
    memory: MemoryInfo
    os: OsInfo
    gpus: tuple[GpuInfo, ...] = ()
    container: ContainerInfo | None = None
    notes: tuple[str, ...] = ()
