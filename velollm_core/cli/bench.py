"""``velollm bench``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve

from velollm_core.cli.options import global_options, option
from velollm_core.cli.printing import check_target, format_option
from velollm_core.cli.state import State
from velollm_core.errors import UsageError

if TYPE_CHECKING:
    from velollm_core.cli.choose import Chosen
    from velollm_core.config import Settings
    from velollm_core.experiment.spec import Experiment, Phase, Workload

_SET = "--set"


class _Concurrency(click.ParamType[tuple[int, ...]]):
    name = "N[,N...]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) < 1 or max(numbers) > 1024:
            self.fail(f"{value!r} is not of the form 1,4,8 (1 to 1024 clients).", param, ctx)
        # One number twice would be two phases that no row of the report could tell apart.
        return tuple(dict.fromkeys(numbers))


class _Seconds(click.FloatRange):
    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        return number


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
    default=3,
    help="Fresh starts of the server; intervals are over these.",
)
@option(
    "--requests",
    type=click.IntRange(1, 100_000),
    default=4,
    help="Requests a workload, at each concurrency and launch.",
)
@option("--concurrency", type=_Concurrency(), default="1", help="Clients at once.")
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
    type=_Seconds(0, min_open=True),
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
    type=_Seconds(1, 86400),
    default=180.0,
    metavar="SECONDS",
    help="Longest wait for the server to be ready.",
)
@option(
    "--request-timeout",
    type=_Seconds(0.1, 86400),
    default=120.0,
    metavar="SECONDS",
    help="Longest silence of the server in a request.",
)
@global_options
@click.pass_obj
def command(state: State, /, **options: Any) -> None:
    """Measure a model on an engine with real requests, as you run it today.

    Every launch starts the server afresh, warms it up, and sends the workloads' requests. Shown are
    medians with intervals over the launches. Ctrl-C keeps what was measured.
    """
    from velollm_core.cli.choose import choose
    from velollm_core.cli.measure import measure, report

    form = "json" if state.json else options["format"]
    check_target(options["output"])
    chosen = choose(state)
    settings = _settings(state, chosen, sets=options["set"], baseline=options["baseline"])
    experiment = _experiment(state, chosen, settings, options)
    outcome = measure(state, experiment, options["resume"])
    report(state, outcome, form, options["output"])


def _settings(state: State, chosen: Chosen, *, sets: tuple[str, ...], baseline: bool) -> Settings:
    """The user's own settings, or the engine's defaults, with ``--set`` laid over them."""
    from velollm_core.cli.choose import parse_sets
    from velollm_core.config import ENGINE_DEFAULT, LeftOut

    backend, installation, model = chosen.backend, chosen.installation, chosen.model
    if baseline and installation.kind == "server":
        raise UsageError(
            "--baseline needs a server that VeloLLM starts itself; this one runs already.",
            "Leave out -X url=..., or leave out --baseline.",
        )
    current = backend.current(installation, model, state.environ)
    if baseline:
        settings = backend.defaults(installation, model)
        removed = tuple(
            LeftOut(name, origin, "--baseline removes the user's own settings")
            for name, origin in current.origins.items()
            if origin != ENGINE_DEFAULT
        )
        settings = evolve(settings, left_out=settings.left_out + removed + current.left_out)
    else:
        settings = current
    for entry in settings.left_out:
        state.output.remark(f"not passed on: {entry.name} ({entry.origin}): {entry.reason}")
    changed = parse_sets(sets, chosen)
    return evolve(
        settings,
        config=settings.config | changed,
        origins={**settings.origins, **dict.fromkeys(changed, _SET)},
    )


def _experiment(
    state: State, chosen: Chosen, settings: Settings, options: dict[str, Any]
) -> Experiment:
    from velollm_core.experiment.spec import Arm, Experiment

    attached = chosen.installation.kind == "server"
    launches = options["launches"]
    if attached:
        settings = _for_attached(settings)
        launches = 1
        state.output.remark("a server that runs already is one launch: there is no interval.")
    arm = Arm(
        name="defaults" if options["baseline"] else "current",
        backend=chosen.backend,
        installation=chosen.installation,
        model=chosen.model,
        settings=settings,
        mode="attach" if attached else "launch",
    )
    return Experiment(
        arms=(arm,),
        phases=_phases(state, options),
        blocks=launches,
        seed=options["seed"],
        unit="block" if attached else "launch",
        keep_text=options["keep_text"],
        force=options["force"],
        launch_timeout_s=options["launch_timeout"],
        request_timeout_s=options["request_timeout"],
    )


def _for_attached(settings: Settings) -> Settings:
    """Of an attached server only what ``--set`` names is changed; the rest is as it runs."""
    from velollm_core.config import Config

    own = {name for name, origin in settings.origins.items() if origin == _SET}
    return evolve(settings, config=Config({k: v for k, v in settings.config.items() if k in own}))


def _phases(state: State, options: dict[str, Any]) -> tuple[Phase, ...]:
    from velollm_core.experiment.spec import Phase

    return tuple(
        Phase(
            workload=workload,
            requests=max(options["requests"], concurrency * workload.group),
            concurrency=concurrency,
            warmup=options["warmup"],
            max_tokens=options["max_tokens"],
            duration_s=options["duration"],
        )
        for workload in _workloads(state, options)
        for concurrency in options["concurrency"]
    )


def _workloads(state: State, options: dict[str, Any]) -> tuple[Workload, ...]:
    from velollm_core.experiment.workloads.prompt_file import from_file

    names = [name.strip() for words in options["workload"] for name in words.split(",")]
    if options["prompts"] is not None:
        if names:
            raise UsageError("--prompts and --workload exclude each other.", "Leave one out.")
        return (from_file(options["prompts"], max_tokens=options["max_tokens"] or 200),)
    known = state.plugins.workloads()
    for name in names:
        if name not in known:
            raise UsageError(f"there is no workload {name!r}.", f"There are: {', '.join(known)}.")
    # One workload twice would be two phases that no row of the report could tell apart.
    return tuple(known[name] for name in dict.fromkeys(names or ("short", "medium", "code")))
