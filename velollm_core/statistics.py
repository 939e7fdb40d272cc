"""Pure functions on numbers: quantiles, intervals, spread. Standard library only.

Every function takes finite numbers in any order. Where too few values bound an answer it is
``None``, never a guess.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import frozen


@frozen
class Interval:
    """A closed interval, in the unit of what it bounds."""

    low: float
    high: float


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


def _standard_deviation(values: Sequence[float]) -> float:
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))
