"""What is nice to have: taken only where layers on GPUs and the context stay what they are."""

from __future__ import annotations

from attrs import evolve

from velollm_core.backends.advice import Goal
from velollm_core.config import Role
from velollm_core.models.memory import Use
from velollm_core.optimize.case import Case, batch_knob, with_ubatch
from velollm_core.optimize.memory import Resolved

_BUSY_SLOTS = (8, 6, 4, 2)
_LARGE_UBATCHES = (2048, 1024)


def with_more_slots(case: Case, use: Use) -> Use:
    """Slots for work at once, where that is what is wanted and nobody has said how many.

    Where each slot has its own part of the KV cache, that part stays as large as it is.
    """
    context = case.context
    knob = context.knob(Role.SLOTS)
    if context.goal is not Goal.THROUGHPUT or context.requirements.parallel or knob is None:
        return use
    before, ample = case.resolved(use), case.is_ample(use)
    for slots in _BUSY_SLOTS:
        tokens = use.context_tokens * (use.slots if use.unified_kv else slots) // use.slots
        tried = evolve(use, slots=slots, context_tokens=tokens)
        more = slots > use.slots and knob.domain.accepts(slots)
        if more and _is_no_worse(case, before, tried) and case.is_ample(tried) >= ample:
            return tried
    return use


def with_large_batch(case: Case, use: Use) -> Use:
    """``use`` with a larger batch, where each batch carries weights to the GPU again."""
    knob, room = batch_knob(case.context), case.room
    fast = case.context.goal is not Goal.MEMORY and room.gpu_bytes and not room.unified
    if knob is None or not fast or case.whole(use):
        return use
    before = case.resolved(use)
    for tokens in _LARGE_UBATCHES:
        larger = tokens > use.ubatch_tokens and knob.domain.accepts(tokens)
        if larger and _is_no_worse(case, before, with_ubatch(use, tokens)):
            return with_ubatch(use, tokens)
    return use


def _is_no_worse(case: Case, before: Resolved, use: Use) -> bool:
    after = case.resolved(use)
    return after.fits and (
        after.placement.gpu_layers >= before.placement.gpu_layers
        and after.placement.cpu_expert_layers <= before.placement.cpu_expert_layers
    )
