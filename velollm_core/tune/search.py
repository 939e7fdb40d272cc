"""The search, then a confirmation: a function of the task and of its trials."""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import evolve

from velollm_core.config import Config
from velollm_core.errors import UsageError
from velollm_core.experiment.clock import Clock
from velollm_core.experiment.journal import RunJournal
from velollm_core.experiment.runner import Surroundings
from velollm_core.tune.candidates import axes, over, possible
from velollm_core.tune.course import Course
from velollm_core.tune.found import Found, Observe, TuneProgress
from velollm_core.tune.lab import Lab
from velollm_core.tune.requirements import needed
from velollm_core.tune.space import Space
from velollm_core.tune.spec import Task

__all__ = ["Found", "Observe", "TuneProgress", "tune"]


def tune(
    task: Task,
    *,
    journal: RunJournal,
    clock: Clock,
    surroundings: Surroundings,
    observe: Observe = lambda _: None,
    pause: Callable[[float], None] = time.sleep,
) -> Found:
    """Search, and prove what was found.

    Every decision follows from the task and from the trials, so that the same call over a journal
    that holds some of them goes on where it was cut off.

    Args:
        task: what is to be done.
        journal: one run's side of the journal; what it holds is not measured again.
        clock: the time, which no decision looks at.
        surroundings: the machine.
        observe: told of progress, between requests, never inside one.
        pause: waits for so many seconds.

    Raises:
        UsageError: the budget cannot hold even the least; the message says how much it takes.
        Unavailable: an attached server is not there at the start.
    """
    moved, untouched = axes(task) if task.proposed is None else ((), ())
    start, notes = _start(task)
    options = [option for axis in moved for option in axis.options]
    names = {name for option in options for name in over(task, Config(), option)}
    course = Course(
        lab=Lab(
            task=task,
            journal=journal,
            clock=clock,
            surroundings=surroundings,
            pause=pause,
            moved=frozenset(names | set(start)),
        ),
        observe=observe,
        space=Space(task, start, moved),
        untouched=untouched,
        notes=notes,
    )
    try:
        found = course.run()
    finally:
        fault = course.lab.set_back()
    return evolve(found, notes=(*found.notes, fault)) if fault else found


def _start(task: Task) -> tuple[Config, tuple[str, ...]]:
    """Where the search begins, as changes from the user's own settings, and what is to be said of
    that: what is only to be confirmed, else what the requirements ask for.

    Raises:
        UsageError: what is to be confirmed cannot be set.
    """
    if task.proposed is not None:
        start = over(task, Config(), task.proposed)
        why = possible(task, start)
        if why is not None:
            raise UsageError(f"{start} cannot be set here: {why}.")
        return start, ()
    start = over(task, Config(), needed(task))
    if not start:
        return start, ()
    why = possible(task, start)
    fixed = [knob.name for knob in task.knobs if knob.change == "restart" and knob.name in start]
    if why is None and task.mode == "attach" and fixed:
        why = f"{', '.join(fixed)} would need a restart"
    if why is not None:
        return Config(), (f"what you have does not hold what is required, nor can {start}: {why}",)
    return start, (f"what you have does not hold what is required; {start} does",)
