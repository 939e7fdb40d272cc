"""Threads of an engine against the processors that it may really use."""

from __future__ import annotations

from collections.abc import Iterator

from velollm_core.config import ENGINE_DEFAULT, Knob, Role
from velollm_core.doctor.spec import Check, Context, Cost, Engine, Finding, Unseen
from velollm_core.hardware.describe import limits
from velollm_core.hardware.threads import decode_threads, fast_cores, runnable

_BANDWIDTH = "Linux kernel documentation, scheduler/sched-bwc.rst"
_TOO_MANY = "llama.cpp issue 20020 and ollama issue 9306, users' reports"


def above_usable(context: Context) -> Iterator[Finding]:
    """More threads than a quota or an affinity mask lets run at once.

    An engine that is left to choose starts one thread a physical (performance) core of the host:
    llama.cpp reads ``/sys``, where no control group is to be seen.
    """
    cpu = context.hardware.cpu
    wanted = decode_threads(cpu)
    for engine, knob, threads, origin in _threads(context):
        if threads > runnable(cpu):
            yield Finding(
                statement=f"{_name(engine)} starts more threads than this process may run at once.",
                evidence=f"{threads} threads ({origin}), {limits(cpu)}",
                cost=Cost(
                    text="threads wait for each other at every step, so all are as slow as one "
                    "that is not running",
                    basis="cited",
                    source=_BANDWIDTH if cpu.quota_cpus is not None else _TOO_MANY,
                ),
                advice=f"Set {knob.name} to {wanted}, or raise the limit. "
                f"To see what it brings: velollm bench --ab {knob.name}={wanted}",
                costs_speed=True,
            )


def above_cores(context: Context) -> Iterator[Finding]:
    """Threads that somebody set to more than there are physical cores: two share one core."""
    cpu = context.hardware.cpu
    wanted = decode_threads(cpu)
    for engine, knob, threads, origin in _threads(context):
        if origin != ENGINE_DEFAULT and cpu.physical < threads <= cpu.usable:
            yield Finding(
                statement=f"{_name(engine)} is set to more threads than there are physical cores.",
                evidence=f"{threads} threads ({origin}), {cpu.physical} cores with "
                f"{cpu.logical} hardware threads",
                cost=Cost(
                    text="generating is bound by memory, and slower with two threads a core in "
                    "most reports: 0.8 tok/s with 16 threads, 6.6 with 7",
                    basis="cited",
                    source=_TOO_MANY,
                ),
                advice=f"Leave {knob.name} to the engine, or set it to {wanted}. "
                f"To see what it brings: velollm bench --ab {knob.name}={wanted}",
                costs_speed=True,
            )


def _threads(context: Context) -> Iterator[tuple[Engine, Knob, int, str]]:
    """Each engine's threads that generate, where they are set and where they come from.

    An attached server may stand on another machine and is left out.
    """
    found = False
    cores = fast_cores(context.hardware.cpu)
    for engine, settings in context.configured:
        if engine.installation.kind == "server":
            continue
        for knob in engine.backend.knobs(engine.installation, engine.model):
            if knob.role is Role.THREADS_DECODE:
                found = True
                value = settings.config.get(knob.name)
                origin = settings.origins.get(knob.name, ENGINE_DEFAULT)
                threads = value if isinstance(value, int) and value > 0 else cores
                yield engine, knob, threads, origin
    if not found:
        raise Unseen("no engine that would be started here tells its threads")


def _name(engine: Engine) -> str:
    return f"{engine.backend.name} ({engine.installation.kind})"


CHECKS = (
    Check(
        code="threads-above-limit",
        looks_at="threads against CPU quota and affinity",
        explains="An engine that starts more threads than its quota or affinity lets run.",
        look=above_usable,
    ),
    Check(
        code="threads-above-cores",
        looks_at="threads against physical cores",
        explains="Threads set by hand to more than the physical cores.",
        look=above_cores,
    ),
)
