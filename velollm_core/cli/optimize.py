"""``velollm optimize``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve

from velollm_core.backends.advice import Goal, Requirements
from velollm_core.cli.measure_options import (
    question_options,
    requirement_options,
    run_options,
    work_options,
)
from velollm_core.cli.options import global_options, option, typed
from velollm_core.cli.printing import check_target
from velollm_core.cli.state import State
from velollm_core.errors import UsageError, VeloError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from velollm_core.backends.changes import Change
    from velollm_core.cli.choose import Chosen
    from velollm_core.config import Config
    from velollm_core.optimize.outcome import File, Verification
    from velollm_core.optimize.spec import Plan
    from velollm_core.tune.spec import Profile

_SCRIPT = "sh"
_SOURCED = frozenset({"sh", "fish", "powershell"})
"""Forms that a shell takes its variables from: such a file holds all that is to be in force."""

_ENVIRONMENT = "environment "
"""How the origins of values begin that a variable of the environment sets."""

FORMATS = ("table", "json", "markdown")
_MEASURING = frozenset(
    {
        "workload",
        "prompts",
        "launches",
        "requests",
        "concurrency",
        "max_tokens",
        "warmup",
        "seed",
        "metric",
        "margin",
        "resume",
        "force",
        "launch_timeout",
        "request_timeout",
    }
)
"""Options that say how ``--verify`` goes about it."""

_ADVISING = frozenset({"goal", "context", "parallel", "experimental"})
"""Options that say what the rules are to go by."""


@click.command(
    name="optimize",
    epilog="Example: velollm optimize --goal latency --context 8192 -o velollm.sh",
)
@option(
    "--goal",
    type=click.Choice([goal.value for goal in Goal]),
    default=Goal.BALANCED.value,
    help="What you want more of.",
)
@requirement_options
@option(
    "--profile",
    metavar="NAME",
    help="Propose what this profile of 'velollm tune' sets, and nothing else; its name, or its "
    "path as .json.",
)
@option(
    "--experimental",
    is_flag=True,
    help="Propose as well what works only in some versions of the engine.",
)
@option(
    "--dry-run",
    is_flag=True,
    help="Write nothing, which is the default; with --apply show what it would write.",
)
@option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the settings to a file, for a shell to source unless --form says otherwise.",
)
@option(
    "--form",
    metavar="FORM",
    help="How to write the settings: sh, fish, powershell, or another that the backend knows; "
    "without -o they are printed instead of the report.",
)
@option("--apply", is_flag=True, help="Write the settings where the engine reads them.")
@option(
    "--target", metavar="TARGET", help="Where --apply writes, if the engine has several places."
)
@option(
    "--verify",
    is_flag=True,
    help="Measure both, your settings and the proposed ones, and write the proposed ones only if "
    "they are not slower.",
)
@option("--format", type=click.Choice(FORMATS), default="table", help="What to print.")
@work_options(
    launches="of each arm.  [default: 12]",
    concurrency="1, with --goal throughput as many as are answered at once",
)
@question_options("--verify")
@run_options
@global_options
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Propose a configuration of an engine for this machine and model, each value with its reason.

    Without -o, --apply and --verify it only prints: nothing is written, and no engine is started.
    What --apply has written is taken back by 'velollm undo'.
    """
    from velollm_core.cli.choose import choose
    from velollm_core.cli.profiles import choose_for, load

    state = ctx.ensure_object(State)
    form = "json" if state.json else options["format"]
    _check(ctx, options, form)
    if options["profile"] is None:
        profile, chosen = None, _experimental(state, choose(state), options)
    else:
        profile = load(state, options["profile"])
        chosen = choose_for(state, profile)
    ctx.exit(_optimize(state, chosen, profile, options, form))


