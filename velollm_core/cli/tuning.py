"""A tune from the command line: what the options ask for, measured and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from velollm_core.backends.advice import Requirements
from velollm_core.cli.choose import Chosen, startable
from velollm_core.cli.measure import conditions, surroundings, tell_of_trial
from velollm_core.cli.plan import PAIRS, phases, refuse_restarts, tell_left_out
from velollm_core.cli.progress import tuning
from velollm_core.cli.runs import find_run
from velollm_core.cli.state import State
from velollm_core.cli.tune import WORKLOADS
from velollm_core.config import Config
from velollm_core.errors import UsageError
from velollm_core.experiment.clock import SystemClock
from velollm_core.experiment.records import engine_record, model_record
from velollm_core.experiment.spec import Arm, Phase, Workload
from velollm_core.hardware.detect import detect, fingerprint
from velollm_core.statistics import MARGIN
from velollm_core.tune.constraints import parse_constraint
from velollm_core.tune.keep import Outcome, stored, tuned
from velollm_core.tune.lab import CURRENT, arm_of
from velollm_core.tune.objective import parse_objective
from velollm_core.tune.profile import fits, refuse_unmeasurable, settings_of
from velollm_core.tune.requirements import complete
from velollm_core.tune.spec import KIND, Constraint, Objective, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from velollm_core.tune.search import TuneProgress
    from velollm_core.tune.spec import Profile

_OBJECTIVES = ("throughput",)


@frozen(kw_only=True)
class Wanted:
    """What is asked for, before an engine is looked for. ``profile`` is one that is only checked
    again.
    """

    phases: tuple[Phase, ...]
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    requirements: Requirements = Requirements()  # noqa: RUF009 - frozen
    profile: Profile | None = None


def wanted(state: State, options: Mapping[str, Any]) -> Wanted:
    """What the options of ``tune`` ask for.

    Raises:
        UsageError: there is no such workload, objective or constraint.
    """
    measured = phases(state, options, WORKLOADS)
    texts = options["objective"] or _OBJECTIVES
    return Wanted(
        phases=measured,
        objectives=tuple(parse_objective(text, measured) for text in dict.fromkeys(texts)),
        constraints=tuple(map(parse_constraint, dict.fromkeys(options["constraint"]))),
        requirements=Requirements(context_tokens=options["context"], parallel=options["parallel"]),
    )


def wanted_again(state: State, profile: Profile, options: Mapping[str, Any]) -> Wanted:
    """What it takes to measure ``profile`` again.

    Raises:
        UsageError: it does not say how, a workload of then is not there, or the user's prompts are
            not named.
    """
    refuse_unmeasurable(profile)
    return Wanted(
        phases=_phases_of(state, profile, options),
        objectives=(profile.objective,),
        constraints=profile.constraints,
        requirements=profile.requirements,
        profile=profile,
    )


def _phases_of(state: State, profile: Profile, options: Mapping[str, Any]) -> tuple[Phase, ...]:
    known: dict[str, Workload] = dict(state.plugins.workloads())
    if options["prompts"] is not None:
        own = phases(state, options)[0].workload
        known[own.name] = own
    found = []
    for record in profile.workloads:
        workload = known.get(record.name)
        if workload is None:
            raise UsageError(
                f"profile {profile.name} was measured with {record.name}, which is no workload.",
                "Was it a file of prompts? Then name it: --prompts FILE",
            )
        if workload.digest != record.digest:
            state.output.warn(f"the prompts of {record.name} are others than at that time.")
        found.append(
            Phase(
                workload=workload,
                requests=record.requests,
                concurrency=record.concurrency,
                warmup=record.warmup,
                max_tokens=record.max_tokens,
            )
        )
    return tuple(found)


def tune(state: State, chosen: Chosen, asked: Wanted, options: Mapping[str, Any]) -> Outcome:
    """Tune with progress, keep the run in the journal, and tell the observers.

    Raises:
        UsageError: the options, or the run that is to go on, do not suit this engine; or the
            budget is too small.
        Unsettled: something else is at work on this machine, and ``--force`` is not given.
    """
    chosen = _restartable(state, chosen)
    task = _task(state, chosen, asked, options)
    resumed = None
    if options["resume"] is not None:
        resumed = _resumed(state, task, options["resume"])
    notes = conditions(state, task.hardware, _attached(task), force=task.force)
    with tuning(state.output, task) as show:

        def observe(progress: TuneProgress) -> None:
            if progress.progress is not None:
                tell_of_trial(state, progress.progress)
            show(progress)

        outcome = tuned(
            task,
            journal=state.journal,
            clock=SystemClock(),
            surroundings=surroundings(state, task.hardware),
            observe=observe,
            resumed=resumed,
            notes=notes,
        )
    if outcome.stale:
        state.output.warn(
            f"{outcome.stale} trials of before are stale: they are of another build, model, "
            "machine or workload, and were not used."
        )
    return outcome


def _restartable(state: State, chosen: Chosen) -> Chosen:
    """An engine that can be started anew, where there is one: most knobs need that."""
    own = startable(state, chosen)
    if own is None:
        state.output.remark("of a server that runs already only what needs no restart is tuned.")
        return chosen
    if own.installation.location != chosen.installation.location:
        state.output.remark(
            f"measured is a server that VeloLLM starts beside yours ({own.installation.location})."
        )
    return own


def _task(state: State, chosen: Chosen, asked: Wanted, options: Mapping[str, Any]) -> Task:
    backend, installation, model = chosen.backend, chosen.installation, chosen.model
    current = backend.current(installation, model, state.environ)
    tell_left_out(state, current)
    knobs = backend.knobs(installation, model)
    proposed = None
    if asked.profile is not None:
        proposed = settings_of(asked.profile, backend, installation, model).config
        if installation.kind == "server":
            refuse_restarts(chosen.backend, knobs, proposed)
    task = Task(
        backend=backend,
        installation=installation,
        model=model,
        knobs=knobs,
        current=current,
        defaults=backend.defaults(installation, model),
        hardware=detect(gpus=state.plugins.detect_gpus),
        mode="attach" if installation.kind == "server" else "launch",
        phases=asked.phases,
        objectives=asked.objectives,
        constraints=asked.constraints,
        requirements=asked.requirements,
        budget_s=options["budget"],
        pairs=options["launches"] or PAIRS,
        margin=options["margin"] or MARGIN,
        seed=options["seed"],
        only=_only(options["only"], tuple(knob.name for knob in knobs), backend.name),
        proposed=proposed,
        force=options["force"],
        launch_timeout_s=options["launch_timeout"],
        request_timeout_s=options["request_timeout"],
    )
    if asked.profile is not None:
        _refuse_in_force(asked.profile, complete(task, Config()))
    return task


def _refuse_in_force(profile: Profile, current: Config) -> None:
    if all(current.get(name) == value for name, value in profile.config.items()):
        raise UsageError(
            f"there is nothing to compare: what you run has all that profile {profile.name} sets.",
            "To hold it against the engine's defaults: velollm bench --baseline --ab current",
        )


def _only(words: tuple[str, ...], known: tuple[str, ...], backend: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for word in words for name in word.split(",")))
    for name in names:
        if name not in known:
            raise UsageError(
                f"backend {backend} has no knob {name!r}.",
                f"It has: {', '.join(sorted(known)) or 'none'}.",
            )
    return names


def _resumed(state: State, task: Task, run: str) -> str:
    """The identifier of the run that is to go on; what of it is stale is named."""
    info = find_run(state, run, KIND)
    differences = fits(
        stored(info),
        fingerprint(task.hardware),
        engine_record(task.installation),
        model_record(task.model),
    )
    for sentence in differences:
        state.output.warn(f"what run {info.id} holds is stale: {sentence}.")
    return info.id


def _attached(task: Task) -> tuple[Arm, ...]:
    """The server that takes part and runs already, if one does."""
    if task.mode != "attach":
        return ()
    return (arm_of(task, CURRENT, evolve(task.current, config=Config())),)
