"""A benchmark for a terminal of any width. Nothing in it depends on colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.experiment.apart import ApartResult
from velollm_core.experiment.notes import notes
from velollm_core.experiment.spec import BenchmarkResult, Comparison
from velollm_core.experiment.summary import SummaryRow, summarize
from velollm_core.report import wording
from velollm_core.report.comparisons import (
    apart_lines,
    apart_table,
    comparison_lines,
    comparison_table,
)
from velollm_core.report.drawing import drawn, labelled, plain
from velollm_core.report.tables import tables
from velollm_core.report.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType


def to_terminal(result: BenchmarkResult) -> RenderableType:
    """Header, tables and notes of ``result``; a table too wide for the terminal becomes two."""
    return _Report(result)


def comparison_to_terminal(result: BenchmarkResult) -> RenderableType:
    """What ``result`` answers to its question, without the figures of each arm."""
    return _Answer(result)


def apart_to_terminal(answer: ApartResult) -> RenderableType:
    """Two results recorded apart."""
    return _ApartAnswer(answer)


def one_line(result: BenchmarkResult) -> str:
    """``result`` in a line, as a list of runs shows it."""
    return visible(wording.one_line(result, summarize(result)))


@frozen
class _Report:
    result: BenchmarkResult

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterable[RenderableType]:
        rows = summarize(self.result)
        yield labelled(wording.header(self.result))
        yield from _comparisons(self.result.comparisons, options.max_width)
        for table in tables(rows):
            yield from drawn(table, options.max_width)
        if rows:
            yield ""
            yield plain(wording.legend(rows))
        yield from _notes(self.result, rows)


@frozen
class _Answer:
    result: BenchmarkResult

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterable[RenderableType]:
        yield labelled(wording.header(self.result))
        yield from _comparisons(self.result.comparisons, options.max_width)
        yield from _notes(self.result, summarize(self.result))


@frozen
class _ApartAnswer:
    answer: ApartResult

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterable[RenderableType]:
        yield from drawn(apart_table(self.answer.rows), options.max_width)
        yield ""
        yield labelled(apart_lines(self.answer))


def _notes(result: BenchmarkResult, rows: Sequence[SummaryRow]) -> Iterator[RenderableType]:
    remarks = wording.note_lines(result, rows, notes(result, rows))
    if remarks:
        yield ""
        yield labelled([("note", line) for line in remarks])


def _comparisons(rows: Sequence[Comparison], width: int) -> Iterator[RenderableType]:
    if rows:
        yield from drawn(comparison_table(rows), width)
        yield ""
        yield labelled(comparison_lines(rows))
