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
from velollm_core.report.tables import Table, split, tables
from velollm_core.report.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text

_GAP = 2
_LABEL_WIDTH = 24


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
        yield _pairs(wording.header(self.result))
        yield from _comparisons(self.result.comparisons, options.max_width)
        for table in tables(rows):
            yield from _parts(table, options.max_width)
        if rows:
            yield ""
            yield _plain(wording.legend(rows))
        yield from _notes(self.result, rows)


@frozen
class _Answer:
    result: BenchmarkResult

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterable[RenderableType]:
        yield _pairs(wording.header(self.result))
        yield from _comparisons(self.result.comparisons, options.max_width)
        yield from _notes(self.result, summarize(self.result))


@frozen
class _ApartAnswer:
    answer: ApartResult

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterable[RenderableType]:
        yield from _parts(apart_table(self.answer.rows), options.max_width)
        yield ""
        yield _pairs(apart_lines(self.answer))


def _notes(result: BenchmarkResult, rows: Sequence[SummaryRow]) -> Iterator[RenderableType]:
    remarks = wording.note_lines(result, rows, notes(result, rows))
    if remarks:
        yield ""
        yield _pairs([("note", line) for line in remarks])


def _comparisons(rows: Sequence[Comparison], width: int) -> Iterator[RenderableType]:
    if rows:
        yield from _parts(comparison_table(rows), width)
        yield ""
        yield _pairs(comparison_lines(rows))


def _parts(table: Table, width: int) -> Iterator[RenderableType]:
    for part in split(table, width, gap=_GAP, label_width=_LABEL_WIDTH):
        yield ""
        yield _table(part)


def _plain(text: str, style: str = "") -> Text:
    """Text that is only read: no bracket is markup, and nothing in it steers the terminal."""
    from rich.text import Text

    return Text(visible(text), style=style)


def _pairs(pairs: Iterable[tuple[str, str]]) -> RenderableType:
    from rich.table import Table as RichTable

    grid = RichTable(box=None, show_header=False, pad_edge=False, padding=(0, _GAP, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in pairs:
        grid.add_row(_plain(label, "bold"), _plain(text))
    return grid


def _table(table: Table) -> RenderableType:
    from rich.table import Table as RichTable

    drawn = RichTable(
        box=None,
        title=_plain(table.title, "bold"),
        title_justify="left",
        pad_edge=False,
        padding=(0, _GAP, 0, 0),
    )
    for position, heading in enumerate(table.headings):
        drawn.add_column(
            _plain(heading),
            justify="left" if position == 0 else "right",
            vertical="bottom",
            overflow="fold",
            max_width=_LABEL_WIDTH if position < table.labels else None,
        )
    for row in table.rows:
        drawn.add_row(*map(_plain, row))
    return drawn
