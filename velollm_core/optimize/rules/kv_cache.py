"""The KV cache's types, which change answers, and flash attention, which quantized values need."""

from __future__ import annotations

from collections.abc import Iterator

from velollm_core.backends.advice import AdviceContext, Goal
from velollm_core.config import Config, Kept, Role, Suggestion
from velollm_core.optimize.memory import attention_on
from velollm_core.optimize.shape import SMALLER_KV, Shape
from velollm_core.optimize.words import size

_TYPES = "llama.cpp, tools/server/README.md, --cache-type-k and --cache-type-v"
_ATTENTION = "llama.cpp, tools/server/README.md, --flash-attn"


def kv_types(context: AdviceContext, shape: Shape) -> Iterator[Suggestion | Kept]:
    """A quantized KV cache only where memory binds, along with what it needs to work."""
    knobs = [k for k in map(context.knob, (Role.KV_TYPE_K, Role.KV_TYPE_V)) if k is not None]
    names = tuple(knob.name for knob in knobs)
    if not names or any(context.value(name) is None for name in names):
        return
    if shape.kv_type is None:
        yield Kept(knobs=names, reason=_why_kept(shape))
        return
    only_so = context.goal is not Goal.MEMORY
    tokens = shape.planned.use.context_tokens
    yield Suggestion(
        assignments=Config(dict.fromkeys(names, shape.kv_type)) | attention_on(context),
        reason=f"A context of {tokens} tokens fits only with a quantized KV cache."
        if only_so
        else "Memory is what is wanted, and the KV cache takes less in this type.",
        effect=f"{size(shape.kv_saved_bytes)} less. It changes answers a little, which nothing "
        "here has measured, and writing them can be slower.",
        source=_TYPES,
        confidence="medium" if only_so else "low",
    )


def attention(context: AdviceContext, shape: Shape) -> Iterator[Suggestion | Kept]:
    """Flash attention is the engine's own choice unless somebody has turned it off."""
    knob = context.knob(Role.ATTENTION)
    value = None if knob is None else context.value(knob.name)
    if knob is None or value is None:
        return
    wanted = attention_on(context)
    if wanted and shape.kv_type is None:
        yield Suggestion(
            assignments=wanted,
            reason=f"Flash attention is turned off ({context.current.origins.get(knob.name)}).",
            effect="The scores of all heads need not be held at once, which is most of what "
            "computing takes with a long context.",
            source=_ATTENTION,
            confidence="medium",
        )
    elif not wanted:
        yield Kept(
            knobs=(knob.name,),
            reason="The engine uses it where the device has it."
            if value == knob.own_choice
            else "It is on.",
        )


def _why_kept(shape: Shape) -> str:
    if shape.planned.use.type_k not in {"f32", "f16", "bf16"}:
        return "It is quantized already."
    if shape.whole_if_quantized:
        return (
            f"With {SMALLER_KV} all layers would lie on the GPU. It changes answers, so it is not "
            "proposed before it is measured: velollm bench --ab."
        )
    return "A quantized KV cache changes answers and can be slower, and memory is not short."
