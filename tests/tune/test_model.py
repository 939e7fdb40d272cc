"""What the model makes of trials: it finds what was planted, and knows how far it does not know."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest

from velollm_core.tune.model import Seen, Spreads, fitted

SAME = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
AXES = [SAME, SAME, SAME]
START = (0, 0, 0)
POINTS = list(product(range(3), repeat=3))


def planted(effects, point):
    return sum(values[option] for values, option in zip(effects, point, strict=True))


def seen(value, points, noise=0.03, seed=0, drift=0.0):
    """Blocks of six, the first of each the start."""
    draw = random.Random(seed)
    blocks = [points[k : k + 5] for k in range(0, len(points), 5)]
    return [
        Seen(point, number, value(point) + drift * number + draw.gauss(0, noise))
        for number, block in enumerate(blocks)
        for point in (START, *block)
    ]


def model(entries, alike=AXES, look=True):
    return fitted(alike, entries, Spreads(), look=look)


def test_what_was_planted_is_found_within_what_the_model_does_not_know():
    apart = []
    for seed in range(30):
        draw = random.Random(f"effects {seed}")
        effects = [[draw.gauss(0, 0.08) for _ in range(3)] for _ in AXES]
        points = [draw.choice(POINTS) for _ in range(30)]
        found = model(seen(lambda p, e=effects: planted(e, p), points, seed=seed))
        for point in draw.sample(POINTS, 5):
            value, spread = found.difference(point, START)
            true = planted(effects, point) - planted(effects, START)
            if point != START:
                apart.append((value - true) / spread)
    assert abs(sum(apart) / len(apart)) < 0.3
    assert math.sqrt(sum(z * z for z in apart) / len(apart)) == pytest.approx(1, abs=0.35)


def test_one_trial_of_many_combinations_tells_all_options():
    effects = [[0.0, 0.1, -0.1], [0.0, -0.05, 0.05], [0.0, 0.02, -0.3]]
    points = random.Random(0).sample(POINTS, 20)
    found = model(seen(lambda p: planted(effects, p), points))
    surface = found.expected()
    assert max(POINTS, key=surface)[:2] == (1, 2)
    assert found.difference((0, 0, 2), START)[0] == pytest.approx(-0.3, abs=0.06)


def test_what_two_options_bring_only_together_is_found():
    def value(point):
        return 0.2 if point[:2] == (1, 1) else -0.05 * (point[0] == 1) - 0.05 * (point[1] == 1)

    found = model(seen(value, 3 * POINTS[1:], noise=0.02))
    assert max(POINTS, key=found.expected())[:2] == (1, 1)
    assert found.spreads.pair > 0.02


def test_drift_from_block_to_block_is_taken_out():
    value = {True: 0.1, False: 0.0}
    points = [(1, 0, 0)] * 5 + [(2, 0, 0)] * 5 + [(0, 1, 0)] * 5
    steady, drifting = (
        model(seen(lambda p: value[p == (2, 0, 0)], points, drift=drift)).difference(
            (2, 0, 0), (1, 0, 0)
        )[0]
        for drift in (0.0, -0.05)
    )
    assert drifting == pytest.approx(steady, abs=0.02)


def test_options_that_lie_near_each_other_inform_each_other():
    near = [[1.0, 0.8, 0.1], [0.8, 1.0, 0.1], [0.1, 0.1, 1.0]]
    entries = seen(lambda p: 0.2 * (p[0] == 1), [(1, 0, 0)] * 5, noise=0.01)
    alone = model(entries, look=False)
    both = model(entries, [near, SAME, SAME], look=False)
    assert alone.difference((2, 0, 0), START)[0] < both.difference((1, 0, 0), START)[0]
    assert both.difference((1, 0, 0), START)[1] < alone.difference((2, 0, 0), START)[1]


def test_draws_spread_as_far_as_the_model_does_not_know():
    points = [(1, 0, 0), (1, 1, 0), (0, 1, 1)] * 3
    found = model(seen(lambda p: 0.1 * p[0], points))
    draw = random.Random(0)
    surfaces = [found.drawn(draw) for _ in range(400)]
    for point in ((1, 0, 0), (2, 2, 2), (1, 1, 1)):
        value, spread = found.difference(point, START)
        values = [surface(point) - surface(START) for surface in surfaces]
        centre = sum(values) / len(values)
        deviation = math.sqrt(sum((v - centre) ** 2 for v in values) / len(values))
        if point != (
            1,
            0,
            0,
        ):  # a whole point that was not measured has nothing for itself in a draw
            spread = math.sqrt(spread**2 - (0.1 * found.spreads.effect) ** 2)
        assert centre == pytest.approx(value, abs=4 * spread / 20)
        assert deviation == pytest.approx(spread, rel=0.15)
    mean = found.expected()
    assert mean((2, 2, 2)) - mean(START) == pytest.approx(found.difference((2, 2, 2), START)[0])


def test_the_noise_is_found_again():
    found = [
        model(seen(lambda p: 0.05 * p[0], random.Random(k).choices(POINTS, k=40), seed=k))
        for k in range(8)
    ]
    noise = math.exp(sum(math.log(each.spreads.noise) for each in found) / len(found))
    assert noise == pytest.approx(0.03, rel=0.2)


def test_a_model_that_goes_on_from_another_is_the_same_as_one_from_the_beginning():
    entries = seen(lambda p: 0.05 * p[0], random.Random(3).choices(POINTS, k=30))
    first = fitted(AXES, entries[:20], Spreads(), look=True)
    grown = [[*row, 0.0] for row in SAME] + [[0.0, 0.0, 0.0, 1.0]]
    axes = [grown, SAME, SAME]
    going_on = fitted(axes, entries, first.spreads, look=False, before=first)
    anew = fitted(axes, entries, first.spreads, look=False)
    for point in ((2, 1, 0), (3, 0, 0)):
        assert going_on.difference(point, START) == pytest.approx(anew.difference(point, START))
