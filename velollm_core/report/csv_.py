"""A benchmark as CSV: one line for each arm, workload and concurrency."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from attrs import fields

from velollm_core.experiment.spec import BenchmarkResult
from velollm_core.experiment.summary import Estimate, SummaryRow, summarize


def to_csv(result: BenchmarkResult) -> str:
    """The summary of ``result``; the unit stands in a column's name, and what is not told is empty.

    A figure has three columns more: the ends of its 95 % interval (``_low``, ``_high``) and the
    number of values behind it (``_n``).
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run", *_names()])
    writer.writerows([result.run, *_cells(row)] for row in summarize(result))
    return out.getvalue()


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


def _is_figure(kind: object) -> bool:
    return Estimate.__name__ in str(kind)


def _plain(value: float | None) -> str | None:
    return None if value is None else f"{round(value, 6)}"
