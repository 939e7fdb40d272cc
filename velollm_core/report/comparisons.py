"""Comparisons in words and as tables, for whatever prints them."""

from __future__ import annotations

from collections.abc import Sequence

from velollm_core.experiment.apart import Apart, ApartResult
from velollm_core.experiment.measures import METRICS
from velollm_core.experiment.spec import Comparison, Pair
from velollm_core.report.tables import EMPTY, Table
from velollm_core.report.wording import by_place
from velollm_core.statistics import Verdict

_SHOWN_PAIRS = 20
_LEAST_DECIMALS = 3
_MOST_DECIMALS = 6


def ratio_text(row: Comparison | Apart) -> str:
    """``1.052 [1.021, 1.084]``, above 1 where the second one is the faster.

    It has as many decimals, up to six, as show on which side of 1 and of the margin's edges the
    interval ends: what is read off it is what the answer was read from.
    """
    edges = (1.0,) if isinstance(row, Apart) else (1.0, 1 / (1 + row.margin), 1 + row.margin)
    return interval_text(row.speed_ratio, row.low, row.high, edges)


def interval_text(
    ratio: float | None, low: float | None, high: float | None, edges: Sequence[float] = (1.0,)
) -> str:
    """As :func:`ratio_text`, for an interval that is read by where it lies about ``edges``.

    A ratio without an interval stands alone.
    """
    if ratio is None:
        return EMPTY
    if low is None or high is None:
        return f"{ratio:.{_LEAST_DECIMALS}f}"
    ends = [(end, edge) for end in (low, high) for edge in edges]
    decimals = next(
        count
        for count in range(_LEAST_DECIMALS, _MOST_DECIMALS + 1)
        if not any(
            _alike(end, edge, count) and not _alike(end, edge, _MOST_DECIMALS) for end, edge in ends
        )
    )
    return f"{ratio:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


def _alike(first: float, second: float, decimals: int) -> bool:
    return f"{first:.{decimals}f}" == f"{second:.{decimals}f}"


def comparison_table(rows: Sequence[Comparison]) -> Table:
    """One line a comparison: the verdict, the ratio, and what it rests on."""
    several = len({row.changed for row in rows}) > 1
    return Table(
        title=_title(rows, several=several),
        headings=(
            *(("arm",) if several else ()),
            "workload",
            "clients",
            "verdict",
            "speed ratio",
            "confidence\n%",
            "pairs",
            "same\nanswers %",
        ),
        rows=tuple(
            (
                *((row.changed,) if several else ()),
                row.workload,
                str(row.concurrency),
                row.verdict.value,
                ratio_text(row),
                f"{row.confidence * 100:.1f}",
                f"{len(row.pairs)} ({row.dropped} dropped)" if row.dropped else f"{len(row.pairs)}",
                EMPTY if row.agreement is None else f"{row.agreement * 100:.0f}",
            )
            for row in rows
        ),
        labels=3 if several else 2,
        units=(2, 2, 1),
    )


def apart_table(rows: Sequence[Apart]) -> Table:
    """One line for each workload and concurrency that two results share."""
    return Table(
        title=f"Second against first, by {_metric(rows[0].metric)}",
        headings=("workload", "clients", "answer", "speed ratio", "confidence\n%", "launches"),
        rows=tuple(
            (
                row.workload,
                str(row.concurrency),
                row.answer,
                ratio_text(row),
                f"{row.confidence * 100:.1f}",
                f"{row.first_n} and {row.second_n}",
            )
            for row in rows
        ),
        labels=2,
        units=(2, 2),
    )


def comparison_lines(rows: Sequence[Comparison]) -> tuple[tuple[str, str], ...]:
    """Label and text of what stands below the table: why, the pairs in order, what would help.

    What several comparisons share is said once.
    """
    several_arms = len({row.changed for row in rows}) > 1
    places = [
        f"{f'{row.changed} ' if several_arms else ''}{row.workload} x{row.concurrency}"
        for row in rows
    ]
    located = list(zip(places, rows, strict=True))
    why = by_place(((place, f"{row.verdict}: {row.why}") for place, row in located), len(rows))
    pairs = [
        (f"pairs {place}" if len(rows) > 1 else "pairs", pair_text(row))
        for place, row in located
        if row.pairs
    ]
    following = by_place(
        (
            (place, f"about {row.pairs_to_decide} pairs would decide")
            for place, row in located
            if row.verdict is Verdict.INCONCLUSIVE and row.pairs_to_decide is not None
        ),
        len(rows),
    )
    return (
        *(("why", text) for text in why),
        *pairs,
        *(("next", text) for text in following),
    )


def apart_lines(answer: ApartResult) -> tuple[tuple[str, str], ...]:
    """Label and text of what stands below the table of two results recorded apart."""
    why = by_place(
        ((f"{row.workload} x{row.concurrency}", row.why) for row in answer.rows), len(answer.rows)
    )
    return (
        *(("why", text) for text in why),
        *(("differs", text) for text in answer.differences),
        ("next", answer.decider),
    )


def pair_text(row: Comparison) -> str:
    """The ratio of each pair in the order of time, in which drift would show."""
    ratios = [f"{pair_ratio(row, pair):.3f}" for pair in row.pairs]
    more = f" and {len(ratios) - _SHOWN_PAIRS} more" if len(ratios) > _SHOWN_PAIRS else ""
    return f"{' '.join(ratios[:_SHOWN_PAIRS])}{more}"


def pair_ratio(row: Comparison, pair: Pair) -> float:
    """How many times as fast ``changed`` was in this block."""
    if row.higher_is_better:
        return pair.changed / pair.baseline
    return pair.baseline / pair.changed


def _title(rows: Sequence[Comparison], *, several: bool) -> str:
    first = rows[0]
    subject = "Each arm" if several else first.changed[:1].upper() + first.changed[1:]
    return (
        f"{subject} against {first.baseline}, by {_metric(first.metric)}; "
        f"within {first.margin * 100:g} % is no difference"
    )


def _metric(name: str) -> str:
    return f"{name} ({METRICS[name].summary})"
