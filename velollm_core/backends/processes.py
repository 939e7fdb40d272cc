"""Child processes that cannot outlive VeloLLM, and the place that a backend may start them in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import define, field, frozen

from velollm_core.errors import FailureKind, LaunchError

_GUARD = Path(__file__).with_name("guard.py")
_GRACE_S = 5.0


@define
class Child:
    """A started engine: its own process, below a guard that ends it when VeloLLM is gone.

    ``pid`` is the engine's, not the guard's.
    """

    pid: int
    log_path: Path
    _guard: subprocess.Popen[bytes] = field(repr=False)

    def exit_code(self) -> int | None:
        """The engine's exit code, negative for a signal, or ``None`` while it runs."""
        code = self._guard.poll()
        if code is None:
            return None
        return 128 - code if code - 128 in set(signal.Signals) else code

    def stop(self, grace_s: float = _GRACE_S) -> None:
        """Ask the engine to end, kill it and its children after ``grace_s``, and wait until it is
        gone.
        """
        if self._guard.stdin is not None and not self._guard.stdin.closed:
            with suppress(OSError):  # the guard may just have ended by itself
                self._guard.stdin.write(f"{grace_s}\n".encode())
        _close_pipes(self._guard)
        try:
            self._guard.wait(grace_s + 5)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()

    def log_tail(self, lines: int = 15) -> str:
        """The last lines that the engine wrote."""
        return tail(self.log_path, lines)


@frozen(kw_only=True)
class Place:
    """Where a session lives: a directory of its own, a log, a scrubbed environment, and a deadline.

    ``deadline`` is on ``time.monotonic()``: an engine that is not ready by then has failed.
    """

    directory: Path
    log_path: Path
    environ: Mapping[str, str]
    deadline: float

    def start(self, argv: Sequence[str], environ: Mapping[str, str] | None = None) -> Child:
        """Start ``argv`` in its own process group, output to the log. The only way to start an
        engine.

        Args:
            argv: program and arguments; no shell reads them.
            environ: added to the scrubbed environment.

        Raises:
            LaunchError: the program is not there or may not be executed.
        """
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_GUARD), str(self.log_path), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.directory,
            env={**self.environ, **(environ or {})},
            start_new_session=os.name == "posix",
            creationflags=flags,
        )
        said = b"" if guard.stdout is None else guard.stdout.readline()
        first = said.decode("utf-8", "replace").strip()
        if not first.isdigit():
            _close_pipes(guard)
            guard.wait()
            raise LaunchError(
                f"{argv[0]} could not be started: {first or 'its guard died'}.",
                "Check that the file exists and may be executed.",
                FailureKind.REFUSED,
            )
        return Child(int(first), self.log_path, guard)

    def remaining_s(self) -> float:
        """Seconds left until the deadline, never below 0."""
        return max(0.0, self.deadline - time.monotonic())


def _close_pipes(guard: subprocess.Popen[bytes]) -> None:
    for stream in (guard.stdin, guard.stdout):
        if stream is not None:
            with suppress(OSError):  # what was still to be written has no reader any more
                stream.close()


def tail(path: Path, lines: int) -> str:
    """The last ``lines`` lines of a text file of any size; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 65536))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def describe_exit(code: int) -> str:
    """An exit code in words: ``exit code 3``, ``signal SIGKILL``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
