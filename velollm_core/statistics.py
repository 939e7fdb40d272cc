"""Pure functions on numbers: quantiles, intervals, ratios, verdicts. Standard library only.

Every function takes finite numbers, in any order unless they are pairs. Where too few values bound
an answer it is ``None``, never a guess.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from enum import StrEnum

from attrs import frozen

MARGIN = 0.02
"""The difference, as a part of the ratio, below which two speeds are the same to a user."""

LEAST_PAIRS = 6
"""Fewer pairs get no verdict: their standard deviation is itself little more than a guess."""

_MOST_PAIRS = 1000
_POWER = 0.8


@frozen
class Interval:
    """A closed interval, in the unit of what it bounds."""

    low: float
    high: float


@frozen(kw_only=True)
class Ratio:
    """A ratio of two positive quantities with its interval.

    ``n`` is the number of pairs, or of all values where nothing is paired. ``spread`` is the
    standard deviation of what was averaged, on the scale of natural logarithms.
    """

    value: float
    low: float
    high: float
    n: int
    spread: float


class Verdict(StrEnum):
    """What a comparison says."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_DIFFERENCE = "no difference"
    INCONCLUSIVE = "inconclusive"


def t_quantile(p: float, df: int) -> float:
    """The ``p`` quantile of Student's t distribution.

    Solves for the angle in the finite series of Abramowitz and Stegun, Handbook of Mathematical
    Functions, 26.7.3 and 26.7.4, whose terms are all positive. Relative error below 1e-8 for ``p``
    between 1e-6 and 1 - 1e-6.

    Args:
        p: probability, strictly between 0 and 1.
        df: degrees of freedom, at least 1.

    Raises:
        ValueError: ``p`` or ``df`` is out of range.
    """
    if not 0 < p < 1 or df < 1:
        raise ValueError(f"no t quantile for p={p}, df={df}")
    if p < 0.5:
        return -t_quantile(1 - p, df)
    central = 2 * p - 1
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        if _central_probability(middle, df) < central:
            low = middle
        else:
            high = middle
    return math.sqrt(df) * math.tan(low)


