"""The proof: the winner against ``current`` and ``defaults``, on fresh servers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve, frozen

from velollm_core.experiment.comparison import compare
from velollm_core.experiment.records import arm_record, workload_record
from velollm_core.experiment.spec import (
    Arm,
    ArmRecord,
    Because,
    Comparison,
    Pair,
    Question,
    Trial,
    WorkloadRecord,
)
from velollm_core.statistics import (
    LEAST_PAIRS,
    Verdict,
    family_confidence,
    paired_ratio,
    pairs_to_decide,
    verdict,
)
from velollm_core.tune.constraints import broken
from velollm_core.tune.lab import CURRENT, DEFAULTS, TUNED, arm_name, fault_of
from velollm_core.tune.objective import speed
from velollm_core.tune.spec import Answer, Conclusion, Constraint, Objective, Task, Term

STAGE = "confirm"

_OPEN = frozenset(set(Because) - {Because.INTERVAL})


def answers(
    task: Task,
    objective: Objective,
    trials: Sequence[Trial],
    planned: int,
    arms: Sequence[Arm],
) -> tuple[Answer, ...]:
    """How ``trials`` of the confirmation judge the winner, against ``current`` first.

    All overall verdicts together have the task's confidence.

    Args:
        task: what was asked for.
        objective: what counts.
        trials: those of the confirmation.
        planned: the number of pairs that was fixed before it began.
        arms: its arms, named ``confirm.tuned``, ``confirm.current`` and, where it took part,
            ``confirm.defaults``.
    """
    short = {arm_name(STAGE, name): name for name in (TUNED, CURRENT, DEFAULTS)}
    records = {short[arm.name]: evolve(arm_record(arm), name=short[arm.name]) for arm in arms}
    renamed = [evolve(trial, arm=short[trial.arm]) for trial in trials if trial.arm in short]
    baselines = [name for name in (CURRENT, DEFAULTS) if name in records]
    return tuple(
        _answer(
            _Duel(
                task=task,
                objective=objective,
                trials=[trial for trial in renamed if trial.arm in {baseline, TUNED}],
                planned=planned,
                arms=(records[baseline], records[TUNED]),
                confidence=family_confidence(task.confidence, len(baselines)),
            )
        )
        for baseline in baselines
    )


@frozen(kw_only=True)
class _Duel:
    """The winner and one baseline, that first, and what is to be decided between them."""

    task: Task
    objective: Objective
    trials: Sequence[Trial]
    planned: int
    arms: tuple[ArmRecord, ArmRecord]
    confidence: float


def _answer(duel: _Duel) -> Answer:
    terms = tuple(_term(duel, term) for term in duel.objective.terms)
    return Answer(
        baseline="current" if duel.arms[0].name == CURRENT else "defaults",
        overall=terms[0] if len(terms) == 1 else _overall(duel, terms),
        terms=terms,
    )


def _term(duel: _Duel, term: Term) -> Comparison:
    question = Question(
        baseline=duel.arms[0].name,
        metric=term.metric,
        margin=duel.task.margin,
        confidence=family_confidence(duel.confidence, len(duel.objective.terms)),
    )
    workload = _workload(duel.task, term)
    (found,) = compare(question, duel.arms, (workload,), duel.trials, duel.planned)
    return found


def _workload(task: Task, term: Term) -> WorkloadRecord:
    return next(
        workload_record(phase)
        for phase in task.phases
        if (phase.workload.name, phase.concurrency) == (term.workload, term.concurrency)
    )


def _overall(duel: _Duel, terms: Sequence[Comparison]) -> Comparison:
    """The comparison of the objective itself, where it has several terms.

    What leaves one of its terms open for another reason than its interval leaves it open, too.
    """
    task, trials, confidence, first = duel.task, duel.trials, duel.confidence, terms[0]
    values: dict[str, Mapping[int, float]] = {
        name: {
            trial.block: value
            for trial in trials
            if trial.arm == name and (value := speed(duel.objective, trial)) is not None
        }
        for name in (first.baseline, first.changed)
    }
    before, after = values[first.baseline], values[first.changed]
    pairs = tuple(
        Pair(block=block, baseline=before[block], changed=after[block])
        for block in sorted(before.keys() & after.keys())
    )
    ratio = paired_ratio(
        [pair.baseline for pair in pairs], [pair.changed for pair in pairs], confidence
    )
    said, because, why = verdict(ratio, task.margin), Because.INTERVAL, ""
    fault = next((term for term in terms if term.because in _OPEN), None)
    faults = [name for name in _praised(first, said) if _failed(trials, name)]
    if fault is not None:
        said, because, why = Verdict.INCONCLUSIVE, fault.because, fault.why
    elif ratio is None or ratio.n < 1:
        said, because, why = Verdict.INCONCLUSIVE, Because.NO_VALUES, "nothing was measured"
    elif ratio.n < LEAST_PAIRS:
        said, because = Verdict.INCONCLUSIVE, Because.TOO_FEW_PAIRS
        why = f"{ratio.n} pairs tell all of its parts, where at least {LEAST_PAIRS} are needed"
    elif faults:
        said, because = Verdict.INCONCLUSIVE, Because.FAULTS
        why = f"{faults[0]} failed: {_failed(trials, faults[0])}"
    open_ = said is Verdict.INCONCLUSIVE and because is Because.INTERVAL
    return evolve(
        first,
        workload="+".join(dict.fromkeys(term.workload for term in terms)),
        concurrency=max(term.concurrency for term in terms),
        metric=duel.objective.name,
        higher_is_better=True,
        confidence=confidence,
        verdict=said,
        because=because,
        why=why or _interval_words(said, task.margin),
        speed_ratio=ratio.value if ratio else None,
        low=ratio.low if ratio else None,
        high=ratio.high if ratio else None,
        pairs=pairs,
        dropped=len({trial.block for trial in trials}) - len(pairs),
        pairs_to_decide=pairs_to_decide(ratio, task.margin, confidence)
        if ratio and open_
        else None,
        agreement=None,
    )


def _praised(comparison: Comparison, said: Verdict) -> tuple[str, ...]:
    """Whoever fails is not the faster one, nor as good as the other."""
    return {
        Verdict.FASTER: (comparison.changed,),
        Verdict.SLOWER: (comparison.baseline,),
        Verdict.NO_DIFFERENCE: (comparison.changed, comparison.baseline),
        Verdict.INCONCLUSIVE: (),
    }[said]


def _failed(trials: Iterable[Trial], name: str) -> str:
    faults = (fault_of(trial) for trial in trials if trial.arm == name)
    return next((fault.message for fault in faults if fault is not None), "")


def _interval_words(said: Verdict, margin: float) -> str:
    percent = f"{margin * 100:g} %"
    return {
        Verdict.FASTER: "the whole interval is above 1",
        Verdict.SLOWER: "the whole interval is below 1",
        Verdict.NO_DIFFERENCE: f"the whole interval is within {percent} of 1",
        Verdict.INCONCLUSIVE: f"the interval holds both no change and more than {percent}",
    }[said]


def conclude(
    task: Task, changes: object, found: Sequence[Answer], trials: Sequence[Trial]
) -> tuple[Conclusion, str]:
    """What the confirmation comes to, and why, in a sentence.

    Args:
        task: what was asked for.
        changes: the winner's.
        found: the answers, the one against ``current`` first.
        trials: those of the confirmation.
    """
    overall = found[0].overall
    limits = broken_limits(task.constraints, trials)
    if overall.because in _OPEN:
        return Conclusion.OPEN, f"{changes} could not be judged: {overall.why}."
    figures = ratio_words(overall)
    if limits:
        return Conclusion.KEEP, f"{changes} does not keep {'; '.join(limits)}."
    if overall.verdict is not Verdict.FASTER:
        return (
            Conclusion.KEEP,
            f"{changes} led the search, but is not proven faster than what you have: {figures}.",
        )
    why = f"{changes} runs at {figures} of the speed of what you have."
    slower = [a for a in found[1:] if a.overall.verdict is Verdict.SLOWER]
    if slower:
        why += f" The engine's defaults are faster still: {ratio_words(slower[0].overall)}."
    return Conclusion.FASTER, why


def broken_limits(constraints: Sequence[Constraint], trials: Iterable[Trial]) -> tuple[str, ...]:
    """A sentence for each limit that the winner did not keep in the confirmation.

    Args:
        constraints: the limits.
        trials: those of the confirmation, and maybe others.
    """
    winners = arm_name(STAGE, TUNED)
    return broken(constraints, [trial for trial in trials if trial.arm == winners])


def ratio_words(comparison: Comparison) -> str:
    """``1.18 (1.12 to 1.24, 12 pairs)``."""
    if comparison.speed_ratio is None or comparison.low is None or comparison.high is None:
        return comparison.why
    return (
        f"{comparison.speed_ratio:.3f} ({comparison.low:.3f} to {comparison.high:.3f}, "
        f"{len(comparison.pairs)} pairs)"
    )
