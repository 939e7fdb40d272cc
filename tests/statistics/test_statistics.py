"""The statistics against scipy and numpy, and what must hold for any numbers."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from velollm_core.statistics import (
    Interval,
    mean,
    mean_interval,
    median,
    percentile,
    percentile_interval,
    relative_spread,
    t_quantile,
)

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(p=st.floats(1e-6, 1 - 1e-6), df=st.integers(1, 2000))
def test_t_quantile_agrees_with_scipy(p, df):
    assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-8, abs=1e-9)


@pytest.mark.parametrize(("p", "df"), [(0, 3), (1, 3), (0.5, 0), (math.nan, 3)])
def test_t_quantile_refuses_what_has_no_answer(p, df):
    with pytest.raises(ValueError, match="no t quantile"):
        t_quantile(p, df)


@given(
    values=st.lists(numbers, min_size=2, max_size=40), confidence=st.sampled_from([0.8, 0.95, 0.99])
)
def test_mean_interval_agrees_with_scipy(values, confidence):
    ours = mean_interval(values, confidence)
    spread = float(stats.sem(values))
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * spread
    assert ours is not None
    assert (ours.high - ours.low) / 2 == pytest.approx(half, rel=1e-6, abs=1e-6)
    assert (ours.high + ours.low) / 2 == pytest.approx(float(np.mean(values)), rel=1e-6, abs=1e-6)


def test_one_value_has_no_mean_interval():
    assert mean_interval([3.0]) is None
    assert mean_interval([]) is None


def test_equal_values_have_an_interval_of_no_width():
    assert mean_interval([0.1] * 7) == Interval(0.1, 0.1)


@given(values=st.lists(numbers, min_size=1, max_size=60), q=st.floats(0, 100))
def test_percentile_agrees_with_numpy(values, q):
    assert percentile(values, q) == pytest.approx(float(np.percentile(values, q)), abs=1e-6)


@given(values=st.lists(numbers, min_size=1, max_size=60), shuffle=st.randoms())
def test_order_does_not_matter(values, shuffle):
    mixed = list(values)
    shuffle.shuffle(mixed)
    assert median(mixed) == median(values)
    assert percentile_interval(mixed, 50) == percentile_interval(values, 50)
    assert mean(mixed) == mean(values)


def test_percentile_of_nothing_is_refused():
    with pytest.raises(ValueError, match="0 values"):
        percentile([], 50)
    with pytest.raises(ValueError, match="no percentile 101"):
        percentile([1.0], 101)


@given(n=st.integers(1, 400), q=st.sampled_from([10.0, 50.0, 95.0, 99.0]))
def test_percentile_interval_takes_the_tightest_ranks_that_the_binomial_allows(n, q):
    found = percentile_interval(list(range(1, n + 1)), q)
    binomial = stats.binom(n, q / 100)
    if found is None:
        assert binomial.pmf(0) > 0.025 or binomial.pmf(n) > 0.025
        return
    low, high = int(found.low), int(found.high)
    assert binomial.cdf(low - 1) <= 0.025 < binomial.cdf(low)
    assert binomial.sf(high - 1) <= 0.025 < binomial.sf(high - 2)


def test_the_95th_percentile_needs_72_values_to_be_bounded():
    assert percentile_interval(list(range(71)), 95) is None
    assert percentile_interval(list(range(72)), 95) is not None
    assert percentile_interval(list(range(5)), 50) is None
    assert percentile_interval(list(range(6)), 50) == Interval(0, 5)


def test_percentile_interval_covers_as_often_as_it_says():
    draw = random.Random(7)
    truth = float(stats.expon.ppf(0.95))
    covered = 0
    for _ in range(2000):
        interval = percentile_interval([draw.expovariate(1) for _ in range(120)], 95)
        covered += interval is not None and interval.low <= truth <= interval.high
    assert covered / 2000 >= 0.94


@given(values=st.lists(st.floats(1, 1e6), min_size=2, max_size=30), scale=st.floats(0.01, 100))
def test_relative_spread_has_no_unit(values, scale):
    spread = relative_spread(values)
    assert spread == pytest.approx(relative_spread([value * scale for value in values]), abs=1e-9)
    assert spread == pytest.approx(float(np.std(values, ddof=1) / np.mean(values)), abs=1e-9)


def test_relative_spread_of_one_value_or_of_mean_zero_is_unknown():
    assert relative_spread([1.0]) is None
    assert relative_spread([-1.0, 1.0]) is None
