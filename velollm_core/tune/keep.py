"""One tune from task to result: entered in the journal, searched, assembled, and entered again."""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import evolve, frozen

from velollm_core import __version__
from velollm_core.documents import from_plain, to_plain
from velollm_core.errors import UsageError
from velollm_core.experiment.benchmark import identifier
from velollm_core.experiment.clock import Clock
from velollm_core.experiment.journal import Journal, RunInfo, begin, resume
from velollm_core.experiment.records import (
    anonymous_hardware,
    engine_record,
    model_record,
    settings_digest,
    workload_record,
)
from velollm_core.experiment.runner import Surroundings
from velollm_core.experiment.spec import Trial
from velollm_core.hardware.spec import HardwareSpec
from velollm_core.tune.confirm import ratio_words
from velollm_core.tune.lab import CURRENT, arm_of, fault_of
from velollm_core.tune.requirements import complete
from velollm_core.tune.search import Found, Observe, tune
from velollm_core.tune.spec import KIND, Conclusion, Task, TaskRecord, TuneResult


@frozen(kw_only=True)
class Outcome:
    """A tune's result and its trials; ``fault`` says why the journal does not hold it, where it
    does not. ``stale`` counts trials of the resumed run that no longer count: they are of another
    build, model, machine or workload.
    """

    result: TuneResult
    trials: tuple[Trial, ...]
    interrupted: bool
    fault: UsageError | None = None
    stale: int = 0


