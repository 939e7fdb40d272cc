"""A tune in words and as tables, for whatever prints it."""

from __future__ import annotations

from collections.abc import Iterator

from velollm_core.config import Config, show
from velollm_core.experiment.notes import counted
from velollm_core.experiment.spec import Comparison
from velollm_core.report.comparisons import interval_text, pair_text, ratio_text
from velollm_core.report.tables import EMPTY, Table
from velollm_core.report.wording import by_place, engine_text, machine_text, model_text
from velollm_core.statistics import Verdict
from velollm_core.tune.spec import (
    Answer,
    Conclusion,
    Fate,
    Objective,
    StageRecord,
    Term,
    Tried,
    TuneResult,
)

TUNED = "tuned"
"""What the winner of the search is called where its settings would be too long."""

OWN = "what you have"

_HEADLINES = {
    Conclusion.FASTER: "Faster",
    Conclusion.KEEP: "Keep what you have",
    Conclusion.OPEN: "Not decided",
}
BASELINE = "baseline"
"""The stage in which nothing is at stake."""

A_NAME = "NAME"
"""Stands for a profile whose name is not known."""

_SHORTEST_S = 1.0  # of what the confirmation and other trials outside of stages took


def headline(result: TuneResult) -> str:
    """The conclusion, with what it proposes."""
    said = _HEADLINES[result.conclusion]
    return f"{said}: {result.changes}" if result.changes else said


def header(result: TuneResult) -> tuple[tuple[str, str], ...]:
    """Label and value of what was tuned, for what, and within which limits."""
    task = result.task
    needs = task.requirements
    required = [
        *([f"{needs.context_tokens} tokens a request"] if needs.context_tokens else []),
        *([f"{needs.parallel} requests at once"] if needs.parallel else []),
    ]
    workloads = [
        f"{place(entry.name, entry.concurrency)}, {counted(entry.requests, 'request')} of at most "
        f"{entry.max_tokens} tokens"
        for entry in task.workloads
    ]
    lines = (
        ("engine", engine_text(result.engine, task.mode)),
        ("model", model_text(result.model)),
        ("machine", machine_text(result.hardware)),
        *(("objective", objective_text(entry)) for entry in task.objectives),
        ("limits", ", ".join(entry.text for entry in task.constraints)),
        ("required", " and ".join(required)),
        ("workload", "; ".join(workloads)),
        ("only", ", ".join(task.only)),
        ("checked", "" if task.proposed is None else str(task.proposed)),
        ("budget", budget_text(result)),
        ("noise", noise_text(result)),
        ("run", _run(result)),
    )
    return tuple((label, text) for label, text in lines if text)


def objective_text(objective: Objective) -> str:
    """``decode: decode_tok_s in short x1``; weights where they differ."""
    weighted = len({term.weight for term in objective.terms}) > 1
    parts = [
        f"{_term(term)} (weight {term.weight:g})" if weighted else _term(term)
        for term in objective.terms
    ]
    return f"{objective.name}: {', '.join(parts)}"


def budget_text(result: TuneResult) -> str:
    """How much of the budget was spent, on how many trials."""
    failed = f", {result.failed} of them failed" if result.failed else ""
    return (
        f"{duration(result.spent_s)} of {duration(result.task.budget_s)} spent on "
        f"{counted(result.trials, 'trial')}{failed}"
    )


def noise_text(result: TuneResult) -> str:
    """How much the same thing differs from trial to trial."""
    if result.noise is None:
        return ""
    return f"{result.noise * 100:.1f} % from one trial to the next of the same settings"


def duration(seconds: float) -> str:
    """``48 s``, ``9 min 12 s``, ``1 h 03 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s" if whole % 60 else f"{whole // 60} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes % 60 else f"{minutes // 60} h"


def place(workload: str, concurrency: int) -> str:
    """``short x4``."""
    return f"{workload} x{concurrency}"


def name_of(changes: Config) -> str:
    """What a configuration is called that differs from ``current`` in ``changes``."""
    return str(changes) or OWN


def winner(result: TuneResult) -> Config:
    """What was confirmed, or would have been: the search's choice, as changes from ``current``."""
    if result.changes:
        return result.changes
    if result.task.proposed is not None:
        return result.task.proposed
    return result.stages[-1].leader if result.stages else Config()


