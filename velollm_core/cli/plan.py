"""What the options of a command that measures ask for, as an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve

from velollm_core.cli.choose import Chosen, parse_sets
from velollm_core.cli.measure_options import WORKLOADS
from velollm_core.cli.state import State
from velollm_core.config import ENGINE_DEFAULT, Config, LeftOut, Settings, differ, inactive, show
from velollm_core.errors import UsageError
from velollm_core.experiment.measures import METRICS
from velollm_core.experiment.spec import Arm, Experiment, Phase, Question, Workload
from velollm_core.optimize.spec import ORIGIN
from velollm_core.statistics import LEAST_PAIRS, MARGIN

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from velollm_core.backends.contract import Backend
    from velollm_core.config import Knob

LAUNCHES = 3
PAIRS = 12
"""At 3 % noise a launch, twelve pairs find a true difference of 5 % in 95 of 100 runs."""

_SET = "--set"
_AB = "--ab"
_SAME = "same"
_CURRENT = "current"


def plan(state: State, chosen: Chosen, options: Mapping[str, Any]) -> Experiment:
    """The experiment that the options of ``bench`` describe: one arm, or two with ``--ab``.

    Raises:
        UsageError: options that contradict each other, or that this engine does not have.
    """
    if options["ab"] is not None:
        if options["duration"] is not None:
            raise UsageError(
                "--duration would send the faster arm more and other prompts.",
                "With --ab say how many: --requests N",
            )
        return _duel(state, _arms(state, chosen, options), options)
    blocks = options["launches"] or LAUNCHES
    if chosen.installation.kind == "server":
        blocks = 1
        state.output.remark("a server that runs already is one launch: there is no interval.")
    return _experiment(state, _arms(state, chosen, options), blocks, options)


def duel(state: State, chosen: Chosen, proposed: Config, options: Mapping[str, Any]) -> Experiment:
    """The user's own settings against the same with ``proposed`` laid over them.

    Args:
        state: where to say what is left out.
        chosen: the engine and the model.
        proposed: the knobs that change.
        options: those that :mod:`velollm_core.cli.measure_options` adds to a command.

    Raises:
        UsageError: a knob cannot be changed on the server that is attached to.
    """
    current = chosen.backend.current(chosen.installation, chosen.model, state.environ)
    tell_left_out(state, current)
    other = over(current, proposed, ORIGIN)
    if chosen.installation.kind == "server":
        current, other = _live(chosen, current, other, ORIGIN)
    return _duel(state, (_arm(chosen, _CURRENT, current), _arm(chosen, "proposed", other)), options)


def _duel(state: State, arms: tuple[Arm, ...], options: Mapping[str, Any]) -> Experiment:
    """Two arms, the first of which is what the other is held against."""
    pairs = options["launches"] or PAIRS
    if pairs < LEAST_PAIRS:
        state.output.warn(f"fewer than {LEAST_PAIRS} pairs (--launches) get no verdict.")
    question = Question(
        baseline=arms[0].name,
        metric=options["metric"] or next(iter(METRICS)),
        margin=options["margin"] or MARGIN,
    )
    return evolve(_experiment(state, arms, pairs, options), question=question)


def _experiment(
    state: State, arms: tuple[Arm, ...], blocks: int, options: Mapping[str, Any]
) -> Experiment:
    return Experiment(
        arms=arms,
        phases=phases(state, options),
        blocks=blocks,
        seed=options["seed"],
        unit="block" if arms[0].mode == "attach" else "launch",
        keep_text=options.get("keep_text", False),
        force=options["force"],
        launch_timeout_s=options["launch_timeout"],
        request_timeout_s=options["request_timeout"],
    )


def _arms(state: State, chosen: Chosen, options: Mapping[str, Any]) -> tuple[Arm, ...]:
    attached = chosen.installation.kind == "server"
    current = chosen.backend.current(chosen.installation, chosen.model, state.environ)
    settings = _settings(state, chosen, current, options)
    name = "defaults" if options["baseline"] else _CURRENT
    if options["ab"] is None:
        return (_arm(chosen, name, _only(settings, {_SET}) if attached else settings),)
    second, other = _second(chosen, current, settings, options)
    _warn_of_idle(state, chosen, other)
    if attached:
        settings, other = _live(chosen, settings, other, _AB)
    if not differ(settings, other):
        state.output.remark(
            "both arms are the same: this run shows the noise of this machine (A/A)."
        )
    return _arm(chosen, name, settings), _arm(chosen, second, other)


def _arm(chosen: Chosen, name: str, settings: Settings) -> Arm:
    return Arm(
        name=name,
        backend=chosen.backend,
        installation=chosen.installation,
        model=chosen.model,
        settings=settings,
        mode="attach" if chosen.installation.kind == "server" else "launch",
    )


def _settings(
    state: State, chosen: Chosen, current: Settings, options: Mapping[str, Any]
) -> Settings:
    """The user's own settings, or the engine's defaults, with ``--set`` laid over them."""
    backend, installation, model = chosen.backend, chosen.installation, chosen.model
    settings = current
    if options["baseline"]:
        if installation.kind == "server":
            raise UsageError(
                "--baseline needs a server that VeloLLM starts itself; this one runs already.",
                f"{_own_server(backend)}, or leave out --baseline.",
            )
        settings = backend.defaults(installation, model)
        removed = tuple(
            LeftOut(name, origin, "--baseline removes the user's own settings")
            for name, origin in current.origins.items()
            if origin != ENGINE_DEFAULT
        )
        settings = evolve(settings, left_out=settings.left_out + removed + current.left_out)
    tell_left_out(state, settings)
    return over(settings, parse_sets(options["set"], chosen, _SET), _SET)


def tell_left_out(state: State, settings: Settings) -> None:
    """Say what of the user's own the engine does not get, and why."""
    for entry in settings.left_out:
        state.output.remark(f"not passed on: {entry.name} ({entry.origin}): {entry.reason}")


