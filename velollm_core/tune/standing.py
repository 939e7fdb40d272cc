"""How sure a search is of what it found, and when a difference counts as one.

None of it is a proof; it only says what is worth measuring on.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from attrs import frozen

CONFIDENCE = 0.8
"""One-sided, for what is worth measuring on."""

TOKEN = math.log(1.005)
"""A lead of less than half a per cent is none."""

_SURE = NormalDist().inv_cdf(CONFIDENCE)


@frozen
class Standing:
    """How one configuration stands against another: the logarithm of the ratio of their speeds.

    ``low`` and ``high`` bound it, each with :data:`CONFIDENCE`.
    """

    value: float
    spread: float

    @property
    def low(self) -> float:
        return self.value - _SURE * self.spread

    @property
    def high(self) -> float:
        return self.value + _SURE * self.spread
