"""Axes of the HTML report: round marks, all values inside, no two labels alike."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.report.html.scales import linear, logarithmic, nice_ticks, ratios, whole_ticks

sizes = st.floats(1e-3, 1e9)


def is_round(step):
    """1, 2, 2.5 or 5 times a power of ten."""
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    return any(math.isclose(mantissa, k, rel_tol=1e-6) for k in (1, 2, 2.5, 5))


@given(st.lists(sizes, min_size=1), st.booleans(), st.integers(3, 8))
def test_a_linear_axis_holds_every_value_and_has_a_few_round_marks(values, zero, count):
    scale = linear(values, 0, 100, ticks=count, zero=zero)
    assert all(0 <= scale(value) <= 100 for value in values)
    assert scale.low == 0 or not zero
    assert 2 <= len(scale.ticks) <= count + 2
    assert all(-1e-9 <= scale(tick) <= 100 + 1e-9 for tick in scale.ticks)
    steps = [b - a for a, b in zip(scale.ticks, scale.ticks[1:], strict=False)]
    assert all(math.isclose(step, steps[0], rel_tol=1e-3) for step in steps)
    assert len(set(scale.labels())) == len(scale.ticks)
    assert [float(label) for label in scale.labels()] == pytest.approx(scale.ticks)


@given(sizes, sizes, st.integers(2, 8))
def test_marks_are_multiples_of_a_round_step(a, b, count):
    low, high = min(a, b), max(a, b)
    if high - low < high * 1e-3:
        high = low * 1.5
    ticks = nice_ticks(low, high, count)
    assert is_round(ticks[1] - ticks[0])
    assert all(low <= tick <= high for tick in ticks)


@given(st.lists(st.floats(1e-4, 1e4), min_size=1))
def test_an_axis_of_ratios_holds_every_ratio_and_1(values):
    scale = ratios(values, 10, 90)
    assert all(10 <= scale(value) <= 90 for value in (*values, 1.0))
    assert 2 <= len(scale.ticks) <= 7
    assert len(set(scale.labels())) == len(scale.ticks)


@given(st.floats(1e-4, 1e4), st.floats(1.01, 1e8))
def test_equal_ratios_are_equally_far_apart_on_a_logarithmic_axis(low, factor):
    scale = logarithmic(low, low * factor, 0, 1)
    middle = low * math.sqrt(factor)
    assert scale(middle) == pytest.approx(0.5, abs=1e-6)


def test_marks_are_where_a_reader_expects_them():
    assert nice_ticks(0, 10, 5) == (0, 2, 4, 6, 8, 10)
    assert ratios([0.96, 1.11], 0, 1, ticks=4).labels() == ("1.00", "1.05", "1.10")
    assert ratios([0.2, 8], 0, 1).labels() == ("0.3", "1", "3")
    assert whole_ticks(12, 8) == (1, 2, 4, 6, 8, 10, 12)
    assert whole_ticks(3, 8) == (1, 2, 3)


def test_values_that_are_all_the_same_still_have_an_axis():
    scale = linear([5.0, 5.0], 0, 100)
    assert scale(5.0) == pytest.approx(50)
    assert linear([0.0], 0, 100)(0.0) == pytest.approx(50)


def test_an_axis_without_room_is_refused():
    with pytest.raises(ValueError, match="no 5 ticks"):
        nice_ticks(1, 1, 5)
