"""Processors on Windows, from the registry and the system's own table of processors.

No tool is asked: ``wmic`` is gone from new systems, and PowerShell takes a second to start.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from attrs import frozen

from velollm_core.hardware import instruction_sets
from velollm_core.hardware.caches import CacheKind, count_caches
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.spec import CacheInfo, CpuInfo, NumaNode

_CPU_KEY = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
_CACHE_KINDS: dict[int, CacheKind] = {0: "unified", 1: "instruction", 2: "data"}
_CORE, _NUMA_NODE, _CACHE, _PACKAGE = 0, 1, 2, 3
_GROUP_SIZE = 64  # processors are numbered within groups of at most 64


@frozen(kw_only=True)
class Topology:
    """What the table tells. A core is its efficiency class and its processors."""

    cores: tuple[tuple[int, tuple[int, ...]], ...] = ()
    packages: int = 0
    caches: tuple[CacheInfo, ...] = ()
    numa_nodes: tuple[NumaNode, ...] = ()


def windows_cpu(probe: Probe) -> CpuInfo:
    """The processors; counts by psutil where the table cannot be read."""
    topology = read_topology(probe.native.processor_topology())
    logical = sum(len(cpus) for _, cpus in topology.cores)
    physical = len(topology.cores)
    if not logical:
        logical, physical = probe.native.cpu_counts()
    classes = {efficiency_class for efficiency_class, _ in topology.cores}
    # A higher class is a faster core; all but the highest are efficiency cores.
    fast = sum(1 for efficiency_class, _ in topology.cores if efficiency_class == max(classes))
    hybrid = len(classes) > 1
    name = probe.native.registry_value(_CPU_KEY, "ProcessorNameString")
    return CpuInfo(
        model=str(name).strip() if name else f"unknown {probe.machine} processor",
        architecture=probe.machine,
        logical=logical,
        physical=physical,
        packages=topology.packages or 1,
        performance_cores=fast if hybrid else None,
        efficiency_cores=physical - fast if hybrid else None,
        instruction_sets=_instruction_sets(probe),
        caches=topology.caches,
        numa_nodes=topology.numa_nodes,
        usable_cpus=probe.native.cpu_affinity() or tuple(range(logical)),
    )


def _instruction_sets(probe: Probe) -> tuple[str, ...]:
    if probe.machine.upper().startswith("ARM"):
        present = filter(probe.native.processor_feature, instruction_sets.WINDOWS_ARM_FEATURES)
        return instruction_sets.from_windows_arm(present)
    return instruction_sets.from_flags(probe.native.cpu_flags())


def read_topology(table: bytes) -> Topology:
    """The table of ``GetLogicalProcessorInformationEx(RelationAll)``, as ``winnt.h`` lays it out.

    A table that breaks off, or holds anything else, gives what could be read before that.
    """
    cores: list[tuple[int, tuple[int, ...]]] = []
    packages = 0
    caches: list[tuple[int, CacheKind, int]] = []
    nodes: dict[int, set[int]] = {}
    try:
        for relation, entry in _entries(table):
            if relation == _CORE:
                (efficiency_class,) = struct.unpack_from("<B", entry, 1)
                cores.append((efficiency_class, _processors(entry, 22)))
            elif relation == _PACKAGE:
                packages += 1
            elif relation == _CACHE:
                level, _, _, size, kind = struct.unpack_from("<BBHII", entry)
                if kind in _CACHE_KINDS:
                    caches.append((level, _CACHE_KINDS[kind], size))
            elif relation == _NUMA_NODE:
                (number,) = struct.unpack_from("<I", entry)
                nodes.setdefault(number, set()).update(_processors(entry, 22))
    except struct.error:
        pass
    return Topology(
        cores=tuple(cores),
        packages=packages,
        caches=count_caches(caches),
        numa_nodes=tuple(
            NumaNode(id=number, cpus=tuple(sorted(cpus))) for number, cpus in sorted(nodes.items())
        ),
    )


def _entries(table: bytes) -> Iterator[tuple[int, bytes]]:
    """Each entry's relation and its union: a DWORD each for relation and size come before it."""
    start = 0
    while start < len(table):
        relation, size = struct.unpack_from("<II", table, start)
        if size < 8 or start + size > len(table):
            return
        yield relation, table[start + 8 : start + size]
        start += size


def _processors(entry: bytes, count_at: int) -> tuple[int, ...]:
    """The processors of the group masks that follow their count (older systems write 0 for 1)."""
    (count,) = struct.unpack_from("<H", entry, count_at)
    found = []
    for index in range(count or 1):
        mask, group = struct.unpack_from("<QH", entry, count_at + 2 + 16 * index)
        found += [group * _GROUP_SIZE + bit for bit in range(64) if mask >> bit & 1]
    return tuple(found)
