"""Draws that give the same text on every machine and every version of Python."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """A source of choices that depends on nothing but the parts it was made from.

    Of :mod:`random` only ``random()`` is used: it alone is documented to give the same sequence for
    the same seed in every version.
    """

    def __init__(self, *parts: str | int) -> None:
        named = "\0".join(str(part) for part in parts).encode()
        seed = int.from_bytes(hashlib.sha256(named).digest())
        self._random = random.Random(seed)  # noqa: S311 - texts, not secrets

    def number(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def pick(self, items: Sequence[T]) -> T:
        """One of ``items``."""
        return items[self.number(0, len(items) - 1)]

    def two(self, items: Sequence[T]) -> tuple[T, T]:
        """Two different ones of ``items``, in either order."""
        first = self.number(0, len(items) - 1)
        second = (first + self.number(1, len(items) - 1)) % len(items)
        return items[first], items[second]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """``count`` different ones of ``items``, in the order of ``items``."""
        left = list(range(len(items)))
        chosen = [left.pop(self.number(0, len(left) - 1)) for _ in range(count)]
        return [items[position] for position in sorted(chosen)]
