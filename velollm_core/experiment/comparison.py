"""Arms of one run against its baseline, block by block: a ratio, its interval, and a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from velollm_core.errors import DocumentError, FailureKind
from velollm_core.experiment.measures import METRICS, Metric, measured
from velollm_core.experiment.spec import (
    BenchmarkResult,
    Comparison,
    Pair,
    PhaseRecord,
    Question,
    Trial,
    WorkloadRecord,
)
from velollm_core.statistics import (
    LEAST_PAIRS,
    Ratio,
    Verdict,
    family_confidence,
    paired_ratio,
    pairs_to_decide,
    verdict,
)


def comparisons(result: BenchmarkResult) -> tuple[Comparison, ...]:
    """What the trials of ``result`` answer to its question; nothing where nothing was asked.

    Raises:
        DocumentError: the question names no metric, or no arm of the result.
    """
    if result.question is None:
        return ()
    names = [arm.name for arm in result.arms]
    for key, value, known in (
        ("metric", result.question.metric, [*METRICS]),
        ("baseline", result.question.baseline, names),
    ):
        if value not in known:
            raise DocumentError(
                f"run {result.run}: question.{key} is {value!r}; it can be {', '.join(known)}."
            )
    return compare(result.question, names, result.workloads, result.trials)


@frozen(kw_only=True)
class Answer:
    """What a run answers, without its trials (``velollm.comparison/1``)."""

    run: str
    question: Question | None
    comparisons: tuple[Comparison, ...]


def answer(result: BenchmarkResult) -> Answer:
    """The answer of ``result``, for programs."""
    return Answer(run=result.run, question=result.question, comparisons=result.comparisons)


def compare(
    question: Question,
    arms: Sequence[str],
    workloads: Sequence[WorkloadRecord],
    trials: Sequence[Trial],
) -> tuple[Comparison, ...]:
    """One answer for each arm but the baseline and each workload and concurrency.

    All intervals together have the question's confidence.
    """
    others = [name for name in arms if name != question.baseline]
    confidence = family_confidence(question.confidence, max(1, len(others) * len(workloads)))
    by_arm: dict[str, dict[int, Trial]] = {name: {} for name in arms}
    for trial in trials:
        by_arm.setdefault(trial.arm, {})[trial.block] = trial
    return tuple(
        _compare(question, other, workload, by_arm, confidence)
        for other in others
        for workload in workloads
    )


def slower_than(comparison: Comparison, limit: float) -> bool | None:
    """Whether ``changed`` is slower by more than the part ``limit``; ``None`` where that is
    open.
    """
    if comparison.low is None or comparison.high is None or len(comparison.pairs) < LEAST_PAIRS:
        return None
    if comparison.high < 1 / (1 + limit):
        return True
    return False if comparison.low >= 1 / (1 + limit) else None


def speed_ratio(metric: Metric, pairs: Sequence[Pair], confidence: float = 0.95) -> Ratio | None:
    """How many times as fast ``changed`` is, whichever way ``metric`` points."""
    baseline = [pair.baseline for pair in pairs]
    changed = [pair.changed for pair in pairs]
    if not metric.higher_is_better:
        baseline, changed = changed, baseline
    return paired_ratio(baseline, changed, confidence)


def _compare(
    question: Question,
    other: str,
    workload: WorkloadRecord,
    by_arm: Mapping[str, Mapping[int, Trial]],
    confidence: float,
) -> Comparison:
    metric = METRICS[question.metric]
    first, second = by_arm[question.baseline], by_arm[other]
    blocks = sorted({*first, *second})
    pairs = []
    same = asked = 0
    for block in blocks:
        phases = [_phase(side.get(block), workload) for side in (first, second)]
        if phases[0] is None or phases[1] is None:
            continue
        values = [metric.of(phase) for phase in phases if phase is not None]
        if values[0] and values[1]:
            pairs.append(Pair(block=block, baseline=values[0], changed=values[1]))
            alike, both = _agreement(phases[0], phases[1])
            same, asked = same + alike, asked + both
    ratio = speed_ratio(metric, pairs, confidence)
    dropped = len(blocks) - len(pairs)
    faults = {
        name: sum(map(_failed, side.values()))
        for name, side in ((question.baseline, first), (other, second))
    }
    said, why = _judge(question, metric, ratio, len(pairs), faults)
    return Comparison(
        baseline=question.baseline,
        changed=other,
        workload=workload.name,
        concurrency=workload.concurrency,
        metric=question.metric,
        margin=question.margin,
        confidence=confidence,
        verdict=said,
        why=why,
        speed_ratio=ratio.value if ratio else None,
        low=ratio.low if ratio else None,
        high=ratio.high if ratio else None,
        pairs=tuple(pairs),
        dropped=dropped,
        pairs_to_decide=pairs_to_decide(ratio, question.margin, confidence)
        if ratio and said is Verdict.INCONCLUSIVE
        else None,
        agreement=same / asked if asked else None,
    )


def _phase(trial: Trial | None, workload: WorkloadRecord) -> PhaseRecord | None:
    """What ``trial`` measured of ``workload``; nothing if the trial failed, however far it came."""
    if trial is None or trial.failure is not None:
        return None
    wanted = (workload.name, workload.concurrency)
    return next(
        (phase for phase in trial.phases if (phase.workload, phase.concurrency) == wanted), None
    )


def _failed(trial: Trial) -> bool:
    """Whether ``trial`` failed by itself."""
    return trial.failure is not None and trial.failure.kind is not FailureKind.INTERRUPTED


def _agreement(first: PhaseRecord, second: PhaseRecord) -> tuple[int, int]:
    """Of the requests that both arms were sent word for word: answered alike, and all."""
    answers = {
        (sample.index, sample.prompt_sha256): sample.output_sha256 for sample in measured(first)
    }
    both = [
        answers[key] == sample.output_sha256
        for sample in measured(second)
        if (key := (sample.index, sample.prompt_sha256)) in answers
    ]
    return sum(both), len(both)


def _judge(
    question: Question,
    metric: Metric,
    ratio: Ratio | None,
    pairs: int,
    faults: Mapping[str, int],
) -> tuple[Verdict, str]:
    """The verdict, and its reason in a sentence."""
    broken = [name for name, count in faults.items() if count]
    if pairs < LEAST_PAIRS or ratio is None:
        if pairs == 0 and not broken:
            return Verdict.INCONCLUSIVE, f"the server does not tell what {metric.name} needs"
        return Verdict.INCONCLUSIVE, f"{pairs} pairs are too few: at least {LEAST_PAIRS} are needed"
    said = verdict(ratio, question.margin)
    percent = f"{question.margin * 100:g} %"
    if said is Verdict.INCONCLUSIVE:
        return said, f"the interval holds both no change and more than {percent}"
    if said is Verdict.NO_DIFFERENCE:
        return said, f"the whole interval is within {percent} of 1"
    winner = list(faults)[said is Verdict.FASTER]
    if winner in broken:
        often = "once" if faults[winner] == 1 else f"{faults[winner]} times"
        return Verdict.INCONCLUSIVE, f"{winner} failed {often}, and what fails is never faster"
    return said, f"the whole interval is {'above' if said is Verdict.FASTER else 'below'} 1"
