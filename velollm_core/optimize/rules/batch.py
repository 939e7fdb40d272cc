"""Batch sizes: how many tokens of a prompt are computed at once."""

from __future__ import annotations

from collections.abc import Iterator

from velollm_core.backends.advice import AdviceContext, Goal
from velollm_core.config import Config, Kept, Role, Suggestion
from velollm_core.optimize.shape import Shape
from velollm_core.optimize.words import size

_OFFLOAD = "llama.cpp, tools/server/README.md, --ubatch-size and --op-offload; issue 27425"
_README = "llama.cpp, tools/server/README.md, --ubatch-size"


def batch(context: AdviceContext, shape: Shape) -> Iterator[Suggestion | Kept]:
    """Larger where weights go to the GPU anew with each batch, smaller where memory is wanted."""
    logical, physical = context.knob(Role.BATCH_LOGICAL), context.knob(Role.BATCH_PHYSICAL)
    knobs = [k for k in (logical, physical) if k is not None and context.value(k.name) is not None]
    if not knobs:
        return
    tokens, now = shape.ubatch_tokens, shape.now.use
    said, knob = f"{now.ubatch_tokens} tokens", physical or knobs[0]
    if knob.own_choice is not None and context.value(knob.name) == knob.own_choice:
        said += ", or what else the engine chooses,"
    if tokens is None:
        yield Kept(
            knobs=tuple(knob.name for knob in knobs),
            reason=f"{said} are computed at once; a larger batch takes memory, and what it brings "
            "has to be measured (velollm bench --ab).",
        )
        return
    assignments = {knob.name: tokens}
    if (
        logical is not None
        and physical is not None
        and shape.planned.use.batch_tokens > now.batch_tokens
    ):
        assignments[logical.name] = shape.planned.use.batch_tokens
    if tokens < now.ubatch_tokens:
        yield Suggestion(
            assignments=Config(assignments),
            reason=f"Room for {said} at once is held as long as the server "
            + (
                "runs."
                if context.goal is Goal.MEMORY
                else f"runs; with that, a context of {shape.planned.use.context_tokens} tokens "
                "does not fit."
            ),
            effect=f"{size(shape.ubatch_saved_bytes)} less; long prompts are read more slowly.",
            source=_README,
            confidence="medium",
        )
        return
    outside = shape.planned.memory.host.weights_bytes
    yield Suggestion(
        assignments=Config(assignments),
        reason=f"{size(outside)} of the weights stay in main memory and are carried to the GPU "
        f"anew for every {said} of a prompt.",
        effect=f"Up to {tokens // now.ubatch_tokens} times fewer transfers for long prompts; all "
        "layers on the GPU stay there.",
        source=_OFFLOAD,
        confidence="medium",
    )
