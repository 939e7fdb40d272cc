"""Results to standard output, everything else to standard error; colours only on a terminal."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_LABEL_WIDTH = 24


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

    @property
    def shows_progress(self) -> bool:
        """Whether bars are welcome: on a terminal, unless the user wants quiet."""
        return not self.quiet and sys.stderr.isatty()

    def show(self, *renderables: RenderableType) -> None:
        """Tables and text for people."""
        for renderable in renderables:
            self.console.print(renderable)

    def text(self, text: str) -> None:
        """Text that is a result, exactly as it is."""
        try:
            click.echo(text, nl=not text.endswith("\n"))
        except BrokenPipeError:
            _reader_has_gone()

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
        """Labels and values, readable at any width. Without rich, which costs 50 ms to import."""
        formatter = click.HelpFormatter(width=shutil.get_terminal_size().columns)
        formatter.write_dl(list(rows), col_max=_LABEL_WIDTH)
        self.text(formatter.getvalue())


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class PlainConsole(Console):
        """rich ends the process with 1 when a reader has gone."""

        def on_broken_pipe(self) -> None:
            _reader_has_gone()

    return PlainConsole(stderr=stderr, highlight=False)


def _reader_has_gone() -> None:
    """Whoever read our output (head, less) has seen enough: the rest goes nowhere, in silence."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
