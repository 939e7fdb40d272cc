"""What kept prompts may grow to in main memory."""

from __future__ import annotations

from velollm_core.backends.advice import AdviceContext, Goal
from velollm_core.config import Config, Knob, Role
from velollm_core.hardware.parsing import MIB
from velollm_core.optimize.words import round_figure

SPARE = 8
"""One part in so many of main memory is left to kept prompts and to whatever else grows."""

_LEAST_MIB = 256
_MOST_MIB = 8192
"""As much as llama.cpp's own bound (``--cache-ram``)."""


def prompt_cache(context: AdviceContext) -> Knob | None:
    """The knob that bounds the main memory for prompts, if there is one."""
    knobs = (knob for knob in context.knobs if knob.role is Role.PROMPT_CACHE)
    return next((knob for knob in knobs if knob.unit == "MiB"), None)


def prompt_cache_bytes(context: AdviceContext, config: Config) -> int:
    """What prompts may grow to under ``config``; no limit counts as all of main memory."""
    knob = prompt_cache(context)
    value = config.get(knob.name, context.value(knob.name)) if knob else None
    if not isinstance(value, int):
        return 0
    return value * MIB if value >= 0 else context.hardware.memory.total_bytes


def bound_mib(context: AdviceContext, host_bytes: int, spare_bytes: int) -> int | None:
    """What prompts may grow to where they are allowed more than there is; ``None``: as it is.

    That is what the model leaves, less one part in :data:`SPARE` of all, but at least half of it.
    What is set may come nearer to the limit before it is called too much, so that a small change of
    something else does not change it again.

    Args:
        context: the engine and what is set.
        host_bytes: main memory that the process may use.
        spare_bytes: what the model leaves of it.
    """
    allowed = max(spare_bytes - host_bytes // SPARE, spare_bytes // 2)
    borne = max(spare_bytes - host_bytes // (2 * SPARE), spare_bytes * 3 // 4)
    if context.goal is Goal.MEMORY:
        allowed = borne = min(allowed, host_bytes // (2 * SPARE))
    if prompt_cache_bytes(context, Config()) <= borne:
        return None
    mib = min(_MOST_MIB, allowed // MIB)
    return round_figure(mib) if mib >= _LEAST_MIB else 0
