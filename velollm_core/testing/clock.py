"""Time that passes when a test, or a fake, says so."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class VirtualClock:
    """A :class:`~velollm_core.experiment.clock.Clock` that stands still until it is advanced.

    Args:
        begin: the time of day at 0 milliseconds.
    """

    def __init__(self, begin: datetime = _BEGIN) -> None:
        self._begin = begin
        self._now_ms = 0.0
        self._lock = threading.Lock()

    def now_ms(self) -> float:
        """Milliseconds since it was made."""
        return self._now_ms

    def utc(self) -> str:
        """The time of day, to the second."""
        now = self._begin + timedelta(milliseconds=self._now_ms)
        return now.isoformat(timespec="seconds")

    def advance(self, milliseconds: float) -> None:
        """Let time pass.

        Raises:
            ValueError: time would go back.
        """
        if milliseconds < 0:
            raise ValueError(f"time cannot go back by {-milliseconds} ms")
        with self._lock:
            self._now_ms += milliseconds
