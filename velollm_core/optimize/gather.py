"""Asks the backend and the plugins, and has one plan made of their answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import evolve

from velollm_core.backends.advice import AdviceContext, Goal, Requirements
from velollm_core.backends.contract import Backend, Footprint, Installation
from velollm_core.backends.local import is_local
from velollm_core.config import Config, Kept, Problem, Suggestion
from velollm_core.hardware.spec import HardwareSpec
from velollm_core.models.spec import Model
from velollm_core.optimize.held import as_if_stopped
from velollm_core.optimize.plan import plan
from velollm_core.optimize.spec import Plan
from velollm_core.plugins import Plugins


def advise(
    backend: Backend,
    installation: Installation,
    model: Model,
    *,
    hardware: HardwareSpec,
    environ: Mapping[str, str],
    goal: Goal = Goal.BALANCED,
    requirements: Requirements = Requirements(),  # noqa: B008 - frozen
    experimental: bool = False,
    plugins: Plugins,
    instead: Iterable[Suggestion] | None = None,
) -> Plan:
    """What to change of ``installation``'s configuration for ``model`` on this machine.

    ``instead`` is what is suggested in place of all that the backend and the plugins do.

    Of a server on another machine nothing is proposed: neither its processors nor its memory can be
    seen from here. One that runs here is taken as stopped, since it is started anew for most of
    what may be proposed.

    Raises:
        VeloError: the engine is gone, or its settings cannot be read.
    """
    server = installation.kind == "server"
    here = not server or is_local(installation.location)

    def footprint(config: Config) -> Footprint | None:
        return backend.footprint(installation, model, config)

    def check(config: Config) -> tuple[Problem, ...]:
        return backend.check(installation, model, config)

    if server and here:
        hardware = as_if_stopped(hardware, backend.server_pids(installation))
    context = AdviceContext(
        hardware=hardware,
        backend=backend.name,
        installation=installation,
        model=model if here else evolve(model, spec=None),
        knobs=backend.knobs(installation, model),
        defaults=backend.defaults(installation, model),
        current=backend.current(installation, model, environ),
        goal=goal,
        requirements=requirements,
        experimental=experimental,
        footprint=footprint,
    )
    if not here:
        unseen = Kept(
            knobs=tuple(knob.name for knob in context.knobs),
            reason="The server is on another machine, which cannot be seen from here.",
        )
        return plan(context, (unseen,), check=check)
    suggestions: Iterable[Suggestion | Kept] | None = instead
    if suggestions is None:
        suggestions = (*backend.suggest(context), *plugins.suggest(context))
    return plan(context, suggestions, check=check)
