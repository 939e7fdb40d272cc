"""``velollm optimize --verify``: the present settings against the proposed ones, in turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve

from velollm_core.backends.advice import Goal
from velollm_core.cli.choose import EXPERIMENTAL, Chosen, startable
from velollm_core.cli.measure import measure, refuse_unmeasured
from velollm_core.cli.plan import duel
from velollm_core.cli.printing import print_comparison
from velollm_core.cli.verdicts import doubted, in_short, is_slower
from velollm_core.config import Role
from velollm_core.errors import Unsettled
from velollm_core.optimize.outcome import Verification

if TYPE_CHECKING:
    from velollm_core.cli.state import State
    from velollm_core.optimize.spec import Plan


def verify(
    state: State, chosen: Chosen, plan: Plan, options: Mapping[str, Any], form: str | None
) -> Verification:
    """Measure, keep the run in the journal, and print the comparison.

    Args:
        state: where to print.
        chosen: the engine and the model that ``plan`` is for.
        plan: what is proposed.
        options: those that :mod:`velollm_core.cli.measure_options` adds to a command.
        form: ``table`` or ``markdown``; ``None`` prints nothing to standard output.

    Raises:
        UsageError: a knob can only be changed by a restart, and the server is not VeloLLM's.
        Unsettled: something else is at work on this machine, or has the memory.
        Interrupted: the user stopped it.
        Unavailable: every launch failed.
    """
    chosen = _restartable(state, chosen, plan, force=options["force"])
    clients = options["concurrency"] or (_clients(state, chosen, plan),)
    outcome = measure(
        state,
        duel(state, chosen, plan.changes, {**options, "concurrency": clients}),
        options["resume"],
    )
    refuse_unmeasured(outcome)
    result = evolve(outcome.result, comparisons=doubted(outcome.result))
    if form is not None:
        state.output.text("\n")
        print_comparison(state, result, form)
    if outcome.fault is None:
        state.output.remark(f"kept as run {result.run}; see: velollm results show {result.run}")
    else:
        state.output.warn(outcome.fault.message)
    answer = is_slower(result.comparisons)
    if answer is False:
        state.output.remark(f"not slower: {in_short(result.comparisons)}")
    return Verification(run=result.run, comparisons=result.comparisons, slower=answer)


def _restartable(state: State, chosen: Chosen, plan: Plan, *, force: bool) -> Chosen:
    """Where a running server would have to be restarted, the same engine to be started beside it,
    if there is one.

    Raises:
        Unsettled: the server holds the model in the memory that both would need.
    """
    fixed = [m.knob for p in plan.proposals for m in p.moves if m.change == "restart"]
    if chosen.installation.kind != "server" or not fixed:
        return chosen
    own = startable(state, chosen)
    if own is None:
        return chosen
    _tell_of_memory(state, chosen, force=force)
    state.output.remark(
        f"{', '.join(fixed)} cannot be changed on a server that runs: both are measured on one "
        f"that VeloLLM starts beside it ({own.installation.location})."
    )
    return own


def _tell_of_memory(state: State, chosen: Chosen, *, force: bool) -> None:
    """What the running server holds, neither configuration gets: layers may leave the GPU for it.
    Experimental knobs are there only while a model is loaded.
    """
    held = chosen.backend.in_memory(chosen.installation)
    if not held:
        return
    said = f"the server that runs holds {', '.join(held)} in memory, which both have to do without."
    name = chosen.model.served_name or chosen.model.reference
    free = f"Free it: {'; '.join(held.values())}"
    loaded_for_it = chosen.installation.options.get(EXPERIMENTAL) == "on"
    if name in held and not force and not loaded_for_it:
        raise Unsettled(said, f"{free}. Or measure all the same: --force")
    state.output.warn(f"{said} {free}")


def _clients(state: State, chosen: Chosen, plan: Plan) -> int:
    """How many ask at once: where throughput is the goal, as many as would be answered at once."""
    if plan.goal is not Goal.THROUGHPUT:
        return 1
    backend, installation, model = chosen.backend, chosen.installation, chosen.model
    knobs = backend.knobs(installation, model)
    name = next((knob.name for knob in knobs if knob.role is Role.SLOTS), "")
    now = backend.current(installation, model, state.environ).config
    slots = (now | plan.changes).get(name)
    return slots if isinstance(slots, int) and slots > 0 else plan.requirements.parallel or 1
