"""``velollm bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from velollm_core.cli.options import global_options, option
from velollm_core.cli.parameters import Concurrency, Percent, Seconds
from velollm_core.cli.printing import check_target, format_option
from velollm_core.cli.state import State
from velollm_core.errors import UsageError
from velollm_core.experiment.measures import METRICS
from velollm_core.statistics import MARGIN


@click.command(
    name="bench",
    epilog="Example: velollm --backend llamacpp bench --workload short,code -o before.json",
)
@option(
    "--workload",
    multiple=True,
    metavar="NAME",
    help="short, medium, code, rewrite, summarize, chat, or a plugin's; may be repeated or hold "
    "commas.  [default: short, medium, code]",
)
@option(
    "--prompts",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Your own prompts instead: one a line, or JSONL.",
)
@option(
    "--launches",
    type=click.IntRange(1, 1000),
    help="Fresh starts of the server, of each arm with --ab; intervals are over these.  "
    "[default: 3, with --ab 12]",
)
@option(
    "--requests",
    type=click.IntRange(1, 100_000),
    default=4,
    help="Requests a workload, at each concurrency and launch.",
)
@option("--concurrency", type=Concurrency(), default="1", help="Clients at once.")
@option(
    "--max-tokens",
    type=click.IntRange(1, 1_000_000),
    help="Longest answer, instead of the workload's own.",
)
@option(
    "--warmup",
    type=click.IntRange(0, 1000),
    default=1,
    help="Requests before the measured ones, recorded but not counted.",
)
@option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    help="Decides prompts, sampling and order.",
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
@option(
    "--metric",
    type=click.Choice(METRICS),
    help="What --ab decides by.  [default: output_tok_s]",
)
@option(
    "--margin",
    type=Percent(),
    metavar="PERCENT",
    help=f"With --ab: a difference that does not matter to you.  [default: {MARGIN:.0%}]",
)
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
@option(
    "--resume",
    metavar="RUN",
    help="Go on with a run that was stopped; its finished launches are kept.",
)
@option(
    "--force",
    is_flag=True,
    help="Measure although something else is at work on this machine.",
)
@option(
    "--launch-timeout",
    type=Seconds(1, 86400),
    default=180.0,
    metavar="SECONDS",
    help="Longest wait for the server to be ready.",
)
@option(
    "--request-timeout",
    type=Seconds(0.1, 86400),
    default=120.0,
    metavar="SECONDS",
    help="Longest silence of the server in a request.",
)
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
    typed = click.core.ParameterSource.COMMANDLINE
    idle = [
        parameter.opts[-1]
        for parameter in ctx.command.params
        if parameter.expose_value
        and parameter.name not in {"compare", "format", "metric", "fail_if_slower", "force"}
        and ctx.get_parameter_source(parameter.name or "") is typed
    ]
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
