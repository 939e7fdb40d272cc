"""A benchmark as Markdown, for a page, a mail or a chat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from velollm_core.experiment.apart import ApartResult
from velollm_core.experiment.notes import notes
from velollm_core.experiment.spec import BenchmarkResult, Comparison
from velollm_core.experiment.summary import SummaryRow, summarize
from velollm_core.report.comparisons import (
    apart_lines,
    apart_table,
    comparison_lines,
    comparison_table,
)
from velollm_core.report.markup import bullets, escape
from velollm_core.report.tables import Table, tables
from velollm_core.report.wording import header, legend, note_lines


def to_markdown(result: BenchmarkResult) -> str:
    """Header, tables and notes of ``result``."""
    rows = summarize(result)
    blocks = [
        bullets(header(result)),
        *_comparisons(result.comparisons),
        *(table_text(table) for table in tables(rows)),
        *((legend(rows),) if rows else ()),
        *_notes(result, rows),
    ]
    return "\n\n".join(blocks) + "\n"


def comparison_to_markdown(result: BenchmarkResult) -> str:
    """What ``result`` answers to its question, without the figures of each arm."""
    blocks = [
        bullets(header(result)),
        *_comparisons(result.comparisons),
        *_notes(result, summarize(result)),
    ]
    return "\n\n".join(blocks) + "\n"


def apart_to_markdown(answer: ApartResult) -> str:
    """Two results recorded apart."""
    table = table_text(apart_table(answer.rows))
    return f"{table}\n\n{bullets(apart_lines(answer))}\n"


def _notes(result: BenchmarkResult, rows: Sequence[SummaryRow]) -> tuple[str, ...]:
    remarks = note_lines(result, rows, notes(result, rows))
    if not remarks:
        return ()
    return ("\n".join(["**Notes**", "", *(f"- {escape(line)}" for line in remarks)]),)


def _comparisons(rows: Sequence[Comparison]) -> tuple[str, ...]:
    if not rows:
        return ()
    return table_text(comparison_table(rows)), bullets(comparison_lines(rows))


def table_text(table: Table) -> str:
    """``table`` below its title."""
    return "\n".join(_lines(table))


def _lines(table: Table) -> Iterator[str]:
    yield f"**{escape(table.title)}**"
    yield ""
    yield _line([heading.strip() for heading in table.headings])
    # A label with text stands to the left, a figure to the right.
    yield _line([":--", *(["--:"] * (len(table.headings) - 1))])
    for row in table.rows:
        yield _line(row)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escape, cells))} |"
