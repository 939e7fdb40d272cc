"""What a tune has spent, and what it may still spend: by its trials, never by the wall clock.

The same trials give the same sums, so that a resumed tune decides as the undisturbed one does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from attrs import define, field

from velollm_core.experiment.spec import Trial
from velollm_core.statistics import LEAST_PAIRS, mean

_OVERRUN = 1.05
"""A confirmation of the least pairs may take so much of the budget: half of what is promised."""
_RECENT = 3


@define
class Ledger:
    """The account of one tune.

    ``budget_s`` is for everything; ``pairs`` what the confirmation is to have, ``rivals`` its arms.
    ``anchors_s`` are what trials of the anchor took, in their order; ``parts`` says for each rival
    what one of its trials takes, as a part of one of the anchor's in the same block.
    """

    budget_s: float
    pairs: int
    rivals: tuple[str, ...]
    spent_s: float = 0.0
    anchors_s: list[float] = field(factory=list)
    parts: dict[str, float] = field(factory=dict)

    def add(self, trials: Iterable[Trial]) -> None:
        """Enter trials that have ended."""
        self.spent_s += math.fsum(trial.duration_ms for trial in trials) / 1000.0

    def pause(self, seconds: float) -> None:
        """Enter a pause."""
        self.spent_s += seconds

    @property
    def anchor_s(self) -> float:
        """What a trial of the anchor takes now."""
        return mean(self.anchors_s[-_RECENT:])

    @property
    def pair_s(self) -> float:
        """What one block of the confirmation takes now."""
        return self.anchor_s * sum(self.parts.get(name, 1.0) for name in self.rivals)

    @property
    def reserve_s(self) -> float:
        """What is kept for the confirmation: its pairs, but no more than half of the budget, and no
        less than the least pairs take.
        """
        half = math.floor(self.budget_s / 2 / self.pair_s)
        return self.pair_s * max(LEAST_PAIRS, min(self.pairs, half))

    @property
    def left_s(self) -> float:
        """What the search may still spend."""
        return self.budget_s - self.spent_s - self.reserve_s

    def pairs_left(self) -> int:
        """How many pairs the confirmation gets; 0 where not even the least are left.

        A machine that got slower is expected to go on so.
        """
        slower = max(1.0, self.anchor_s / mean(self.anchors_s[:_RECENT]))
        for pairs in range(self.pairs, LEAST_PAIRS - 1, -1):
            proof_s = pairs * self.pair_s
            proof_s *= slower ** (proof_s / (2 * self.spent_s))
            least = pairs == LEAST_PAIRS
            if self.spent_s + proof_s <= self.budget_s * (_OVERRUN if least else 1.0):
                return pairs
        return 0
