"""Graphics of a Mac: Apple's own, which shares the main memory, and the cards of Intel Macs."""

from __future__ import annotations

import re
from typing import Any

from velollm_core.hardware.memory import detect_memory
from velollm_core.hardware.parsing import integer, json_inside, member, records, size_bytes, text
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.spec import GpuInfo, Vendor


def apple_gpus(probe: Probe) -> tuple[GpuInfo, ...]:
    """What ``system_profiler`` lists; nothing on other systems than macOS."""
    if probe.system != "Darwin":
        return ()
    output = probe.run("system_profiler", "SPDisplaysDataType", "-json")
    return () if output is None else read_system_profiler(probe, output)


def read_system_profiler(probe: Probe, output: str) -> tuple[GpuInfo, ...]:
    """The graphics processors in the JSON of ``system_profiler SPDisplaysDataType``.

    The memory of Apple's is the whole main memory; by default Metal lets a program have two thirds
    to three quarters of it.

    Args:
        probe: reads the main memory, takes a note of an answer that cannot be read.
        output: what the tool printed.
    """
    entries = records(member(json_inside(output), "SPDisplaysDataType"))
    if not entries:
        probe.note("system_profiler", "its answer could not be read")
    return tuple(_gpu(probe, index, entry) for index, entry in enumerate(entries))


def _gpu(probe: Probe, index: int, entry: dict[str, Any]) -> GpuInfo:
    name = text(entry.get("sppci_model")) or text(entry.get("_name")) or "graphics"
    vendor = _vendor(f"{entry.get('spdisplays_vendor')} {name}")
    shared = vendor == "apple" or "spdisplays_vram_shared" in entry
    memory = detect_memory(probe) if shared else None
    cores = integer(entry.get("sppci_cores"))
    return GpuInfo(
        uuid=f"{vendor}:{text(entry.get('spdisplays_device-id')) or 'builtin'}:{index}",
        vendor=vendor,
        name=f"{name} ({cores} cores)" if cores else name,
        index=index,
        memory_total_bytes=(
            memory.total_bytes if memory else size_bytes(entry.get("spdisplays_vram"), "M")
        ),
        memory_free_bytes=memory.available_bytes if memory else None,
        unified_memory=shared,
        runtime_version=_metal(entry),
        source="system_profiler",
    )


def _vendor(words: str) -> Vendor:
    """The maker from texts such as ``sppci_vendor_Apple``, ``Intel`` and ``ATI (0x1002)``."""
    patterns: tuple[tuple[Vendor, str], ...] = (
        ("apple", "apple"),
        ("amd", "amd|ati |0x1002|radeon"),
        ("intel", "intel|0x8086"),
        ("nvidia", "nvidia|0x10de"),
    )
    return next((vendor for vendor, mark in patterns if re.search(mark, words.lower())), "other")


def _metal(entry: dict[str, Any]) -> str | None:
    """``Metal 3`` from ``spdisplays_metal3``; older systems only say whether there is any."""
    family = text(entry.get("spdisplays_mtlgpufamilysupport"))
    match = re.fullmatch(r"spdisplays_metal(\d+)", family or "")
    return f"Metal {match[1]}" if match else None
