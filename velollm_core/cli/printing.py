"""A result on standard output, in the form that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from velollm_core.cli.options import option
from velollm_core.cli.state import State
from velollm_core.errors import UsageError

if TYPE_CHECKING:
    from velollm_core.experiment.spec import BenchmarkResult

FORMATS = ("table", "json", "csv", "markdown")

format_option = option(
    "--format", type=click.Choice(FORMATS), default="table", help="What to print."
)


def check_target(target: Path | None) -> None:
    """A result that cannot be written is to be known before an hour of measuring, not after.

    Raises:
        UsageError: ``target`` is standard output, or in no folder.
    """
    if target is None:
        return
    if str(target) == "-":
        raise UsageError("-o takes a file.", "To print the document use --format json.")
    if not target.parent.is_dir():
        raise UsageError(
            f"-o {target}: there is no folder {target.parent}.", "Make it, or name another."
        )


def print_result(state: State, result: BenchmarkResult, form: str) -> None:
    """Print ``result`` to standard output in one of :data:`FORMATS`."""
    output = state.output
    if form == "json":
        from velollm_core.documents import dumps

        output.text(dumps("benchmark", 1, result))
    elif form == "csv":
        from velollm_core.report.csv_ import to_csv

        output.text(to_csv(result))
    elif form == "markdown":
        from velollm_core.report.markdown import to_markdown

        output.text(to_markdown(result))
    else:
        from velollm_core.report.terminal import to_terminal

        output.show(to_terminal(result))
