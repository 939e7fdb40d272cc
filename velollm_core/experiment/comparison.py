"""Arms of one run against its baseline, block by block: a ratio, its interval, and a word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from velollm_core.errors import DocumentError, FailureKind
from velollm_core.experiment.measures import METRICS, Metric, failed, measured, value_of
from velollm_core.experiment.notes import Note, counted, first_line, notes
from velollm_core.experiment.spec import (
    ArmRecord,
    Because,
    BenchmarkResult,
    Comparison,
    Pair,
    PhaseRecord,
    Question,
    Trial,
    WorkloadRecord,
)
from velollm_core.experiment.summary import summarize
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
        DocumentError: the question cannot be answered by such a result.
    """
    question = result.question
    if question is None:
        return ()
    fault = _fault(result, question)
    if fault:
        raise DocumentError(f"run {result.run}: {fault}.")
    try:
        return compare(question, result.arms, result.workloads, result.trials, result.blocks)
    except ArithmeticError as error:
        raise DocumentError(f"run {result.run} holds what no server measures: {error}.") from error


def _fault(result: BenchmarkResult, question: Question) -> str:
    """What is wrong with a question, in words; nothing where it is well."""
    names = [arm.name for arm in result.arms]
    for key, value, known in (
        ("metric", question.metric, [*METRICS]),
        ("baseline", question.baseline, names),
    ):
        if value not in known:
            return f"question.{key} is {value!r}; it can be {', '.join(known) or 'nothing'}"
    for key, part in (("margin", question.margin), ("confidence", question.confidence)):
        if not 0 < part < 1:
            return f"question.{key} is {part}; it lies between 0 and 1"
    if len(names) < 2 or not result.workloads:
        return "a question needs a second arm and a workload"
    cells = [(workload.name, workload.concurrency) for workload in result.workloads]
    places = [(trial.arm, trial.block) for trial in result.trials]
    for what, entries in (("arm", names), ("workload", cells), ("trial", places)):
        if len(set(entries)) < len(entries):
            return f"one {what} stands there twice"
    return ""


@frozen(kw_only=True)
class Answer:
    """What a run answers, without its trials (``velollm.comparison/1``)."""

    run: str
    complete: bool
    blocks: int
    question: Question | None
    comparisons: tuple[Comparison, ...]
    notes: tuple[Note, ...]


def answer(result: BenchmarkResult) -> Answer:
    """The answer of ``result``, for programs."""
    return Answer(
        run=result.run,
        complete=result.complete,
        blocks=result.blocks,
        question=result.question,
        comparisons=result.comparisons,
        notes=notes(result, summarize(result)),
    )


def compare(
    question: Question,
    arms: Sequence[ArmRecord],
    workloads: Sequence[WorkloadRecord],
    trials: Sequence[Trial],
    planned: int,
) -> tuple[Comparison, ...]:
    """One answer for each arm but the baseline and each workload and concurrency.

    All intervals together have the question's confidence. Fewer blocks than ``planned`` leave every
    answer open: who may stop when the interval pleases finds a difference too often.
    """
    baseline = next(arm for arm in arms if arm.name == question.baseline)
    others = [arm for arm in arms if arm.name != question.baseline]
    confidence = family_confidence(question.confidence, len(others) * len(workloads))
    return tuple(
        _compare(
            _Duel(
                question=question,
                workload=workload,
                arms=(baseline, other),
                trials=tuple(
                    {trial.block: trial for trial in trials if trial.arm == arm.name}
                    for arm in (baseline, other)
                ),
                planned=planned,
            ),
            confidence,
        )
        for other in others
        for workload in workloads
    )


def slower_than(comparison: Comparison, limit: float) -> bool | None:
    """Whether ``changed`` is slower by more than the part ``limit``; ``None`` where that is
    open.
    """
    if comparison.low is None or comparison.high is None:
        return None
    if comparison.because is not Because.INTERVAL:
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


@frozen(kw_only=True)
class _Duel:
    """Two arms in one workload: the baseline first, each with its trials by block."""

    question: Question
    workload: WorkloadRecord
    arms: tuple[ArmRecord, ArmRecord]
    trials: tuple[Mapping[int, Trial], ...]
    planned: int