def _check(ctx: click.Context, options: dict[str, Any], form: str) -> None:
    """What can be refused before an engine is looked for."""
    check_target(options["output"], "To print the settings use --form.")
    given = typed(ctx)
    idle = [parameter.opts[-1] for parameter in given if parameter.name in _MEASURING]
    if idle and not options["verify"]:
        raise UsageError(
            f"{', '.join(idle)} would have no effect: nothing is measured.", "Add --verify."
        )
    idle = [parameter.opts[-1] for parameter in given if parameter.name in _ADVISING]
    if idle and options["profile"] is not None:
        raise UsageError(
            f"{', '.join(idle)} would have no effect: the profile says what to set.",
            "Leave it out, or leave out --profile.",
        )
    if options["target"] is not None and not options["apply"]:
        raise UsageError("--target is about --apply.", "Add --apply, or leave --target out.")
    if options["dry_run"] and (options["output"] or options["verify"]):
        raise UsageError(
            "--dry-run measures and writes nothing.", "Leave it out, or leave out -o and --verify."
        )
    if options["form"] and options["output"] is None:
        also = "document" if form == "json" else "changes of --apply" if options["apply"] else ""
        if also:
            raise UsageError(
                f"the {also} and the settings cannot both be printed.", "Name a file: -o FILE"
            )


def _experimental(state: State, chosen: Chosen, options: Mapping[str, Any]) -> Chosen:
    """The same engine with its experimental knobs, where its backend keeps such behind an option
    of that name.
    """
    from velollm_core.cli.choose import EXPERIMENTAL, found_again

    offered = {entry.name for entry in chosen.backend.options} - set(state.engine_options)
    if not options["experimental"] or EXPERIMENTAL not in offered:
        return chosen
    try:
        found = found_again(state, chosen, experimental=True)
    except VeloError as error:
        state.output.warn(f"{error} Going on without what is experimental.")
        return chosen
    same = (entry for entry in found if entry.location == chosen.installation.location)
    return evolve(chosen, installation=next(same, chosen.installation))


def _optimize(
    state: State,
    chosen: Chosen,
    profile: Profile | None,
    options: Mapping[str, Any],
    form: str,
) -> int:
    """Advise, show, measure, write; what can fail without measuring fails before. The exit code."""
    plan = _advise(state, chosen, profile, options)
    if options["form"] is not None and options["output"] is None:
        form = "settings"
        if plan.obstacle is not None:
            state.output.warn(plan.obstacle)
    _show(state, plan, form)
    text = _rendered(state, chosen, plan, options)
    changes = _changes(chosen, plan, options)
    verification = _verify(state, chosen, plan, options, form)
    files: tuple[File, ...] = ()
    if plan.obstacle is None and (verification is None or verification.slower is False):
        if form == "settings":
            state.output.text(text)
        if options["output"] is not None:
            _write(state, plan, options["output"], text)
        files = _apply(state, chosen, plan, changes, dry_run=options["dry_run"], form=form)
    if form == "json":
        from velollm_core.documents import dumps
        from velollm_core.optimize.outcome import Outcome
        from velollm_core.optimize.spec import KIND, MAJOR

        outcome = Outcome(plan=plan, verification=verification, files=files)
        state.output.text(dumps(KIND, MAJOR, outcome))
    if verification is not None:
        from velollm_core.cli.verdicts import keep

        keep(verification.comparisons)
    _tell_next(state, plan, options)
    left_to_root = bool(files) and all(file.needs_root for file in files)
    return 1 if plan.obstacle is not None or (left_to_root and not options["dry_run"]) else 0


def _advise(
    state: State, chosen: Chosen, profile: Profile | None, options: Mapping[str, Any]
) -> Plan:
    from velollm_core.cli.profiles import suggested
    from velollm_core.hardware.detect import detect
    from velollm_core.optimize.gather import advise

    broken_before = len(state.plugins.broken)
    needs = Requirements(context_tokens=options["context"], parallel=options["parallel"])
    plan = advise(
        chosen.backend,
        chosen.installation,
        chosen.model,
        hardware=detect(gpus=state.plugins.detect_gpus),
        environ=state.environ,
        goal=Goal(options["goal"]),
        requirements=needs if profile is None else profile.requirements,
        experimental=options["experimental"],
        plugins=state.plugins,
        instead=None if profile is None else (suggested(state, chosen, profile),),
    )
    for entry in state.plugins.broken[broken_before:]:
        state.output.warn(f"{entry}; going on without it.")
    return plan