def _central_probability(angle: float, df: int) -> float:
    """P(|T| <= t) for ``angle = atan(t / sqrt(df))``."""
    cosine = math.cos(angle)
    odd = df % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(odd + 1, df, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if odd else total


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one value."""
    return math.fsum(values) / len(values)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """The t interval of the mean, or ``None`` for fewer than two values."""
    if len(values) < 2:
        return None
    centre = mean(values)
    half = (
        t_quantile((1 + confidence) / 2, len(values) - 1)
        * _standard_deviation(values)
        / math.sqrt(len(values))
    )
    return Interval(centre - half, centre + half)


def percentile(values: Sequence[float], q: float) -> float:
    """The ``q``-th percentile, ``q`` from 0 to 100, of at least one value.

    Linear interpolation between order statistics at position ``(n - 1) q / 100``, counted from 0:
    type 7 of Hyndman and Fan (1996), the default of R and numpy.

    Raises:
        ValueError: there are no values, or ``q`` is out of range.
    """
    if not values or not 0 <= q <= 100:
        raise ValueError(f"no percentile {q} of {len(values)} values")
    ordered = sorted(values)
    position = (len(ordered) - 1) * q / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the middle two, of at least one value."""
    return percentile(values, 50)


def percentile_interval(
    values: Sequence[float], q: float, confidence: float = 0.95
) -> Interval | None:
    """An interval for the ``q``-th percentile of what the values are a sample of.

    Its ends are order statistics, chosen by the binomial distribution so that each side errs with
    probability at most ``(1 - confidence) / 2`` whatever the distribution of the values (Conover,
    Practical Nonparametric Statistics, section 3.2). ``None`` where no value lies far enough out:
    at 95 % the median needs 6 values, the 95th percentile 72.

    Args:
        values: independent values.
        q: strictly between 0 and 100.
        confidence: the least probability of covering the percentile.
    """
    ordered = sorted(values)
    share = q / 100
    error = (1 - confidence) / 2
    low = _largest_rank(len(ordered), share, error)
    high = _largest_rank(len(ordered), 1 - share, error)
    if low == 0 or high == 0:
        return None
    return Interval(ordered[low - 1], ordered[-high])


def _largest_rank(n: int, share: float, error: float) -> int:
    """The largest rank ``r`` with P(Binomial(n, share) < r) <= error; 0 where there is none."""
    below = 0.0
    for rank in range(n):
        below += math.exp(
            math.lgamma(n + 1)
            - math.lgamma(rank + 1)
            - math.lgamma(n - rank + 1)
            + rank * math.log(share)
            + (n - rank) * math.log1p(-share)
        )
        if below > error:
            return rank
    return n


def relative_spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation over the size of the mean.

    ``None`` for fewer than two values or a mean of 0.
    """
    if len(values) < 2 or mean(values) == 0:
        return None
    return _standard_deviation(values) / abs(mean(values))


def paired_ratio(
    baseline: Sequence[float], changed: Sequence[float], confidence: float = 0.95
) -> Ratio | None:
    """The ratio ``changed / baseline`` of values that were measured pair by pair.

    The geometric mean of the pairs' ratios, with the t interval of the mean of their logarithms:
    what both values of a pair share, such as the temperature of that minute, cancels out. ``None``
    for fewer than two pairs.

    Args:
        baseline: positive values.
        changed: as many, in the same order.
        confidence: the probability of covering the true ratio.

    Raises:
        ValueError: the lengths differ, or a value is not positive.
    """
    if len(baseline) != len(changed) or min((*baseline, *changed), default=1.0) <= 0:
        raise ValueError("pairs need two positive values each")
    logarithms = [math.log(b / a) for a, b in zip(baseline, changed, strict=True)]
    interval = mean_interval(logarithms, confidence)
    if interval is None:
        return None
    return Ratio(
        value=math.exp(mean(logarithms)),
        low=math.exp(interval.low),
        high=math.exp(interval.high),
        n=len(logarithms),
        spread=_standard_deviation(logarithms),
    )


def unpaired_ratio(
    baseline: Sequence[float], changed: Sequence[float], confidence: float = 0.95
) -> Ratio | None:
    """The ratio ``changed / baseline`` of two samples that share no pairs.

    Welch's interval of the difference of mean logarithms. The degrees of freedom (Welch 1947) are
    rounded down, which widens it. ``None`` for fewer than two values on either side.

    Raises:
        ValueError: a value is not positive.
    """
    if min((*baseline, *changed), default=1.0) <= 0:
        raise ValueError("a ratio needs positive values")
    if min(len(baseline), len(changed)) < 2:
        return None
    sides = [[math.log(value) for value in values] for values in (baseline, changed)]
    variances = [_standard_deviation(side) ** 2 / len(side) for side in sides]
    variance = math.fsum(variances)
    freedom = sum(v**2 / (len(side) - 1) for v, side in zip(variances, sides, strict=True))
    df = math.floor(variance**2 / freedom) if freedom > 0 else len(baseline) + len(changed) - 2
    centre = mean(sides[1]) - mean(sides[0])
    half = t_quantile((1 + confidence) / 2, max(1, df)) * math.sqrt(variance)
    return Ratio(
        value=math.exp(centre),
        low=math.exp(centre - half),
        high=math.exp(centre + half),
        n=len(baseline) + len(changed),
        spread=math.sqrt(variance),
    )


def verdict(speed: Ratio | None, margin: float = MARGIN) -> Verdict:
    """What a paired ratio of speeds says, above 1 being faster.

    In this order: an interval inside ``1 / (1 + margin)`` to ``1 + margin`` is no difference, even
    where it leaves out 1; an interval that leaves out 1 is faster or slower; anything else, and
    fewer than :data:`LEAST_PAIRS` pairs, is inconclusive.
    """
    if speed is None or speed.n < LEAST_PAIRS:
        return Verdict.INCONCLUSIVE
    if speed.low >= 1 / (1 + margin) and speed.high <= 1 + margin:
        return Verdict.NO_DIFFERENCE
    if speed.low > 1:
        return Verdict.FASTER
    if speed.high < 1:
        return Verdict.SLOWER
    return Verdict.INCONCLUSIVE


def pairs_to_decide(speed: Ratio, margin: float = MARGIN, confidence: float = 0.95) -> int | None:
    """How many pairs would settle a comparison four times in five, if it is as it seems.

    The least ``n`` with ``(t(confidence) + t(power)) * spread / sqrt(n)`` no longer than the way
    from the ratio seen to 1, for a difference, or to the farther edge of the margin, for none. That
    there is none takes both ends of the interval, so each has half the chance to fail. ``None``
    where even 1000 pairs would not do.
    """
    centre = abs(math.log(speed.value))
    ways = ((centre, _POWER), (math.log1p(margin) - centre, (1 + _POWER) / 2))

    def decides(n: int) -> bool:
        held = t_quantile((1 + confidence) / 2, n - 1)
        return any(
            (held + t_quantile(power, n - 1)) * speed.spread <= distance * math.sqrt(n)
            for distance, power in ways
            if distance >= 0
        )

    numbers = range(LEAST_PAIRS, _MOST_PAIRS + 1)
    position = bisect_left(numbers, True, key=decides)
    return numbers[position] if position < len(numbers) else None


def family_confidence(confidence: float, comparisons: int) -> float:
    """The confidence that each of several intervals needs so that all hold together.

    Bonferroni's: it holds whatever the comparisons share, and an interval that is shown is the one
    that its verdict was read from.

    Raises:
        ValueError: there are no comparisons.
    """
    if comparisons < 1:
        raise ValueError("there is nothing to compare")
    return 1 - (1 - confidence) / comparisons


def _standard_deviation(values: Sequence[float]) -> float:
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))