def tuned(
    task: Task,
    *,
    journal: Journal,
    clock: Clock,
    surroundings: Surroundings,
    observe: Observe = lambda _: None,
    resumed: str | None = None,
    notes: tuple[str, ...] = (),
    pause: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Tune, and keep the run in the journal, complete or not.

    Args:
        task: what is to be done.
        journal: where the run is entered, as kind ``tune``.
        clock: the time.
        surroundings: the machine, for the runner.
        observe: told of progress.
        resumed: identifier of an earlier run of the same task, whose finished trials are kept.
        notes: what was remarked before the run, for the result.
        pause: waits for so many seconds.

    Raises:
        UsageError: ``resumed`` names a run that did something else, or the budget is too small.
        Unavailable: an attached server is not there.
    """
    blank = evolve(
        _blank(task, clock, surroundings),
        run=resumed or identifier(clock),
        notes=notes,
    )
    before: tuple[Trial, ...] = ()
    stale = False
    if resumed is None:
        side = begin(
            journal, blank.run, created_at=blank.created_at, kind=KIND, head=to_plain(blank)
        )
    else:
        then = stored(journal.find(resumed))
        stale = _is_stale(then, blank)
        _same_task(then, blank, stale=stale)
        if not stale:
            task = evolve(task, hardware=_as_then(task.hardware, then.hardware))
            # Whoever goes on once more is to find the memory that was free at the beginning.
            blank = evolve(blank, hardware=then.hardware)
        told = (*then.notes, *(note for note in notes if note not in then.notes))
        blank = evolve(blank, created_at=then.created_at, notes=told)
        side, before = resume(journal, resumed), journal.trials(resumed)
    try:
        found = tune(
            task,
            journal=side,
            clock=clock,
            surroundings=surroundings,
            observe=observe,
            pause=pause,
        )
    except UsageError:
        # A budget that is too small: of a new run nothing is worth keeping.
        if resumed is None and side.fault is None:
            journal.remove(blank.run)
        raise
    result = _with(blank, found)
    side.finish(complete=result.complete, summary=in_short(result), head=to_plain(result))
    used = {(trial.arm, trial.key, trial.block) for trial in found.trials}
    unused = [trial for trial in before if (trial.arm, trial.key, trial.block) not in used]
    return Outcome(
        result=result,
        trials=found.trials,
        interrupted=found.interrupted,
        fault=side.fault,
        stale=len(unused) if stale else 0,
    )


def stored(info: RunInfo) -> TuneResult:
    """The result that the journal holds of a tune, complete or not.

    Raises:
        DocumentError: it was written by a VeloLLM whose results looked otherwise.
    """
    return from_plain(info.head, TuneResult, f"run {info.id}")


def in_short(result: TuneResult) -> str:
    """The run's one line in ``velollm results``."""
    name = f"{result.model.name} on {result.engine.backend}"
    if not result.complete:
        return f"{name}: not at its end"
    if result.conclusion is Conclusion.FASTER:
        return f"{name}: {result.changes} at {ratio_words(result.answers[0].overall)}"
    return f"{name}: {result.conclusion}"


_STALE = ("engine", "model", "hardware_fingerprint")
"""Where these differ the trials of before are of something else, and are measured anew."""

_PLAN = {
    "objectives": "objectives",
    "constraints": "constraints",
    "requirements": "requirements",
    "workloads": "workloads, requests or clients",
    "budget_s": "budget",
    "pairs": "number of pairs",
    "margin": "margin",
    "confidence": "confidence",
    "seed": "seed",
    "mode": "way to run the server",
    "only": "choice of knobs",
    "proposed": "profile",
}
"""What makes two tunes the same, in a user's words. The budget is part of it: whoever goes on until
the answer pleases gets the answer that pleases."""

_OTHER_SETTINGS = {"launch": "settings of yours", "attach": "server or settings of it"}


def _same_task(then: TuneResult, now: TuneResult, *, stale: bool) -> None:
    differing = [
        words
        for name, words in _PLAN.items()
        if getattr(then.task, name) != getattr(now.task, name)
    ]
    # What an engine does by itself may follow its build, the model and the machine.
    if not stale and _other_settings(then, now):
        differing.append(_OTHER_SETTINGS[now.task.mode])
    if differing:
        raise UsageError(
            f"run {then.run} tuned something else: other {', other '.join(differing)}.",
            "Give the options of that run, or tune anew without --resume.",
        )


def _is_stale(then: TuneResult, now: TuneResult) -> bool:
    return any(getattr(then, name) != getattr(now, name) for name in _STALE)


def _other_settings(then: TuneResult, now: TuneResult) -> bool:
    before = then.task.settings_digest
    further = bool(before) and before != now.task.settings_digest
    return further or (then.current, then.defaults) != (now.current, now.defaults)


def _as_then(now: HardwareSpec, then: HardwareSpec) -> HardwareSpec:
    """The machine with as much memory free as when the run began, by which candidates were
    chosen.
    """
    if len(now.gpus) != len(then.gpus):
        return now
    gpus = tuple(
        evolve(gpu, memory_free_bytes=before.memory_free_bytes)
        for gpu, before in zip(now.gpus, then.gpus, strict=True)
    )
    return evolve(now, memory=then.memory, gpus=gpus)


def _blank(task: Task, clock: Clock, surroundings: Surroundings) -> TuneResult:
    return TuneResult(
        run="",
        created_at=clock.utc(),
        complete=False,
        velollm_version=__version__,
        task=TaskRecord(
            objectives=task.objectives,
            constraints=task.constraints,
            requirements=task.requirements,
            workloads=tuple(map(workload_record, task.phases)),
            budget_s=task.budget_s,
            pairs=task.pairs,
            margin=task.margin,
            confidence=task.confidence,
            seed=task.seed,
            mode=task.mode,
            only=task.only,
            proposed=task.proposed,
            settings_digest=settings_digest(arm_of(task, CURRENT, task.current)),
        ),
        engine=engine_record(task.installation),
        model=model_record(task.model),
        hardware=anonymous_hardware(task.hardware),
        hardware_fingerprint=surroundings.hardware_fingerprint,
        current=complete(task, task.current.config),
        defaults=task.defaults.config,
        conclusion=Conclusion.OPEN,
        why="It has not come to its end.",
    )


def _with(blank: TuneResult, found: Found) -> TuneResult:
    notes = (*blank.notes, *(note for note in found.notes if note not in blank.notes))
    return evolve(
        blank,
        complete=not found.interrupted,
        conclusion=found.conclusion,
        why=found.why,
        changes=found.changes,
        stages=found.stages,
        front=found.front,
        answers=found.answers,
        noise=found.noise,
        spent_s=found.spent_s,
        trials=len(found.trials),
        failed=sum(fault_of(trial) is not None for trial in found.trials),
        untouched=found.untouched,
        notes=notes,
    )
