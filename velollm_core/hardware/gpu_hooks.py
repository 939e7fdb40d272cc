"""The core's own graphics detectors, registered like any plugin's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from velollm_core.hardware.probe import Probe
    from velollm_core.hardware.spec import GpuInfo


@hookimpl
def velollm_detect_gpus(probe: Probe) -> Iterable[GpuInfo]:
    """Ask all detectors at the same time; one that breaks costs its own cards and a note."""
    # Imported here: every command loads this module, and only a few look for cards.
    from concurrent.futures import ThreadPoolExecutor

    from velollm_core.hardware.gpu_amd import amd_gpus
    from velollm_core.hardware.gpu_apple import apple_gpus
    from velollm_core.hardware.gpu_intel import intel_gpus
    from velollm_core.hardware.gpu_nvidia import nvidia_gpus
    from velollm_core.hardware.gpu_windows import windows_gpus

    def ask(detector: Callable[[Probe], tuple[GpuInfo, ...]]) -> tuple[GpuInfo, ...]:
        try:
            return detector(probe)
        except Exception as error:  # noqa: BLE001 - one vendor's fault must not lose another's cards
            probe.note(detector.__name__, f"failed: {type(error).__name__}: {error}")
            return ()

    detectors = (nvidia_gpus, amd_gpus, intel_gpus, apple_gpus, windows_gpus)
    with ThreadPoolExecutor(len(detectors)) as pool:
        return [gpu for found in pool.map(ask, detectors) for gpu in found]
