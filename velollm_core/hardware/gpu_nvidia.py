"""NVIDIA's cards: by NVML, or by ``nvidia-smi`` where that library cannot be loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from velollm_core.hardware.memory import detect_memory
from velollm_core.hardware.parsing import integer, number, size_bytes, text
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.spec import GpuInfo

T = TypeVar("T")
_COLUMNS = "index,uuid,name,driver_version,memory.total,memory.free,power.limit,mig.mode.current"
_FORMAT = "--format=csv,noheader,nounits"


def nvidia_gpus(probe: Probe, nvml: Any = None) -> tuple[GpuInfo, ...]:
    """The cards, or the instances of those that are split by MIG.

    Args:
        probe: runs ``nvidia-smi``, bounds the library, takes notes.
        nvml: the module ``pynvml``, imported where none is given.
    """
    found = probe.bounded("NVML", lambda: _by_nvml(probe, nvml))
    if found is None and "NVML" not in probe.hung:
        found = _by_tool(probe)
    if not found:
        _note_idle_cards(probe)
        return ()
    hidden = probe.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        probe.note("CUDA_VISIBLE_DEVICES", f"is {hidden!r}: a program sees only the cards it names")
    return tuple(found)


def _by_nvml(probe: Probe, nvml: Any) -> tuple[GpuInfo, ...] | None:
    """By the library; ``None`` where it is not there."""
    if nvml is None:
        import pynvml

        nvml = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError_LibraryNotFound:
        return None
    try:
        driver = _asked(nvml, nvml.nvmlSystemGetDriverVersion)
        cuda = _asked(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)
        runtime = f"CUDA {cuda // 1000}.{cuda % 1000 // 10}" if cuda else None
        found = []
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = _asked(nvml, nvml.nvmlDeviceGetHandleByIndex, index)
            if handle is None:
                probe.note("NVML", f"card {index} does not answer")
                continue
            instances = list(_mig_instances(nvml, handle))
            found += [
                _described(probe, nvml, each, index=index, driver=driver, runtime=runtime)
                for each in instances or [handle]
            ]
        return tuple(found)
    finally:
        _asked(nvml, nvml.nvmlShutdown)


def _mig_instances(nvml: Any, handle: Any) -> Iterator[Any]:
    mode = _asked(nvml, nvml.nvmlDeviceGetMigMode, handle)
    if mode and mode[0]:
        for index in range(_asked(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            instance = _asked(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
            if instance is not None:
                yield instance


def _described(
    probe: Probe, nvml: Any, handle: Any, *, index: int, driver: str | None, runtime: str | None
) -> GpuInfo:
    memory = _asked(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    capability = _asked(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    limit_mw = _asked(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    name = _asked(nvml, nvml.nvmlDeviceGetName, handle) or "NVIDIA card"
    return _gpu(
        probe,
        uuid=_asked(nvml, nvml.nvmlDeviceGetUUID, handle) or f"nvidia:{index}",
        name=name,
        index=index,
        memory_total_bytes=memory.total if memory else None,
        memory_free_bytes=memory.free if memory else None,
        driver_version=driver,
        runtime_version=runtime,
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
        power_limit_w=limit_mw / 1000 if limit_mw else None,
        memory_bandwidth_bytes_per_s=_peak_bandwidth(nvml, handle, name),
        source="NVML",
    )


def _peak_bandwidth(nvml: Any, handle: Any, name: str) -> float | None:
    """Two transfers a clock over the whole bus, bytes a second, as CUDA's deviceQuery reckons it.

    An instance of MIG has a part of it that nothing tells.
    """
    clock_mhz = _asked(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_MEM)
    width_bits = _asked(nvml, nvml.nvmlDeviceGetMemoryBusWidth, handle)
    if not clock_mhz or not width_bits or " MIG " in name:
        return None
    return float(2e6 * clock_mhz * width_bits / 8)


def _asked(nvml: Any, function: Callable[..., T], *arguments: Any) -> T | None:
    """What NVML answers; ``None`` where this card or driver cannot tell."""
    try:
        return function(*arguments)
    except (nvml.NVMLError, UnicodeDecodeError):
        return None


def _gpu(probe: Probe, *, memory_total_bytes: int | None, **known: Any) -> GpuInfo:
    """A card. On an ARM chip one without memory of its own (GB10, Jetson) shares the host's."""
    unified = memory_total_bytes is None and probe.machine.lower() in {"aarch64", "arm64"}
    if unified:
        memory = detect_memory(probe)
        known["memory_free_bytes"] = memory.available_bytes
        memory_total_bytes = memory.total_bytes
    return GpuInfo(
        vendor="nvidia", memory_total_bytes=memory_total_bytes, unified_memory=unified, **known
    )


