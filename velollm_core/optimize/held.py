"""The memory that a running server holds, which it gives back when it is started anew."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil
from attrs import evolve

from velollm_core.backends.memory import memory_use
from velollm_core.hardware.spec import GpuInfo, HardwareSpec


def as_if_stopped(hardware: HardwareSpec, pids: Iterable[int]) -> HardwareSpec:
    """The machine with what the processes ``pids`` of a server and their children hold counted as
    free; of a control group's limit too, where they are in the same group as this process.

    Pages of a mapped file are free in any case. Where the processes cannot be seen, as in a
    container, the machine stays as it is.
    """
    family: set[psutil.Process] = set()
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            family |= {process, *process.children(recursive=True)}
    used = memory_use(tuple(process.pid for process in family))
    if used is None:
        return hardware
    memory = hardware.memory
    available = memory.available_bytes + sum(map(_own_bytes, family))
    limit_used = memory.limit_used_bytes
    if limit_used is not None:
        group = _group("self")
        inside = (p for p in family if group is not None and _group(str(p.pid)) == group)
        limit_used = max(0, limit_used - sum(map(_own_bytes, inside)))
    return evolve(
        hardware,
        memory=evolve(
            memory,
            available_bytes=min(memory.total_bytes, available),
            limit_used_bytes=limit_used,
        ),
        gpus=tuple(_freed(gpu, used.gpu_bytes.get(gpu.uuid, 0)) for gpu in hardware.gpus),
    )


def _own_bytes(process: psutil.Process) -> int:
    """What no other process shares and no file holds."""
    with suppress(psutil.Error):
        info = process.memory_info()
        return int(info.rss - getattr(info, "shared", 0))
    return 0


def _group(process: str) -> str | None:
    """The control groups of a process, ``None`` where they cannot be read."""
    try:
        return Path("/proc", process, "cgroup").read_text(encoding="utf-8")
    except OSError:
        return None


def _freed(gpu: GpuInfo, size: int) -> GpuInfo:
    if gpu.memory_free_bytes is None:
        return gpu
    free = gpu.memory_free_bytes + size
    return evolve(gpu, memory_free_bytes=min(free, gpu.memory_total_bytes or free))
