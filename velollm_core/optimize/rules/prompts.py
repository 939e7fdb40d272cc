"""The prompt cache in main memory: no more than what the model leaves."""

from __future__ import annotations

from collections.abc import Iterator

from velollm_core.backends.advice import AdviceContext
from velollm_core.config import Config, Kept, Suggestion
from velollm_core.optimize.prompts import prompt_cache
from velollm_core.optimize.shape import Shape
from velollm_core.optimize.words import size

_README = "llama.cpp, tools/server/README.md, --cache-ram"


def prompt_memory(context: AdviceContext, shape: Shape) -> Iterator[Suggestion | Kept]:
    """A bound on the memory for prompts, where that which is set is more than there is."""
    knob = prompt_cache(context)
    now = None if knob is None else context.value(knob.name)
    if knob is None or now is None:
        return
    left = size(shape.spare_bytes)
    allowed = "without limit" if now == -1 else f"up to {now} MiB"
    if shape.prompt_cache_mib is None:
        yield Kept(
            knobs=(knob.name,),
            reason=f"Kept prompts may take {allowed}; the model leaves {left} of main memory.",
        )
        return
    yield Suggestion(
        assignments=Config({knob.name: shape.prompt_cache_mib}),
        reason=f"Kept prompts may take {allowed}, and the model leaves {left} of main memory.",
        effect="The server does not outgrow the memory as it keeps prompts; fewer of them are "
        "found again.",
        source=_README,
        confidence="high",
    )
