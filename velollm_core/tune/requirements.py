"""What may not be tuned away: how many requests run at once, and how much one of them may hold."""

from __future__ import annotations

from attrs import frozen

from velollm_core.config import Config, Knob, Role, Value
from velollm_core.tune.spec import Task


@frozen(kw_only=True)
class Capacity:
    """What a configuration has room for. ``None`` is what is not told.

    ``slots`` requests run at once, in ``parts`` parts of the KV cache; ``each_tokens`` is what one
    request may hold, ``total_tokens`` what all together.
    """

    slots: int | None
    parts: int
    each_tokens: int | None
    total_tokens: int | None


def knob_of(task: Task, role: Role) -> Knob | None:
    """The backend's first knob of that role, if it has one."""
    return next((knob for knob in task.knobs if knob.role is role), None)


def in_force(task: Task, name: str, changes: Config = Config()) -> Value | None:
    """What a knob is with ``changes`` over the user's own; ``None`` where that is not known."""
    for config in (changes, task.current.config, task.defaults.config):
        if name in config:
            return config[name]
    return None


def complete(task: Task, changes: Config) -> Config:
    """All that is known to be in force with ``changes`` laid over the user's own."""
    return task.defaults.config | task.current.config | changes


def capacity(task: Task, changes: Config) -> Capacity:
    """What there is room for with ``changes`` laid over the user's own settings.

    An engine without a knob for it shares the KV cache between its slots where its context is that
    of all of them together. A context of all slots that is left to the engine is the model's
    training length for each part (llama.cpp); of one that is per slot nothing is known.
    """
    slots = _number(task, Role.SLOTS, changes)
    knob = knob_of(task, Role.CONTEXT)
    per_slot = knob is not None and knob.per_slot
    unified = knob_of(task, Role.UNIFIED_KV)
    shared = not per_slot if unified is None else in_force(task, unified.name, changes) is not False
    parts = 1 if shared and not per_slot else slots or 1
    each = total = None
    if knob is not None:
        spec = task.model.spec
        tokens = _number(task, Role.CONTEXT, changes)
        if tokens is not None:
            each = tokens if per_slot else tokens // parts
        elif spec is not None and not per_slot and in_force(task, knob.name, changes) is not None:
            each = spec.context_length
        if each is not None:
            total = tokens if tokens is not None and not per_slot else each * parts
    return Capacity(slots=slots, parts=parts, each_tokens=each, total_tokens=total)


def forbidden(task: Task, changes: Config) -> str | None:
    """Why ``changes`` may not be made for the requirements' sake, in a sentence; else ``None``."""
    wanted, now, then = task.requirements, capacity(task, Config()), capacity(task, changes)
    parallel = wanted.parallel or now.slots
    if parallel is not None and then.slots is not None and then.slots < parallel:
        return f"{then.slots} requests at once, where {parallel} are required"
    least = _least_each(task)
    if least is not None and then.each_tokens is not None and then.each_tokens < least:
        return f"{then.each_tokens} tokens a request, where {least} are required"
    together = _least_together(task, then)
    if together is not None and then.total_tokens is not None and then.total_tokens < together:
        return f"a context of {then.total_tokens} tokens, where {together} are required"
    told = then.each_tokens is not None or (then.slots, then.parts) == (now.slots, now.parts)
    if wanted.context_tokens is not None and not told:
        return "it is not known how much a request could still hold"
    return None


def with_room(task: Task, changes: Config) -> Config:
    """``changes`` with as much context as the requirements ask for; never less than there is."""
    knob, then = knob_of(task, Role.CONTEXT), capacity(task, changes)
    least, together = _least_each(task), _least_together(task, then) or 0
    if knob is None or least is None:
        return changes
    if then.each_tokens is None and task.requirements.context_tokens is None:
        return changes
    if (then.each_tokens or 0) >= least and (then.total_tokens or 0) >= together:
        return changes
    if knob.per_slot:
        slots = then.slots or 1
        return changes | {knob.name: max(least, -(-together // slots))}
    return changes | {knob.name: max(least * then.parts, together)}


def needed(task: Task) -> Config:
    """What has to change of the user's own settings before they hold what is required."""
    wanted, now = task.requirements, capacity(task, Config())
    slots = knob_of(task, Role.SLOTS)
    changes = Config()
    if slots is not None and wanted.parallel and (now.slots or 0) < wanted.parallel:
        changes = Config({slots.name: wanted.parallel})
    return with_room(task, changes)


def _least_each(task: Task) -> int | None:
    return task.requirements.context_tokens or capacity(task, Config()).each_tokens


def _least_together(task: Task, then: Capacity) -> int | None:
    """The least context of all slots together. What the user has set is not given up."""
    wanted, now = task.requirements, capacity(task, Config())
    least = 0
    if _number(task, Role.CONTEXT, Config()) is not None:
        least = now.total_tokens or 0
    if wanted.context_tokens is not None:
        least = max(least, wanted.context_tokens * max(wanted.parallel or 1, then.parts))
    return least or None


def _number(task: Task, role: Role, changes: Config) -> int | None:
    """The knob of ``role``, where it is a number that does not leave the choice to the engine."""
    knob = knob_of(task, role)
    if knob is None:
        return None
    value = in_force(task, knob.name, changes)
    if value == knob.own_choice or isinstance(value, bool) or not isinstance(value, int):
        return None
    return value
