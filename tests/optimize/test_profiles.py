"""Every machine with every model: what is advised fits, is possible, and is advised once."""

from __future__ import annotations

import pytest

from velollm_core.backends.advice import Requirements
from velollm_core.config import Role
from velollm_core.optimize.memory import resolve

GIB = 1024**3


@pytest.fixture(scope="module", params=["llamacpp", "ollama"])
def plans(request, profiles):
    """For each machine and model what is known, the plan, and what the engine makes of it."""
    found = {}
    for machine in profiles.machines:
        for model in profiles.models:
            case = profiles.advice(machine, model, request.param)
            case.plan = profiles.planned(case)
            case.resolved = resolve(case.context, case.plan.changes)
            found[machine, model] = (case, case.plan)
    return found


def test_there_are_at_least_twelve_machines_and_six_models(profiles):
    assert len(profiles.machines) >= 12
    assert len(profiles.models) >= 6


def test_no_plan_takes_more_memory_than_the_process_may_use(plans):
    for (machine, model), (case, plan) in plans.items():
        hardware = case.context.hardware
        if plan.obstacle is not None:
            continue
        memory = case.resolved.memory
        shared = any(gpu.unified_memory for gpu in hardware.gpus)
        on_gpus = sum(part.total_bytes for part in memory.gpus) if shared else 0
        host = memory.host.total_bytes + memory.process_bytes + on_gpus
        assert host + prompts_bytes(case, plan) <= hardware.memory.usable_bytes, (machine, model)
        for gpu, part in zip(hardware.gpus, memory.gpus, strict=False):
            assert part.total_bytes <= gpu.memory_free_bytes, (machine, model)


def test_by_the_backends_own_estimate_every_plan_fits_too(plans):
    for (machine, model), (case, plan) in plans.items():
        hardware = case.context.hardware
        config = case.context.current.config | plan.changes
        told = None if plan.obstacle else case.context.footprint(config)
        if told is None:
            continue
        host = told.host_bytes + prompts_bytes(case, plan)
        assert host <= hardware.memory.usable_bytes, (machine, model)
        for gpu in hardware.gpus:
            assert told.gpu_bytes.get(gpu.uuid, 0) <= gpu.memory_free_bytes, (machine, model)


def test_the_figures_that_a_plan_shows_fit(plans):
    for _, plan in plans.values():
        if plan.obstacle is None:
            assert plan.rooms
            assert all(room.planned_bytes <= room.usable_bytes for room in plan.rooms)


def prompts_bytes(case, plan):
    """What kept prompts may grow to, of an engine that has a bound for them."""
    config = case.context.current.config | plan.changes
    return config.get("cache_ram", 0) * 2**20


def test_no_plan_starts_more_threads_than_may_run_at_once(plans):
    for case, plan in plans.values():
        cpu = case.context.hardware.cpu
        decode, prefill = map(case.context.knob, (Role.THREADS_DECODE, Role.THREADS_PREFILL))
        own = cpu.performance_cores or cpu.physical
        if plan.obstacle is None:
            assert plan.changes.get(decode.name, own) <= cpu.usable
            assert prefill is None or plan.changes.get(prefill.name, 0) <= cpu.usable


def test_every_proposal_is_of_a_knob_that_is_there_and_starts_the_engine(plans):
    for case, plan in plans.values():
        assert case.check(case.context.current.config | plan.changes) == ()
        assert set(plan.changes) <= {knob.name for knob in case.context.knobs}


def test_every_proposal_says_why_what_for_and_where_it_comes_from(plans):
    for _, plan in plans.values():
        for entry in plan.proposals:
            assert entry.reason.endswith(".")
            assert entry.effect.endswith(".")
            assert entry.source
        assert all(entry.reason.endswith(".") for entry in plan.kept)


def test_nothing_uncertain_is_proposed_to_who_asks_for_nothing_in_particular(plans):
    for _, plan in plans.values():
        assert all(entry.confidence != "low" for entry in plan.proposals)
        assert not any(entry.experimental for entry in plan.proposals)


def test_a_knob_is_proposed_or_left_alone_and_never_both(plans):
    for _, plan in plans.values():
        named = [*plan.changes, *(name for entry in plan.kept for name in entry.knobs)]
        assert len(named) == len(set(named))


def test_the_context_is_not_below_what_the_engine_gives_at_least(plans):
    for case, plan in plans.values():
        if plan.obstacle is None:
            least = min(4096, case.context.model.spec.context_length)
            assert case.resolved.use.context_tokens >= least


def test_a_model_that_does_not_fit_is_said_not_to_with_figures_and_a_way_out(plans):
    for (machine, model), (case, plan) in plans.items():
        if plan.obstacle is not None:
            assert plan.proposals == ()
            assert "GiB" in plan.obstacle
            assert "would" in plan.obstacle
            assert not case.resolved.fits, (machine, model)


def test_the_context_that_is_said_to_fit_does_where_it_is_asked_for(plans, profiles):
    followed = 0
    for (machine, model), (case, plan) in plans.items():
        _, found, rest = (plan.obstacle or "").partition("--context ")
        if found:
            wanted = Requirements(context_tokens=int(rest.partition(".")[0]))
            again = profiles.advice(machine, model, case.context.backend, requirements=wanted)
            assert profiles.planned(again).obstacle is None, (machine, model)
            followed += 1
    assert followed


def test_the_largest_model_fits_where_there_is_memory_for_it_and_nowhere_else(plans):
    for (_, model), (case, plan) in plans.items():
        hardware = case.context.hardware
        cards = sum(gpu.memory_free_bytes for gpu in hardware.gpus if not gpu.unified_memory)
        if model == "405b":
            assert (plan.obstacle is None) == (hardware.memory.usable_bytes + cards > 220 * GIB)


def test_whoever_applies_the_plan_and_asks_again_is_told_to_keep_it(plans, profiles):
    for (machine, model), (case, plan) in plans.items():
        if plan.proposals:
            again = profiles.advice(machine, model, case.context.backend, changes=plan.changes)
            assert profiles.planned(again).proposals == (), (machine, model)
