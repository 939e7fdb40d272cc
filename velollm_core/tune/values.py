"""The values of one knob that are worth trying, by its role, its domain and the machine."""

from __future__ import annotations

import math
from collections.abc import Iterable

from velollm_core.backends.machine import budget, usable_bytes
from velollm_core.config import Choices, Config, Knob, Range, Role, Value
from velollm_core.tune.requirements import complete, in_force
from velollm_core.tune.spec import Task

_FEW_THREADS = 8
"""With more processors than this, one or two threads are not tried: they would take for ever."""
_BATCH_STEPS = (2.0, 0.5, 4.0, 0.25)
_USUAL_BATCH = 512
_MOST = 6
_THREADS = (Role.THREADS_DECODE, Role.THREADS_PREFILL)
_NEAR = 1.2
_EXACT = 1000
"""Numbers below are rounded to two digits: ``71`` of 70.71."""
_REACH = 16
"""An end of a range is tried where it is at most so many times what is set now, or a part of it:
beyond, a trial can take for ever."""


def worth_trying(task: Task, knob: Knob) -> tuple[Value, ...]:
    """Values of ``knob``, the likeliest first, without the one in force.

    They lie in its domain. The engine's default is among them.
    """
    now = in_force(task, knob.name)
    found = [*_by_role(task, knob, now)]
    default = task.defaults.config.get(knob.name)
    if default is not None and not oversubscribes(task, knob, default):
        found.append(default)
    kept = [value for value in found if knob.domain.accepts(value) and not _same(value, now)]
    return tuple({(type(value), value): value for value in kept}.values())


def oversubscribes(task: Task, knob: Knob, value: Value) -> bool:
    """Whether ``value`` is a number of threads above what this process may use, or may be."""
    if knob.role not in _THREADS:
        return False
    if value == knob.own_choice:
        # The engine counts the machine's processors, not those that this process may use.
        return usable_threads(task) < task.hardware.cpu.logical
    return not isinstance(value, int) or value > usable_threads(task)


def usable_threads(task: Task) -> int:
    """How many threads can really run at once."""
    return max(1, int(task.hardware.cpu.usable))


def _by_role(task: Task, knob: Knob, now: Value | None) -> Iterable[Value]:
    if isinstance(knob.domain, Choices):
        return knob.domain.values
    if knob.role in _THREADS:
        return _threads(task)
    if knob.role in {Role.BATCH_LOGICAL, Role.BATCH_PHYSICAL}:
        return _batches(knob, now)
    if knob.role is Role.PLACEMENT:
        return _layers(task, knob)
    if knob.role is Role.SLOTS:
        return _slots(task, now)
    return _of_range(knob.domain, _number(knob, now))


