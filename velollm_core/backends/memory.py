"""Memory that processes take: resident, and on NVIDIA cards."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

import psutil

from velollm_core.backends.contract import MemoryUse


def memory_use(pids: tuple[int, ...]) -> MemoryUse | None:
    """What ``pids`` and their children take together; ``None`` where none of them can be seen."""
    family: set[psutil.Process] = set()
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            family |= {process, *process.children(recursive=True)}
    rss_bytes, seen = 0, False
    for process in family:
        with suppress(psutil.Error):
            rss_bytes += process.memory_info().rss
            seen = True
    if not seen:
        return None
    return MemoryUse(rss_bytes=rss_bytes, gpu_bytes=_gpu_bytes({member.pid for member in family}))


def _gpu_bytes(pids: set[int]) -> dict[str, int]:
    """Bytes by card, as NVML tells them; empty where it is not there or does not tell."""
    nvml = _nvml()
    used: dict[str, int] = {}
    if nvml is None:
        return used
    with suppress(nvml.NVMLError):
        for index in range(nvml.nvmlDeviceGetCount()):
            with suppress(nvml.NVMLError):  # one card that does not tell hides no other
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle):
                    if process.pid in pids and process.usedGpuMemory is not None:
                        uuid = str(nvml.nvmlDeviceGetUUID(handle))
                        used[uuid] = used.get(uuid, 0) + process.usedGpuMemory
    return used


@cache
def _nvml() -> Any:
    """NVML, loaded once: this is asked several times a second."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - no library, no driver, no permission: no figure
        return None
    return pynvml
