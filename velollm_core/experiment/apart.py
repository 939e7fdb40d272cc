"""Two results that were recorded apart: what lies between them may be the hour, not the change.

Such results are told apart or not, with a ratio; they never make one configuration faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from attrs import frozen

from velollm_core.errors import DocumentError, UsageError
from velollm_core.experiment.measures import METRICS, Metric, value_of
from velollm_core.experiment.notes import counted
from velollm_core.experiment.spec import ArmRecord, BenchmarkResult, Trial, WorkloadRecord
from velollm_core.experiment.summary import attempts, replication, used
from velollm_core.statistics import Ratio, family_confidence, mean, unpaired_ratio


@frozen
class Side:
    """One arm of one result."""

    result: BenchmarkResult
    arm: ArmRecord


@frozen(kw_only=True)
class Apart:
    """Two sides in one workload at one concurrency.

    ``speed_ratio`` is above 1 where the second side was the faster one, whichever way ``metric``
    points; ``low`` and ``high`` bound it with ``confidence``. All are ``None`` where there is too
    little to tell. ``first_n`` and ``second_n`` count launches.
    """

    workload: str
    concurrency: int
    metric: str
    answer: Literal["distinguishable", "not distinguishable"]
    why: str
    confidence: float
    first_n: int
    second_n: int
    speed_ratio: float | None = None
    low: float | None = None
    high: float | None = None


@frozen(kw_only=True)
class ApartResult:
    """Two results held against each other (``velollm.apart/1``): identifiers of the runs, one
    row for each workload and concurrency, what else differs, and what would decide.
    """

    first: str
    second: str
    rows: tuple[Apart, ...]
    differences: tuple[str, ...]
    decider: str


def side(result: BenchmarkResult, what: str, arm: str | None) -> Side:
    """The arm called ``arm``, or the only one.

    Args:
        result: where to look.
        what: the result in a user's words.
        arm: its name, needed where there are several.

    Raises:
        UsageError: there is no such arm, or several and none was named.
    """
    names = [record.name for record in result.arms]
    if not names:
        raise UsageError(f"{what} holds no arm.", "Measure again.")
    if arm is None and len(names) == 1:
        return Side(result, result.arms[0])
    if arm is None:
        raise UsageError(
            f"{what} holds several arms: {', '.join(names)}.",
            "Name one: velollm compare --arm NAME ...",
        )
    if arm not in names:
        raise UsageError(f"{what} has no arm {arm!r}.", f"It has: {', '.join(names)}.")
    return Side(result, result.arms[names.index(arm)])


def refuse_unlike(first: Side, second: Side) -> None:
    """Nothing follows from the speeds of two models, or of two kinds of work.

    Raises:
        UsageError: models or workloads differ.
    """
    models = [(side.arm.model.fingerprint or side.arm.model.name) for side in (first, second)]
    if models[0] != models[1]:
        raise UsageError(
            f"the results are of different models: {first.arm.model.name} and "
            f"{second.arm.model.name}.",
            "To compare them nevertheless, add --force.",
        )
    if first.result.workloads != second.result.workloads:
        raise UsageError(
            f"the results are of different work: {_work(first)} and {_work(second)}.",
            "To compare what they share nevertheless, add --force.",
        )


def differences(first: Side, second: Side) -> tuple[str, ...]:
    """What else differs between two sides and may explain what is seen, a sentence each."""
    return tuple(_differences(first, second))


def compare_apart(first: Side, second: Side, metric: str) -> tuple[Apart, ...]:
    """One row for each workload and concurrency that both sides have.

    Raises:
        UsageError: they have none in common.
    """
    there = {_key(workload) for workload in second.result.workloads}
    shared = [workload for workload in first.result.workloads if _key(workload) in there]
    if not shared:
        raise UsageError(
            f"the results share no workload: {_work(first)} and {_work(second)}.",
            "Measure both with the same --workload and --concurrency.",
        )
    confidence = family_confidence(0.95, len(shared))
    return tuple(_row(first, second, entry, METRICS[metric], confidence) for entry in shared)


def _row(
    first: Side, second: Side, workload: WorkloadRecord, metric: Metric, confidence: float
) -> Apart:
    values = [_values(entry, workload, metric) for entry in (first, second)]
    before, after = values if metric.higher_is_better else reversed(values)
    try:
        ratio = unpaired_ratio(before, after, confidence)
    except ArithmeticError as error:
        raise DocumentError(f"the results hold what no server measures: {error}.") from error
    told_apart, why = _judge(ratio, values, metric, (first, second))
    return Apart(
        workload=workload.name,
        concurrency=workload.concurrency,
        metric=metric.name,
        answer="distinguishable" if told_apart else "not distinguishable",
        why=why,
        confidence=confidence,
        first_n=len(values[0]),
        second_n=len(values[1]),
        speed_ratio=ratio.value if ratio else None,
        low=ratio.low if ratio else None,
        high=ratio.high if ratio else None,
    )


def _judge(
    ratio: Ratio | None,
    values: Sequence[Sequence[float]],
    metric: Metric,
    sides: Sequence[Side],
) -> tuple[bool, str]:
    if ratio is None:
        for entry, found in zip(sides, values, strict=True):
            if not found:
                if not any(_whole(trial, entry.arm.name) for trial in entry.result.trials):
                    return False, f"no launch of run {entry.result.run} went through"
                return False, f"the server does not tell what {metric.name} needs"
        return False, "one launch has no interval: two of each are the least"
    if ratio.low > 1 or ratio.high < 1:
        return True, "they differ by more than launches do, by the change or by the hour"
    return False, "launches differ as much among themselves"


def _values(entry: Side, workload: WorkloadRecord, metric: Metric) -> list[float]:
    trials = [trial for trial in entry.result.trials if _whole(trial, entry.arm.name)]
    pairs = used(attempts(trials, workload.name, workload.concurrency))
    found = [value_of(metric, phase) for _, phase in pairs]
    known = [value for value in found if value is not None]
    # All blocks on one running server are one launch.
    one = replication(entry.result, entry.arm) == "block"
    return [mean(known)] if one and known else known


def _whole(trial: Trial, arm: str) -> bool:
    return trial.arm == arm and trial.failure is None


def _key(workload: WorkloadRecord) -> tuple[str, int]:
    return workload.name, workload.concurrency


def _work(entry: Side) -> str:
    return ", ".join(
        f"{workload.name} x{workload.concurrency} ({workload.requests} requests, at most "
        f"{workload.max_tokens} tokens)"
        for workload in entry.result.workloads
    )


def _differences(first: Side, second: Side) -> Iterator[str]:
    one, two = first.result, second.result
    if one.hardware_fingerprint != two.hardware_fingerprint:
        yield (
            f"they come from different machines: {one.hardware.cpu.model} and "
            f"{two.hardware.cpu.model}"
        )
    if first.arm.engine != second.arm.engine:
        yield f"they come from different engines or builds: {_engine(first)} and {_engine(second)}"
    if one.runner_version != two.runner_version:
        yield "they were measured by versions of VeloLLM that measure differently"
    if one.seed != two.seed:
        yield f"they were sent different prompts: seed {one.seed} and seed {two.seed}"
    if first.arm.mode != second.arm.mode:
        yield "one of them is of a server that ran already"
    if first.arm.digest != second.arm.digest:
        flags = [" ".join(entry.arm.extra_flags) or "none" for entry in (first, second)]
        told = f": {flags[0]} and {flags[1]}" if flags[0] != flags[1] else ""
        yield f"further arguments, variables or the server's address differ{told}"
    for entry in (first, second):
        failed = sum(
            trial.arm == entry.arm.name and trial.failure is not None
            for trial in entry.result.trials
        )
        if failed:
            yield f"{counted(failed, 'launch')} of run {entry.result.run} failed, and left out"


def _engine(entry: Side) -> str:
    engine = entry.arm.engine
    return " ".join(filter(None, (engine.backend, engine.kind, engine.version, engine.build)))
