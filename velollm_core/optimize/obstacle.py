"""Why a model does not fit, with the figures, and what would."""

from __future__ import annotations

import math

from attrs import evolve

from velollm_core.models.fit import Budget, best_placement
from velollm_core.models.memory import Placement, Use, plan_memory, weights_bytes
from velollm_core.models.spec import ModelSpec
from velollm_core.optimize.memory import most_context
from velollm_core.optimize.words import plural, size


def obstacle(spec: ModelSpec, use: Use, room: Budget, extra_bytes: int) -> str:
    """Two sentences about a ``use`` that fits nowhere in ``room``.

    Args:
        spec: the model.
        use: the least that is required.
        room: what the process may use.
        extra_bytes: what the engine takes beyond the plan.
    """
    takes = plan_memory(spec, use, Placement(), gpus=0)
    total_bytes = takes.host.total_bytes + takes.process_bytes + extra_bytes
    return (
        f"The model takes about {size(total_bytes)} with a context of {use.context_tokens} tokens, "
        f"{size(weights_bytes(spec))} of it its weights; this process may use {_room(room)}. "
        f"{_way_out(spec, use, room, total_bytes, extra_bytes)}"
    )


def _room(room: Budget) -> str:
    host = f"{size(room.host_bytes)} of main memory"
    if room.unified:
        return f"{host}, which the GPU shares"
    if not room.gpu_bytes:
        return host
    return f"{host} and {size(_on_gpus(room))} on {plural(len(room.gpu_bytes), 'GPU')}"


def _on_gpus(room: Budget) -> int:
    return sum(map(room.of_gpu, range(len(room.gpu_bytes))))


def _way_out(spec: ModelSpec, use: Use, room: Budget, total_bytes: int, extra_bytes: int) -> str:
    left = evolve(room, host_bytes=room.host_bytes - extra_bytes)
    tokens = most_context(spec, use, lambda tried: best_placement(spec, tried, left) is not None)
    if tokens:
        return f"A context of {tokens} tokens would fit."
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