def _own_server(backend: Backend) -> str:
    return f"Let VeloLLM start the server: {backend.startable}"


def over(settings: Settings, changed: Config, origin: str) -> Settings:
    """``settings`` with ``changed`` laid over them, whose values come from ``origin``."""
    return evolve(
        settings,
        config=settings.config | changed,
        origins={**settings.origins, **dict.fromkeys(changed, origin)},
    )


def _second(
    chosen: Chosen, current: Settings, settings: Settings, options: Mapping[str, Any]
) -> tuple[str, Settings]:
    """Name and settings of the arm that is held against ``settings``."""
    words = options["ab"].strip()
    if words == _SAME:
        return "again", settings
    if words == _CURRENT:
        if not options["baseline"]:
            raise UsageError(
                f"--ab {_CURRENT} compares your own settings with themselves.",
                f"Add --baseline to hold them against the engine's defaults, or name a change: "
                f"--ab KNOB=VALUE. To see the noise of this machine: --ab {_SAME}",
            )
        return _CURRENT, over(current, parse_sets(options["set"], chosen, _SET), _SET)
    changed = parse_sets((words,), chosen, _AB)
    other = over(settings, changed, _AB)
    for problem in chosen.backend.check(chosen.installation, chosen.model, other.config):
        raise UsageError(f"--ab: {problem.message}", "")
    return "changed", other


def _warn_of_idle(state: State, chosen: Chosen, other: Settings) -> None:
    knobs = chosen.backend.knobs(chosen.installation, chosen.model)
    idle = [
        name for name in inactive(knobs, other.config) if other.origins.get(name) in {_AB, _SET}
    ]
    needs = {knob.name: knob.active_when for knob in knobs}
    for name in idle:
        condition = needs[name]
        if condition is not None:
            values = " or ".join(map(show, condition.values))
            state.output.warn(f"{name} has no effect unless {condition.knob} is {values}.")


def _only(settings: Settings, origins: set[str]) -> Settings:
    """Of an attached server only what was asked for is changed; the rest is as it runs."""
    own = {name for name, origin in settings.origins.items() if origin in origins}
    return evolve(settings, config=Config({k: v for k, v in settings.config.items() if k in own}))


def _live(
    chosen: Chosen, settings: Settings, other: Settings, changed: str
) -> tuple[Settings, Settings]:
    """Both settings for one running server, each with a value for every knob that differs:
    those of ``other`` whose origin is ``changed``.

    Raises:
        UsageError: a knob cannot be changed there, or its present value is not known.
    """
    knobs = chosen.backend.knobs(chosen.installation, chosen.model)
    moved = [name for name, origin in other.origins.items() if origin == changed]
    refuse_restarts(chosen.backend, knobs, moved)
    unknown = [name for name in moved if name not in settings.config]
    if unknown:
        raise UsageError(
            f"the server does not tell what {', '.join(unknown)} is now.",
            f"Say what to compare with: --set {unknown[0]}=VALUE",
        )
    before = _only(settings, {_SET})
    now = {name: settings.config[name] for name in moved}
    return evolve(before, config=before.config | now), _only(other, {changed, _SET})


def refuse_restarts(backend: Backend, knobs: Sequence[Knob], moved: Collection[str]) -> None:
    """Make sure that a running server can be told each of ``moved``.

    Raises:
        UsageError: a knob takes effect only at its start.
    """
    fixed = [knob.name for knob in knobs if knob.change == "restart" and knob.name in moved]
    if fixed:
        raise UsageError(
            f"{', '.join(fixed)} cannot be changed on a server that runs already.",
            _own_server(backend),
        )


def phases(
    state: State, options: Mapping[str, Any], workloads: Sequence[str] = WORKLOADS
) -> tuple[Phase, ...]:
    """What a trial sends.

    Args:
        state: whose plugins bring workloads.
        options: those of ``work_options``.
        workloads: what is sent where the user names nothing.

    Raises:
        UsageError: there is no such workload, or the file of prompts cannot be read.
    """
    return tuple(
        Phase(
            workload=workload,
            requests=max(options["requests"], concurrency * workload.group),
            concurrency=concurrency,
            warmup=options["warmup"],
            max_tokens=options["max_tokens"],
            duration_s=options.get("duration"),
        )
        for workload in _workloads(state, options, workloads)
        for concurrency in options["concurrency"] or (1,)
    )


def _workloads(
    state: State, options: Mapping[str, Any], usual: Sequence[str]
) -> tuple[Workload, ...]:
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
    return tuple(known[name] for name in dict.fromkeys(names or usual))
