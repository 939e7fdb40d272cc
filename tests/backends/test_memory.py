"""Memory on NVIDIA cards, as far as each of them tells."""

from __future__ import annotations

import os
from types import SimpleNamespace

from velollm_core.backends import memory


class NVMLError(Exception):
    pass


def test_a_card_that_does_not_tell_hides_no_other(monkeypatch):
    def running(card):
        if card == 0:
            raise NVMLError("no permission")
        return [SimpleNamespace(pid=os.getpid(), usedGpuMemory=7)]

    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetComputeRunningProcesses=running,
        nvmlDeviceGetUUID=lambda card: f"GPU-{card}",
    )
    monkeypatch.setattr(memory, "_nvml", lambda: nvml)
    used = memory.memory_use((os.getpid(),))
    assert used is not None
    assert used.gpu_bytes == {"GPU-1": 7}
