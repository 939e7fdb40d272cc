"""A result on standard output, in the form that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from velollm_core.cli.options import option
from velollm_core.cli.state import State
from velollm_core.documents import dumps
from velollm_core.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from velollm_core.experiment.apart import ApartResult
    from velollm_core.experiment.spec import BenchmarkResult
    from velollm_core.tune.spec import TuneResult

T = TypeVar("T")

FORMATS = ("table", "json", "csv", "markdown", "html")
TUNE_FORMATS = ("table", "json", "markdown", "html")

format_option = option(
    "--format", type=click.Choice(FORMATS), default="table", help="What to print."
)


def check_target(
    target: Path | None, instead: str = "To print the document use --format json."
) -> None:
    """A result that cannot be written is to be known before an hour of measuring, not after.

    Args:
        target: the file.
        instead: what prints it.

    Raises:
        UsageError: ``target`` is standard output, or in no folder.
    """
    if target is None:
        return
    if str(target) == "-":
        raise UsageError("-o takes a file.", instead)
    if not target.parent.is_dir():
        raise UsageError(
            f"-o {target}: there is no folder {target.parent}.", "Make it, or name another."
        )


def print_result(state: State, result: BenchmarkResult, form: str) -> None:
    """Print ``result`` to standard output in one of :data:`FORMATS`."""
    from velollm_core.report import csv_, markdown, terminal
    from velollm_core.report.html import page

    _print(
        state,
        result,
        form,
        {
            "json": lambda value: dumps("benchmark", 1, value),
            "csv": csv_.to_csv,
            "markdown": markdown.to_markdown,
            "html": page.to_html,
            "table": terminal.to_terminal,
        },
    )


def print_comparison(state: State, result: BenchmarkResult, form: str) -> None:
    """Print what ``result`` answers to its question."""
    from velollm_core.experiment.comparison import answer
    from velollm_core.report import csv_, markdown, terminal
    from velollm_core.report.html import page

    _print(
        state,
        result,
        form,
        {
            "json": lambda value: dumps("comparison", 1, answer(value)),
            "csv": csv_.comparison_to_csv,
            "markdown": markdown.comparison_to_markdown,
            "html": page.comparison_to_html,
            "table": terminal.comparison_to_terminal,
        },
    )


def print_tune(state: State, result: TuneResult, form: str, profile: str | None = None) -> None:
    """Print a tune in one of :data:`TUNE_FORMATS`.

    Args:
        state: where to print.
        result: a tune.
        form: how.
        profile: what its profile is called; as it was kept, if not told.

    Raises:
        UsageError: ``form`` is none of them.
    """
    from velollm_core.cli.profiles import kept_as
    from velollm_core.report import tune
    from velollm_core.report.html.tune import to_html
    from velollm_core.report.tune_wording import A_NAME

    if form not in TUNE_FORMATS:
        raise UsageError(
            f"a tune is not printed as {form}.", f"It takes: {', '.join(TUNE_FORMATS)}."
        )
    name = profile or kept_as(state, result.run) or A_NAME
    _print(
        state,
        result,
        form,
        {
            "json": lambda value: dumps("tune", 1, value),
            "markdown": lambda value: tune.to_markdown(value, name),
            "html": lambda value: to_html(value, name),
            "table": lambda value: tune.to_terminal(value, name),
        },
    )


def write_tune(state: State, path: Path, result: TuneResult, profile: str | None = None) -> None:
    """Write a tune as its document, or as the page or the Markdown that the end of ``path`` says;
    the other arguments are those of :func:`print_tune`.

    Raises:
        UsageError: it cannot be written there.
    """
    from velollm_core.cli.profiles import kept_as
    from velollm_core.documents import write_text
    from velollm_core.report import tune
    from velollm_core.report.html.tune import to_html
    from velollm_core.report.tune_wording import A_NAME

    name = profile or kept_as(state, result.run) or A_NAME
    ending = path.suffix.lower()
    if ending in {".html", ".htm"}:
        write_text(path, to_html(result, name))
    elif ending == ".md":
        write_text(path, tune.to_markdown(result, name))
    else:
        write_text(path, dumps("tune", 1, result))


def print_apart(state: State, result: ApartResult, form: str) -> None:
    """Print two results held against each other."""
    from velollm_core.report import csv_, markdown, terminal
    from velollm_core.report.html import page

    _print(
        state,
        result,
        form,
        {
            "json": lambda value: dumps("apart", 1, value),
            "csv": csv_.apart_to_csv,
            "markdown": markdown.apart_to_markdown,
            "html": page.apart_to_html,
            "table": terminal.apart_to_terminal,
        },
    )


def _print(
    state: State, value: T, form: str, forms: Mapping[str, Callable[[T], str | RenderableType]]
) -> None:
    shown = forms[form](value)
    if isinstance(shown, str):
        state.output.text(shown)
    else:
        state.output.show(shown)
