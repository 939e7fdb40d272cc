"""Watches the machine for a moment: which programs run, how busy it is, whether it swaps."""

from __future__ import annotations

import os
import re
import time

import psutil
from attrs import frozen

from velollm_core.experiment.monitor import busy_s, on_battery
from velollm_core.hardware.probe import Probe

AT_WORK_CPUS = 0.2
"""An idle inference server uses less than this; one that answers uses more."""
_WATCH_S = 0.5
_SWAPPED = re.compile(r"^pswp(?:in|out) (\d+)$", re.MULTILINE)


@frozen(kw_only=True)
class Process:
    """A running program. ``cpus`` is how many processors it kept busy while it was watched."""

    pid: int
    argv: tuple[str, ...]
    cpus: float = 0.0
    rss_bytes: int = 0


@frozen(kw_only=True)
class Activity:
    """What went on while the machine was watched for a moment; ``None`` is what it does not tell.

    ``busy_cpus`` counts the processors of the host that anything else kept busy, ``swapped_bytes``
    what was moved to or from swap in ``watched_s`` seconds.
    """

    watched_s: float
    processes: tuple[Process, ...] = ()
    busy_cpus: float | None = None
    swapped_bytes: int | None = None
    on_battery: bool | None = None


def observe(probe: Probe, watch_s: float = _WATCH_S) -> Activity:
    """What goes on beside this process, in ``watch_s`` seconds."""
    before, busy_before = _processes(), busy_s()
    swapped_before = _swapped_pages(probe)
    time.sleep(watch_s)
    busy, elapsed_s = (now - then for now, then in zip(busy_s(), busy_before, strict=True))
    swapped = _swapped_pages(probe)
    processes = []
    own_s = 0.0
    for pid, (argv, used_s, rss_bytes) in _processes().items():
        rise_s = used_s - before[pid][1] if pid in before else 0.0
        if pid == os.getpid():
            own_s = rise_s
        else:
            processes.append(
                Process(pid=pid, argv=argv, cpus=max(0.0, rise_s) / elapsed_s, rss_bytes=rss_bytes)
            )
    return Activity(
        watched_s=elapsed_s,
        processes=tuple(processes),
        busy_cpus=max(0.0, busy - own_s) / elapsed_s,
        swapped_bytes=None
        if swapped is None or swapped_before is None
        else (swapped - swapped_before) * _page_bytes(),
        on_battery=on_battery(),
    )


def _processes() -> dict[int, tuple[tuple[str, ...], float, int]]:
    found = {}
    for process in psutil.process_iter(["pid", "name", "cmdline", "cpu_times", "memory_info"]):
        told = process.info
        if told["cpu_times"] is not None:
            argv = tuple(told["cmdline"] or [told["name"] or ""])
            used_s = told["cpu_times"].user + told["cpu_times"].system
            rss_bytes = told["memory_info"].rss if told["memory_info"] else 0
            found[told["pid"]] = (argv, used_s, rss_bytes)
    return found


def _swapped_pages(probe: Probe) -> int | None:
    """Pages moved to and from swap since the start, where the kernel counts them (Linux)."""
    counts = _SWAPPED.findall(probe.read("/proc/vmstat") or "")
    return sum(map(int, counts)) if counts else None


def _page_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
