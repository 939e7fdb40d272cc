"""What a server counts itself, over the time of a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping

from velollm_core.backends.contract import Session
from velollm_core.errors import VeloError


def counters(session: Session) -> Mapping[str, float]:
    """The server's counters; none where it has none, or is gone."""
    try:
        return session.counters() or {}
    except VeloError:
        return {}


def risen(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What ``Trial.counters`` holds: totals, by their Prometheus suffix, count from the start."""
    found = {
        name: value - before.get(name, 0.0) if name.partition("{")[0].endswith("_total") else value
        for name, value in after.items()
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}
