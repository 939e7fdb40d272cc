"""Context: never below what is required, and no more than there is memory for."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from velollm_core.backends.advice import AdviceContext, Goal
from velollm_core.config import Config, Kept, Role, Suggestion
from velollm_core.optimize.memory import number, per_slot
from velollm_core.optimize.shape import Shape
from velollm_core.optimize.words import requirements, size

_FIT = "llama.cpp, common/fit.cpp"
_README = "llama.cpp, tools/server/README.md, --ctx-size"


def context_length(context: AdviceContext, shape: Shape) -> Iterator[Suggestion | Kept]:
    """The context that is decided, or why it is left."""
    knob = context.knob(Role.CONTEXT)
    if knob is None or context.value(knob.name) is None:
        return
    if shape.context_tokens is None:
        yield Kept(knobs=(knob.name,), reason=_why_kept(context, shape))
        return
    slots = shape.planned.use.slots if per_slot(context) else 1
    required = _required(context, shape)
    case = required or _modest(context, shape) or _fitting(context, shape)
    yield Suggestion(
        assignments=Config({knob.name: shape.context_tokens // slots}),
        reason=case.reason,
        effect=case.effect,
        source=case.source,
        confidence="high" if required or not shape.room.gpu_bytes else "medium",
    )


@frozen
class _Case:
    reason: str
    effect: str
    source: str


def _required(context: AdviceContext, shape: Shape) -> _Case | None:
    required, now = context.requirements, shape.now.use.context_tokens
    if shape.own_tokens and not (required.context_tokens or required.parallel):
        return None
    words = requirements(required)
    have = (
        f"left to itself, the engine takes {now} tokens now and may take less at another start"
        if shape.own_tokens
        else f"{now} tokens are set for all slots together"
    )
    if not shape.own_tokens and (shape.context_tokens or 0) < now:
        return _Case(
            reason=f"Required: {words}; {have}, for which memory is short.",
            effect=f"{size(shape.now.kv_bytes - shape.planned.kv_bytes)} less for the KV cache.",
            source=_README,
        )
    return _Case(
        reason=f"Required: {words or 'what each slot has now'}; {have}.",
        effect="Requests of that length are answered, whatever else is in memory.",
        source=_README,
    )


def _modest(context: AdviceContext, shape: Shape) -> _Case | None:
    if context.goal is not Goal.MEMORY:
        return None
    saved = shape.now.kv_bytes - shape.planned.kv_bytes
    return _Case(
        reason=f"Left to itself, the engine reserves a context of {shape.own_tokens} tokens.",
        effect=f"{size(saved)} less for the KV cache; say what you need with --context.",
        source=_README,
    )


def _fitting(context: AdviceContext, shape: Shape) -> _Case:
    tokens = shape.context_tokens or 0
    if shape.room.gpu_bytes and number(context, Role.CONTEXT, Config()) is not None:
        return _Case(
            reason=f"Nobody has set a context, and the engine takes {shape.own_tokens} tokens; "
            "with that, not all layers fit on the GPU.",
            effect="More layers, if not all, on the GPU; say what you need with --context.",
            source=_FIT,
        )
    if shape.room.gpu_bytes:
        return _Case(
            reason=f"Beside all layers, GPU memory holds a context of {shape.most_tokens} tokens; "
            "left to itself, the engine takes what is free when it starts.",
            effect="The same context at every start, with all layers on the GPU.",
            source=_FIT,
        )
    return _Case(
        reason=f"The engine goes by the {size(context.hardware.memory.total_bytes)} of the machine "
        f"and takes a context of {shape.own_tokens} tokens; this process may use "
        f"{size(shape.room.host_bytes)}, which hold {max(shape.most_tokens, tokens)}.",
        effect="The server neither swaps nor is ended for want of memory.",
        source=_FIT,
    )


def _why_kept(context: AdviceContext, shape: Shape) -> str:
    spec, own = context.model.spec, shape.own_tokens
    if not own:
        tokens = shape.now.use.context_tokens
        return f"{tokens} tokens are set and fit; context is not given up for speed."
    if spec is not None and own >= spec.context_length:
        return f"All {spec.context_length} tokens that the model was trained for fit."
    if own <= shape.most_tokens:
        return f"The engine takes {own} tokens of itself, which fit; say if you need --context."
    return (
        f"Not all layers fit on the GPU: the engine keeps to {own} tokens, which leaves room for "
        "more of them; say what you need with --context."
    )
