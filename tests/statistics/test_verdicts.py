"""Ratios, their intervals and the word on them: against scipy, by their invariants, and simulated
as often as it takes to see whether the word is right as often as it says.
"""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from velollm_core.statistics import (
    Ratio,
    Verdict,
    family_confidence,
    paired_ratio,
    pairs_to_decide,
    unpaired_ratio,
    verdict,
)

RUNS = 4000
NOISE = 0.03
DRIFT = 0.06

speeds = st.floats(0.1, 1e4)
pairs = st.lists(st.tuples(speeds, speeds), min_size=2, max_size=30)
sides = st.lists(speeds, min_size=2, max_size=30)
ratios = st.builds(
    lambda value, down, up, n, spread: Ratio(
        value=value, low=value * down, high=value * up, n=n, spread=spread
    ),
    st.floats(0.2, 5),
    st.floats(0.5, 1),
    st.floats(1, 2),
    st.integers(2, 50),
    st.floats(0, 0.5),
)


@given(pairs, st.sampled_from([0.8, 0.95, 0.99]))
def test_a_paired_ratio_agrees_with_scipy(values, confidence):
    before, after = zip(*values, strict=True)
    ours = paired_ratio(before, after, confidence)
    logs = [math.log(b / a) for a, b in values]
    if max(logs) - min(logs) < 1e-9:
        return  # scipy has no interval for what does not vary
    theirs = stats.ttest_1samp(logs, 0).confidence_interval(confidence)
    assert ours.value == pytest.approx(math.exp(sum(logs) / len(logs)))
    assert math.log(ours.low) == pytest.approx(theirs.low, rel=1e-6, abs=1e-9)
    assert math.log(ours.high) == pytest.approx(theirs.high, rel=1e-6, abs=1e-9)
    assert ours.spread == pytest.approx(stats.tstd(logs))


@given(sides, sides)
def test_an_unpaired_ratio_is_welchs_and_never_narrower(before, after):
    logs = [[math.log(value) for value in side] for side in (after, before)]
    if min(max(side) - min(side) for side in logs) < 1e-6:
        return
    ours = unpaired_ratio(before, after)
    theirs = stats.ttest_ind(*logs, equal_var=False).confidence_interval()
    assert math.log(ours.low) <= theirs.low + 1e-9
    assert math.log(ours.high) >= theirs.high - 1e-9
    # One degree of freedom is the most that is lost by rounding down.
    error = math.sqrt(sum(stats.tvar(side) / len(side) for side in logs))
    df = max(1, math.floor(stats.ttest_ind(*logs, equal_var=False).df - 1e-6))
    half = math.log(ours.high / ours.low) / 2
    assert half <= stats.t.ppf(0.975, df) * error * (1 + 1e-6)


@given(pairs)
def test_arms_that_change_places_turn_the_ratio_and_its_verdict_round(values):
    before, after = zip(*values, strict=True)
    there, back = paired_ratio(before, after), paired_ratio(after, before)
    assert back.value == pytest.approx(1 / there.value)
    assert back.low == pytest.approx(1 / there.high)
    turned = {Verdict.FASTER: Verdict.SLOWER, Verdict.SLOWER: Verdict.FASTER}
    edges = (1, 1.02, 1 / 1.02)
    if all(abs(end / edge - 1) > 1e-9 for end in (there.low, there.high) for edge in edges):
        assert verdict(back) is turned.get(verdict(there), verdict(there))


@given(pairs, st.floats(0.01, 100))
def test_the_unit_of_the_values_does_not_matter(values, scale):
    before, after = zip(*values, strict=True)
    plain = paired_ratio(before, after)
    scaled = paired_ratio([v * scale for v in before], [v * scale for v in after])
    assert scaled.value == pytest.approx(plain.value)
    assert scaled.low == pytest.approx(plain.low)
    assert scaled.high == pytest.approx(plain.high)


@given(pairs, st.lists(st.floats(0.5, 2), min_size=30, max_size=30))
def test_what_both_of_a_pair_share_cancels_out(values, hours):
    before, after = zip(*values, strict=True)
    plain = paired_ratio(before, after)
    drifting = paired_ratio(
        [v * h for v, h in zip(before, hours, strict=False)],
        [v * h for v, h in zip(after, hours, strict=False)],
    )
    assert drifting.low == pytest.approx(plain.low, rel=1e-6)
    assert drifting.high == pytest.approx(plain.high, rel=1e-6)


@given(ratios, st.floats(0.001, 0.2))
def test_the_verdict_follows_its_order(ratio, margin):
    said = verdict(ratio, margin)
    if ratio.n < 6:
        assert said is Verdict.INCONCLUSIVE
    elif ratio.low >= 1 / (1 + margin) and ratio.high <= 1 + margin:
        assert said is Verdict.NO_DIFFERENCE
    elif ratio.low > 1:
        assert said is Verdict.FASTER
    elif ratio.high < 1:
        assert said is Verdict.SLOWER
    else:
        assert said is Verdict.INCONCLUSIVE


