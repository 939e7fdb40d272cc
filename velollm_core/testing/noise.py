"""What makes measurements of the same thing differ: noise, its tails, and drift."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

Drift = Callable[[float], float]
"""A factor on every duration, by the milliseconds that have passed."""


def factor(draw: random.Random, spread: float, tails: float | None = None) -> float:
    """A factor whose logarithm has mean 0 and standard deviation ``spread``.

    Args:
        draw: where chance comes from.
        spread: 0.03 for noise of 3 %.
        tails: degrees of freedom of Student's t, above 2, for heavy tails; ``None``: normal.
    """
    if spread == 0:
        return 1.0
    value = draw.gauss(0, 1)
    if tails is not None:
        # A t variable is a normal one over the root of a chi-squared one by its degrees of
        # freedom; its variance is tails / (tails - 2).
        chi_squared = draw.gammavariate(tails / 2, 2)
        value *= math.sqrt((tails - 2) / chi_squared)
    return math.exp(spread * value)


def no_drift(now_ms: float) -> float:
    """Nothing changes."""
    del now_ms
    return 1.0


def linear_drift(share: float, over_ms: float) -> Drift:
    """A machine that slows down evenly: by ``share`` after ``over_ms``, as one that gets warm."""
    return lambda now_ms: 1.0 + share * now_ms / over_ms
