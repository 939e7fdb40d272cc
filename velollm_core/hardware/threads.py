"""How many threads are worth starting on a processor, as far as that can be said unmeasured."""

from __future__ import annotations

import math

from velollm_core.hardware.spec import CpuInfo

_ROOMY_QUOTA = 16
"""From so many processors on, one of a quota is left to what an engine runs beside its threads:
where they use it up, the kernel stops them all until the next period."""


def fast_cores(cpu: CpuInfo) -> int:
    """Performance cores, all cores where there is one kind: as many threads llama.cpp starts."""
    return cpu.performance_cores or cpu.physical


def runnable(cpu: CpuInfo) -> int:
    """How many threads a quota and an affinity mask let run at once, at least one."""
    return max(1, math.floor(cpu.usable))


def startable(cpu: CpuInfo) -> int:
    """:func:`runnable`, less one of a large quota."""
    most = runnable(cpu)
    by_quota = cpu.quota_cpus is not None and cpu.quota_cpus <= cpu.usable
    return most - 1 if by_quota and most >= _ROOMY_QUOTA else most


def decode_threads(cpu: CpuInfo) -> int:
    """Threads that generate: one a fast core, and no more than may run at once."""
    return min(fast_cores(cpu), startable(cpu))
