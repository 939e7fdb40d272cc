"""The core's rules: functions of what is known, each of which suggests something or says why not.

They go by the role of a knob, so that they serve engines that they have never seen. ``balanced``
proposes nothing of low confidence: what may as well be slower is for those who ask for latency or
throughput, and for them to measure. Nothing is said of a knob whose value is not known.
"""

from __future__ import annotations

from collections.abc import Iterator

from velollm_core.backends.advice import AdviceContext
from velollm_core.config import Kept, Role, Suggestion
from velollm_core.optimize.rules.batch import batch
from velollm_core.optimize.rules.context import context_length
from velollm_core.optimize.rules.kv_cache import attention, kv_types
from velollm_core.optimize.rules.load import load_mode
from velollm_core.optimize.rules.placement import layers
from velollm_core.optimize.rules.prompts import prompt_memory
from velollm_core.optimize.rules.slots import slots
from velollm_core.optimize.rules.threads import decode, prefill
from velollm_core.optimize.rules.unseen import required_alone
from velollm_core.optimize.shape import shape

_BY_THEMSELVES = (decode, prefill, attention)
_OF_THE_MEMORY = (
    layers,
    context_length,
    slots,
    kv_types,
    batch,
    prompt_memory,
    load_mode,
)


_MEMORY_ROLES = frozenset(
    {
        *(Role.PLACEMENT, Role.CONTEXT, Role.SLOTS, Role.UNIFIED_KV, Role.KV_TYPE_K),
        *(Role.KV_TYPE_V, Role.BATCH_LOGICAL, Role.BATCH_PHYSICAL, Role.LOAD),
    }
)


def suggestions(context: AdviceContext) -> Iterator[Suggestion | Kept]:
    """What all rules say. Those that share the memory are silent where the model does not fit."""
    for rule in _BY_THEMSELVES:
        yield from rule(context)
    decided = shape(context)
    if decided is None:
        yield from required_alone(context)
        known = (knob for knob in context.knobs if context.value(knob.name) is not None)
        names = tuple(knob.name for knob in known if knob.role in _MEMORY_ROLES)
        yield Kept(
            knobs=names, reason="What the model takes of this machine's memory cannot be told."
        )
    elif decided.obstacle is None:
        for shared in _OF_THE_MEMORY:
            yield from shared(context, decided)