def _show(state: State, plan: Plan, form: str) -> None:
    from velollm_core.report.optimize import to_markdown, to_terminal

    if form == "table":
        state.output.show(to_terminal(plan))
    elif form == "markdown":
        state.output.text(to_markdown(plan))


def _rendered(state: State, chosen: Chosen, plan: Plan, options: Mapping[str, Any]) -> str:
    """The settings in the form that was asked for; empty where none was.

    Raises:
        UsageError: there is no such form, or it cannot say all that is to be measured.
    """
    from velollm_core.optimize.spec import settings_of

    if options["form"] is None and options["output"] is None:
        return ""
    backend, installation, model = chosen.backend, chosen.installation, chosen.model
    form = options["form"] or _SCRIPT
    known = form in backend.forms(installation)
    if known and not plan.proposals:
        return "# velollm optimize: keep what you have\n"
    if known and options["verify"]:
        lacking = backend.omitted(installation, model, plan.changes, form)
        if lacking:
            raise UsageError(
                f"the form {form} cannot say {', '.join(lacking)}, which would be measured all "
                "the same.",
                "Use --apply, or another --form, or leave --verify out.",
            )
    settings = settings_of(plan)
    if form in _SOURCED:
        settings = evolve(settings, config=_exported(state, chosen) | settings.config)
    return backend.render(installation, model, settings, form)


def _exported(state: State, chosen: Chosen) -> Config:
    """The knobs that variables set now, perhaps those of the file that is to be replaced."""
    from velollm_core.config import Config

    now = chosen.backend.current(chosen.installation, chosen.model, state.environ)
    return Config(
        {
            name: value
            for name, value in now.config.items()
            if now.origins.get(name, "").startswith(_ENVIRONMENT)
        }
    )


def _changes(chosen: Chosen, plan: Plan, options: Mapping[str, Any]) -> tuple[Change, ...]:
    """The files that are to be written; none where nothing is to be applied."""
    from velollm_core.optimize.spec import settings_of

    if not options["apply"] or not plan.proposals:
        return ()
    return chosen.backend.plan_apply(
        chosen.installation, chosen.model, settings_of(plan), options["target"]
    )


def _verify(
    state: State, chosen: Chosen, plan: Plan, options: Mapping[str, Any], form: str
) -> Verification | None:
    if not options["verify"] or not plan.proposals:
        return None
    from velollm_core.cli.verifying import verify

    return verify(state, chosen, plan, options, form if form in {"table", "markdown"} else None)


def _write(state: State, plan: Plan, target: Path, text: str) -> None:
    """Write the settings. A file that has been sourced already is what keeps them in force."""
    from velollm_core.documents import write_text

    if not plan.proposals and target.exists():
        state.output.remark(f"there is nothing to write: {target} stays as it is")
        return
    write_text(target, text)
    state.output.remark(f"written to {target}")


def _apply(
    state: State,
    chosen: Chosen,
    plan: Plan,
    changes: tuple[Change, ...],
    *,
    dry_run: bool,
    form: str,
) -> tuple[File, ...]:
    if not changes:
        return ()
    from velollm_core.cli.applying import show_changes, tell_not_in_force, write_changes

    files = write_changes(state, changes, dry_run=dry_run)
    if form in {"table", "markdown"}:
        show_changes(state, changes, form, dry_run=dry_run)
    if not dry_run:
        tell_not_in_force(state, chosen, changes, plan.changes)
    return files


def _tell_next(state: State, plan: Plan, options: Mapping[str, Any]) -> None:
    asked = options["apply"] or options["verify"] or options["form"] or options["output"]
    if not asked and plan.proposals:
        state.output.remark(
            "Nothing is changed. -o velollm.sh writes it for a shell to source, --apply where the "
            "engine reads it, --verify measures it first."
        )
    elif not plan.proposals and (options["apply"] or options["verify"]):
        state.output.remark("there is nothing to measure and nothing to write.")