def _compare(duel: _Duel, confidence: float) -> Comparison:
    question, metric = duel.question, METRICS[duel.question.metric]
    blocks = sorted({block for side in duel.trials for block in side})
    pairs = []
    same = asked = 0
    for block in blocks:
        first, second = (_phase(side.get(block), duel.workload) for side in duel.trials)
        if first is None or second is None:
            continue
        before, after = value_of(metric, first), value_of(metric, second)
        if before is not None and after is not None:
            pairs.append(Pair(block=block, baseline=before, changed=after))
            alike, both = _agreement(first, second)
            same, asked = same + alike, asked + both
    ratio = speed_ratio(metric, pairs, confidence)
    said, because, why = _judge(duel, ratio, len(pairs))
    more_would_help = said is Verdict.INCONCLUSIVE and because in {
        Because.INTERVAL,
        Because.TOO_FEW_PAIRS,
    }
    return Comparison(
        baseline=duel.arms[0].name,
        changed=duel.arms[1].name,
        workload=duel.workload.name,
        concurrency=duel.workload.concurrency,
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        margin=question.margin,
        confidence=confidence,
        verdict=said,
        because=because,
        why=why,
        speed_ratio=ratio.value if ratio else None,
        low=ratio.low if ratio else None,
        high=ratio.high if ratio else None,
        pairs=tuple(pairs),
        dropped=len(blocks) - len(pairs),
        pairs_to_decide=pairs_to_decide(ratio, question.margin, confidence)
        if ratio and more_would_help
        else None,
        agreement=same / asked if asked else None,
    )


def _judge(duel: _Duel, ratio: Ratio | None, pairs: int) -> tuple[Verdict, Because, str]:
    """The verdict and its reason."""
    open_ = Verdict.INCONCLUSIVE
    ignored = _ignored(duel)
    if ignored:
        why = f"the engine ignored {', '.join(ignored)}, so both arms may have run alike"
        return open_, Because.IGNORED, why
    done = sum(
        all(_ended(side.get(block)) for side in duel.trials) for block in range(duel.planned)
    )
    if done < duel.planned:
        return (
            open_,
            Because.CUT_SHORT,
            f"the run was cut short after {done} of {duel.planned} pairs",
        )
    faults = [_faults(side.values(), duel.workload) for side in duel.trials]
    if pairs < LEAST_PAIRS or ratio is None:
        broken = [index for index, found in enumerate(faults) if found]
        if broken:
            return open_, Because.FAULTS, _fault_words(duel, faults, broken[-1])
        if pairs == 0:
            why = f"the server does not tell what {duel.question.metric} needs"
            return open_, Because.NO_VALUES, why
        why = f"{counted(pairs, 'pair')}, where at least {LEAST_PAIRS} are needed"
        return open_, Because.TOO_FEW_PAIRS, why
    said = verdict(ratio, duel.question.margin)
    percent = f"{duel.question.margin * 100:g} %"
    if said is open_:
        return said, Because.INTERVAL, f"the interval holds both no change and more than {percent}"
    # Whoever fails is not the faster one, nor as good as the other.
    praised = {Verdict.FASTER: (1,), Verdict.SLOWER: (0,), Verdict.NO_DIFFERENCE: (1, 0)}[said]
    for index in praised:
        if faults[index]:
            return open_, Because.FAULTS, _fault_words(duel, faults, index)
    if said is Verdict.NO_DIFFERENCE:
        return said, Because.INTERVAL, f"the whole interval is within {percent} of 1"
    side = "above" if said is Verdict.FASTER else "below"
    return said, Because.INTERVAL, f"the whole interval is {side} 1"


def _ignored(duel: _Duel) -> list[str]:
    """Knobs in which the arms differ and which the engine did not take."""
    first, second = (arm.config for arm in duel.arms)
    moved = {name for name in {*first, *second} if first.get(name) != second.get(name)}
    refused = {
        fault.knob for side in duel.trials for trial in side.values() for fault in trial.mismatches
    }
    return sorted(moved & refused)


def _ended(trial: Trial | None) -> bool:
    """Whether ``trial`` ended by itself, well or badly."""
    if trial is None:
        return False
    return trial.failure is None or trial.failure.kind is not FailureKind.INTERRUPTED


def _phase(trial: Trial | None, workload: WorkloadRecord) -> PhaseRecord | None:
    """What ``trial`` measured of ``workload``; nothing if the trial failed, however far it came."""
    if trial is None or trial.failure is not None:
        return None
    wanted = (workload.name, workload.concurrency)
    return next(
        (phase for phase in trial.phases if (phase.workload, phase.concurrency) == wanted), None
    )


def _faults(trials: Iterable[Trial], workload: WorkloadRecord) -> list[str]:
    """What went wrong in each trial that failed, or in which a request of ``workload`` failed."""
    found = []
    for trial in trials:
        if trial.failure is not None:
            found.append(trial.failure.message)
            continue
        phase = _phase(trial, workload)
        sent = [sample for sample in phase.samples if not sample.warmup] if phase else []
        found += [sample.error or "" for sample in sent if failed(sample)][:1]
    return found


def _fault_words(duel: _Duel, faults: Sequence[Sequence[str]], index: int) -> str:
    message = first_line(faults[index][0])
    return f"{duel.arms[index].name} failed in {len(faults[index])} of {duel.planned}: {message}"


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
