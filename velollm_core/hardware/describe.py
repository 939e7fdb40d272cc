"""A machine in words: rows of label and value for a table."""

from __future__ import annotations

from collections.abc import Iterator

from velollm_core.hardware.parsing import GIB, KIB, MIB
from velollm_core.hardware.spec import CacheInfo, CpuInfo, GpuInfo, HardwareSpec, MemoryInfo


def describe(spec: HardwareSpec) -> list[tuple[str, str]]:
    """Label and value of everything worth a line; what does not apply has none."""
    return list(_rows(spec))


def limits(cpu: CpuInfo) -> str:
    """What holds this process back, in words."""
    return " and ".join(_limits(cpu).values()) or plural(cpu.logical, "processor")


def gib(size: int) -> str:
    """Bytes in GiB."""
    return f"{size / GIB:.1f} GiB"


def plural(number: int, thing: str) -> str:
    """``1 slot``, ``4 slots``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _rows(spec: HardwareSpec) -> Iterator[tuple[str, str]]:
    kernel = f"{spec.os.system} {spec.os.release}"
    yield "System", f"{spec.os.distribution}, {kernel}" if spec.os.distribution else kernel
    if spec.container:
        yield "Container", f"{spec.container.kind} ({spec.container.evidence})"
    yield "Processor", f"{spec.cpu.model}, {spec.cpu.architecture}"
    yield "Cores", _cores(spec.cpu)
    yield "Usable", _usable(spec.cpu)
    if spec.cpu.clock_hz is not None:
        yield "Clock", f"{spec.cpu.clock_hz / 1e9:.1f} GHz (measured, all cores at work)"
    yield (
        "Instruction sets",
        " ".join(spec.cpu.instruction_sets) or "none that matter for inference",
    )
    if spec.cpu.caches:
        yield "Caches", ", ".join(_cache(cache) for cache in spec.cpu.caches)
    if len(spec.cpu.numa_nodes) > 1:
        yield (
            "NUMA nodes",
            "; ".join(
                f"{node.id}: {plural(len(node.cpus), 'processor')}"
                + (f", {gib(node.memory_bytes)}" if node.memory_bytes is not None else "")
                for node in spec.cpu.numa_nodes
            ),
        )
    yield from _memory(spec.memory)
    for number, gpu in enumerate(spec.gpus):
        yield f"GPU {number}", _gpu(gpu)
    if not spec.gpus:
        yield "GPU", "none found"
    for note in spec.notes:
        yield "Note", note


def _cores(cpu: CpuInfo) -> str:
    counted = f"{plural(cpu.physical, 'core')}, {plural(cpu.logical, 'thread')}"
    if cpu.packages > 1:
        counted = f"{cpu.packages} packages, {counted}"
    if cpu.performance_cores is None or cpu.efficiency_cores is None:
        return counted
    return f"{counted}; {cpu.performance_cores} performance + {cpu.efficiency_cores} efficiency"


def _usable(cpu: CpuInfo) -> str:
    held = _limits(cpu)
    because = f" ({' and '.join(held)})" if held else ""
    return f"{cpu.usable:g} of {plural(cpu.logical, 'thread')}{because}"


def _limits(cpu: CpuInfo) -> dict[str, str]:
    """What leaves this process less than the machine has: in short, and with its figure."""
    allowed = len(cpu.usable_cpus) or cpu.logical
    held = {}
    if cpu.quota_cpus is not None and cpu.quota_cpus < allowed:
        held["CPU quota"] = f"a quota of {cpu.quota_cpus:g} processors"
    if allowed < cpu.logical:
        held["affinity"] = f"an affinity mask of {allowed} of {cpu.logical} processors"
    return held


def _cache(cache: CacheInfo) -> str:
    letter = {"data": "d", "instruction": "i", "unified": ""}[cache.kind]
    large = cache.size_bytes >= MIB
    size = f"{cache.size_bytes / (MIB if large else KIB):g} {'MiB' if large else 'KiB'}"
    return f"L{cache.level}{letter} {cache.instances} x {size}"


def _memory(memory: MemoryInfo) -> Iterator[tuple[str, str]]:
    yield "Memory", f"{gib(memory.total_bytes)}, {gib(memory.available_bytes)} available"
    if memory.limit_bytes is not None:
        used = f", {gib(memory.limit_used_bytes or 0)} of it used"
        yield "Memory limit", f"{gib(memory.limit_bytes)} (control group){used}"
    if memory.swap_total_bytes:
        used = f"{gib(memory.swap_used_bytes)} used"
        yield "Swap", f"{gib(memory.swap_total_bytes)}, {used}"
    if memory.bandwidth_bytes_per_s is not None:
        how = f" ({memory.bandwidth_method})" if memory.bandwidth_method else ""
        yield "Memory bandwidth", f"{memory.bandwidth_bytes_per_s / 1e9:.1f} GB/s{how}"


def _gpu(gpu: GpuInfo) -> str:
    parts = [gpu.name]
    if gpu.memory_total_bytes is not None:
        shared = " shared with the processor" if gpu.unified_memory else ""
        parts.append(f"{gib(gpu.memory_total_bytes)}{shared}")
    if gpu.memory_free_bytes is not None:
        parts.append(f"{gib(gpu.memory_free_bytes)} free")
    if gpu.driver_version:
        parts.append(f"driver {gpu.driver_version}")
    if gpu.runtime_version:
        parts.append(gpu.runtime_version)
    if gpu.compute_capability:
        parts.append(f"compute {gpu.compute_capability}")
    if gpu.power_limit_w:
        parts.append(f"limit {gpu.power_limit_w:g} W")
    if gpu.memory_bandwidth_bytes_per_s:
        parts.append(f"{gpu.memory_bandwidth_bytes_per_s / 1e9:.0f} GB/s peak")
    return ", ".join(parts)