@given(ratios, st.floats(0.001, 0.1), st.floats(0.001, 0.1))
def test_a_wider_margin_never_makes_a_difference_of_none(ratio, one, other):
    narrow, wide = sorted((one, other))
    if verdict(ratio, narrow) is Verdict.NO_DIFFERENCE:
        assert verdict(ratio, wide) is Verdict.NO_DIFFERENCE


def test_too_little_bounds_nothing():
    assert paired_ratio([1.0], [2.0]) is None
    assert unpaired_ratio([1.0], [2.0, 2.1]) is None
    assert verdict(None) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("before", "after"), [([1.0, 0.0], [1.0, 1.0]), ([1.0, 2.0], [1.0]), ([1.0, 1.0], [-1.0, 1.0])]
)
def test_what_is_no_pair_of_speeds_is_refused(before, after):
    with pytest.raises(ValueError, match="pairs need"):
        paired_ratio(before, after)


def test_values_that_do_not_vary_decide_at_once():
    assert verdict(paired_ratio([10.0] * 6, [10.0] * 6)) is Verdict.NO_DIFFERENCE
    assert verdict(paired_ratio([10.0] * 6, [11.0] * 6)) is Verdict.FASTER
    assert unpaired_ratio([10.0] * 3, [11.0] * 3).low == pytest.approx(1.1)


@given(st.floats(0.5, 0.999), st.integers(1, 1000))
def test_the_intervals_of_a_family_hold_together(confidence, comparisons):
    each = family_confidence(confidence, comparisons)
    assert confidence - 1e-12 <= each < 1
    assert comparisons * (1 - each) == pytest.approx(1 - confidence)


@given(ratios, st.floats(0.001, 0.1))
def test_the_pairs_to_decide_are_the_fewest_that_do(ratio, margin):
    needed = pairs_to_decide(ratio, margin)
    centre = abs(math.log(ratio.value))

    def decides(n):
        return any(
            (stats.t.ppf(0.975, n - 1) + stats.t.ppf(power, n - 1)) * ratio.spread / math.sqrt(n)
            <= distance * (1 + 1e-9)
            for distance, power in ((centre, 0.8), (math.log1p(margin) - centre, 0.9))
            if distance >= 0
        )

    if needed is None:
        assert not decides(990)
    else:
        assert decides(needed)
        assert needed == 6 or not decides(needed - 2)


@pytest.mark.parametrize(
    ("value", "spread", "word"),
    [
        (1.04, 0.05, Verdict.FASTER),
        (1.0, 0.03, Verdict.NO_DIFFERENCE),
        (1.005, 0.03, Verdict.NO_DIFFERENCE),
    ],
)
def test_as_many_pairs_as_were_asked_for_decide_four_times_in_five(value, spread, word):
    draw = random.Random(3)
    needed = pairs_to_decide(Ratio(value=value, low=0.9, high=1.1, n=8, spread=spread))
    said = [
        verdict(
            paired_ratio(
                [1.0] * needed,
                [math.exp(draw.gauss(math.log(value), spread)) for _ in range(needed)],
            )
        )
        for _ in range(1000)
    ]
    assert said.count(word) / 1000 >= 0.77


def gaussian(draw, noise):
    return draw.gauss(0, noise)


def heavy_tailed(draw, noise):
    """Student's t with three degrees of freedom, of the same standard deviation."""
    spread = math.sqrt(sum(draw.gauss(0, 1) ** 2 for _ in range(3)) / 3)
    return draw.gauss(0, 1) / spread * noise / math.sqrt(3)


def simulate(number, *, truth, noise, error, seed):
    """How often each verdict falls: two launches a pair in random order, on a drifting machine."""
    draw = random.Random(seed)
    said = []
    for _ in range(RUNS):
        sides = ([], [])
        for block in range(number):
            order = [0, 1]
            draw.shuffle(order)
            for place, side in enumerate(order):
                hour = (2 * block + place) / (2 * number - 1)
                speed = 100 * (truth if side else 1) * (1 - DRIFT * hour)
                sides[side].append(speed * math.exp(error(draw, noise)))
        said.append(verdict(paired_ratio(*sides)))
    return {word: said.count(word) / RUNS for word in Verdict}


@pytest.mark.parametrize("number", [6, 12, 20])
@pytest.mark.parametrize(("error", "most"), [(gaussian, 0.059), (heavy_tailed, 0.069)])
def test_of_two_equal_arms_one_is_called_faster_or_slower_as_rarely_as_promised(
    number, error, most
):
    said = simulate(number, truth=1.0, noise=NOISE, error=error, seed=number)
    assert said[Verdict.FASTER] + said[Verdict.SLOWER] <= most


@pytest.mark.parametrize(("error", "least"), [(gaussian, 0.90), (heavy_tailed, 0.89)])
def test_twelve_pairs_find_a_true_difference_of_five_percent(error, least):
    said = simulate(12, truth=1.05, noise=NOISE, error=error, seed=5)
    assert said[Verdict.FASTER] >= least
    assert said[Verdict.SLOWER] == 0


def test_twenty_quiet_pairs_of_equal_arms_say_no_difference():
    said = simulate(20, truth=1.0, noise=0.01, error=gaussian, seed=20)
    assert said[Verdict.NO_DIFFERENCE] >= 0.95
