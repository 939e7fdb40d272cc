"""What is worth trying on this machine with this engine: candidates by the knobs' roles."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from velollm_core.config import ENGINE_DEFAULT, Config, Knob, LeftOut, Role, Value, inactive, show
from velollm_core.tune.requirements import complete, forbidden, in_force, knob_of, with_room
from velollm_core.tune.spec import Task
from velollm_core.tune.values import fits, oversubscribes, worth_trying

_MEMORY_UNITS = frozenset({"bytes", "B", "KiB", "MiB", "GiB", "KB", "MB", "GB"})
_LATER = "how tokens are drafted ahead depends on the text; it is not part of this search"
_LEFT_ALONE = {
    Role.SPECULATION_TYPE: _LATER,
    Role.SPECULATION_LENGTH: _LATER,
    Role.SPECULATION_MATCH: _LATER,
    Role.CONTEXT: "how much a request may hold is a requirement; it moves only with the slots",
    Role.KV_TYPE_K: "it changes what is kept of a text, so that answers would have to be judged",
    Role.KV_TYPE_V: "it changes what is kept of a text, so that answers would have to be judged",
    Role.RESIDENCY: "it says how long a model stays loaded, not how fast it is",
}
_IN_ORDER = (
    Role.THREADS_DECODE,
    Role.THREADS_PREFILL,
    Role.BATCH_PHYSICAL,
    Role.BATCH_LOGICAL,
    Role.ATTENTION,
    Role.PLACEMENT,
    Role.SLOTS,
    Role.UNIFIED_KV,
)
_OTHERS = (Role.LOAD, Role.PROMPT_CACHE, Role.OTHER)


@frozen(kw_only=True)
class Axis:
    """A knob that is tried, with whatever has to move with it.

    ``options`` are what it may be set to beside what it is, as changes from the user's own
    settings, the likeliest first: a short budget tries those.
    """

    knobs: tuple[str, ...]
    options: tuple[Config, ...]


def axes(task: Task) -> tuple[tuple[Axis, ...], tuple[LeftOut, ...]]:
    """What a search moves, the likeliest first, and the knobs that it leaves alone, each with why.

    A knob that has but one value to try is in neither. Deterministic; starts nothing.
    """
    reasons = {knob.name: why for knob in task.knobs if (why := _left_alone(task, knob))}
    free = [knob for knob in task.knobs if knob.name not in reasons]
    left_out = tuple(
        LeftOut(knob.name, task.current.origins.get(knob.name, ENGINE_DEFAULT), reasons[knob.name])
        for knob in task.knobs
        if knob.name in reasons
    )
    if task.only:
        free = [knob for knob in free if knob.name in task.only]
    found: list[Axis] = []
    for knob in sorted(free, key=_place):
        if not any(knob.name in axis.knobs for axis in found):
            found.append(_axis(task, knob))
    return tuple(axis for axis in found if axis.options), left_out


def own_settings(task: Task, found: Sequence[Axis]) -> Config:
    """What the engine does by itself with the knobs of ``found``, as changes from the user's
    own.
    """
    names = [name for axis in found for name in axis.knobs if name in task.defaults.config]
    return over(task, Config(), Config({name: task.defaults.config[name] for name in names}))


def possible(task: Task, changes: Config) -> str | None:
    """Why a server may not be started with ``changes`` over the user's own; ``None`` if it may.

    Args:
        task: what is tuned.
        changes: all that differs from the user's own settings.
    """
    whole = complete(task, changes)
    for problem in task.backend.check(task.installation, task.model, task.current.config | changes):
        if problem.knob in changes:
            return problem.message
    idle = [name for name in inactive(task.knobs, whole) if name in changes]
    if idle:
        return f"{', '.join(idle)} would mean nothing"
    for knob in task.knobs:
        if knob.name in changes and oversubscribes(task, knob, changes[knob.name]):
            return f"{knob.name}={show(changes[knob.name])} is more than this process may use"
    reason = forbidden(task, changes)
    if reason is None and not fits(task, changes):
        reason = "it would not fit into the memory"
    return reason


def over(task: Task, lead: Config, change: Config) -> Config:
    """``change`` laid over ``lead``, as changes from the user's own settings.

    With it the context that requirements ask for, and without what is no change.
    """
    changes = with_room(task, lead | change)
    fixed = {knob.name for knob in task.knobs if knob.change == "restart"}
    if task.mode == "attach" and fixed.intersection(set(changes) - {*lead, *change}):
        changes = lead | change
    now = {name: in_force(task, name) for name in changes}
    return Config(
        {
            name: value
            for name, value in changes.items()
            if type(value) is not type(now[name]) or value != now[name]
        }
    )


def _left_alone(task: Task, knob: Knob) -> str | None:
    """Why the search does not touch ``knob``."""
    if knob.numerics == "lossy":
        return "it changes answers, which would have to be judged"
    if knob.role in _LEFT_ALONE:
        return _LEFT_ALONE[knob.role]
    if knob.scope != "process":
        return f"it holds for the whole {knob.scope}, not for one server"
    if task.mode == "attach" and (why := _fixed(task, knob)):
        return why
    if knob.name in inactive(task.knobs, complete(task, Config())) or _sleeps(task, knob):
        return "it means nothing with the other settings as they are"
    if knob.role in {Role.SLOTS, Role.UNIFIED_KV}:
        return _slots_left_alone(task)
    if knob.role is Role.PROMPT_CACHE and not any(p.workload.reuses_prefix for p in task.phases):
        return "no workload that is measured sends a prompt twice"
    if knob.role in _OTHERS and knob.unit in _MEMORY_UNITS:
        return "how much memory it may take is for its user to say"
    return None


def _fixed(task: Task, knob: Knob) -> str | None:
    """Why ``knob`` cannot be changed on a server that runs already, and set back."""
    if knob.change == "restart":
        return "it would need a restart of a server that VeloLLM did not start"
    if in_force(task, knob.name) is None:
        return "the server does not tell what it is now, so it could not be set back"
    return None


def _sleeps(task: Task, knob: Knob) -> bool:
    """Whether a knob that is not set would mean nothing if it were."""
    condition = knob.active_when
    return condition is not None and in_force(task, condition.knob) not in condition.values


def _slots_left_alone(task: Task) -> str | None:
    clients = max(
        (term.concurrency for objective in task.objectives for term in objective.terms), default=1
    )
    if clients < 2:
        return "one client at a time needs no more of them"
    knob = knob_of(task, Role.SLOTS)
    known = knob is None or in_force(task, knob.name) is not None
    if not known and task.requirements.parallel is None:
        return "it is not known how many requests are answered at once now, nor how many have to be"
    return None


def _place(knob: Knob) -> tuple[int, int]:
    """The roles in order; of all others what is cheap to change comes first."""
    role = _IN_ORDER.index(knob.role) if knob.role in _IN_ORDER else len(_IN_ORDER)
    return role, ("per_request", "reload", "restart").index(knob.change)


def _axis(task: Task, knob: Knob) -> Axis:
    """The values of ``knob`` that are possible as things are; a physical batch takes the logical
    one with it where that would be the smaller.
    """
    changes = [_with_batch(task, knob, value) for value in _values(task, knob)]
    names = tuple(dict.fromkeys(name for change in changes for name in change))
    own = Config(
        {name: task.defaults.config[name] for name in names if name in task.defaults.config}
    )
    found: dict[Config, None] = {}
    for change in [*changes, own]:
        whole = over(task, Config(), change)
        if whole and possible(task, whole) is None:
            found[Config({name: whole[name] for name in names if name in whole})] = None
    return Axis(knobs=names or (knob.name,), options=tuple(found))


def _values(task: Task, knob: Knob) -> tuple[Value, ...]:
    if knob.role is Role.BATCH_LOGICAL:
        # It is a limit: tried is only what the engine does by itself.
        own = task.defaults.config.get(knob.name)
        return () if own is None else (own,)
    return worth_trying(task, knob)


def _with_batch(task: Task, knob: Knob, value: Value) -> Config:
    logical = knob_of(task, Role.BATCH_LOGICAL)
    if logical is None or (task.only and logical.name not in task.only):
        return Config({knob.name: value})
    if knob.role is Role.BATCH_PHYSICAL and isinstance(value, int):
        limit = in_force(task, logical.name)
        if isinstance(limit, int) and 0 < limit < value:
            return Config({knob.name: value, logical.name: value})
    return Config({knob.name: value})
