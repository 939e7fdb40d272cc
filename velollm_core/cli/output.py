"""Results to standard output, everything else to standard error; colours only on a terminal."""

from __future__ import annotations

import codecs
import io
import json
import os
import shutil
import sys
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from velollm_core.report.visible import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_LABEL_WIDTH = 24
_ESCAPE = "velollm-escape"


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
        if isinstance(sys.stdout, io.TextIOWrapper):  # standard error escapes already
            sys.stdout.reconfigure(errors=_ESCAPE)

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
        """Text that is a result: exactly as it is, save that a terminal obeys nothing in it.

        A character that standard output cannot encode becomes its escape.
        """
        stream = sys.stdout
        if stream is not None and stream.isatty():
            text = visible(text)
        try:
            # Named, the stream keeps its encoding; with color, click removes nothing.
            click.echo(text, file=stream, nl=not text.endswith("\n"), color=True)
        except BrokenPipeError:
            _reader_has_gone()

    def document(self, value: Any) -> None:
        """Plain data as the JSON document that ``--json`` promises."""
        self.text(json.dumps(value, indent=2, ensure_ascii=False))

    def remark(self, text: str) -> None:
        """Something worth knowing, such as what was chosen."""
        if not self.quiet:
            click.echo(visible(text), err=True)

    def warn(self, text: str) -> None:
        """Something that the user should act on."""
        click.echo(visible(f"warning: {text}"), err=True)

    def rows(self, rows: Iterable[tuple[str, str]]) -> None:
        """Labels and values, readable at any width. Without rich, which costs 50 ms to import."""
        formatter = click.HelpFormatter(width=shutil.get_terminal_size().columns)
        formatter.write_dl(list(rows), col_max=_LABEL_WIDTH)
        self.text(formatter.getvalue())


def _escape(error: UnicodeError) -> tuple[str, int]:
    """What cannot be encoded as JSON escapes it, so that a document stays one in any encoding."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(_ESCAPE, _escape)


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
