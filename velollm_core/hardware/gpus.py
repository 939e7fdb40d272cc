"""What the detectors of all vendors share: merging, and the cards that Linux lists in ``/sys``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import evolve, fields, frozen

from velollm_core.hardware.parsing import bus_id, keyed
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.spec import GpuInfo

_PCI_IDS = ("/usr/share/hwdata/pci.ids", "/usr/share/misc/pci.ids", "/usr/share/pci.ids")
_BOTH_COUNT = {"unified_memory", "source"}


def merge_gpus(found: Iterable[GpuInfo]) -> tuple[GpuInfo, ...]:
    """One entry a card, in the order in which the cards were first named.

    Of what several sources say under one ``uuid`` the first that knows a field wins; the sources
    are joined and memory is unified if any of them says so.
    """
    merged: dict[str, GpuInfo] = {}
    for gpu in found:
        known = merged.get(gpu.uuid)
        merged[gpu.uuid] = gpu if known is None else _merge(known, gpu)
    return tuple(merged.values())


def _merge(first: GpuInfo, second: GpuInfo) -> GpuInfo:
    unknown = {
        attribute.name: getattr(second, attribute.name)
        for attribute in fields(GpuInfo)
        if attribute.name not in _BOTH_COUNT and getattr(first, attribute.name) in {None, ""}
    }
    sources = [*first.source.split("+"), *second.source.split("+")]
    return evolve(
        first,
        **unknown,
        unified_memory=first.unified_memory or second.unified_memory,
        source="+".join(source for source in dict.fromkeys(sources) if source),
    )


@frozen(kw_only=True)
class DrmCard:
    """A graphics card that a Linux driver holds: where it is in ``/sys``, and its PCI numbers."""

    index: int
    path: str
    bus_id: str
    driver: str
    vendor: str
    device: str


def drm_cards(probe: Probe, vendor: str) -> tuple[DrmCard, ...]:
    """The cards of one PCI vendor (four hexadecimal digits) that this process can open.

    A container sees the host's cards in ``/sys`` even where it was given none of them: then there
    is a note.
    """
    found = []
    for name in probe.names("/sys/class/drm"):
        match = re.fullmatch(r"card(\d{1,4})", name)
        path = f"/sys/class/drm/{name}/device"
        event = keyed(probe.read(f"{path}/uevent"), "=") if match else {}
        maker, _, device = event.get("PCI_ID", "").lower().partition(":")
        slot = bus_id(event.get("PCI_SLOT_NAME"))
        if match and slot and maker == vendor:
            found.append(
                DrmCard(
                    index=int(match[1]),
                    path=path,
                    bus_id=slot,
                    driver=event.get("DRIVER", ""),
                    vendor=maker,
                    device=device,
                )
            )
    if found and not any(name.startswith("render") for name in probe.names("/dev/dri")):
        seats = ", ".join(card.bus_id for card in found)
        probe.note(
            "/dev/dri", f"has no device for the card at {seats}, so it cannot be used from here"
        )
        return ()
    return tuple(sorted(found, key=lambda card: card.index))


def pci_name(probe: Probe, vendor: str, device: str) -> str | None:
    """The name of a PCI device from the system's table of names, if it has one.

    Args:
        probe: reads the table.
        vendor: four hexadecimal digits.
        device: the same.
    """
    table = next((content for path in _PCI_IDS if (content := probe.read(path))), "")
    makers = re.search(rf"^{re.escape(vendor)}  .*\n((?:[\t#].*\n?)*)", table, re.MULTILINE)
    named = (
        re.search(rf"^\t{re.escape(device)}  (.*)$", makers[1], re.MULTILINE) if makers else None
    )
    return named[1].strip() if named else None
