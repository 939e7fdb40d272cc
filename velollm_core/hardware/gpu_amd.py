"""AMD's cards: from ``/sys``, ``amd-smi``, and ``rocm-smi`` where that is all there is."""

from __future__ import annotations

import re
from typing import Any

from attrs import evolve

from velollm_core.hardware.gpus import DrmCard, drm_cards, merge_gpus, pci_name
from velollm_core.hardware.parsing import (
    bus_id,
    integer,
    json_inside,
    member,
    records,
    size_bytes,
    text,
)
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.spec import GpuInfo

_VENDOR = "1002"
_ROCM_SMI = ("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--showbus")


def amd_gpus(probe: Probe) -> tuple[GpuInfo, ...]:
    """The cards; nothing on other systems than Linux.

    What ``/sys`` says of memory wins, being exact and right where it is shared; names are the
    tools' first.
    """
    if probe.system != "Linux":
        return ()
    cards = drm_cards(probe, _VENDOR)
    found = merge_gpus(
        [
            *(_from_sys(probe, card) for card in cards),
            *_from_tools(probe),
            *(_named(probe, card) for card in cards),
        ]
    )
    rocm = text(probe.read("/opt/rocm/.info/version"))
    return tuple(evolve(gpu, runtime_version=f"ROCm {rocm}" if rocm else None) for gpu in found)


def _from_sys(probe: Probe, card: DrmCard) -> GpuInfo:
    def value(name: str) -> int | None:
        return integer(probe.read(f"{card.path}/{name}"))

    total, used = value("mem_info_vram_total"), value("mem_info_vram_used")
    unified = _is_apu(probe.read_bytes(f"{card.path}/gpu_metrics"))
    if unified and total is not None:
        # The carve-out and what the driver may map besides are both main memory.
        total += value("mem_info_gtt_total") or 0
        used = (used or 0) + (value("mem_info_gtt_used") or 0)
    monitor = f"{card.path}/hwmon"
    limits = [value(f"hwmon/{name}/power1_cap") for name in probe.names(monitor)]
    limit_uw = next((limit for limit in limits if limit), None)
    return GpuInfo(
        uuid=_uuid(card.bus_id),
        vendor="amd",
        name="",
        index=card.index,
        memory_total_bytes=total,
        memory_free_bytes=None if total is None or used is None else max(0, total - used),
        unified_memory=unified,
        driver_version=text(probe.read(f"/sys/module/{card.driver}/version")),
        power_limit_w=limit_uw / 1e6 if limit_uw else None,
        source="sysfs",
    )


def _is_apu(gpu_metrics: bytes | None) -> bool:
    """Whether the table of measurements is of a processor with graphics.

    Its third byte is the major number of its format: 1 for cards, 2 and 3 for APUs, says the
    kernel's ``kgd_pp_interface.h``.
    """
    return gpu_metrics is not None and len(gpu_metrics) > 3 and gpu_metrics[2] in {2, 3}


def _named(probe: Probe, card: DrmCard) -> GpuInfo:
    name = text(probe.read(f"{card.path}/product_name")) or pci_name(probe, _VENDOR, card.device)
    return GpuInfo(
        uuid=_uuid(card.bus_id),
        vendor="amd",
        name=name or f"AMD card {card.device}",
        source="sysfs",
    )


def _uuid(bus: str) -> str:
    return f"amd:{bus}"


def _from_tools(probe: Probe) -> tuple[GpuInfo, ...]:
    static, metric = probe.run_all(
        ("amd-smi", "static", "--json"), ("amd-smi", "metric", "--mem-usage", "--json")
    )
    if static is not None:
        return read_amd_smi(probe, static, metric or "")
    if "amd-smi" in probe.hung:
        return ()  # the other tool asks the same driver
    older = probe.run(*_ROCM_SMI, "--json")
    return () if older is None else read_rocm_smi(probe, older)


def read_amd_smi(probe: Probe, static: str, metric: str = "") -> tuple[GpuInfo, ...]:
    """The cards in the answers of ``amd-smi``: lists, since ROCm 7 within ``gpu_data``.

    Args:
        probe: takes a note of an answer that cannot be read.
        static: of ``amd-smi static --json``.
        metric: of ``amd-smi metric --mem-usage --json``.
    """
    document = json_inside(static)
    if document is None:
        probe.note("amd-smi", "its answer could not be read")
    usage = {
        integer(entry.get("gpu")): entry.get("mem_usage")
        for entry in _amd_smi_cards(json_inside(metric))
    }
    found = []
    for position, entry in enumerate(_amd_smi_cards(document)):
        index = integer(entry.get("gpu"))
        memory = usage.get(index)
        total = size_bytes(member(memory, "total_vram"), "M")
        bus = bus_id(member(entry, "bus", "bdf"))
        found.append(
            GpuInfo(
                uuid=_uuid(bus or str(position)),
                vendor="amd",
                # Newer versions write a mere code name into market_name and the product here.
                name=text(member(entry, "board", "product_name"))
                or text(member(entry, "asic", "market_name"))
                or "AMD card",
                index=position if index is None else index,
                memory_total_bytes=_first(
                    total,
                    size_bytes(member(entry, "vram", "size"), "M"),
                    size_bytes(member(entry, "vram", "vram_size_mb"), "M"),
                ),
                memory_free_bytes=_first(
                    size_bytes(member(memory, "free_vram"), "M"),
                    _left(total, size_bytes(member(memory, "used_vram"), "M")),
                ),
                driver_version=text(member(entry, "driver", "version"))
                or text(member(entry, "driver", "driver_version")),
                compute_capability=text(member(entry, "asic", "target_graphics_version")),
                source="amd-smi",
            )
        )
    return tuple(found)


def _amd_smi_cards(document: Any) -> list[dict[str, Any]]:
    listed = document.get("gpu_data") if isinstance(document, dict) else document
    return records(listed)


def read_rocm_smi(probe: Probe, output: str) -> tuple[GpuInfo, ...]:
    """The cards in the JSON of ``rocm-smi``, whose keys changed case over time.

    Args:
        probe: takes a note of an answer that cannot be read.
        output: of ``rocm-smi --showproductname --showmeminfo vram --showbus --json``.
    """
    document = json_inside(output)
    if not isinstance(document, dict):
        probe.note("rocm-smi", "its answer could not be read")
        return ()
    found = []
    for card, described in document.items():
        match = re.fullmatch(r"card(\d{1,4})", card)
        if match is None or not isinstance(described, dict):
            continue
        fields = {key.lower(): value for key, value in described.items()}
        total = size_bytes(fields.get("vram total memory (b)"))
        bus = bus_id(fields.get("pci bus"))
        found.append(
            GpuInfo(
                uuid=_uuid(bus or match[1]),
                vendor="amd",
                name=text(fields.get("card series"))
                or text(fields.get("device name"))
                or "AMD card",
                index=int(match[1]),
                memory_total_bytes=total,
                memory_free_bytes=_left(
                    total, size_bytes(fields.get("vram total used memory (b)"))
                ),
                compute_capability=text(fields.get("gfx version")),
                source="rocm-smi",
            )
        )
    return tuple(found)


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _left(total: int | None, used: int | None) -> int | None:
    return None if total is None or used is None else max(0, total - used)
