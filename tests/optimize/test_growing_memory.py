"""What becomes of a plan as a machine gets more memory: never less of the model on the GPU."""

from __future__ import annotations

from itertools import pairwise

import pytest

from velollm_core.backends.advice import Requirements
from velollm_core.optimize.memory import resolve

CARDS_GB = (4, 6, 8, 10, 12, 16, 24, 48)
MEMORY_GB = (4, 6, 8, 12, 16, 24, 32, 48)


def outcome(profiles, machine, model, engine="llamacpp", **wanted):
    """Layers on GPUs, less those without their experts, and the context; zeros if unfit."""
    case = profiles.advice(machine, model, engine, **wanted)
    plan = profiles.planned(case)
    if plan.obstacle is not None:
        return (0, 0, 0)
    found = resolve(case.context, plan.changes)
    return (
        found.placement.gpu_layers,
        -found.placement.cpu_expert_layers,
        found.use.context_tokens,
    )


def never_less(outcomes):
    """Experts count between outcomes with as many layers; the context counts always."""
    return all(
        before[:1] <= after[:1] and (before[0] != after[0] or before[1] <= after[1])
        for before, after in pairwise(outcomes)
    ) and all(before[2] <= after[2] for before, after in pairwise(outcomes))


@pytest.mark.parametrize("model", ["8b", "moe-30b", "window-12b", "hybrid-7b"])
def test_a_larger_card_never_gets_fewer_layers_or_a_smaller_context(profiles, model):
    outcomes = [
        outcome(profiles, profiles.machine(profiles.cpu(8), 32, profiles.gpu(gib)), model)
        for gib in CARDS_GB
    ]
    assert never_less(outcomes), outcomes
    assert len(set(outcomes)) > 1


@pytest.mark.parametrize("model", ["8b", "moe-30b", "hybrid-7b"])
def test_more_main_memory_never_gives_a_smaller_context(profiles, model):
    outcomes = [
        outcome(profiles, profiles.machine(profiles.cpu(8), gib), model) for gib in MEMORY_GB
    ]
    assert never_less(outcomes), outcomes
    assert len(set(outcomes)) > 2


def test_more_main_memory_beside_a_card_never_takes_layers_from_it(profiles):
    outcomes = [
        outcome(profiles, profiles.machine(profiles.cpu(8), gib, profiles.gpu(12)), "70b")
        for gib in (16, 32, 48, 64, 128)
    ]
    assert never_less(outcomes), outcomes


def test_required_requests_keep_their_context_on_every_card(profiles):
    wanted = Requirements(context_tokens=8192, parallel=4)
    for engine in ("llamacpp", "ollama"):
        outcomes = [
            outcome(
                profiles,
                profiles.machine(profiles.cpu(8), 32, profiles.gpu(gib)),
                "8b",
                engine,
                requirements=wanted,
            )
            for gib in (6, 8, 24)
        ]
        assert never_less(outcomes), outcomes
        assert all(context >= 4 * 8192 for _, _, context in outcomes)


def test_8_16_and_24_gb_get_different_configurations_for_a_model_on_the_edge(profiles):
    plans = [profiles.planned(profiles.advice(f"nvidia-{gib}gb", "8b")) for gib in (8, 16, 24)]
    assert len({plan.changes for plan in plans}) == 3
    contexts = [plan.changes.get("context") for plan in plans]
    assert contexts == [20480, 81920, None]  # the last holds all that the model was trained for
