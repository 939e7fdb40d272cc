"""Processor caches counted: equal ones become one entry with its number of instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from velollm_core.hardware.spec import CacheInfo

CacheKind = Literal["data", "instruction", "unified"]


def count_caches(found: Iterable[tuple[int, CacheKind, int]]) -> tuple[CacheInfo, ...]:
    """Caches by level, kind and size, each with how often it came.

    Args:
        found: level, kind and size in bytes of every single cache.
    """
    return tuple(
        CacheInfo(level=level, kind=kind, size_bytes=size, instances=count)
        for (level, kind, size), count in sorted(Counter(found).items())
    )
