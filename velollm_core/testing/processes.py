"""Proof by the process table that nothing is left of what was started."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
from attrs import define, field


@define
class Family:
    """Processes below this one that were not there before, and any that carry ``mark``.

    A process that has left its parents (a daemon) is no longer below this one; it is found by the
    variable ``mark`` in its environment, where the system shows that.
    """

    mark: tuple[str, str] | None = None
    _before: set[psutil.Process] = field(init=False)
    _seen: set[psutil.Process] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        """Note what was there before."""
        self._before = self._now()

    def _now(self) -> set[psutil.Process]:
        return set(psutil.Process().children(recursive=True)) | _marked(self.mark)

    def look(self) -> set[psutil.Process]:
        """Every new process until now, those that have ended included."""
        self._seen |= self._now() - self._before
        return set(self._seen)

    def alive(self) -> list[psutil.Process]:
        """Those that run."""
        return [process for process in self.look() if runs(process)]

    def left_after(self, seconds: float) -> list[psutil.Process]:
        """Those that still run when ``seconds`` are over."""
        deadline = time.monotonic() + seconds
        while (left := self.alive()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def kill(self) -> None:
        """End whatever is left, so that it does not disturb what comes next."""
        for process in self.alive():
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(self.alive(), timeout=5)


@contextmanager
def nothing_left(seconds: float = 5.0, mark: tuple[str, str] | None = None) -> Iterator[Family]:
    """Fail where a process that was started inside still runs ``seconds`` after the end.

    Args:
        seconds: how long processes may take to end.
        mark: a variable and its value that everything started inside has in its environment.

    Raises:
        AssertionError: something is left; it is named, and killed.
    """
    family = Family(mark)
    try:
        yield family
        left = family.left_after(seconds)
        if left:
            raise AssertionError(f"still running: {'; '.join(map(describe, left))}")
    finally:
        family.kill()


def runs(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended and was not waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def describe(process: psutil.Process) -> str:
    """Its number and its command."""
    words: list[str] = []
    with suppress(psutil.Error):
        words = process.cmdline()
    return f"{process.pid} {' '.join(words)[:200]}".strip()


def _marked(mark: tuple[str, str] | None) -> set[psutil.Process]:
    if mark is None:
        return set()
    own, found = psutil.Process(), set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process != own and process.environ().get(mark[0]) == mark[1]:
                found.add(process)
    return found
