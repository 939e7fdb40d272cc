"""A benchmark as CSV: one line for each arm, workload and concurrency."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

from attrs import astuple, fields

from velollm_core.experiment.apart import Apart, ApartResult
from velollm_core.experiment.spec import BenchmarkResult, Comparison
from velollm_core.experiment.summary import Estimate, SummaryRow, summarize


def to_csv(result: BenchmarkResult) -> str:
    """The summary of ``result``; the unit stands in a column's name, and what is not told is empty.

    A figure has three columns more: the ends of its 95 % interval (``_low``, ``_high``) and the
    number of values behind it (``_n``). Last in the row of an arm that was compared with the
    baseline stand the verdict, the ratio of speeds with its interval, and the number of pairs.
    """
    answers = {(row.changed, row.workload, row.concurrency): row for row in result.comparisons}
    return _csv(
        ("run", *_names(), *_VERDICT),
        (
            (
                result.run,
                *_cells(row),
                *_verdict(answers.get((row.arm, row.workload, row.concurrency))),
            )
            for row in summarize(result)
        ),
    )


def comparison_to_csv(result: BenchmarkResult) -> str:
    """One line a pair, in the order of time, each with the answer of its comparison."""
    return _csv(
        (*_ANSWER, "pair_block", "pair_baseline", "pair_changed"),
        (
            (*(_cell(getattr(row, name)) for name in _ANSWER), *map(_cell, pair))
            for row in result.comparisons
            for pair in [astuple(pair) for pair in row.pairs] or [("", "", "")]
        ),
    )


def apart_to_csv(answer: ApartResult) -> str:
    """One line for each workload and concurrency that two results share."""
    names = [field.name for field in fields(Apart)]
    return _csv(
        ("first", "second", *names),
        (
            (answer.first, answer.second, *(_cell(getattr(row, name)) for name in names))
            for row in answer.rows
        ),
    )


_VERDICT = ("verdict", "speed_ratio", "speed_ratio_low", "speed_ratio_high", "pairs")
_ANSWER = tuple(field.name for field in fields(Comparison) if field.name != "pairs")


def _csv(names: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(lines)
    return out.getvalue()


def _cell(value: object) -> object:
    return _plain(value) if isinstance(value, float) else value


def _names() -> Iterator[str]:
    for field in fields(SummaryRow):
        yield field.name
        if _is_figure(field.type):
            yield from (f"{field.name}_low", f"{field.name}_high", f"{field.name}_n")


def _cells(row: SummaryRow) -> Iterator[str | int | None]:
    for field in fields(SummaryRow):
        value = getattr(row, field.name)
        if not _is_figure(field.type):
            yield value
        elif value is None:
            yield from (None,) * 4
        else:
            yield from (_plain(value.value), _plain(value.low), _plain(value.high), value.n)


def _verdict(answer: Comparison | None) -> tuple[object, ...]:
    if answer is None:
        return (None,) * len(_VERDICT)
    ratio = map(_plain, (answer.speed_ratio, answer.low, answer.high))
    return (answer.verdict, *ratio, len(answer.pairs))


def _is_figure(kind: object) -> bool:
    return Estimate.__name__ in str(kind)


def _plain(value: float | None) -> str | None:
    return None if value is None else f"{round(value, 6)}"
