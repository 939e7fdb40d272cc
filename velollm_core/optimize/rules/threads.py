"""Processor threads: no more than may run at once, and one a core where memory is what binds."""

from __future__ import annotations

from collections.abc import Iterator

from velollm_core.backends.advice import AdviceContext, Goal
from velollm_core.config import ENGINE_DEFAULT, Config, Kept, Role, Suggestion
from velollm_core.hardware.describe import limits, plural
from velollm_core.hardware.spec import CpuInfo
from velollm_core.hardware.threads import decode_threads, fast_cores, runnable, startable
from velollm_core.optimize.memory import engine_budget, number

_QUOTA = "Linux kernel documentation, scheduler/sched-bwc.rst"
_TOO_MANY = "llama.cpp issue 20020 and ollama issue 9306, users' reports"
_OWN_COUNT = "llama.cpp, common/common.cpp, common_cpu_get_num_math"
_PREFILL = "llama.cpp, tools/server/README.md, --threads-batch"


def decode(context: AdviceContext) -> Iterator[Suggestion | Kept]:
    """Threads that generate: one a (performance) core, no more than may run at once."""
    knob, cpu = context.knob(Role.THREADS_DECODE), context.hardware.cpu
    if knob is None or context.value(knob.name) is None:
        return
    set_to = number(context, Role.THREADS_DECODE, Config())
    started = fast_cores(cpu) if set_to is None else set_to
    wanted = decode_threads(cpu)
    who = f"{plural(started, 'thread')} ({_origin(context, knob.name)})"
    if started > runnable(cpu):
        yield Suggestion(
            assignments=Config({knob.name: wanted}),
            reason=f"{who} are more than this process may run at once: {limits(cpu)}.",
            effect="Every step ends with its slowest thread, so none is held up by one that is "
            "not running.",
            source=_QUOTA if cpu.quota_cpus is not None else _TOO_MANY,
            confidence="high",
        )
    elif started > fast_cores(cpu):
        yield Suggestion(
            assignments=Config({knob.name: wanted}),
            reason=f"{who} are more than there are {_kind(cpu)}: {fast_cores(cpu)}.",
            effect="Generating is bound by memory and, in most reports, faster without two "
            "threads a core or slow cores: 0.8 tok/s with 16 threads, 6.6 with 7.",
            source=_TOO_MANY,
            confidence="medium",
        )
    elif 2 * started < wanted:
        yield Suggestion(
            assignments=Config({knob.name: wanted}),
            reason=f"{who} {_idle(cpu, started)}.",
            effect="More of the memory's bandwidth is used; past some number of threads more "
            "bring nothing.",
            source=_OWN_COUNT,
            confidence="medium",
        )
    else:
        nodes = len(cpu.numa_nodes)
        yield Kept(
            knobs=(knob.name,),
            reason=f"{who}, there are {fast_cores(cpu)} {_kind(cpu)}"
            + (
                f" on {nodes} memory nodes: which of them are best depends on where the model's "
                "pages lie, so measure (velollm bench --ab)."
                if nodes > 1
                else ", and all of them may run at once."
            ),
        )


def prefill(context: AdviceContext) -> Iterator[Suggestion | Kept]:
    """Threads that read the prompt: bound by arithmetic, so slow cores may help."""
    knob, cpu = context.knob(Role.THREADS_PREFILL), context.hardware.cpu
    if knob is None or context.value(knob.name) is None:
        return
    set_to = number(context, Role.THREADS_PREFILL, Config())
    wanted = min(cpu.physical, startable(cpu))
    on_cpu = not engine_budget(context).gpu_bytes
    if set_to is not None and set_to > runnable(cpu):
        yield Suggestion(
            assignments=Config({knob.name: wanted}),
            reason=f"{plural(set_to, 'thread')} ({_origin(context, knob.name)}) are more than this "
            f"process may run at once: {limits(cpu)}.",
            effect="No thread is held up by one that is not running.",
            source=_QUOTA if cpu.quota_cpus is not None else _TOO_MANY,
            confidence="high",
        )
    elif set_to is not None and 2 * set_to < decode_threads(cpu):
        yield Suggestion(
            assignments=Config({knob.name: decode_threads(cpu)}),
            reason=f"{plural(set_to, 'thread')} ({_origin(context, knob.name)}) "
            f"{_idle(cpu, set_to)} while a prompt is read.",
            effect="An earlier first token after a long prompt: what the processor reads of it is "
            "bound by arithmetic.",
            source=_PREFILL,
            confidence="medium",
        )
    elif (
        set_to is None
        and on_cpu
        and context.goal in {Goal.LATENCY, Goal.THROUGHPUT}
        and wanted > decode_threads(cpu)
    ):
        yield Suggestion(
            assignments=Config({knob.name: wanted}),
            reason=f"Reading a prompt is bound by arithmetic, and {wanted} cores may run here "
            f"where {decode_threads(cpu)} generate.",
            effect="An earlier first token after a long prompt if the slow cores keep up; it can "
            "be later as well, so measure it.",
            source=_PREFILL,
            confidence="low",
        )
    else:
        yield Kept(
            knobs=(knob.name,),
            reason="As many as generate: more would have to be measured here."
            if set_to is None
            else f"{plural(set_to, 'thread')} ({_origin(context, knob.name)}) may all run at once.",
        )


def _idle(cpu: CpuInfo, threads: int) -> str:
    leave = "leaves" if threads == 1 else "leave"
    return f"{leave} most of {fast_cores(cpu)} {_kind(cpu)} idle"


def _kind(cpu: CpuInfo) -> str:
    return "performance cores" if cpu.performance_cores else "physical cores"


def _origin(context: AdviceContext, name: str) -> str:
    origin = context.current.origins.get(name, ENGINE_DEFAULT)
    return "the engine's own choice" if origin == ENGINE_DEFAULT else origin
