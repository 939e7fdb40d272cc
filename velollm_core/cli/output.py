"""Results to standard output, everything else to standard error; colours only on a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class Output:
    """One command's output.

    Args:
        json: one document on standard output and nothing else there.
        quiet: no progress and no remarks; warnings and errors stay.
        verbose: how much more to say.
    """

    def __init__(self, *, json: bool, quiet: bool, verbose: int) -> None:
        self.json = json
        self.quiet = quiet
        self.verbose = verbose

    @cached_property
    def console(self) -> Console:
        """Standard output."""
        return _console(stderr=False)

    @cached_property
    def err(self) -> Console:
        """Standard error, for progress."""
        return _console(stderr=True)

    def show(self, *renderables: RenderableType) -> None:
        """Tables and text for people."""
        for renderable in renderables:
            self.console.print(renderable)

    def text(self, text: str) -> None:
        """Text that is a result, exactly as it is."""
        click.echo(text, nl=not text.endswith("\n"))

    def document(self, value: Any) -> None:
        """Plain data as the JSON document that ``--json`` promises."""
        self.text(json.dumps(value, indent=2, ensure_ascii=False))

    def remark(self, text: str) -> None:
        """Something worth knowing, such as what was chosen."""
        if not self.quiet:
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Something that the user should act on."""
        click.echo(f"warning: {text}", err=True)

    def rows(self, rows: Iterable[tuple[str, str]]) -> None:
        """Labels and values as a table without lines, readable at any width."""
        from rich.table import Table

        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for label, value in rows:
            table.add_row(label, value)
        self.show(table)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class PlainConsole(Console):
        """rich ends the process with 1 when a reader has gone; that is the command's to decide."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return PlainConsole(stderr=stderr, highlight=False)
