"""What on this machine would spoil a measurement, looked at before the first trial."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import PurePath

import psutil

from velollm_core.experiment.monitor import busy_s, on_battery

_LOOK_S = 0.5
_FOREIGN_SHARE = 0.5
"""Of the usable processors: above it a foreign load decides what is measured."""
_AT_WORK_CPUS = 0.2
"""An idle inference server uses less than this; one that answers uses more."""

_SERVERS = (
    "llama-server",
    "llama-cli",
    "ollama",
    "vllm",
    "koboldcpp",
    "lms",
    "localai",
    "local-ai",
    "sglang",
    "text-generation-server",
    "mlx_lm.server",
    "llamafile",
)


def spoilers(usable_cpus: float, attached: Iterable[int] = ()) -> tuple[str, ...]:
    """Sentences that name what is in the way: another server at work, a foreign load, a battery.

    Takes half a second, during which the machine is watched.

    Args:
        usable_cpus: processors that this process may use.
        attached: process ids that take part in the measurement.
    """
    own = {os.getpid(), *attached}
    before = _cpu_by_process(own)
    busy_before = busy_s()
    time.sleep(_LOOK_S)
    busy, elapsed_s = (now - then for now, then in zip(busy_s(), busy_before, strict=True))
    after = _cpu_by_process(own)
    found = []
    for pid, (name, used_s) in after.items():
        used = (used_s - before[pid][1]) / elapsed_s if pid in before else 0.0
        server = _server_in(name)
        if used > _AT_WORK_CPUS and server is not None:
            found.append(f"another inference server is at work: {server} (process {pid})")
    if busy / elapsed_s > _FOREIGN_SHARE * usable_cpus:
        found.append(
            f"other programs keep {busy / elapsed_s:.1f} of {usable_cpus:g} processors busy"
        )
    if on_battery():
        found.append("the machine runs on its battery")
    return tuple(found)


def _cpu_by_process(own: set[int]) -> dict[int, tuple[str, float]]:
    found = {}
    for process in psutil.process_iter(["pid", "name", "cmdline", "cpu_times"]):
        times = process.info["cpu_times"]
        if process.info["pid"] not in own and times is not None:
            words = process.info["cmdline"] or [process.info["name"] or ""]
            found[process.info["pid"]] = (" ".join(words[:2]), times.user + times.system)
    return found


def _server_in(words: str) -> str | None:
    """The inference server among the first words of a command line, without its folder."""
    programs = [PurePath(word).name.removesuffix(".exe") for word in words.split()]
    return next((program for program in programs if program in _SERVERS), None)
