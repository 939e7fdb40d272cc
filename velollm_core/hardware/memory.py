"""Main memory: the host's, and what a control group leaves of it."""

from __future__ import annotations

from attrs import evolve

from velollm_core.hardware.cgroup import memory_limit
from velollm_core.hardware.parsing import keyed, size_bytes
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.spec import MemoryInfo


def detect_memory(probe: Probe) -> MemoryInfo:
    """Memory and swap: on Linux from ``/proc/meminfo`` and control groups, elsewhere by psutil."""
    if probe.system == "Linux":
        memory = _from_meminfo(probe.read("/proc/meminfo"))
        if memory is not None:
            limit = memory_limit(probe)
            if limit is None or limit.limit_bytes >= memory.total_bytes:
                return memory
            return evolve(memory, limit_bytes=limit.limit_bytes, limit_used_bytes=limit.used_bytes)
    figures = probe.native.memory()
    return MemoryInfo(
        total_bytes=figures.total,
        available_bytes=figures.available,
        swap_total_bytes=figures.swap_total,
        swap_used_bytes=figures.swap_used,
    )


def _from_meminfo(content: str | None) -> MemoryInfo | None:
    sizes = {name: size_bytes(value, "K") or 0 for name, value in keyed(content).items()}
    total = sizes.get("MemTotal", 0)
    if not total:
        return None
    available = sizes.get("MemAvailable")
    if available is None:
        # Kernels before 3.14, and some sandboxes: free, and the file cache but for what is shared
        # memory.
        parts = ("MemFree", "Buffers", "Cached", "SReclaimable")
        available = sum(sizes.get(part, 0) for part in parts) - sizes.get("Shmem", 0)
    swap = sizes.get("SwapTotal", 0)
    return MemoryInfo(
        total_bytes=total,
        available_bytes=min(max(available, 0), total),
        swap_total_bytes=swap,
        swap_used_bytes=max(0, swap - sizes.get("SwapFree", 0)),
    )
