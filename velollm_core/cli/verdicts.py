"""What the answers of a comparison mean for the exit code."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from velollm_core.errors import Unsettled, UsageError, VeloError
from velollm_core.experiment.comparison import slower_than
from velollm_core.experiment.measures import failed
from velollm_core.experiment.notes import first_line
from velollm_core.experiment.spec import Because, BenchmarkResult, Comparison, Trial
from velollm_core.report.comparisons import ratio_text
from velollm_core.statistics import Verdict


def doubted(result: BenchmarkResult) -> tuple[Comparison, ...]:
    """The comparisons of ``result``, open for its faults where the changed arm failed.

    An interval is of the pairs in which both arms answered: it may rule out that an arm is slower
    which crashed in every other launch.
    """
    return tuple(_doubted(row, result) for row in result.comparisons)


def _doubted(row: Comparison, result: BenchmarkResult) -> Comparison:
    if row.because is not Because.INTERVAL or row.verdict is Verdict.SLOWER:
        return row
    trials = [trial for trial in result.trials if trial.arm == row.changed]
    faults = [fault for trial in trials if (fault := _fault(trial, row)) is not None]
    if not faults:
        return row
    return evolve(
        row,
        verdict=Verdict.INCONCLUSIVE,
        because=Because.FAULTS,
        why=f"{row.changed} failed in {len(faults)} of {result.blocks}: {first_line(faults[0])}",
        pairs_to_decide=None,
    )


def _fault(trial: Trial, row: Comparison) -> str | None:
    """What went wrong in ``trial``, or with a request of the workload of ``row``."""
    if trial.failure is not None:
        return trial.failure.message
    samples = (
        sample
        for phase in trial.phases
        if (phase.workload, phase.concurrency) == (row.workload, row.concurrency)
        for sample in phase.samples
    )
    return next((s.error or "" for s in samples if not s.warmup and failed(s)), None)


def judge(comparisons: Sequence[Comparison], limit: float | None) -> None:
    """Nothing where every answer is one, and with ``limit`` none is slower by more than that part.

    Raises:
        VeloError: something is slower by more than ``limit``.
        Unsettled: something stays open.
    """
    if limit is None:
        open_rows = [row for row in comparisons if row.verdict is Verdict.INCONCLUSIVE]
    else:
        answers = [(row, slower_than(row, limit)) for row in comparisons]
        slower = [row for row, answer in answers if answer]
        if slower:
            raise VeloError(f"slower by more than {limit * 100:g} %: {in_short(slower)}.")
        open_rows = [row for row, answer in answers if answer is None]
    if open_rows:
        reasons = "; ".join(dict.fromkeys(row.why for row in open_rows))
        raise Unsettled(f"inconclusive: {in_short(open_rows)}: {reasons}", _hint(open_rows))


def is_slower(comparisons: Sequence[Comparison]) -> bool | None:
    """Whether something is slower; ``False`` only where every interval rules out that it is by more
    than the margin, ``None`` where that stays open.
    """
    if any(row.verdict is Verdict.SLOWER for row in comparisons):
        return True
    return False if all(slower_than(row, row.margin) is False for row in comparisons) else None


def keep(comparisons: Sequence[Comparison]) -> None:
    """Nothing where a proposal is not slower.

    Raises:
        VeloError: it is slower.
        Unsettled: that stays open.
    """
    answer = is_slower(comparisons)
    if answer:
        worse = [row for row in comparisons if row.verdict is Verdict.SLOWER]
        raise VeloError(f"slower: {in_short(worse)}.", "Keep what you have; nothing was changed.")
    if answer is None:
        unsure = [row for row in comparisons if slower_than(row, row.margin) is not False]
        reasons = "; ".join(dict.fromkeys(row.why for row in unsure))
        raise Unsettled(
            "whether the proposal is slower stays open, so nothing was changed: "
            f"{in_short(unsure)}: {reasons}",
            _hint(unsure),
        )


def check_limit(limit: float | None, margin: float) -> None:
    """A limit within the margin would fail what the verdict calls no difference.

    Raises:
        UsageError: it is.
    """
    if limit is not None and limit < margin:
        raise UsageError(
            f"--fail-if-slower {limit * 100:g}% is less than the margin of {margin * 100:g}%.",
            "Name a larger limit, or measure with a smaller --margin.",
        )


def in_short(rows: Sequence[Comparison]) -> str:
    """``short x1 1.031 [0.990, 1.073]`` for each."""
    return ", ".join(f"{row.workload} x{row.concurrency} {ratio_text(row)}" for row in rows)


def _hint(rows: Sequence[Comparison]) -> str:
    if any(row.because is not Because.INTERVAL for row in rows):
        return ""
    needed = [row.pairs_to_decide for row in rows]
    if None in needed:
        return "A quieter machine or more requests a launch may tell."
    most = max(number for number in needed if number is not None)
    return f"Measure anew with --launches {most}, which would probably tell."
