"""Layers on GPUs: left to an engine that fits them itself, its allocator knows best."""

from __future__ import annotations

from collections.abc import Iterator

from velollm_core.backends.advice import AdviceContext
from velollm_core.config import Config, Kept, Role, Suggestion
from velollm_core.optimize.memory import number
from velollm_core.optimize.shape import Shape

_FIT = "llama.cpp, common/fit.cpp"


def layers(context: AdviceContext, shape: Shape) -> Iterator[Suggestion | Kept]:
    """Placed anew where a number that is set does not fit, or leaves layers behind that would."""
    knob, spec = context.knob(Role.PLACEMENT), context.model.spec
    if knob is None or spec is None or context.value(knob.name) is None:
        return
    if not shape.room.gpu_bytes:
        yield Kept(knobs=(knob.name,), reason="No GPU whose memory is known was found.")
        return
    total = spec.layers + 1
    fitting = min(shape.planned.placement.gpu_layers, total)
    experts = shape.planned.placement.cpu_expert_layers
    placed = f"{fitting} of {total} fit" + (
        f", with the experts of {experts} in main memory" if experts else ""
    )
    set_to = number(context, Role.PLACEMENT, Config())
    if not shape.refit:
        who = (
            "The engine places as many as fit by its own allocator"
            if set_to is None
            else f"{set_to} are set ({context.current.origins.get(knob.name)})"
        )
        yield Kept(knobs=(knob.name,), reason=f"{who}; by the model's header, {placed}.")
        return
    yield Suggestion(
        assignments=Config({knob.name: fitting if knob.own_choice is None else knob.own_choice}),
        reason=f"{set_to} layers on the GPU are set ({context.current.origins.get(knob.name)}); "
        f"with this context {placed}.",
        effect="Every layer on a GPU that fits there, and none that does not.",
        source=_FIT,
        confidence="high",
    )
