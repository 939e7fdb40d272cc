"""What is required of slots and context, by what the user says and has set."""

from __future__ import annotations

from attrs import evolve

from velollm_core.backends.advice import AdviceContext
from velollm_core.models.memory import Use
from velollm_core.optimize.memory import context_is_open, streams


def requested(context: AdviceContext, now: Use) -> Use:
    """``now`` with slots for the requests at once that are required."""
    return evolve(now, slots=max(now.slots, context.requirements.parallel or 0))


def at_once(context: AdviceContext, use: Use) -> int:
    """For how many requests the context of all slots together is reckoned."""
    return max(context.requirements.parallel or 1, streams(use))


def needed(context: AdviceContext, now: Use, use: Use, least_tokens: int) -> int:
    """The least context of ``use``, all slots together, by what the user requires and has.

    What is set now is not given up, nor is what one of the slots is sure to get where the user asks
    for more of them.

    Args:
        context: what is required and set.
        now: the configuration in force.
        use: what it is to be; its context does not count.
        least_tokens: for each request where the context is neither set nor required.
    """
    required, parallel = context.requirements.context_tokens, context.requirements.parallel
    if context_is_open(context):
        return (required or least_tokens) * at_once(context, use)
    sure = required or now.context_tokens // (now.slots if parallel else streams(now))
    return max(now.context_tokens, sure * at_once(context, use))


def lowered(context: AdviceContext, now: Use, need: Use) -> Use | None:
    """``need`` with no more than the context that the user asks for, where more than that is set.

    ``None`` where the user asks for none, or none is set.
    """
    required = context.requirements.context_tokens
    if required is None or context_is_open(context):
        return None
    tokens = required * at_once(context, need)
    return evolve(need, context_tokens=tokens) if tokens < now.context_tokens else None