def _threads(task: Task) -> Iterable[int]:
    """The real cores first: hyper-threads rarely help, and a full quota stalls (llama.cpp's users
    report both).
    """
    most, cpu = usable_threads(task), task.hardware.cpu
    few = (2, 1) if most <= _FEW_THREADS else ()
    wanted = (cpu.physical, cpu.performance_cores or 0, most, most - 1, most // 2, *few)
    return (number for number in wanted if 1 <= number <= most)


def _batches(knob: Knob, now: Value | None) -> Iterable[int]:
    number = _number(knob, now) or _USUAL_BATCH
    centre = math.log2(max(1, number))
    return (2 ** max(0, round(centre + math.log2(step))) for step in (1, *_BATCH_STEPS))


def _layers(task: Task, knob: Knob) -> Iterable[int]:
    """All, a few less than all, half, and none; what fits is left to the memory's check.

    Where not all fit, the most that do, and a few less.
    """
    spec = task.model.spec
    if spec is None or not budget(task.hardware).gpu_bytes:
        return
    every = spec.layers + 1  # the output counts as one
    fitting = _most_that_fit(task, knob, every)
    if knob.own_choice is not None and isinstance(knob.own_choice, int):
        yield knob.own_choice
    for number in (every, fitting, fitting - 1, fitting - 3, every // 2, 0):
        if 0 <= number <= fitting:
            yield number


def _most_that_fit(task: Task, knob: Knob, every: int) -> int:
    low, high = 0, every
    while low < high:
        middle = (low + high + 1) // 2
        if fits(task, Config({knob.name: middle})):
            low = middle
        else:
            high = middle - 1
    return low


def fits(task: Task, changes: Config) -> bool:
    """Whether the backend's own estimate lies within the memory that this process may use.

    What cannot be told, and what runs already, counts as fitting: the runner looks again before it
    starts anything.
    """
    if task.mode == "attach":
        return True
    taken = task.backend.footprint(task.installation, task.model, complete(task, changes))
    if taken is None:
        return True
    if taken.host_bytes > task.hardware.memory.usable_bytes:
        return False
    return all(
        taken.gpu_bytes.get(gpu.uuid, 0) <= usable_bytes(gpu)
        for gpu in task.hardware.gpus
        if (gpu.memory_total_bytes, gpu.memory_free_bytes) != (None, None)
    )


def _slots(task: Task, now: Value | None) -> Iterable[int]:
    """As many as ask at once, half and twice as many, and around what is set."""
    clients = max(phase.concurrency for phase in task.phases)
    around = (now * 2, now // 2) if isinstance(now, int) else ()
    return (number for number in (clients, clients * 2, clients // 2, *around) if number >= 1)


def _of_range(domain: Range, now: float | None) -> Iterable[Value]:
    """Steps by ratio around what is set, and the ends; between the ends where nothing is known."""
    low, high = domain.low, domain.high
    if now is not None and now > 0:
        steps = [now * factor for factor in (2.0, 0.5, 4.0, 0.25)]
        ends = [end for end in (low, high) if end <= 0 or now / _REACH <= end <= now * _REACH]
        inside = [min(max(step, low), high) for step in steps]
        return _whole(domain, [*inside, *ends])[:_MOST]
    if not domain.integral and low <= 0:
        return _whole(domain, [low + (high - low) * k / 4 for k in range(5)])
    least = max(low, 1)
    if high <= least:
        return _whole(domain, [low, high])
    count = _MOST - (low < least)
    steps = [least * (high / least) ** (k / (count - 1)) for k in range(count)]
    return _whole(domain, [low, *([0] if low < 0 else []), *steps])


def between(knob: Knob, one: float, other: float) -> float | None:
    """A value in the middle of two, by ratio where both are above 0; ``None`` where that is near
    enough to either. Batches are powers of two.
    """
    positive = one > 0 and other > 0
    middle = (one * other) ** 0.5 if positive else (one + other) / 2
    if knob.role in {Role.BATCH_LOGICAL, Role.BATCH_PHYSICAL}:
        middle = 2.0 ** round(math.log2(middle))
    elif abs(middle) < _EXACT:
        middle = float(f"{middle:.2g}")
    value = _in_domain(knob, middle)
    if value is None or value in {one, other}:
        return None
    near = positive and max(value / one, one / value) < _NEAR
    return None if near and knob.role not in _THREADS else value


def beyond(knob: Knob, value: float) -> tuple[float, ...]:
    """One step further down and up from ``value``."""
    found = (_in_domain(knob, value / 2), _in_domain(knob, value * 2))
    return tuple(entry for entry in found if entry is not None and entry != value)


def _in_domain(knob: Knob, number: float) -> float | None:
    whole = isinstance(knob.domain, Range) and knob.domain.integral
    value = round(number) if whole else float(number)
    return value if knob.domain.accepts(value) else None


def _whole(domain: Range, values: Iterable[float]) -> tuple[Value, ...]:
    """``values`` as the domain has them: rounded where it is of integers, floats elsewhere."""
    found: list[Value] = [round(v) if domain.integral else float(v) for v in values]
    return tuple(dict.fromkeys(found))


def _number(knob: Knob, value: Value | None) -> float | None:
    """``value``, where it is a number that does not leave the choice to the engine."""
    if value is None or isinstance(value, (bool, str)) or value == knob.own_choice:
        return None
    return value


def _same(value: Value, other: Value | None) -> bool:
    return type(value) is type(other) and value == other
