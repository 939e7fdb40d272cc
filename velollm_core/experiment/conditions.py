"""What on this machine would spoil a measurement, looked at before the first trial."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from velollm_core.experiment.activity import AT_WORK_CPUS, Activity, observe
from velollm_core.experiment.servers import server_of
from velollm_core.hardware.probe import Probe

FOREIGN_SHARE = 0.5
"""Of the usable processors: where others take more, they decide what is measured."""


def spoilers(usable_cpus: float, attached: Collection[int] = ()) -> tuple[str, ...]:
    """Sentences that name what is in the way: another server at work, a foreign load, a battery.

    Takes half a second, during which the machine is watched.

    Args:
        usable_cpus: processors that this process may use.
        attached: process ids that take part in the measurement.
    """
    seen = observe(Probe())
    return tuple(judge(seen, usable_cpus, os.cpu_count() or usable_cpus, attached))


def judge(
    seen: Activity, usable_cpus: float, logical_cpus: float, attached: Collection[int]
) -> Iterator[str]:
    """What of ``seen`` would spoil a measurement.

    Of a larger host whose processors others keep busy, what counts is what is left to this process.
    """
    for process in seen.processes:
        server = server_of(process.argv)
        if server is not None and process.cpus > AT_WORK_CPUS and process.pid not in attached:
            yield f"another inference server is at work: {server} (process {process.pid})"
    ours = sum(process.cpus for process in seen.processes if process.pid in attached)
    busy = None if seen.busy_cpus is None else max(0.0, seen.busy_cpus - ours)
    if busy is not None and usable_cpus - (logical_cpus - busy) > FOREIGN_SHARE * usable_cpus:
        yield f"other programs keep {busy:.1f} of {logical_cpus:g} processors busy"
    if seen.on_battery:
        yield "the machine runs on its battery"
