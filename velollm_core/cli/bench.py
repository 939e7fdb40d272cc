"""``velollm bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from velollm_core.cli.measure_options import question_options, run_options, work_options
from velollm_core.cli.options import global_options, option, typed
from velollm_core.cli.parameters import Percent, Seconds
from velollm_core.cli.printing import check_target, format_option
from velollm_core.cli.state import State
from velollm_core.errors import UsageError
from velollm_core.statistics import MARGIN


@click.command(
    name="bench",
    epilog="Example: velollm --backend llamacpp bench --workload short,code -o before.json",
)
@work_options(
    launches="of each arm with --ab; intervals are over these.  [default: 3, with --ab 12]",
    concurrency="1",
)
@option(
    "--duration",
    type=Seconds(0, min_open=True),
    metavar="SECONDS",
    help="Go on for at least so long in each workload.",
)
@option(
    "--baseline",
    is_flag=True,
    help="Measure the engine's defaults, your own settings removed.",
)
@option(
    "--set",
    multiple=True,
    metavar="KNOB=VALUE",
    help="Change a knob for this run; may be repeated.",
)
@option(
    "--ab",
    metavar="KNOB=VALUE[,...]",
    help="Measure what this change brings: both configurations, block by block. 'same' changes "
    "nothing and shows the noise; 'current' holds your settings against --baseline.",
)
@question_options("--ab")
@option(
    "--fail-if-slower",
    type=Percent(),
    metavar="PERCENT",
    help="With --ab: end with 1 where the change is slower by more than that, with 4 where that "
    "stays open.",
)
@option(
    "--compare",
    nargs=2,
    metavar="FILE FILE",
    help="Measure nothing and compare two results, as 'velollm compare' does.",
)
@option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the result as velollm.benchmark/1 JSON.",
)
@format_option
@option("--keep-text", is_flag=True, help="Keep the answers in the result.")
@run_options
@global_options
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Measure a model on an engine with real requests, as you run it today.

    Every launch starts the server afresh, warms it up, and sends the workloads' requests. Shown are
    medians with intervals over the launches. Ctrl-C keeps what was measured.

    With --ab two configurations take turns, and the answer is faster, slower, no difference, or
    inconclusive.
    """
    from velollm_core.cli.choose import choose
    from velollm_core.cli.compare import Wanted, compare
    from velollm_core.cli.measure import measure, report
    from velollm_core.cli.plan import plan

    state = ctx.ensure_object(State)
    form = "json" if state.json else options["format"]
    if options["compare"]:
        _refuse_beside_compare(ctx)
        wanted = Wanted(
            metric=options["metric"], limit=options["fail_if_slower"], force=options["force"]
        )
        compare(state, options["compare"], form, wanted)
        return
    _check(options)
    chosen = choose(state)
    outcome = measure(state, plan(state, chosen, options), options["resume"])
    report(state, outcome, form, options["output"], options["fail_if_slower"])


def _refuse_beside_compare(ctx: click.Context) -> None:
    allowed = {"compare", "format", "metric", "fail_if_slower", "force"}
    idle = [parameter.opts[-1] for parameter in typed(ctx) if parameter.name not in allowed]
    if idle:
        raise UsageError(
            f"--compare measures nothing: {', '.join(idle)} would have no effect.",
            "Leave it out, or leave out --compare.",
        )


def _check(options: dict[str, Any]) -> None:
    """What can be refused before an engine is looked for."""
    from velollm_core.cli.verdicts import check_limit

    check_target(options["output"])
    if options["ab"] is not None:
        check_limit(options["fail_if_slower"], options["margin"] or MARGIN)
    for name in ("metric", "margin", "fail_if_slower"):
        if options[name] is not None and options["ab"] is None:
            raise UsageError(
                f"--{name.replace('_', '-')} is about a comparison.",
                "Add --ab KNOB=VALUE, the change that is to be measured.",
            )
