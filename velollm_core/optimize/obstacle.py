"""Why a model does not fit, with the figures, and what would."""

from __future__ import annotations

import math

from velollm_core.config import Config, Role
from velollm_core.hardware.describe import plural
from velollm_core.models.fit import Budget
from velollm_core.models.memory import Placement, Use, plan_memory, weights_bytes
from velollm_core.optimize.case import Case
from velollm_core.optimize.memory import context_is_open, engine_budget, most_context
from velollm_core.optimize.required import at_once
from velollm_core.optimize.squeeze import (
    SMALLER_KV,
    can_be_quantized,
    kv_knobs,
    quantized,
    smallest,
)
from velollm_core.optimize.words import size


def obstacle(case: Case, need: Use) -> str:
    """Some sentences about a model that fits nowhere in the room of ``case``.

    Args:
        case: the model and what the engine may take, without what it takes beyond the plan.
        need: the least that is required.
    """
    spec, room = case.spec, engine_budget(case.context)
    takes = plan_memory(spec, need, Placement(), gpus=0)
    total_bytes = takes.host.total_bytes + takes.process_bytes
    total_bytes += room.host_bytes - case.room.host_bytes
    requests = at_once(case.context, need)
    each = f"a context of {need.context_tokens // requests} tokens"
    if requests > 1:
        each += f" for each of {requests} requests"
    said = (
        f"The model takes about {size(total_bytes)} with {each}{_origin(case, need, requests)}, "
        f"{size(weights_bytes(spec))} of it its weights; this process may use {_room(room)}. "
        f"{_way_out(case, need, room, total_bytes)}"
    )
    if can_be_quantized(case, need) and case.resolved(quantized(need)).fits:
        types = Config({knob.name: SMALLER_KV for knob in kv_knobs(case.context)})
        said += f" With {types}, which changes answers, it would fit."
    return said


def _origin(case: Case, need: Use, requests: int) -> str:
    """Where the context comes from, unless it is what the engine takes at least."""
    context, knob = case.context, case.context.knob(Role.CONTEXT)
    if need.context_tokens == (context.requirements.context_tokens or 0) * requests:
        return " (--context)"
    if knob is None or context_is_open(context):
        return ""
    return f" ({knob.name}: {context.current.origins.get(knob.name, 'as it is set')})"


def _room(room: Budget) -> str:
    host = f"{size(room.host_bytes)} of main memory"
    if room.unified:
        return f"{host}, which the GPU shares"
    if not room.gpu_bytes:
        return host
    return f"{host} and {size(_on_gpus(room))} on {plural(len(room.gpu_bytes), 'GPU')}"


def _on_gpus(room: Budget) -> int:
    return sum(map(room.of_gpu, range(len(room.gpu_bytes))))


def _way_out(case: Case, use: Use, room: Budget, total_bytes: int) -> str:
    spec = case.spec
    tokens = most_context(spec, smallest(case, use), case.room) // at_once(case.context, use)
    if tokens:
        return f"A context of {tokens} tokens a request would fit: --context {tokens}."
    there = room.host_bytes + (0 if room.unified else _on_gpus(room))
    bits = (there - total_bytes + weights_bytes(spec)) * 8 / spec.parameter_count
    more = f"{size(total_bytes - there)} more memory" if total_bytes > there else "more memory"
    if bits < 1:
        return f"It would take {more}, or a smaller model."
    now = weights_bytes(spec) * 8 / spec.parameter_count
    return (
        f"It would take {more}, or a file of at most {math.floor(bits * 10) / 10:.1f} bits a "
        f"weight (this one has {now:.1f}), or a smaller model."
    )
