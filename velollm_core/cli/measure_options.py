"""The options of every command that measures: what is sent, what decides, how long is waited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from velollm_core.cli.options import F, option
from velollm_core.cli.parameters import Concurrency, Percent, Seconds
from velollm_core.experiment.measures import METRICS
from velollm_core.statistics import MARGIN

WORKLOADS = ("short", "medium", "code")
"""What is sent where nothing else is asked for."""


def work_options(
    *, launches: str, concurrency: str, workloads: Sequence[str] = WORKLOADS
) -> Callable[[F], F]:
    """What is sent, and how often; the arguments say what holds where an option is not given."""
    return _together(
        option(
            "--workload",
            multiple=True,
            metavar="NAME",
            help="short, medium, code, rewrite, summarize, chat, or a plugin's; may be repeated or "
            f"hold commas.  [default: {', '.join(workloads)}]",
        ),
        option(
            "--prompts",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="Your own prompts instead: one a line, or JSONL.",
        ),
        option(
            "--launches",
            type=click.IntRange(1, 1000),
            help=f"Fresh starts of the server, {launches}",
        ),
        option(
            "--requests",
            type=click.IntRange(1, 100_000),
            default=4,
            help="Requests a workload, at each concurrency and launch.",
        ),
        option(
            "--concurrency", type=Concurrency(), help=f"Clients at once.  [default: {concurrency}]"
        ),
        option(
            "--max-tokens",
            type=click.IntRange(1, 1_000_000),
            help="Longest answer, instead of the workload's own.",
        ),
        option(
            "--warmup",
            type=click.IntRange(0, 1000),
            default=1,
            help="Requests before the measured ones, recorded but not counted.",
        ),
        option(
            "--seed",
            type=click.IntRange(0, 2**31 - 1),
            default=0,
            help="Decides prompts, sampling and order.",
        ),
    )


def question_options(asker: str) -> Callable[[F], F]:
    """What a comparison decides by; ``asker`` is the option that has two arms measured."""
    return _together(
        option(
            "--metric",
            type=click.Choice(METRICS),
            help=f"What {asker} decides by.  [default: output_tok_s]",
        ),
        margin_option(f"With {asker}: a"),
    )


def margin_option(begin: str) -> Callable[[F], F]:
    """``--margin``; ``begin`` is how its help begins."""
    return option(
        "--margin",
        type=Percent(),
        metavar="PERCENT",
        help=f"{begin} difference that does not matter to you.  [default: {MARGIN:.0%}]",
    )


def requirement_options(function: F) -> F:
    """What may not be given up for speed."""
    return _together(
        option(
            "--context",
            type=click.IntRange(1, 2**28),
            metavar="TOKENS",
            help="What one request must be able to hold, however much speed that costs.  "
            "[default: as much as now]",
        ),
        option(
            "--parallel",
            type=click.IntRange(1, 1024),
            metavar="N",
            help="How many requests must be answered at once.  [default: as many as now]",
        ),
    )(function)


launch_timeout_option = option(
    "--launch-timeout",
    type=Seconds(1, 86400),
    default=180.0,
    metavar="SECONDS",
    help="Longest wait for the server to be ready.",
)


def run_options(function: F) -> F:
    """How a run goes about it."""
    return _together(
        option(
            "--resume",
            metavar="RUN",
            help="Go on with a run that was stopped; its finished launches are kept.",
        ),
        option(
            "--force",
            is_flag=True,
            help="Measure although something else is at work on this machine.",
        ),
        launch_timeout_option,
        option(
            "--request-timeout",
            type=Seconds(0.1, 86400),
            default=120.0,
            metavar="SECONDS",
            help="Longest silence of the server in a request.",
        ),
    )(function)


def _together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate
