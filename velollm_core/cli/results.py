"""``velollm results``: what the journal holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from velollm_core.cli.bench import FORMATS
from velollm_core.cli.options import State, global_options

if TYPE_CHECKING:
    from velollm_core.experiment.journal import Journal
    from velollm_core.experiment.spec import BenchmarkResult


@click.group(
    name="results",
    invoke_without_command=True,
    epilog="Example: velollm results show last",
)
@global_options
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, show, export and remove what was measured. RUN is an identifier, its beginning, or
    'last'.
    """
    if ctx.invoked_subcommand is None:
        _list(ctx.ensure_object(State))


@command.command(name="list", epilog="Example: velollm results list --json")
@global_options
@click.pass_obj
def list_runs(state: State) -> None:
    """List the runs, the newest first."""
    _list(state)


@command.command(name="show", epilog="Example: velollm results show last --format markdown")
@click.argument("run", metavar="RUN")
@click.option(
    "--format",
    "format",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    show_envvar=True,
    help="What to print.",
)
@global_options
@click.pass_obj
def show(state: State, /, run: str, **options: str) -> None:
    """Show one run as bench did."""
    print_result(state, _load(state, run), "json" if state.json else options["format"])


@command.command(name="export", epilog="Example: velollm results export last -o before.json")
@click.argument("run", metavar="RUN")
@click.option(
    "-o",
    "--output",
    "output",
    required=True,
    metavar="FILE",
    show_envvar=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write it.",
)
@global_options
@click.pass_obj
def export(state: State, run: str, output: Path) -> None:
    """Write one run as velollm.benchmark/1 JSON."""
    from velollm_core.documents import write

    write(output, "benchmark", 1, _load(state, run))
    state.output.remark(f"written to {output}")


@command.command(name="remove", epilog="Example: velollm results remove 20261124-2015")
@click.argument("run", metavar="RUN")
@click.option("--yes", is_flag=True, show_envvar=True, help="Do not ask.")
@global_options
@click.pass_obj
def remove(state: State, run: str, yes: bool) -> None:
    """Remove one run from the journal."""
    journal = _journal(state)
    info = journal.find(run)
    if not yes:
        click.confirm(f"Remove run {info.id} ({info.trials} trials)?", abort=True, err=True)
    journal.remove(info.id)
    state.output.remark(f"removed run {info.id}")


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


def _journal(state: State) -> Journal:
    from velollm_core.experiment.journal import Journal

    return Journal(state.folder("data") / "journal.sqlite3")


def _load(state: State, run: str) -> BenchmarkResult:
    from velollm_core.experiment.benchmark import stored

    journal = _journal(state)
    info = journal.find(run)
    return stored(info, journal.trials(info.id))


def _list(state: State) -> None:
    runs = _journal(state).runs()
    if state.json:
        from velollm_core.documents import to_plain

        rows = to_plain(list(runs))
        for row in rows:
            del row["head"]
        state.output.document(rows)
        return
    if not runs:
        state.output.remark("nothing measured yet; start with: velollm bench")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("run", "trials", "state", "what"):
        table.add_column(column, overflow="fold")
    for run in runs:
        table.add_row(
            run.id, str(run.trials), "complete" if run.complete else "partial", run.summary
        )
    state.output.show(table)
