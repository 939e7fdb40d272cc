"""Time as the runner sees it, so that a test can plant another."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """A steady clock and a calendar."""

    def now_ms(self) -> float:
        """Milliseconds on a clock that never goes back; only differences mean something."""

    def utc(self) -> str:
        """The time of day, ISO 8601 in UTC, to the second."""


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> float:
        """Milliseconds of ``time.perf_counter``, the clock that events are stamped with."""
        return time.perf_counter() * 1000.0

    def utc(self) -> str:
        """Now, for example ``2026-11-24T20:15:00+00:00``."""
        return datetime.now(UTC).isoformat(timespec="seconds")
