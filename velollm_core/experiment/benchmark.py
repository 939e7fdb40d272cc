"""One benchmark from plan to result: entered in the journal, run, assembled, and entered again."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Callable
from typing import Any

from attrs import evolve, frozen

from velollm_core import __version__
from velollm_core.documents import from_plain, to_plain
from velollm_core.errors import UsageError
from velollm_core.experiment.clock import Clock
from velollm_core.experiment.comparison import comparisons
from velollm_core.experiment.journal import Journal, RunInfo, begin, resume
from velollm_core.experiment.records import anonymous_hardware, arm_record, workload_record
from velollm_core.experiment.runner import Observe, Surroundings, run
from velollm_core.experiment.spec import RUNNER_VERSION, BenchmarkResult, Experiment, Trial
from velollm_core.hardware.spec import HardwareSpec

KIND = "benchmark"
MAJOR = 1


@frozen(kw_only=True)
class Outcome:
    """A benchmark's result; ``fault`` says why the journal does not hold it, where it does not."""

    result: BenchmarkResult
    interrupted: bool
    fault: UsageError | None = None


def benchmark(
    experiment: Experiment,
    *,
    hardware: HardwareSpec,
    journal: Journal,
    clock: Clock,
    surroundings: Surroundings,
    summarize: Callable[[BenchmarkResult], str],
    observe: Observe = lambda _: None,
    resumed: str | None = None,
    notes: tuple[str, ...] = (),
) -> Outcome:
    """Run ``experiment`` and keep it, complete or not.

    Args:
        experiment: what to do.
        hardware: the machine, for the record.
        journal: where the run is entered.
        clock: the time.
        surroundings: the machine, for the runner.
        summarize: the run's one line in ``velollm results``.
        observe: told of progress.
        resumed: identifier of an earlier run of the same plan, whose finished trials are kept.
        notes: what was remarked before the run, for the result.

    Raises:
        UsageError: ``resumed`` names a run that did something else.
    """
    blank = BenchmarkResult(
        run=resumed or identifier(clock),
        created_at=clock.utc(),
        complete=False,
        velollm_version=__version__,
        runner_version=RUNNER_VERSION,
        python_version=platform.python_version(),
        seed=experiment.seed,
        unit=experiment.unit,
        blocks=experiment.blocks,
        arms=tuple(arm_record(arm) for arm in experiment.arms),
        workloads=tuple(workload_record(phase) for phase in experiment.phases),
        hardware=anonymous_hardware(hardware),
        hardware_fingerprint=surroundings.hardware_fingerprint,
        question=experiment.question,
        notes=notes,
    )
    if resumed is None:
        side = begin(journal, blank.run, created_at=blank.created_at, kind=KIND, head=_head(blank))
    else:
        before = stored(journal.find(resumed), ())
        _same_plan(before, blank)
        notes = (*before.notes, *(note for note in notes if note not in before.notes))
        blank = evolve(blank, created_at=before.created_at, notes=notes)
        side = resume(journal, resumed)
    outcome = run(experiment, journal=side, clock=clock, surroundings=surroundings, observe=observe)
    result = _with_trials(blank, outcome.trials, complete=not outcome.interrupted)
    side.finish(complete=result.complete, summary=summarize(result), head=_head(result))
    return Outcome(result=result, interrupted=outcome.interrupted, fault=side.fault)


def stored(info: RunInfo, trials: tuple[Trial, ...]) -> BenchmarkResult:
    """The result that the journal holds of a run, complete or not.

    Raises:
        DocumentError: it was written by a VeloLLM whose results looked otherwise.
    """
    head = from_plain({**info.head, "trials": []}, BenchmarkResult, f"run {info.id}")
    return _with_trials(head, trials, complete=info.complete)


def _with_trials(
    head: BenchmarkResult, trials: tuple[Trial, ...], *, complete: bool
) -> BenchmarkResult:
    result = evolve(head, trials=trials, complete=complete)
    return evolve(result, comparisons=comparisons(result))


_PLAN = {
    "arms": "engine, model or settings",
    "workloads": "workloads, requests or clients",
    "seed": "seed",
    "unit": "unit",
    "hardware_fingerprint": "machine",
    "runner_version": "VeloLLM's way of measuring",
    "question": "question",
}
"""What makes two runs the same plan, in a user's words.

More launches are still the same plan, save where they answer a question: whoever measures until the
answer pleases gets the answer that pleases."""


def _same_plan(before: BenchmarkResult, now: BenchmarkResult) -> None:
    differing = [
        words for name, words in _PLAN.items() if getattr(before, name) != getattr(now, name)
    ]
    if now.blocks < before.blocks or (now.question and now.blocks != before.blocks):
        differing.append(f"number of launches ({before.blocks}, not {now.blocks})")
    if differing:
        raise UsageError(
            f"run {before.run} measured something else: other {', other '.join(differing)}.",
            "Give the options of that run, or measure anew without --resume.",
        )


def _head(result: BenchmarkResult) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain(evolve(result, trials=(), comparisons=()))
    del plain["trials"]
    return plain


def identifier(clock: Clock) -> str:
    """Sortable by time, and different for two runs in one second: ``20261124-201500-3fa9``."""
    stamp = clock.utc()[:19].replace("-", "").replace(":", "").replace("T", "-")
    return f"{stamp}-{secrets.token_hex(2)}"
