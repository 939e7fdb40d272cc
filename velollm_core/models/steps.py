"""One pass through a model, counted in tokens and positions."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class Step:
    """One pass through the model: ``length`` tokens of each sequence, after ``start`` others.

    ``answers`` of all these meet the output layer.
    """

    sequences: int
    start: int
    length: int
    answers: int

    @property
    def tokens(self) -> int:
        """Of all sequences."""
        return self.sequences * self.length

    def pairs(self, window: int | None) -> int:
        """Positions that the tokens of all sequences look at, each at itself and back."""
        growing = self.length
        if window is not None:
            growing = max(0, min(self.length, window - self.start))
        full = (self.length - growing) * (window or 0)
        return self.sequences * (growing * self.start + growing * (growing + 1) // 2 + full)

    def positions(self, window: int | None) -> int:
        """Positions of the KV cache that are read, of all sequences."""
        reach = self.start + self.length
        if window is not None:
            reach = min(reach, window + self.length - 1)
        return self.sequences * reach
