"""AMD's and Intel's graphics on Windows, from the registry: their drivers bring no tool.

NVIDIA's come by NVML.
"""

from __future__ import annotations

import re

from velollm_core.hardware.parsing import integer
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.spec import GpuInfo, Vendor

_DISPLAYS = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"
_VENDORS: dict[str, Vendor] = {"1002": "amd", "8086": "intel"}


def windows_gpus(probe: Probe) -> tuple[GpuInfo, ...]:
    """The display adapters of the two vendors that have a driver; nothing on other systems.

    The memory is what the driver calls the adapter's own: of integrated graphics a reserved part.
    """
    if probe.system != "Windows":
        return ()
    found: list[GpuInfo] = []
    for number in probe.native.registry_keys(_DISPLAYS):
        key = rf"{_DISPLAYS}\{number}"
        device = str(probe.native.registry_value(key, "MatchingDeviceId") or "")
        maker = re.search(r"VEN_([0-9A-F]{4})", device.upper())
        vendor = _VENDORS.get(maker[1]) if maker else None
        if vendor is None or not number.isdecimal():
            continue
        # The 32-bit value beside it stops at 4 GiB.
        size = probe.native.registry_value(key, "HardwareInformation.qwMemorySize")
        version = probe.native.registry_value(key, "DriverVersion")
        found.append(
            GpuInfo(
                uuid=f"{vendor}:display-{number}",
                vendor=vendor,
                name=str(probe.native.registry_value(key, "DriverDesc") or f"{vendor} graphics"),
                index=len(found),
                memory_total_bytes=integer(size) or None,
                driver_version=str(version) if version else None,
                source="registry",
            )
        )
    return tuple(found)
