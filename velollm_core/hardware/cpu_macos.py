"""Processors on macOS, from one ``sysctl``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from velollm_core.hardware import instruction_sets
from velollm_core.hardware.caches import CacheKind, count_caches
from velollm_core.hardware.parsing import integer, keyed
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.spec import CpuInfo

_CACHES: tuple[tuple[str, int, CacheKind], ...] = (
    ("l1d", 1, "data"),
    ("l1i", 1, "instruction"),
    ("l2", 2, "unified"),
    ("l3", 3, "unified"),
)


def macos_cpu(probe: Probe) -> CpuInfo | None:
    """The processors, or ``None`` where ``sysctl`` does not tell their number.

    Apple's chips have up to three kinds of cores, each a ``hw.perflevel``; those named "Efficiency"
    (in older systems, which name none: all but the first) are the efficiency cores.
    """
    values = keyed(probe.run("sysctl", "hw", "machdep.cpu"))
    numbers = {key: integer(value) or 0 for key, value in values.items()}
    logical = numbers.get("hw.logicalcpu") or numbers.get("hw.ncpu")
    if not logical:
        return None
    levels = range(min(numbers.get("hw.nperflevels", 0), 8))
    efficiency = sum(
        numbers.get(f"hw.perflevel{level}.physicalcpu", 0)
        for level in levels
        if values.get(f"hw.perflevel{level}.name", "Efficiency" if level else "") == "Efficiency"
    )
    physical = numbers.get("hw.physicalcpu") or logical
    hybrid = len(levels) > 1
    return CpuInfo(
        model=values.get("machdep.cpu.brand_string") or f"unknown {probe.machine} processor",
        architecture=probe.machine,
        logical=logical,
        physical=physical,
        packages=numbers.get("hw.packages") or 1,
        performance_cores=physical - efficiency if hybrid else None,
        efficiency_cores=efficiency if hybrid else None,
        instruction_sets=instruction_sets.from_macos(values),
        caches=count_caches(_caches(values, levels)),
        usable_cpus=tuple(range(logical)),
    )


def _caches(
    values: Mapping[str, str], levels: Sequence[int]
) -> Iterator[tuple[int, CacheKind, int]]:
    """Every single cache. ``hw.l2cachesize`` alone would be that of one kind of core."""

    def value(key: str) -> int:
        return integer(values.get(key)) or 0

    # Of Intel processors: logical processors that share memory, level 1, level 2 ...
    sharing = [integer(entry) or 0 for entry in values.get("hw.cacheconfig", "").split()]
    for prefix in [f"hw.perflevel{level}." for level in levels] or ["hw."]:
        for name, level, kind in _CACHES:
            size = value(f"{prefix}{name}cachesize")
            shared_by = value(f"{prefix}cpusperl{level}") or (1 if levels and level == 1 else 0)
            if not levels and len(sharing) > level:
                shared_by = sharing[level]
            instances = value(f"{prefix}logicalcpu") // shared_by if shared_by else 1
            yield from [(level, kind, size)] * (min(max(instances, 1), 1024) if size else 0)
