"""What a whole configuration takes of each memory, and what the process may use of it."""

from __future__ import annotations

from velollm_core.backends.advice import AdviceContext
from velollm_core.backends.machine import used_gpus
from velollm_core.config import Config
from velollm_core.optimize.memory import engine_budget, extra_bytes, resolve
from velollm_core.optimize.prompts import prompt_cache_bytes
from velollm_core.optimize.spec import Room

HOST = "host"


def rooms(context: AdviceContext, changes: Config) -> tuple[Room, ...]:
    """Main memory and each GPU, with ``changes`` over what is in force; empty if not known."""
    planned, current = _taken(context, changes), _taken(context, Config())
    if planned is None:
        return ()
    room = engine_budget(context)
    cards = used_gpus(context.hardware)[: len(room.gpu_bytes)]
    devices = [(HOST, "main memory", room.host_bytes)]
    devices += [(gpu.uuid, gpu.name, room.of_gpu(number)) for number, gpu in enumerate(cards)]
    return tuple(
        Room(
            device=device,
            name=name,
            planned_bytes=planned[number],
            usable_bytes=usable_bytes,
            current_bytes=None if current is None else current[number],
        )
        for number, (device, name, usable_bytes) in enumerate(devices)
    )


def overload_bytes(context: AdviceContext, changes: Config) -> int:
    """By how much ``changes`` over what is in force take more than there is, in all."""
    return sum(max(0, room.planned_bytes - room.usable_bytes) for room in rooms(context, changes))


def _taken(context: AdviceContext, changes: Config) -> tuple[int, ...] | None:
    """Bytes of main memory, then of each GPU. Prompts count with all that they may grow to."""
    found = resolve(context, changes)
    if found is None:
        return None
    gpus = tuple(part.total_bytes for part in found.memory.gpus)
    shared = sum(gpus) if engine_budget(context).unified else 0
    prompts = prompt_cache_bytes(context, changes)
    return (found.host_bytes + extra_bytes(context, found, changes) + shared + prompts, *gpus)
