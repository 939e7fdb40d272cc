"""The KV cache's types, which change answers, and flash attention."""

from __future__ import annotations

from collections.abc import Iterator

from velollm_core.backends.advice import AdviceContext
from velollm_core.config import Kept, Role, Suggestion
from velollm_core.optimize.memory import attention_on
from velollm_core.optimize.shape import Shape
from velollm_core.optimize.squeeze import SMALLER_KV, UNQUANTIZED, kv_knobs
from velollm_core.optimize.words import size

_ATTENTION = "llama.cpp, tools/server/README.md, --flash-attn"


def kv_types(context: AdviceContext, shape: Shape) -> Iterator[Kept]:
    """Left as they are: what changes answers is not proposed before answers were measured."""
    names = tuple(knob.name for knob in kv_knobs(context))
    if names and all(context.value(name) is not None for name in names):
        yield Kept(knobs=names, reason=_why_kept(names, shape))


def attention(context: AdviceContext) -> Iterator[Suggestion | Kept]:
    """Flash attention is the engine's own choice unless somebody has turned it off."""
    knob = context.knob(Role.ATTENTION)
    value = None if knob is None else context.value(knob.name)
    if knob is None or value is None:
        return
    wanted = attention_on(context)
    if wanted:
        yield Suggestion(
            assignments=wanted,
            reason=f"Flash attention is turned off ({context.current.origins.get(knob.name)}).",
            effect="The scores of all heads need not be held at once, which is most of what "
            "computing takes with a long context.",
            source=_ATTENTION,
            confidence="medium",
        )
    else:
        yield Kept(
            knobs=(knob.name,),
            reason="The engine uses it where the device has it."
            if value == knob.own_choice
            else "It is on.",
        )


def _why_kept(names: tuple[str, ...], shape: Shape) -> str:
    use = shape.planned.use
    if not {use.type_k, use.type_v} <= UNQUANTIZED:
        return "It is quantized already, which takes less memory and changes answers."
    if not shape.kv_saved_bytes:
        return "A quantized KV cache is not to be had with this engine and model."
    brings = (
        "all layers would lie on the GPU"
        if shape.whole_if_quantized
        else f"the KV cache would take {size(shape.kv_saved_bytes)} less"
    )
    change = ",".join(f"{name}={SMALLER_KV}" for name in names)
    return (
        f"With {SMALLER_KV} {brings}. It changes answers, which nothing here measures, so it is "
        f"not proposed; what it does to speed tells velollm bench --ab {change}."
    )
