"""``velollm bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve

from velollm_core.cli.options import State, global_options
from velollm_core.errors import FailureKind, Interrupted, Unavailable, Unsettled, UsageError

if TYPE_CHECKING:
    from velollm_core.cli.choose import Chosen
    from velollm_core.config import Settings
    from velollm_core.experiment.benchmark import Outcome
    from velollm_core.experiment.spec import Arm, BenchmarkResult, Experiment, Phase, Workload
    from velollm_core.hardware.spec import HardwareSpec

FORMATS = ("table", "json", "csv", "markdown")
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
        return numbers


@click.command(
    name="bench",
    epilog="Example: velollm --backend llamacpp bench --workload short,code -o before.json",
)
@click.option(
    "--workload",
    "workload",
    multiple=True,
    metavar="NAME",
    show_envvar=True,
    help="short, medium, code, rewrite, summarize, chat, or a plugin's; may be repeated or hold "
    "commas.  [default: short, medium, code]",
)
@click.option(
    "--prompts",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    show_envvar=True,
    help="Your own prompts instead: one a line, or JSONL.",
)
@click.option(
    "--launches",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    show_envvar=True,
    help="Fresh starts of the server; intervals are over these.",
)
@click.option(
    "--requests",
    type=click.IntRange(1, 100_000),
    default=4,
    show_default=True,
    show_envvar=True,
    help="Requests a workload, at each concurrency and launch.",
)
@click.option(
    "--concurrency",
    type=_Concurrency(),
    default="1",
    show_default=True,
    show_envvar=True,
    help="Clients at once.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(1, 1_000_000),
    show_envvar=True,
    help="Longest answer, instead of the workload's own.",
)
@click.option(
    "--warmup",
    type=click.IntRange(0, 1000),
    default=1,
    show_default=True,
    show_envvar=True,
    help="Requests before the measured ones, recorded but not counted.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    show_envvar=True,
    help="Decides prompts, sampling and order.",
)
@click.option(
    "--duration",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    show_envvar=True,
    help="Go on for at least so long in each workload.",
)
@click.option(
    "--baseline",
    is_flag=True,
    show_envvar=True,
    help="Measure the engine's defaults, your own settings removed.",
)
@click.option(
    "--set",
    "set",
    multiple=True,
    metavar="KNOB=VALUE",
    show_envvar=True,
    help="Change a knob for this run; may be repeated.",
)
@click.option(
    "-o",
    "--output",
    "output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    show_envvar=True,
    help="Write the result as velollm.benchmark/1 JSON.",
)
@click.option(
    "--format",
    "format",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    show_envvar=True,
    help="What to print.",
)
@click.option("--keep-text", is_flag=True, show_envvar=True, help="Keep the answers in the result.")
@click.option(
    "--resume",
    metavar="RUN",
    show_envvar=True,
    help="Go on with a run that was stopped; its finished launches are kept.",
)
@click.option(
    "--force",
    is_flag=True,
    show_envvar=True,
    help="Measure although something else is at work on this machine.",
)
@click.option(
    "--launch-timeout",
    type=click.FloatRange(1),
    default=180.0,
    show_default=True,
    metavar="SECONDS",
    show_envvar=True,
    help="Longest wait for the server to be ready.",
)
@click.option(
    "--request-timeout",
    type=click.FloatRange(0.1),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    show_envvar=True,
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

    form = "json" if state.json else options["format"]
    _check_target(options["output"])
    chosen = choose(state)
    settings = _settings(state, chosen, sets=options["set"], baseline=options["baseline"])
    experiment = _experiment(state, chosen, settings, options)
    outcome = _measure(state, experiment, options["resume"])
    _report(state, outcome, form, options["output"])


def _check_target(target: Path | None) -> None:
    """A result that cannot be written is to be known before an hour of measuring, not after."""
    if target is not None and not target.parent.is_dir():
        raise UsageError(
            f"-o {target}: there is no folder {target.parent}.", "Make it, or name another."
        )


def _settings(state: State, chosen: Chosen, *, sets: tuple[str, ...], baseline: bool) -> Settings:
    """The user's own settings, or the engine's defaults, with ``--set`` laid over them."""
    from velollm_core.cli.choose import parse_sets
    from velollm_core.config import ENGINE_DEFAULT, LeftOut

    backend, installation, model = chosen.backend, chosen.installation, chosen.model
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
        settings = _for_attached(settings, baseline=options["baseline"])
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


def _for_attached(settings: Settings, *, baseline: bool) -> Settings:
    """Of an attached server only what ``--set`` names is changed; the rest is as it runs."""
    from velollm_core.config import Config

    if baseline:
        raise UsageError(
            "--baseline needs a server that VeloLLM starts itself; this one runs already.",
            "Leave out -X url=..., or leave out --baseline.",
        )
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


def _measure(state: State, experiment: Experiment, resumed: str | None) -> Outcome:
    from velollm_core.cli.progress import measuring
    from velollm_core.experiment.benchmark import benchmark
    from velollm_core.experiment.clock import SystemClock
    from velollm_core.experiment.journal import Journal
    from velollm_core.experiment.monitor import SystemMonitor
    from velollm_core.experiment.runner import Surroundings
    from velollm_core.hardware.detect import available_bytes, detect, fingerprint

    hardware = detect(gpus=state.plugins.detect_gpus)
    notes = _conditions(state, experiment, hardware)
    journal = Journal(state.folder("data") / "journal.sqlite3")
    if resumed is not None:
        resumed = journal.find(resumed).id
    with measuring(state.output, experiment) as observe:

        def tell(progress: Any) -> None:
            if progress.trial is not None:
                state.plugins.trial_finished(progress.trial)
            observe(progress)

        outcome = benchmark(
            experiment,
            hardware=hardware,
            journal=journal,
            clock=SystemClock(),
            surroundings=Surroundings(
                environ={k: v for k, v in state.environ.items() if not k.startswith("VELOLLM_")},
                available_bytes=available_bytes,
                monitor=SystemMonitor(available_bytes),
                hardware_fingerprint=fingerprint(hardware),
            ),
            summarize=_one_line,
            observe=tell,
            resumed=resumed,
            notes=notes,
        )
    state.plugins.benchmark_finished(outcome.result)
    return outcome


def _conditions(state: State, experiment: Experiment, hardware: HardwareSpec) -> tuple[str, ...]:
    from velollm_core.experiment.conditions import spoilers

    attached = [arm for arm in experiment.arms if arm.mode == "attach"]
    found = spoilers(hardware.cpu.usable, _pids(attached))
    if found and not experiment.force:
        raise Unsettled(
            f"this machine is not at rest: {'; '.join(found)}.",
            "Stop that first, or measure nevertheless with --force; the result will say so.",
        )
    for sentence in found:
        state.output.warn(sentence)
    return found


def _pids(attached: list[Arm]) -> tuple[int, ...]:
    pids: list[int] = []
    for arm in attached:
        with arm.backend.attach(arm.installation, arm.model, arm.settings.config) as session:
            pids.extend(session.pids)
    return tuple(pids)


def _one_line(result: BenchmarkResult) -> str:
    from velollm_core.report.terminal import one_line

    return one_line(result)


def _report(state: State, outcome: Outcome, form: str, target: Path | None) -> None:
    """Print first, then write, then judge: a full disk must not cost the table."""
    from velollm_core.cli.results import print_result
    from velollm_core.documents import write

    result = outcome.result
    print_result(state, result, form)
    faults = [] if outcome.fault is None else [outcome.fault]
    if target is not None:
        try:
            write(target, "benchmark", 1, result)
            state.output.remark(f"written to {target}")
        except UsageError as error:
            faults.append(error)
    if outcome.fault is None:
        state.output.remark(f"kept as run {result.run}; see: velollm results show {result.run}")
    if faults:
        raise UsageError("\n".join(fault.message for fault in faults), faults[0].hint)
    _judge(outcome)


def _judge(outcome: Outcome) -> None:
    result = outcome.result
    failures = [trial.failure for trial in result.trials if trial.failure is not None]
    if outcome.interrupted:
        kept = sum(len(phase.samples) for trial in result.trials for phase in trial.phases)
        raise Interrupted(
            f"stopped; {kept} requests measured until then are kept.",
            f"Go on with the same options and --resume {result.run}",
        )
    failures = [failure for failure in failures if failure.kind is not FailureKind.INTERRUPTED]
    if failures and len(failures) == len(result.trials):
        raise Unavailable(f"nothing could be measured: {failures[0].message}")
    if failures:
        raise Unsettled(
            f"{len(failures)} of {len(result.trials)} launches failed: {failures[0].message}"
        )
