"""How the model's file comes into memory."""

from __future__ import annotations

from collections.abc import Iterator

from velollm_core.backends.advice import AdviceContext
from velollm_core.config import Config, Kept, Role, Suggestion, show
from velollm_core.optimize.shape import Shape
from velollm_core.optimize.words import size

_REPACK = "llama.cpp, ggml/src/ggml-cpu/repack.cpp"


def load_mode(context: AdviceContext, shape: Shape) -> Iterator[Suggestion | Kept]:
    """Another way only where that keeps weights once instead of twice, and memory is short."""
    knob = context.knob(Role.LOAD)
    value = None if knob is None else context.value(knob.name)
    if knob is None or value is None:
        return
    if shape.load_mode is None:
        yield Kept(
            knobs=(knob.name,),
            reason=f"{show(value)}: it decides how the model is loaded, not how fast it runs then.",
        )
        return
    yield Suggestion(
        assignments=Config({knob.name: shape.load_mode}),
        reason="Beside the mapped file the engine keeps weights a second time, in an order that "
        "suits the processor, and memory is short.",
        effect=f"{size(shape.load_saved_bytes)} less; loading reads the whole file at once.",
        source=_REPACK,
        confidence="medium",
    )
