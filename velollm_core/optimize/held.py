"""The memory that a running server holds, which it gives back when it is started anew."""

from __future__ import annotations

from contextlib import suppress

import psutil
from attrs import evolve

from velollm_core.backends.local import listeners
from velollm_core.backends.memory import memory_use
from velollm_core.hardware.spec import GpuInfo, HardwareSpec


def as_if_stopped(hardware: HardwareSpec, url: str) -> HardwareSpec:
    """The machine with what the server at ``url`` and its children hold counted as free.

    Pages of a mapped file are free in any case. Where the processes cannot be seen, as in a
    container, the machine stays as it is.
    """
    family: set[psutil.Process] = set()
    for process in listeners(url):
        with suppress(psutil.Error):
            family |= {process, *process.children(recursive=True)}
    used = memory_use(tuple(process.pid for process in family))
    if used is None:
        return hardware
    memory = hardware.memory
    available = memory.available_bytes + sum(map(_own_bytes, family))
    return evolve(
        hardware,
        memory=evolve(memory, available_bytes=min(memory.total_bytes, available)),
        gpus=tuple(_freed(gpu, used.gpu_bytes.get(gpu.uuid, 0)) for gpu in hardware.gpus),
    )


def _own_bytes(process: psutil.Process) -> int:
    """What no other process shares and no file holds."""
    with suppress(psutil.Error):
        info = process.memory_info()
        return int(info.rss - getattr(info, "shared", 0))
    return 0


def _freed(gpu: GpuInfo, size: int) -> GpuInfo:
    if gpu.memory_free_bytes is None:
        return gpu
    free = gpu.memory_free_bytes + size
    return evolve(gpu, memory_free_bytes=min(free, gpu.memory_total_bytes or free))
