"""What else this machine does: other inference servers, other programs, swapping."""

from __future__ import annotations

from collections.abc import Iterator

from velollm_core.doctor.spec import Check, Context, Cost, Finding, Unseen
from velollm_core.experiment.activity import AT_WORK_CPUS, Process
from velollm_core.experiment.conditions import FOREIGN_SHARE
from velollm_core.experiment.servers import server_of
from velollm_core.hardware.parsing import GIB, MIB

_HOLDS_BYTES = 200 * MIB
"""An idle server below this has no model loaded, and is in nobody's way."""
_PRESSES_BYTES_PER_S = 10 * MIB
"""Written to swap faster than this, whatever is available: programs are being pushed out."""
_SWAPS_BYTES_PER_S = MIB
_TIGHT_SHARE = 0.25
"""A program that wakes up moves a MiB a second too: it tells only where memory is tight as well."""
_SWAP_SHARE = 0.05
_SHORT_SHARE = 0.1
_SHOWN = 3


def busy_servers(context: Context) -> Iterator[Finding]:
    """Other inference servers that are answering somebody now."""
    busy = [entry for entry in _servers(context) if entry.cpus > AT_WORK_CPUS]
    if busy:
        used = sum(entry.cpus for entry in busy)
        yield Finding(
            statement="Another inference server is at work.",
            evidence=_listed(busy),
            cost=Cost(
                text=f"it keeps {used:.1f} of {context.hardware.cpu.usable:g} processors busy, "
                "and shares the memory's bandwidth",
                basis="measured",
                source=f"processor time over {context.activity.watched_s:.1f} s",
            ),
            advice="Stop it, or wait until it has answered, before you measure or serve another.",
            costs_speed=True,
        )


def idle_servers(context: Context) -> Iterator[Finding]:
    """Other inference servers that hold a model in memory and do nothing."""
    idle = holding(context)
    if idle:
        held = sum(entry.rss_bytes for entry in idle)
        yield Finding(
            statement="Another inference server holds a model in memory, idle.",
            evidence=_listed(idle),
            cost=Cost(
                text=f"{held / GIB:.1f} GiB of memory; no speed while nobody asks it",
                basis="measured",
                source="resident memory of its processes",
            ),
            advice="Stop it if that memory is wanted.",
            costs_speed=False,
        )


def foreign_load(context: Context) -> Iterator[Finding]:
    """Other programs that leave less than half of the processors that this process may use."""
    busy = context.activity.busy_cpus
    if busy is None:
        raise Unseen("the system does not tell how busy it is")
    usable = context.hardware.cpu.usable
    # What counts is what is left of the whole host: in a container with a quota, others may be busy
    # without being in the way.
    left = context.hardware.cpu.logical - busy
    others = [entry for entry in context.activity.processes if not server_of(entry.argv)]
    of_servers = sum(entry.cpus for entry in _servers(context))
    if usable - left - of_servers > FOREIGN_SHARE * usable:
        most = sorted(others, key=lambda entry: -entry.cpus)[:_SHOWN]
        names = ", ".join(_named(entry) for entry in most if entry.cpus > AT_WORK_CPUS)
        yield Finding(
            statement="Other programs keep the processors busy.",
            evidence=f"{busy:.1f} of {context.hardware.cpu.logical} processors were busy"
            + (f": {names}" if names else ""),
            cost=Cost(
                text=f"{max(0.0, left):.1f} of {usable:g} processors are left",
                basis="measured",
                source=f"processor time over {context.activity.watched_s:.1f} s",
            ),
            advice="Let it end, or stop it, before you measure.",
            costs_speed=True,
        )


def swap(context: Context) -> Iterator[Finding]:
    """Swapping now, or so little memory left that what was swapped out is about to be missed.

    Swap that was used some time ago and is no longer wanted costs nothing.
    """
    memory, activity = context.hardware.memory, context.activity
    moved, out = activity.swapped_bytes or 0, activity.swapped_out_bytes or 0
    tight = memory.available_bytes < _TIGHT_SHARE * memory.total_bytes
    swapping = out / activity.watched_s >= _PRESSES_BYTES_PER_S or (
        tight and moved / activity.watched_s >= _SWAPS_BYTES_PER_S
    )
    short = (
        memory.swap_used_bytes > _SWAP_SHARE * memory.total_bytes
        and memory.available_bytes < _SHORT_SHARE * memory.total_bytes
    )
    if swapping or short:
        evidence = (
            f"{memory.swap_used_bytes / GIB:.1f} GiB of swap in use, "
            f"{memory.available_bytes / GIB:.1f} of {memory.total_bytes / GIB:.1f} GiB of memory "
            "available"
        )
        if swapping:
            evidence += f", {moved / MIB:.1f} MiB moved in {activity.watched_s:.1f} s"
        container = context.hardware.container
        shared = container is not None and container.kind != "wsl"  # WSL has a kernel of its own
        if shared:
            evidence += "; a container sees these figures of its whole host"
        where = "The host of this container" if shared else "The machine"
        yield Finding(
            statement=f"{where} {'is swapping' if swapping else 'is short of memory and swaps'}.",
            evidence=evidence,
            cost=Cost(
                text="every token reads the whole model: what lies in swap is "
                + ("unpacked first" if _is_compressed(context) else "read from the disk"),
                basis="cited",
                source="llama.cpp, tools/server/README.md, --load-mode mlock",
            ),
            advice=f"End programs{' on the host' if shared else ''} that hold memory, or use a "
            "smaller model or context.",
            costs_speed=True,
        )


def _is_compressed(context: Context) -> bool:
    """Whether all of the swap is in memory, compressed (zram), and none on a disk."""
    rows = (context.probe.read("/proc/swaps") or "").splitlines()[1:]
    return bool(rows) and all(row.startswith("/dev/zram") for row in rows)


def holding(context: Context) -> list[Process]:
    """Other inference servers that hold a model and do nothing."""
    return [
        entry
        for entry in _servers(context)
        if entry.cpus <= AT_WORK_CPUS and entry.rss_bytes >= _HOLDS_BYTES
    ]


def _servers(context: Context) -> list[Process]:
    """Those beside the server that the user named."""
    own = {pid for engine in context.engines for pid in engine.pids}
    return [
        entry
        for entry in context.activity.processes
        if entry.pid not in own and server_of(entry.argv)
    ]


def _listed(processes: list[Process]) -> str:
    return "; ".join(
        f"{server_of(entry.argv)} (process {entry.pid}) uses {entry.cpus:.1f} processors and "
        f"{entry.rss_bytes / GIB:.1f} GiB"
        for entry in processes
    )


def _named(process: Process) -> str:
    return f"{process.name} (process {process.pid}) {process.cpus:.1f}"


CHECKS = (
    Check(
        code="server-at-work",
        looks_at="other inference servers at work",
        explains="Another llama-server, Ollama, vLLM or the like that answers requests now.",
        look=busy_servers,
    ),
    Check(
        code="server-idle",
        looks_at="other inference servers that hold memory",
        explains="An idle server with a model loaded (200 MiB and more): a remark.",
        look=idle_servers,
    ),
    Check(
        code="foreign-load",
        looks_at="the load of other programs",
        explains="Programs that take more than half of the processors that VeloLLM may use.",
        look=foreign_load,
    ),
    Check(
        code="swapping",
        looks_at="swap",
        explains="10 MiB a second written to swap; 1 MiB a second moved with less than a quarter "
        "of the memory available; or swap in use with less than a tenth available. Swap that was "
        "used long ago is no finding.",
        look=swap,
    ),
)
