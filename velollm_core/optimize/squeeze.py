"""What makes room where it is short: another way to load, a smaller batch.

A quantized KV cache would as well. It changes answers, so it is not proposed before its answers
were measured: here is only what it would bring.
"""

from __future__ import annotations

from attrs import evolve

from velollm_core.backends.advice import AdviceContext, Goal
from velollm_core.config import Choices, Config, Knob, Role, Value
from velollm_core.errors import UsageError
from velollm_core.hardware.parsing import MIB
from velollm_core.models.memory import Use
from velollm_core.optimize.case import Case, batch_knob, with_ubatch
from velollm_core.optimize.memory import Resolved, context_is_open, extra_bytes, resolved, streams

SMALLER_KV = "q8_0"
"""Of the quantized types the one that changes answers least, at little more than half of f16."""

UNQUANTIZED = frozenset({"f32", "f16", "bf16"})
_SMALL_UBATCH = 128
_WORTH_BYTES = 64 * MIB
"""Of what saves memory: less is not worth a change."""


def load_mode(case: Case, now: Resolved, need: Use, extra: int) -> tuple[Value | None, int]:
    """A way to load that keeps less in main memory, where that limits the context; and how much.

    Only what the backend's own estimate says counts: ``extra`` is what it takes now beyond ``now``.
    """
    knob = case.context.knob(Role.LOAD)
    if knob is None or not isinstance(knob.domain, Choices) or extra < _WORTH_BYTES:
        return None, 0
    value = min(
        knob.domain.values,
        key=lambda mode: extra_bytes(case.context, now, Config({knob.name: mode})),
    )
    saved = extra - extra_bytes(case.context, now, Config({knob.name: value}))
    most = evolve(need, context_tokens=case.spec.context_length * streams(need))
    short = case.context.goal is Goal.MEMORY or not (
        case.is_ample(most) if context_is_open(case.context) else case.resolved(need).fits
    )
    return (value, saved) if short and saved >= _WORTH_BYTES else (None, 0)


def squeezed(case: Case, use: Use) -> Use:
    """``use`` with a smaller batch, where only that fits or memory is what is wanted."""
    small = smallest(case, use)
    if case.context.goal is Goal.MEMORY:
        return small
    return use if case.resolved(use).fits or not case.resolved(small).fits else small


def smallest(case: Case, use: Use) -> Use:
    """``use`` with a smaller batch, where that is worth it wherever the layers lie.

    Beside GPUs only where memory is what is wanted: a little more main memory would undo it, and
    with it take layers from a GPU.
    """
    small = with_ubatch(use, _SMALL_UBATCH)
    if batch_knob(case.context) is None or use.ubatch_tokens <= _SMALL_UBATCH:
        return use
    if case.room.gpu_bytes and case.context.goal is not Goal.MEMORY:
        return use
    on_host = evolve(case.room, gpu_bytes=(), unified=False)
    before, after = (resolved(case.spec, entry, on_host) for entry in (use, small))
    return small if before.total_bytes - after.total_bytes > _WORTH_BYTES else use


def ubatch_saved_bytes(case: Case, use: Use, ubatch_tokens: int) -> int:
    """What ``use`` takes less than with a batch of ``ubatch_tokens``."""
    before = case.resolved(with_ubatch(use, ubatch_tokens))
    return before.total_bytes - case.resolved(use).total_bytes


def whole_if_quantized(case: Case, use: Use) -> bool:
    """Whether it is the type of the KV cache that keeps layers from GPUs."""
    return (
        bool(case.room.gpu_bytes)
        and not case.whole(use)
        and can_be_quantized(case, use)
        and case.whole(quantized(use))
    )


def quantized_saves_bytes(case: Case, use: Use) -> int:
    """What a quantized KV cache would take less than that of ``use``; 0 where there is none."""
    if not can_be_quantized(case, use):
        return 0
    return case.resolved(use).kv_bytes - case.resolved(quantized(use)).kv_bytes


def kv_knobs(context: AdviceContext) -> tuple[Knob, ...]:
    """The knobs for the KV cache's types."""
    found = map(context.knob, (Role.KV_TYPE_K, Role.KV_TYPE_V))
    return tuple(knob for knob in found if knob is not None)


def can_be_quantized(case: Case, use: Use) -> bool:
    """Whether the engine and the model's heads allow for it, and it is not done already."""
    present = kv_knobs(case.context)
    if not present or not {use.type_k, use.type_v} <= UNQUANTIZED:
        return False
    try:
        case.resolved(quantized(use))
    except UsageError:  # this model's heads do not fill its blocks
        return False
    return all(knob.domain.accepts(SMALLER_KV) for knob in present)


def quantized(use: Use) -> Use:
    """``use`` with a quantized KV cache."""
    return evolve(use, type_k=SMALLER_KV, type_v=SMALLER_KV)
