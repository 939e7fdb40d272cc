"""Intel's graphics: from ``/sys`` and ``xpu-smi``; integrated ones share the host's memory."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from velollm_core.hardware.gpus import DrmCard, drm_cards, merge_gpus, pci_name
from velollm_core.hardware.memory import detect_memory
from velollm_core.hardware.parsing import bus_id, integer, json_inside, records, size_bytes, text
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.spec import GpuInfo

_VENDOR = "8086"
_INTEGRATED_BUS = "0000:00:02.0"  # where Intel's integrated graphics has been since there is PCI


def intel_gpus(probe: Probe) -> tuple[GpuInfo, ...]:
    """The integrated graphics and the cards; nothing on other systems than Linux."""
    if probe.system != "Linux":
        return ()
    cards = drm_cards(probe, _VENDOR)
    found = merge_gpus(
        [
            *(_from_sys(probe, card) for card in cards),
            *_from_tool(probe),
            *(_named(probe, card) for card in cards),
        ]
    )
    return tuple(_with_host_memory(probe, gpu) for gpu in found)


def _with_host_memory(probe: Probe, gpu: GpuInfo) -> GpuInfo:
    if gpu.uuid != _uuid(_INTEGRATED_BUS):
        return gpu
    memory = detect_memory(probe)
    return evolve(
        gpu,
        memory_total_bytes=memory.total_bytes,
        memory_free_bytes=memory.available_bytes,
        unified_memory=True,
    )


def _from_sys(probe: Probe, card: DrmCard) -> GpuInfo:
    # The driver xe tells the memory of each tile; i915 of the whole card, and only in some
    # versions.
    tiles = [name for name in probe.names(card.path) if name.startswith("tile")]
    sizes = [integer(probe.read(f"{card.path}/{tile}/physical_vram_size_bytes")) for tile in tiles]
    total = sum(size for size in sizes if size) or integer(
        probe.read(f"{card.path.removesuffix('/device')}/lmem_total_bytes")
    )
    return GpuInfo(
        uuid=_uuid(card.bus_id),
        vendor="intel",
        name="",
        index=card.index,
        memory_total_bytes=total or None,
        source="sysfs",
    )


def _named(probe: Probe, card: DrmCard) -> GpuInfo:
    name = pci_name(probe, _VENDOR, card.device) or f"Intel graphics {card.device}"
    return GpuInfo(uuid=_uuid(card.bus_id), vendor="intel", name=name, source="sysfs")


def _uuid(bus: str) -> str:
    return f"intel:{bus}"


def _from_tool(probe: Probe) -> tuple[GpuInfo, ...]:
    listed = probe.run("xpu-smi", "discovery", "-j")
    if listed is None:
        return ()
    document = json_inside(listed)
    if document is None:
        probe.note("xpu-smi", "its answer could not be read")
    numbers = [integer(entry.get("device_id")) for entry in _devices(document)]
    # Memory, and the driver, only stand in the description of a single device.
    described = probe.run_all(
        *(
            ("xpu-smi", "discovery", "-d", str(device), "-j")
            for device in numbers
            if device is not None
        ),
        quiet=True,
    )
    return merge_gpus(
        [*(gpu for each in described for gpu in read_xpu_smi(each or "")), *read_xpu_smi(listed)]
    )


def read_xpu_smi(output: str) -> tuple[GpuInfo, ...]:
    """The cards in the JSON of ``xpu-smi discovery``: of one device, or of all in ``device_list``.

    Args:
        output: of ``xpu-smi discovery -j``, with or without ``-d``.
    """
    return tuple(
        GpuInfo(
            uuid=_uuid(bus_id(entry.get("pci_bdf_address")) or str(entry.get("device_id"))),
            vendor="intel",
            name=text(entry.get("device_name")) or "",
            index=integer(entry.get("device_id")) or 0,
            memory_total_bytes=size_bytes(entry.get("memory_physical_size_byte")) or None,
            memory_free_bytes=size_bytes(entry.get("memory_free_size_byte")),
            driver_version=text(entry.get("driver_version")),
            source="xpu-smi",
        )
        for entry in _devices(json_inside(output))
    )


def _devices(document: Any) -> list[dict[str, Any]]:
    """Whole devices: not the virtual functions that one may be split into."""
    listed = document.get("device_list", [document]) if isinstance(document, dict) else document
    return [
        entry
        for entry in records(listed)
        if "device_id" in entry and entry.get("device_function_type", "physical") == "physical"
    ]
