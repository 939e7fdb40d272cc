"""``velollm results``: what the journal holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from velollm_core.cli.options import global_options, option
from velollm_core.cli.printing import check_target, format_option, print_result, print_tune
from velollm_core.cli.runs import find_run
from velollm_core.cli.state import State

if TYPE_CHECKING:
    from velollm_core.experiment.journal import RunInfo
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
@format_option
@global_options
@click.pass_obj
def show(state: State, /, run: str, **options: str) -> None:
    """Show one run as bench, or tune, did."""
    from velollm_core.tune.keep import stored
    from velollm_core.tune.spec import KIND

    form = "json" if state.json else options["format"]
    info = state.journal.find(run)
    if info.kind == KIND:
        print_tune(state, stored(info), form)
    else:
        print_result(state, load_run(state, info.id), form)


@command.command(name="export", epilog="Example: velollm results export last -o before.json")
@click.argument("run", metavar="RUN")
@option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write it.",
)
@global_options
@click.pass_obj
def export(state: State, run: str, output: Path) -> None:
    """Write one run as velollm.benchmark/1 JSON, or a tune as velollm.tune/1."""
    from velollm_core.documents import write
    from velollm_core.experiment import benchmark
    from velollm_core.tune import spec as tune
    from velollm_core.tune.keep import stored

    check_target(output)
    info = state.journal.find(run)
    if info.kind == tune.KIND:
        write(output, tune.KIND, tune.MAJOR, stored(info))
    else:
        write(output, benchmark.KIND, benchmark.MAJOR, load_run(state, info.id))
    state.output.remark(f"written to {output}")


@command.command(name="remove", epilog="Example: velollm results remove 20261124-2015")
@click.argument("run", metavar="RUN")
@option("--yes", is_flag=True, help="Do not ask.")
@global_options
@click.pass_obj
def remove(state: State, run: str, yes: bool) -> None:
    """Remove one run from the journal."""
    journal = state.journal
    info = journal.find(run)
    if not yes:
        click.confirm(f"Remove run {info.id} ({info.trials} trials)?", abort=True, err=True)
    journal.remove(info.id)
    state.output.remark(f"removed run {info.id}")


def load_run(state: State, run: str) -> BenchmarkResult:
    """The benchmark that the journal holds as ``run``: an identifier, its beginning, or ``last``.

    Raises:
        UsageError: there is no such run, or it is none.
    """
    from velollm_core.experiment.benchmark import KIND, stored

    info = find_run(state, run, KIND)
    return stored(info, state.journal.trials(info.id))


def _state(run: RunInfo) -> str:
    if not run.complete:
        return "partial"
    return "failed" if run.failed == run.trials else "complete"


def _list(state: State) -> None:
    runs = state.journal.runs()
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
        table.add_row(run.id, str(run.trials), _state(run), run.summary)
    state.output.show(table)
