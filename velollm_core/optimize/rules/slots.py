"""Slots: how many requests are answered at once, and whether they share one KV cache."""

from __future__ import annotations

from collections.abc import Iterator

from velollm_core.backends.advice import AdviceContext
from velollm_core.config import Config, Kept, Role, Suggestion
from velollm_core.hardware.describe import plural
from velollm_core.models.memory import Use, recurrent_bytes
from velollm_core.optimize.shape import Shape
from velollm_core.optimize.words import size

_SLOTS = "llama.cpp, tools/server/README.md, --parallel and --kv-unified"


def slots(context: AdviceContext, shape: Shape) -> Iterator[Suggestion | Kept]:
    """More slots where requests at once are required or wanted; else as they are.

    Whether the slots share the KV cache is set along: an engine may decide that by whether it is
    told a number of slots.
    """
    knob, unified = context.knob(Role.SLOTS), context.knob(Role.UNIFIED_KV)
    if knob is None or context.value(knob.name) is None:
        return
    now = shape.now.use
    names = (knob.name, *([unified.name] if unified else []))
    if shape.slots is None:
        yield Kept(knobs=names, reason=f"{plural(now.slots, 'slot')}{_cost(context, now)}.")
        return
    required = context.requirements.parallel
    shared = {} if unified is None else {unified.name: now.unified_kv}
    yield Suggestion(
        assignments=Config({knob.name: shape.slots, **shared}),
        reason=f"{plural(required, 'request')} at once are required, and there "
        f"{'is' if now.slots == 1 else 'are'} {plural(now.slots, 'slot')}."
        if required
        else "The weights are read once a step however many requests are in it, and "
        f"{plural(now.slots, 'slot')} {'lets' if now.slots == 1 else 'let'} no more than "
        f"{now.slots} in.",
        effect="Requests that would wait are answered at once, each of them more slowly."
        if required
        else f"More tokens a second in all while {now.slots + 1} requests or more are waiting; "
        "each of them is slower.",
        source=_SLOTS,
        confidence="high" if required else "medium",
    )


def _cost(context: AdviceContext, use: Use) -> str:
    """What the slots take, in words."""
    spec = context.model.spec
    state = 0 if spec is None else recurrent_bytes(spec, 1)
    if state:
        return f", each with a state of {size(state)} however long its text is"
    if use.slots > 1 and use.unified_kv:
        return ": one that is idle costs next to nothing, since they share the KV cache"
    return ", each with its own part of the KV cache" if use.slots > 1 else ""
