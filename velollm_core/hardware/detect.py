"""The whole machine at once, and a fingerprint of what makes timings comparable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable

from attrs import evolve

from velollm_core.hardware.cpu import detect_cpu
from velollm_core.hardware.gpus import merge_gpus
from velollm_core.hardware.memory import detect_memory
from velollm_core.hardware.parsing import GIB
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.spec import GpuInfo, HardwareSpec
from velollm_core.hardware.system import detect_container, detect_os

_FINGERPRINT_CHARACTERS = 16


def detect(
    probe: Probe | None = None,
    *,
    gpus: Callable[[Probe], Iterable[GpuInfo]],
    measure: bool = False,
) -> HardwareSpec:
    """Look at the machine as this process may use it.

    Well under a second; a tool that hangs adds the two seconds after which it is given up.

    Args:
        probe: what to look through; this machine where none is given.
        gpus: finds the graphics processors (the plugins' hooks stand above this layer); what it
            finds is merged here.
        measure: measure the memory bandwidth and the clock, too, in about two seconds more.
    """
    probe = probe or Probe()
    spec = HardwareSpec(
        cpu=detect_cpu(probe),
        memory=detect_memory(probe),
        os=detect_os(probe),
        gpus=merge_gpus(gpus(probe)),
        container=detect_container(probe),
    )
    if measure:
        spec = measured(spec)
        if spec.memory.bandwidth_bytes_per_s is None:
            probe.note("memory bandwidth", "too little memory is free to measure it")
    return evolve(spec, notes=tuple(probe.notes))


def measured(
    spec: HardwareSpec, *, threads: int | None = None, budget_s: float = 2.0
) -> HardwareSpec:
    """``spec`` with its memory bandwidth and the clock of its processors, measured now.

    Args:
        spec: the machine that this runs on.
        threads: how many work at once; one on each usable core if not told.
        budget_s: about how many seconds it may take.

    Returns:
        The same, with a bandwidth of ``None`` where too little memory is free to measure it.
    """
    from velollm_core.hardware.arithmetic import measure_clock
    from velollm_core.hardware.bandwidth import measure_bandwidth

    bandwidth = measure_bandwidth(spec.cpu, spec.memory, budget_s, threads)
    clock_hz = measure_clock(threads or max(1, min(int(spec.cpu.usable), spec.cpu.physical)))
    return evolve(
        spec,
        cpu=evolve(spec.cpu, clock_hz=clock_hz),
        memory=evolve(
            spec.memory,
            bandwidth_bytes_per_s=bandwidth.bytes_per_s if bandwidth else None,
            bandwidth_method=bandwidth.method if bandwidth else None,
        ),
    )


def available_bytes() -> int:
    """Memory that this process may still take now: cheap enough to be asked many times a second."""
    return detect_memory(Probe()).usable_bytes


def fingerprint(spec: HardwareSpec) -> str:
    """The same for machines whose timings may stand in one comparison: the start of a SHA-256.

    Processor model, processors usable, instruction sets, memory in whole GiB, names and memory of
    the graphics processors, operating system; nothing that changes from one moment to the next.
    """
    identity = {
        "cpu": spec.cpu.model,
        "usable": spec.cpu.usable,
        "instruction_sets": sorted(spec.cpu.instruction_sets),
        "memory_gib": round(spec.memory.total_bytes / GIB),
        "gpus": sorted([gpu.name, round((gpu.memory_total_bytes or 0) / GIB)] for gpu in spec.gpus),
        "os": spec.os.system,
    }
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_FINGERPRINT_CHARACTERS]
