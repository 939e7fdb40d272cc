"""The processors, and how much of them this process may use."""

from __future__ import annotations

from velollm_core.hardware.cpu_linux import linux_cpu
from velollm_core.hardware.cpu_macos import macos_cpu
from velollm_core.hardware.cpu_windows import windows_cpu
from velollm_core.hardware.instruction_sets import from_flags
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.spec import CpuInfo


def detect_cpu(probe: Probe) -> CpuInfo:
    """The processors as the system tells of them, else by psutil and py-cpuinfo2."""
    readers = {"Linux": linux_cpu, "Darwin": macos_cpu, "Windows": windows_cpu}
    reader = readers.get(probe.system)
    return (reader(probe) if reader else None) or _any_cpu(probe)


def _any_cpu(probe: Probe) -> CpuInfo:
    logical, physical = probe.native.cpu_counts()
    return CpuInfo(
        model=f"unknown {probe.machine} processor",
        architecture=probe.machine,
        logical=logical,
        physical=physical,
        instruction_sets=from_flags(probe.native.cpu_flags()),
        usable_cpus=probe.native.cpu_affinity(),
    )
