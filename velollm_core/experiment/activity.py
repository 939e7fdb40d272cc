"""Watches the machine for a moment: which programs run, how busy it is, whether it swaps."""

from __future__ import annotations

import os
import re
import time

import psutil
from attrs import evolve, frozen

from velollm_core.experiment.monitor import busy_s, on_battery
from velollm_core.hardware.probe import Probe

AT_WORK_CPUS = 0.2
"""An idle inference server uses less than this; one that answers uses more."""
_WATCH_S = 0.5
_SWAPPED = re.compile(r"^pswp(in|out) (\d+)$", re.MULTILINE)
_NAME_END = re.compile(r"[\s:]")


@frozen(kw_only=True)
class Process:
    """A running program. ``cpus`` is how many processors it kept busy while it was watched.

    ``name`` may be shown; ``argv`` may hold a stranger's passwords, even in its first word.
    """

    pid: int
    argv: tuple[str, ...]
    name: str = ""
    cpus: float = 0.0
    rss_bytes: int = 0


@frozen(kw_only=True)
class Activity:
    """What went on while the machine was watched for a moment; ``None`` is what it does not tell.

    ``busy_cpus`` counts the processors of the host that anything else kept busy, ``swapped_bytes``
    what was moved to or from swap in ``watched_s`` seconds, ``swapped_out_bytes`` what of it to
    swap.
    """

    watched_s: float
    processes: tuple[Process, ...] = ()
    busy_cpus: float | None = None
    swapped_bytes: int | None = None
    swapped_out_bytes: int | None = None
    on_battery: bool | None = None


def observe(probe: Probe, watch_s: float = _WATCH_S) -> Activity:
    """What goes on beside this process, in ``watch_s`` seconds."""
    before, busy_before = _processes(), busy_s()
    swapped_before = _swapped_bytes(probe)
    time.sleep(watch_s)
    busy, elapsed_s = (now - then for now, then in zip(busy_s(), busy_before, strict=True))
    swapped = _swapped_bytes(probe)
    moved = [now - then for now, then in zip(swapped, swapped_before, strict=False)]
    processes = []
    own_s = 0.0
    for pid, (program, used_s) in _processes().items():
        rise_s = used_s - before[pid][1] if pid in before else 0.0
        if pid == os.getpid():
            own_s = rise_s
        else:
            processes.append(evolve(program, cpus=max(0.0, rise_s) / elapsed_s))
    return Activity(
        watched_s=elapsed_s,
        processes=tuple(processes),
        busy_cpus=max(0.0, busy - own_s) / elapsed_s,
        swapped_bytes=sum(moved) if moved else None,
        swapped_out_bytes=moved[1] if moved else None,
        on_battery=on_battery(),
    )


def _processes() -> dict[int, tuple[Process, float]]:
    """Each program, and the processor seconds that it has used."""
    found = {}
    for process in psutil.process_iter(["pid", "name", "cmdline", "cpu_times", "memory_info"]):
        told = process.info
        if told["cpu_times"] is not None:
            name = told["name"] or ""
            program = Process(
                pid=told["pid"],
                argv=tuple(told["cmdline"] or [name]),
                # A program may rename itself to a whole command line.
                name=_NAME_END.split(name, maxsplit=1)[0].removesuffix(".exe"),
                rss_bytes=told["memory_info"].rss if told["memory_info"] else 0,
            )
            used_s = told["cpu_times"].user + told["cpu_times"].system
            found[told["pid"]] = (program, used_s)
    return found


def _swapped_bytes(probe: Probe) -> tuple[int, ...]:
    """Moved (from swap, to swap) since the start, where the kernel counts them (Linux)."""
    counts = dict(_SWAPPED.findall(probe.read("/proc/vmstat") or ""))
    if len(counts) < 2:
        return ()
    return int(counts["in"]) * _page_bytes(), int(counts["out"]) * _page_bytes()


def _page_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
