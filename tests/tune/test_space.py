"""How the highest point of a space is found."""

from __future__ import annotations

import random
from itertools import combinations, product

import pytest

from velollm_core.config import Config
from velollm_core.tune.candidates import axes
from velollm_core.tune.model import Surface
from velollm_core.tune.space import Space


@pytest.fixture
def space(tuning):
    task = tuning.task(tuning.script(), only=("threads", "attention", "poll"))
    return Space(task, Config(), axes(task)[0])


def surface(space, value):
    sizes = [range(len(options)) for options in space.options]
    draw = random.Random(value)
    together = {
        (a, b): [[draw.gauss(0, 1) for _ in sizes[b]] for _ in sizes[a]]
        for a, b in combinations(range(len(sizes)), 2)
    }
    return Surface([[draw.gauss(0, 1) for _ in size] for size in sizes], together, {})


@pytest.mark.parametrize("seed", range(20))
def test_no_step_of_one_axis_or_of_two_leads_higher(space, seed):
    height = surface(space, seed)
    best = space.best(height, [space.origin], lambda point: space.whole(point) is not None)
    for a, b in combinations(range(len(best)), 2):
        for one, other in product(range(len(space.options[a])), range(len(space.options[b]))):
            step = [*best]
            step[a], step[b] = one, other
            assert height(tuple(step)) <= height(best) + 1e-9


def test_what_may_not_be_taken_is_not(space):
    height = surface(space, 1)
    best = space.best(height, [space.origin], lambda _: True)
    assert space.best(height, [space.origin], lambda point: point != best) != best
