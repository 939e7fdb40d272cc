"""``velollm tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from velollm_core.cli.measure_options import (
    margin_option,
    requirement_options,
    run_options,
    work_options,
)
from velollm_core.cli.options import global_options, option, typed
from velollm_core.cli.parameters import Duration
from velollm_core.cli.printing import TUNE_FORMATS, check_target, print_tune, write_tune
from velollm_core.cli.state import State
from velollm_core.errors import Interrupted, Unavailable, Unsettled, UsageError, VeloError
from velollm_core.statistics import LEAST_PAIRS

if TYPE_CHECKING:
    from collections.abc import Callable

    from velollm_core.tune.keep import Outcome
    from velollm_core.tune.spec import Profile, TuneResult

WORKLOADS = ("medium",)
"""What is sent where nothing else is asked for: one, because a tune sends it many times."""

_SHOWING = frozenset({"show", "export", "format", "output"})
_CHECKING = frozenset(
    {
        *("check", "prompts", "budget", "launches", "seed", "margin", "format", "output"),
        *("resume", "force", "launch_timeout", "request_timeout"),
    }
)


@click.command(
    name="tune",
    epilog="Example: velollm --backend llamacpp tune --workload rewrite --budget 10m",
)
@option(
    "--budget",
    type=Duration(),
    default="10m",
    metavar="TIME",
    help="How long it may take altogether: 90s, 10m, 1h30m.",
)
@option(
    "--objective",
    multiple=True,
    metavar="NAME[=WEIGHT,...]",
    help="What is to become faster: throughput, decode, prefill, ttft, or a mix such as "
    "decode=2,ttft=1. The first decides; with more of them the report shows which configurations "
    "none other beats in all.  [default: throughput]",
)
@option(
    "--constraint",
    multiple=True,
    metavar="LIMIT",
    help="What must hold whatever it costs, such as 'ttft_p95<500ms', 'memory<6GiB' or "
    "'decode>20tok/s'; may be repeated.",
)
@requirement_options
@option(
    "--only",
    multiple=True,
    metavar="KNOB[,...]",
    help="Change no other knobs than these, but for the context where more slots ask for it; may "
    "be repeated.",
)
@work_options(
    launches="of each configuration in the confirmation.  [default: 12]",
    concurrency="1",
    workloads=WORKLOADS,
)
@margin_option("A")
@option(
    "--name",
    metavar="NAME",
    help="What the profile is called, or its file, which ends with .json.  [default: by the model "
    "and the objective]",
)
@option(
    "--check",
    metavar="PROFILE",
    help="Search nothing: measure a profile against what you run once more, as after an upgrade. "
    "The exit code is 1 where it is no longer faster, or breaks a limit that it was chosen under.",
)
@option(
    "--show",
    is_flag=False,
    flag_value="last",
    metavar="[RUN]",
    help="Measure nothing: print an earlier tune again, the last if none is named.",
)
@option(
    "--export",
    is_flag=False,
    flag_value="last",
    metavar="[RUN]",
    help="As --show, but print it as velollm.tune/1 JSON; with -o write it and print nothing.",
)
@option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the result, too: a page as .html, Markdown as .md, else velollm.tune/1 JSON.",
)
@option("--format", type=click.Choice(TUNE_FORMATS), default="table", help="What to print.")
@run_options
@global_options
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Search for the settings that are fastest here, and prove it, or keep what you have.

    Settings and their combinations are tried with real requests; what leads then is measured once
    more on fresh servers, against what you run and against the engine's defaults. Nothing is
    changed: what is proven to be faster is written as a profile, which 'velollm run' and 'velollm
    optimize' take. Ctrl-C keeps what was measured, and --resume goes on.
    """
    state = ctx.ensure_object(State)
    form = "json" if state.json else options["format"]
    check_target(options["output"])
    if options["show"] is not None or options["export"] is not None:
        _refuse_beside(ctx, "--show" if options["show"] is not None else "--export", _SHOWING)
        _show(state, options, form)
        return
    if options["check"] is not None:
        _refuse_beside(ctx, "--check", _CHECKING)
    if options["launches"] is not None and options["launches"] < LEAST_PAIRS:
        raise UsageError(
            f"--launches {options['launches']} cannot prove anything.",
            f"It takes {LEAST_PAIRS} or more.",
        )
    _tune(state, options, form)