def answer_table(result: TuneResult) -> Table | None:
    """The verdicts of the confirmation, one line for each baseline and each part of a mix."""
    rows = [
        (name, row.verdict.value, ratio_text(row), f"{row.confidence * 100:.1f}", _pairs(row))
        for answer in result.answers
        for name, row in _named(answer)
    ]
    if not rows:
        return None
    margin = result.task.margin * 100
    objective = result.task.objectives[0].name
    return Table(
        title=f"The proof, by {objective} (within {margin:g} % is no difference)",
        headings=("against", "verdict", "speed ratio", "confidence\n%", "pairs"),
        rows=tuple(rows),
        labels=1,
        units=(2, 2),
    )


def answer_lines(result: TuneResult) -> tuple[tuple[str, str], ...]:
    """What stands below the verdicts: why, and the pairs in the order of time."""
    several = len(result.answers) > 1
    why = by_place(
        (
            (f"against {answer.baseline}", f"{answer.overall.verdict}: {answer.overall.why}")
            for answer in result.answers
        ),
        len(result.answers),
    )
    pairs = [
        (f"pairs, {answer.baseline}" if several else "pairs", pair_text(answer.overall))
        for answer in result.answers
        if answer.overall.pairs
    ]
    return (*(("why", text) for text in why), *pairs)


def settings_table(result: TuneResult) -> Table | None:
    """Every setting that is not the same in the engine's defaults, now, and as tuned."""
    proposed = bool(result.changes)
    tuned = result.current | result.changes
    names = sorted({*result.defaults, *tuned})
    columns = [result.defaults, result.current, *([tuned] if proposed else [])]
    rows = [
        (name, *(_value(config, name) for config in columns))
        for name in names
        if len({_value(config, name) for config in columns}) > 1
    ]
    if not rows:
        return None
    alike = len(names) - len(rows)
    others = f"{counted(alike, 'other')} {'is' if alike == 1 else 'are'} the same"
    return Table(
        title=f"Settings that differ ({others})",
        headings=("setting", "engine's\ndefault", "now", *([TUNED] if proposed else [])),
        rows=tuple(rows),
        labels=1,
        units=(len(columns),),
    )


def stage_title(stage: StageRecord) -> str:
    """``screen: one setting changed at a time``."""
    return f"{stage.name}: {stage.summary}"


def stage_text(stage: StageRecord) -> str:
    """What the stage measured against, how long it took, and what led after it."""
    return (
        f"{counted(stage.blocks, 'block')} in {duration(stage.spent_s)}, against "
        f"{name_of(stage.incumbent)}; then in the lead: {name_of(stage.leader)}"
    )


def tried_lines(stage: StageRecord) -> tuple[tuple[str, str], ...]:
    """Each candidate and what became of it, in a line; those that were not tried, together."""
    return (
        *(
            (candidate(entry, stage), f"{tried_text(entry, stage)}: {entry.why}")
            for entry in tried(stage)
        ),
        *untried_lines(stage),
    )


def tried(stage: StageRecord) -> tuple[Tried, ...]:
    """The candidates that were measured, or could not be."""
    return tuple(entry for entry in stage.tried if entry.fate is not Fate.UNTRIED)


def untried_lines(stage: StageRecord) -> tuple[tuple[str, str], ...]:
    """Candidates that were not tried, those with one reason together."""
    reasons: dict[str, list[str]] = {}
    for entry in stage.tried:
        if entry.fate is Fate.UNTRIED:
            reasons.setdefault(entry.why, []).append(candidate(entry, stage))
    return tuple(
        (Fate.UNTRIED.value, f"{why}: {'; '.join(names)}") for why, names in reasons.items()
    )


def tried_text(entry: Tried, stage: StageRecord) -> str:
    """``beaten, 0.943 [0.921, 0.966] over 3 blocks``."""
    ratio = interval_text(entry.speed_ratio, entry.low, entry.high)
    measured = "" if ratio == EMPTY else f"{ratio} over {counted(entry.blocks, 'block')}"
    if measured and stage.name == BASELINE:
        return measured
    how = ""
    if entry.fate is Fate.FAILED and entry.failure:
        how = f" ({entry.failure.replace('_', ' ')})"
    return f"{entry.fate}{how}{', ' if measured else ''}{measured}"


def candidate(entry: Tried, stage: StageRecord) -> str:
    """In what a candidate differs from what it was measured beside."""
    changed = [
        f"{name}={show(value)}"
        for name, value in entry.changes.items()
        if stage.incumbent.get(name) != value
    ]
    undone = [f"{name} as before" for name in stage.incumbent if name not in entry.changes]
    return ", ".join([*changed, *undone]) or "the same"