def _by_tool(probe: Probe) -> tuple[GpuInfo, ...]:
    cards = probe.run("nvidia-smi", f"--query-gpu={_COLUMNS}", _FORMAT)
    if cards is None:
        return ()
    # Two questions that older versions do not know: they may go unanswered.
    capabilities, summary = probe.run_all(
        ("nvidia-smi", "--query-gpu=uuid,compute_cap", _FORMAT), ("nvidia-smi",), quiet=True
    )
    found = read_nvidia_smi(probe, cards, capabilities or "", summary or "")
    if not found and "no devices were found" not in cards.lower():
        probe.note("nvidia-smi", "its answer could not be read")
    return found


def read_nvidia_smi(
    probe: Probe, cards: str, capabilities: str = "", summary: str = ""
) -> tuple[GpuInfo, ...]:
    """The cards in the answers of ``nvidia-smi``.

    Args:
        probe: takes a note of lines that are not as they should be, and of cards split by MIG.
        cards: comma-separated values of ``_COLUMNS``, sizes in MiB.
        capabilities: the same of ``uuid,compute_cap``.
        summary: what it prints without arguments, for the CUDA version in its head.
    """
    cuda = re.search(r"CUDA Version:\s*(\d+\.\d+)", summary)
    by_uuid = {row[0]: row[1] for row in _rows(capabilities) if len(row) == 2}
    found = []
    for row in _rows(cards):
        if len(row) != _COLUMNS.count(",") + 1 or integer(row[0]) is None or not text(row[1]):
            probe.note("nvidia-smi", f"a line could not be read: {', '.join(row)[:80]!r}")
            continue
        if row[7].lower() == "enabled":
            probe.note("nvidia-smi", f"card {row[0]} is split by MIG; its instances need NVML")
        found.append(
            _gpu(
                probe,
                uuid=row[1],
                name=text(row[2]) or "NVIDIA card",
                index=integer(row[0]) or 0,
                memory_total_bytes=size_bytes(row[4], "M"),
                memory_free_bytes=size_bytes(row[5], "M"),
                driver_version=text(row[3]),
                runtime_version=f"CUDA {cuda[1]}" if cuda else None,
                compute_capability=text(by_uuid.get(row[1])),
                power_limit_w=number(row[6]),
                source="nvidia-smi",
            )
        )
    return tuple(found)


def _rows(output: str) -> list[list[str]]:
    # Split at a comma and a space: a bare comma may be the decimal sign of a localized number.
    lines = [line for line in output.splitlines() if ", " in line]
    return [[cell.strip() for cell in line.split(", ")] for line in lines]


def _note_idle_cards(probe: Probe) -> None:
    """Say so where Linux sees a card that NVIDIA's driver does not answer for."""
    bus = "/sys/bus/pci/devices"
    for slot in probe.names(bus):
        # Class 03 is a display controller; sound and USB functions of the same card are others.
        if probe.read(f"{bus}/{slot}/vendor") == "0x10de" and (
            probe.read(f"{bus}/{slot}/class") or ""
        ).startswith("0x03"):
            probe.note("NVIDIA", f"the card at {slot} cannot be used: its driver does not answer")