def _refuse_beside(ctx: click.Context, what: str, allowed: frozenset[str]) -> None:
    idle = [parameter.opts[-1] for parameter in typed(ctx) if parameter.name not in allowed]
    if idle:
        raise UsageError(
            f"{', '.join(idle)} would have no effect with {what}.",
            f"Leave that out, or leave out {what}.",
        )


def _show(state: State, options: dict[str, Any], form: str) -> None:
    from velollm_core.cli.runs import find_run
    from velollm_core.tune.keep import stored
    from velollm_core.tune.spec import KIND

    exported = options["export"] is not None
    info = find_run(state, options["export"] if exported else options["show"], KIND)
    result, target = stored(info), options["output"]
    if not exported or target is None:
        print_tune(state, result, "json" if exported else form)
    if target is not None:
        _save(state, target, result)
    if not result.complete:
        state.output.remark(f"run {result.run} was stopped before its end: --resume {result.run}")


def _tune(state: State, options: dict[str, Any], form: str) -> None:
    from velollm_core.cli.choose import choose
    from velollm_core.cli.profiles import choose_for, folder, load
    from velollm_core.cli.tuning import tune, wanted, wanted_again
    from velollm_core.tune.profile import place_to_write, usual_name

    profile = None
    name = options["check"] or options["name"]
    if name is not None:
        place_to_write(folder(state), name)  # to be known before anything is measured
    if options["check"] is not None:
        profile = load(state, options["check"])
        asked = wanted_again(state, profile, options)
        chosen = choose_for(state, profile)
    else:
        asked = wanted(state, options)
        chosen = choose(state)
    outcome = tune(state, chosen, asked, options)
    _report(state, outcome, form, options["output"], name or usual_name(outcome.result))
    _judge(outcome, profile)


def _report(state: State, outcome: Outcome, form: str, output: Path | None, name: str) -> None:
    from velollm_core.cli.measure import deliver
    from velollm_core.tune.spec import Conclusion

    result = outcome.result
    writing: list[Callable[[], None]] = []
    if output is not None:
        writing.append(lambda: _save(state, output, result, name))
    if result.complete and result.conclusion is Conclusion.FASTER:
        writing.append(lambda: _keep(state, result, name))
    deliver(
        state,
        result.run,
        outcome.fault,
        form=form,
        printing=lambda: print_tune(state, result, form, name),
        writing=writing,
    )


def _save(state: State, target: Path, result: TuneResult, profile: str | None = None) -> None:
    write_tune(state, target, result, profile)
    state.output.remark(f"written to {target}")


def _keep(state: State, result: TuneResult, name: str) -> None:
    from velollm_core.cli.profiles import folder
    from velollm_core.tune.profile import place_to_write, profile_of, write

    path = place_to_write(folder(state), name)
    replaced = path.exists()
    write(path, profile_of(result, path.stem))
    state.output.remark(f"profile {path.stem} {'renewed' if replaced else 'written'}: {path}")


def _judge(outcome: Outcome, profile: Profile | None) -> None:
    """The exit code: 0 for an answer, "keep what you have" included."""
    from velollm_core.tune.spec import Conclusion

    result = outcome.result
    if outcome.interrupted:
        raise Interrupted(
            f"stopped; what was measured until then is kept, {result.trials} trials.",
            f"Go on with the same options and --resume {result.run}",
        )
    if result.trials and result.failed == result.trials:
        raise Unavailable(f"nothing could be measured: {result.why}")
    if result.conclusion is Conclusion.OPEN:
        raise Unsettled(f"{result.conclusion}: {result.why}")
    if profile is not None and result.conclusion is Conclusion.KEEP:
        _judge_profile(outcome, profile)


def _judge_profile(outcome: Outcome, profile: Profile) -> None:
    from velollm_core.statistics import Verdict
    from velollm_core.tune.confirm import broken_limits

    result = outcome.result
    if broken_limits(result.task.constraints, outcome.trials):
        raise VeloError(
            f"profile {profile.name} breaks a limit that it was chosen under: {result.why}",
            "Do without it, or tune again: velollm tune",
        )
    if not result.answers or result.answers[0].overall.verdict is Verdict.INCONCLUSIVE:
        raise Unsettled(f"whether profile {profile.name} is faster stays open: {result.why}")
    raise VeloError(
        f"profile {profile.name} is not faster than what you run: {result.why}",
        "Do without it, or tune again: velollm tune",
    )
