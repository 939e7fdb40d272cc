"""What the user requires, where it cannot be told what the model takes of the memory."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve

from velollm_core.backends.advice import AdviceContext
from velollm_core.config import Config, Role, Suggestion, Value
from velollm_core.optimize.memory import context_value, use_of
from velollm_core.optimize.required import needed, requested
from velollm_core.optimize.words import requirements

_README = "llama.cpp, tools/server/README.md, --ctx-size and --parallel"


def required_alone(context: AdviceContext) -> Iterator[Suggestion]:
    """Slots and context as they are required, where less is set or it is left to the engine."""
    now = use_of(context, Config())
    need = requested(context, now)
    need = evolve(need, context_tokens=needed(context, now, need, least_tokens=0))
    wanted: dict[Role, Value] = {}
    if need.slots > now.slots:
        wanted |= {Role.SLOTS: need.slots, Role.UNIFIED_KV: now.unified_kv}
    if need.context_tokens > now.context_tokens:
        wanted[Role.CONTEXT] = context_value(context, need)
    knobs = [(context.knob(role), value) for role, value in wanted.items()]
    assignments = {
        knob.name: value
        for knob, value in knobs
        if knob is not None and context.value(knob.name) is not None
    }
    if assignments:
        yield Suggestion(
            assignments=Config(assignments),
            reason=f"Required: {requirements(context.requirements)}.",
            effect="Such requests are answered if the memory holds them, which cannot be told.",
            source=_README,
            confidence="medium",
        )