def front_table(result: TuneResult) -> Table | None:
    """The configurations that no other beats in every objective, where there are several."""
    objectives = result.task.objectives
    if len(objectives) < 2 or not result.front:
        return None
    chosen = winner(result)
    names = [
        f"{label}  {name_of(point.changes)}{' (chosen)' if point.changes == chosen else ''}"
        for label, point in zip(front_labels(result), result.front, strict=True)
    ]
    return Table(
        title="Worth having: no other was faster in every objective; speed ratios against "
        f"{beside(result)}, by what the search measured",
        headings=("configuration", *(entry.name for entry in objectives), "blocks"),
        rows=tuple(
            (name, *(f"{ratio:.3f}" for ratio in point.speed_ratios), str(point.blocks))
            for name, point in zip(names, result.front, strict=True)
        ),
        labels=1,
        units=(1,) * (len(objectives) + 1),
    )


def beside(result: TuneResult) -> str:
    """What took part in every block, by name: what you have, or what was required beyond that."""
    return name_of(result.stages[0].incumbent if result.stages else Config())


def front_labels(result: TuneResult) -> tuple[str, ...]:
    """A short name for each point of the front: A, B, ... and after Z numbers."""
    return tuple(
        chr(ord("A") + number) if number < 26 else str(number + 1)
        for number in range(len(result.front))
    )


def untouched_lines(result: TuneResult) -> tuple[str, ...]:
    """Settings that were left alone, those with one reason together."""
    reasons: dict[str, list[str]] = {}
    for entry in result.untouched:
        reasons.setdefault(entry.reason, []).append(entry.name)
    return tuple(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())


def spent(result: TuneResult) -> tuple[tuple[str, float], ...]:
    """Seconds by stage, and of what is in no stage: as a rule the confirmation."""
    rows = [(stage.name, stage.spent_s) for stage in result.stages]
    rest = result.spent_s - sum(seconds for _, seconds in rows)
    # Of a run that was stopped, the stage in which it was is recorded, but for the confirmation.
    confirming = bool(result.answers) or (bool(result.stages) and not result.complete)
    name = "confirmation" if confirming else "in no stage"
    return (*rows, *([(name, rest)] if rest >= _SHORTEST_S else []))


def spent_table(result: TuneResult) -> Table | None:
    """Where the time went."""
    rows = spent(result)
    if not rows:
        return None
    return Table(
        title="Where the time went",
        headings=("stage", "time", "% of the\nbudget"),
        rows=tuple(
            (name, duration(seconds), f"{seconds / result.task.budget_s * 100:.0f}")
            for name, seconds in rows
        ),
        labels=1,
        units=(2,),
    )


def next_lines(result: TuneResult, profile: str) -> tuple[str, ...]:
    """What may be done now, ``profile`` being what the tune wrote."""
    return tuple(_next(result, profile))


def _next(result: TuneResult, profile: str) -> Iterator[str]:
    if not result.complete:
        yield f"Go on with the same options and --resume {result.run}."
    elif result.conclusion is Conclusion.FASTER:
        if any(answer.overall.verdict is Verdict.SLOWER for answer in result.answers):
            yield "The engine's defaults are faster still: take out what you have set, then tune."
        yield f"Start a server with it: velollm run --profile {profile}"
        yield f"Make it your own setting: velollm optimize --profile {profile} --apply"
        yield f"Measure it again after an upgrade: velollm tune --check {profile}"
    elif result.conclusion is Conclusion.KEEP:
        untried = any(
            entry.fate is Fate.UNTRIED for stage in result.stages for entry in stage.tried
        )
        more = " A longer --budget tries more." if untried else ""
        yield f"Nothing has to be done.{more}"
    for answer in result.answers:
        row = answer.overall
        if row.verdict is Verdict.INCONCLUSIVE and row.pairs_to_decide is not None:
            yield (
                f"About {row.pairs_to_decide} pairs would decide against {answer.baseline}: "
                f"--launches {row.pairs_to_decide}, with a budget that holds them."
            )


def _named(answer: Answer) -> Iterator[tuple[str, Comparison]]:
    yield answer.baseline, answer.overall
    if len(answer.terms) > 1:
        for row in answer.terms:
            yield f"  {row.metric} in {place(row.workload, row.concurrency)}", row


def _term(term: Term) -> str:
    return f"{term.metric} in {place(term.workload, term.concurrency)}"


def _pairs(row: Comparison) -> str:
    return f"{len(row.pairs)} ({row.dropped} dropped)" if row.dropped else f"{len(row.pairs)}"


def _value(config: Config, name: str) -> str:
    return show(config[name]) if name in config else EMPTY


def _run(result: TuneResult) -> str:
    whole = "" if result.complete else ", cut short"
    return f"{result.run}: seed {result.task.seed}, VeloLLM {result.velollm_version}{whole}"
