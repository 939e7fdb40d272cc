"""What is particular to Ollama: how long models stay, and how many.

Threads, context, slots, batch, the KV cache's type and placement are the core's rules, which go by
the role of a knob.
"""

from __future__ import annotations

from collections.abc import Iterator

from velollm_core.backends.advice import AdviceContext, Goal
from velollm_core.config import Config, Kept, Suggestion
from velollm_ollama.knobs import BY_NAME

_FAQ = "Ollama, docs/faq.mdx"
_SCHEDULER = "Ollama, server/sched.go"
_SPECULATIVE = "llama.cpp, docs/speculative.md"

_FOR_EVER = -1


def suggest(context: AdviceContext) -> Iterator[Suggestion | Kept]:
    """What these rules propose, and what they leave alone."""
    yield from keep_alive(context)
    yield from loaded_models(context)
    yield from speculation(context)


def keep_alive(context: AdviceContext) -> Iterator[Suggestion | Kept]:
    """How long a model stays after its last request: a load saved against memory held."""
    knob = BY_NAME["keep_alive"].knob
    seconds = context.value(knob.name)
    usual = BY_NAME[knob.name].default
    if not isinstance(seconds, int):
        return
    if context.goal is Goal.MEMORY:
        if seconds == _FOR_EVER:
            yield Suggestion(
                assignments=Config({knob.name: usual}),
                reason="A model that is never unloaded holds its memory while nobody uses it.",
                effect=f"The memory is free {usual} s after the last request; the next one waits "
                "for the model to load.",
                source=_FAQ,
                confidence="high",
            )
            return
    elif context.goal is Goal.LATENCY and seconds != _FOR_EVER:
        yield Suggestion(
            assignments=Config({knob.name: _FOR_EVER}),
            reason=f"A model is unloaded {seconds} s after its last request, and the next one "
            "waits for it to load.",
            effect="No load after a pause. The memory stays taken until another model needs it: "
            "Ollama unloads an idle model for one that does not fit beside it.",
            source=_SCHEDULER,
            confidence="medium",
        )
        return
    elif seconds == 0:
        yield Suggestion(
            assignments=Config({knob.name: usual}),
            reason="The model is unloaded after every answer, so every request waits for it.",
            effect=f"No load before a request that comes within {usual} s of the last.",
            source=_FAQ,
            confidence="high",
        )
        return
    shown = "for ever" if seconds == _FOR_EVER else f"{seconds} s"
    yield Kept(
        knobs=(knob.name,),
        reason=f"A model stays loaded {shown} after its last request; shorter frees memory sooner, "
        "longer saves a load.",
    )


def loaded_models(context: AdviceContext) -> Iterator[Suggestion | Kept]:
    """How many models stay loaded: Ollama counts GPUs, and unloads where memory is short."""
    knob = BY_NAME["max_loaded_models"].knob
    models = context.value(knob.name)
    if not isinstance(models, int):
        return
    if context.goal is Goal.MEMORY and models != 1:
        most = models or 3 * max(1, len(context.hardware.gpus))
        yield Suggestion(
            assignments=Config({knob.name: 1}),
            reason=f"Up to {most} models stay loaded, each with its weights and its context.",
            effect="The memory of one model at most; whoever changes between models waits for "
            "each to load.",
            source=_FAQ,
            confidence="high",
        )
        return
    yield Kept(
        knobs=(knob.name,),
        reason="One model at a time is loaded, as it was set."
        if models == 1
        else "Ollama unloads an idle model by itself where another does not fit beside it.",
    )


def speculation(context: AdviceContext) -> Iterator[Suggestion | Kept]:
    """Drafts out of the text itself, for a model without a draft: llama.cpp's, not Ollama's."""
    if not context.experimental or context.value("spec_type") is None:
        return
    if context.value("spec_type") != "none":
        yield Kept(knobs=("spec_type",), reason="Speculation is on, as it was set.")
    elif context.goal is Goal.LATENCY:
        yield Suggestion(
            assignments=Config({"spec_type": "ngram-mod"}),
            reason="One answer at a time leaves the processors idle while weights are read; "
            "n-grams of the text so far can be checked in the same pass.",
            effect="Faster where answers repeat the prompt (code, rewriting), and slower in some "
            "other cases, so measure it. It reaches every model of this Ollama.",
            source=_SPECULATIVE,
            confidence="low",
            experimental=True,
        )
    else:
        yield Kept(
            knobs=("spec_type",),
            reason="Drafts take the processors' time from other requests; it is proposed for "
            "--goal latency.",
        )
