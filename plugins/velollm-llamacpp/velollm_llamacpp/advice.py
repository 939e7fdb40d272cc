"""llama.cpp's own rules. What goes by the role of a knob is the core's."""

from __future__ import annotations

import math
from collections.abc import Iterator

from velollm_core.backends.advice import AdviceContext, Goal
from velollm_core.config import Config, Kept, Suggestion, Value, show
from velollm_core.hardware.threads import decode_threads
from velollm_llamacpp.knobs import BY_NAME

_DRAFTS: Config = Config(
    {"spec_type": "ngram-simple", "ngram_simple_size_n": 3, "ngram_simple_size_m": 8}
)
"""The kind that needs neither a second model nor a store that other requests fill: what it drafts
is found in the text of the request itself. With a short draft little is lost where it is wrong."""

_SPECULATIVE = "llama.cpp, docs/speculative.md"
_COUNTED = "llama.cpp, common/common.cpp, cpu_count_math_cpus; issue 28625"


def suggestions(context: AdviceContext) -> Iterator[Suggestion | Kept]:
    """What llama.cpp's own rules say."""
    yield from hybrid_threads(context)
    yield from speculation(context)


def hybrid_threads(context: AdviceContext) -> Iterator[Suggestion]:
    """On a processor with two kinds of cores, llama.cpp counts every second fast one.

    It takes the next logical processor for the second thread of the same core, on x86 under Linux.
    """
    cpu, system = context.hardware.cpu, context.hardware.os.system
    fast, slow = cpu.performance_cores or 0, cpu.efficiency_cores or 0
    counted = math.ceil(fast / 2)
    wanted = decode_threads(cpu)
    if (
        context.value("threads") == BY_NAME["threads"].own_choice
        and (system, cpu.architecture) == ("Linux", "x86_64")
        and fast
        and slow
        and cpu.logical == cpu.physical
        and wanted > counted
    ):
        yield Suggestion(
            assignments=Config({"threads": wanted}),
            reason=f"Left to itself, llama.cpp takes {counted} of the {fast} performance cores: it "
            "passes over every second one for a second thread of the same core, which this "
            "processor does not have.",
            effect="All performance cores generate.",
            source=_COUNTED,
            confidence="medium",
        )


def speculation(context: AdviceContext) -> Iterator[Suggestion | Kept]:
    """Drafts from the text itself, for who asks for latency; whether they pay lies in the text."""
    names = {knob.name for knob in context.knobs}
    now = context.value("spec_type")
    if "spec_type" not in names or now is None:
        return
    if context.goal is not Goal.LATENCY or now != "none" or not names.issuperset(_DRAFTS):
        yield Kept(knobs=("spec_type",), reason=_why_kept(context, now))
        return
    spec = context.model.spec
    if spec is None or spec.recurrent is not None:
        yield Kept(
            knobs=("spec_type",),
            reason="A draft that is wrong has to be taken back, and a recurrent state cannot be "
            "cut off behind a token: measure it (velollm bench --ab)."
            if spec is not None
            else "Nothing is known of the model.",
        )
        return
    experts = (
        " Each token of a draft wakes experts of its own, so less is gained than in a dense model."
        if spec.experts_total
        else ""
    )
    yield Suggestion(
        assignments=_DRAFTS,
        reason="Generating waits for memory, and a draft of several tokens is checked in one pass "
        "over the weights.",
        effect="It depends on the text: faster where an answer repeats what stands in its prompt, "
        f"as when a text is edited, and slower where it does not.{experts} Measure it with your "
        "own prompts.",
        source=_SPECULATIVE,
        confidence="low",
    )


def _why_kept(context: AdviceContext, now: Value) -> str:
    if now != "none":
        return f"{show(now)} is set; what it brings depends on the text, so it has to be measured."
    if context.goal is Goal.LATENCY:
        return "This build has no n-gram speculation whose lengths can be set."
    return (
        "Whether speculation pays depends on the text, and beside other requests it takes their "
        "time: ask for --goal latency, or measure it (velollm bench --ab)."
    )
