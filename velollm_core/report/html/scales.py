"""From values to positions, and the round numbers at which an axis is marked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

from attrs import frozen

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_PADDING = 0.05  # of the axis, beyond the outermost value
_DIGITS = ((1, 2, 3, 5), (1, 3), (1,))  # what decades are divided at, the finest first
_WIDE = 4.0  # high / low from which a logarithmic axis is marked by decades


@frozen(kw_only=True)
class Scale:
    """A map from values between ``low`` and ``high`` to positions between ``start`` and ``end``.

    ``ticks`` are values from ``low`` to ``high`` in rising order. ``log`` needs positive values.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def __call__(self, value: float) -> float:
        """The position of ``value``, which may lie beyond the ends."""
        share = (self._on(value) - self._on(self.low)) / (self._on(self.high) - self._on(self.low))
        return self.start + share * (self.end - self.start)

    def labels(self) -> tuple[str, ...]:
        """A text for each tick, no two alike."""
        if self.log and self.high / self.low > _WIDE:
            return tuple(f"{tick:g}" for tick in self.ticks)
        step = min((b - a for a, b in pairwise(self.ticks)), default=1.0)
        decimals = next(
            (k for k in range(12) if math.isclose(step * 10**k, round(step * 10**k))), 12
        )
        return tuple(f"{tick:.{decimals}f}" for tick in self.ticks)

    def _on(self, value: float) -> float:
        return math.log(value) if self.log else value


def linear(
    values: Iterable[float], start: float, end: float, *, ticks: int = 5, zero: bool = False
) -> Scale:
    """A scale that holds all ``values`` with some room, and 0 at its foot if ``zero``.

    ``ticks`` is about how many there are.
    """
    known = [*values, 0.0] if zero else list(values)
    low, high = min(known), max(known)
    size = max(abs(low), abs(high))
    spread = high - low if high - low > size * 1e-9 else size or 1.0
    room = spread * _PADDING
    low, high = (low if zero else low - room), high + room
    return Scale(low=low, high=high, start=start, end=end, ticks=nice_ticks(low, high, ticks))


def ratios(values: Iterable[float], start: float, end: float, *, ticks: int = 5) -> Scale:
    """A logarithmic scale that holds all ``values``, which are positive, and 1."""
    known = [*values, 1.0]
    room = max((max(known) / min(known)) ** _PADDING, 1.005)
    return logarithmic(min(known) / room, max(known) * room, start, end, ticks=ticks)


def logarithmic(low: float, high: float, start: float, end: float, *, ticks: int = 5) -> Scale:
    """A logarithmic scale from ``low`` to ``high``, marked at round values."""
    marks = _decades(low, high, ticks) if high / low > _WIDE else nice_ticks(low, high, ticks)
    return Scale(low=low, high=high, start=start, end=end, ticks=marks, log=True)


def nice_ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten from ``low`` to ``high``.

    They are about ``count``: from 2 up to ``count + 1``.

    Raises:
        ValueError: there is no room between ``low`` and ``high``.
    """
    if not low < high or count < 2:
        raise ValueError(f"no {count} ticks from {low} to {high}")
    rough = (high - low) / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = next((size * k for k in _STEPS if size * k >= rough * (1 - 1e-9)), size * 10)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    if last - first < 1:
        return nice_ticks(low, high, count + 1)
    return tuple(min(max(k * step, low), high) for k in range(first, last + 1))


def whole_ticks(n: int, count: int) -> tuple[int, ...]:
    """Whole numbers from 1 to ``n``, at most ``count`` + 1 of them and 1 among them."""
    step = next(s for k in range(10) for s in (10**k, 2 * 10**k, 5 * 10**k) if n <= s * count)
    return tuple(dict.fromkeys((1, *range(step, n + 1, step))))


def _decades(low: float, high: float, count: int) -> tuple[float, ...]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks: list[float] = []
    for digits in _DIGITS:
        marks = [k * 10.0**e for e in exponents for k in digits if low <= k * 10.0**e <= high]
        if len(marks) <= count + 1:
            break
    return tuple(marks[:: -(-len(marks) // (count + 1))])
