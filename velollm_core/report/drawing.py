"""Text, labelled lines and tables for a terminal of any width."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from velollm_core.report.visible import visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from velollm_core.report.tables import Table

GAP = 2
"""Characters between two columns."""

_LABEL_WIDTH = 24


def plain(text: str, style: str = "") -> Text:
    """Text that is only read: no bracket is markup, and nothing in it steers the terminal."""
    from rich.text import Text

    return Text(visible(text), style=style)


def labelled(lines: Iterable[tuple[str, str]]) -> RenderableType:
    """Labels in bold, each with its text beside it."""
    from rich.table import Table

    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0))
    grid.add_column(overflow="fold", max_width=_LABEL_WIDTH)
    grid.add_column(overflow="fold")
    for label, text in lines:
        grid.add_row(plain(label, "bold"), plain(text))
    return grid


def drawn(table: Table, width: int) -> Iterator[RenderableType]:
    """``table``, as several where it is wider than ``width``, each after an empty line."""
    from velollm_core.report.tables import split

    for part in split(table, width, gap=GAP, label_width=_LABEL_WIDTH):
        yield ""
        yield _table(part)


def _table(table: Table) -> RenderableType:
    from rich.table import Table as RichTable

    built = RichTable(
        box=None,
        title=plain(table.title, "bold"),
        title_justify="left",
        pad_edge=False,
        padding=(0, GAP, 0, 0),
    )
    for position, heading in enumerate(table.headings):
        built.add_column(
            plain(heading),
            justify="left" if position == 0 else "right",
            vertical="bottom",
            overflow="fold",
            max_width=_LABEL_WIDTH if position < table.labels else None,
        )
    for row in table.rows:
        built.add_row(*map(plain, row))
    return built
