"""What a search says of its stages: what was tried, what became of it, and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from velollm_core.config import Config
from velollm_core.tune.bench import Stage
from velollm_core.tune.evidence import Evidence
from velollm_core.tune.spec import Fate, Point, StageRecord, Tried
from velollm_core.tune.standing import Standing


def record(stage: Stage, evidence: Evidence, lead: Config, summary: str) -> StageRecord:
    """What a stage came to, by all that is known at the end of the search, at which ``lead``
    leads.
    """
    return StageRecord(
        name=stage.name,
        summary=summary,
        incumbent=evidence.anchor,
        leader=stage.leader,
        tried=(
            *(_tried(whole, evidence, lead) for whole in stage.wholes),
            *(
                Tried(changes=whole, fate=Fate.UNTRIED, blocks=0, why="there was no time for it")
                for whole in stage.untried
                if not evidence.of(whole) and whole not in evidence.out
            ),
        ),
        blocks=stage.blocks,
        spent_s=stage.spent_s,
    )


def _tried(whole: Config, evidence: Evidence, lead: Config) -> Tried:
    blocks = len(evidence.of(whole))
    against = evidence.against(whole, evidence.anchor) if blocks else None
    out = evidence.out.get(whole)
    fate, why = (out.fate, out.why) if out else _fate(whole, evidence, lead)
    low, value, high = ratios(against) if against else (None, None, None)
    return Tried(
        changes=whole,
        fate=fate,
        blocks=blocks,
        why=why,
        speed_ratio=value,
        low=low,
        high=high,
        failure=out.failure if out else None,
    )


def _fate(whole: Config, evidence: Evidence, lead: Config) -> tuple[Fate, str]:
    words = str(lead) or "what you have"
    if whole == lead:
        return Fate.LEADS, "the fastest, or simpler and as good as that"
    if not evidence.of(whole):
        return Fate.UNDECIDED, "no trial of it counts: it was stopped, or the machine had fallen"
    if evidence.against(whole, lead).high < 0:
        return Fate.BEATEN, f"slower than {words}"
    return Fate.UNDECIDED, f"not told apart from {words}"


def ratios(against: Standing) -> tuple[float, float, float]:
    """The lower bound of the ratio of two speeds, the ratio, and the upper bound."""
    return math.exp(against.low), math.exp(against.value), math.exp(against.high)


def nothing_faster(evidence: Evidence, stages: Iterable[Stage]) -> str:
    """Why what there is stays, in a sentence."""
    count = len({whole for stage in stages for whole in stage.wholes} - {evidence.anchor})
    others = [whole for whole in evidence.ranked() if whole != evidence.anchor]
    if not others:
        fates = Counter(out.fate for whole, out in evidence.out.items() if whole != evidence.anchor)
        told = ", ".join(f"{number} {fate}" for fate, number in fates.items())
        return f"Of {count} candidates none can be chosen: {told or 'no trial of them counts'}."
    low, value, high = ratios(evidence.against(others[0], evidence.anchor))
    there = str(evidence.anchor) or "what you have"
    enough = "" if value < 1 else " by enough to be told apart"
    return (
        f"Of {count} candidates none was faster than {there}{enough}; the closest, "
        f"{others[0]}, ran at {value:.3f} of its speed ({low:.3f} to {high:.3f})."
    )


def front(evidence: Evidence) -> tuple[Point, ...]:
    """What no other equals or beats in every objective, each by a model of its own, the fastest
    first.
    """
    count = len(evidence.task.objectives)
    if any(set(logs) == {None} for logs in zip(*(e.logs for e in evidence.entries), strict=True)):
        return ()
    models = [evidence.fitted(number) for number in range(count)]
    points = [
        Point(
            changes=whole,
            speed_ratios=tuple(
                math.exp(evidence.against(whole, evidence.anchor, model).value) for model in models
            ),
            blocks=len(evidence.of(whole)),
        )
        for whole in evidence.choosable()
        if all(log is not None for entry in evidence.of(whole) for log in entry.logs)
    ]
    best = [one for one in points if not any(_dominates(other, one) for other in points)]
    return tuple(sorted(best, key=lambda point: -point.speed_ratios[0]))


def _dominates(one: Point, other: Point) -> bool:
    pairs = list(zip(one.speed_ratios, other.speed_ratios, strict=True))
    return one.speed_ratios != other.speed_ratios and all(a >= b for a, b in pairs)
