"""A running ``velollm`` that a test may hurt, and the proof that nothing of it is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from velollm_core.testing.processes import runs

_WARM_UP_TOKENS = 100
"""More than the warm-up of the workload ``short`` brings."""


class Running:
    """One ``velollm`` under way, with everything it ever started."""

    def __init__(self, words: tuple[str, ...], environ: dict[str, str], cwd: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "velollm_core.cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
            cwd=cwd,
        )
        self._root = psutil.Process(self.process.pid)
        self._family: set[psutil.Process] = set()

    def look(self) -> set[psutil.Process]:
        """Every process below it, those of before included."""
        with suppress(psutil.NoSuchProcess):
            self._family |= set(self._root.children(recursive=True))
        return self._family

    def server(self, seconds: float = 90.0) -> psutil.Process:
        """The engine, once it serves."""

        def serving() -> psutil.Process | None:
            for process in self.look():
                try:
                    if any(c.status == psutil.CONN_LISTEN for c in process.net_connections("tcp")):
                        return process
                except psutil.Error:
                    continue
            return None

        return wait_for(serving, seconds)

    def server_after(self, before: psutil.Process, seconds: float = 90.0) -> psutil.Process:
        """The next launch's engine, once it serves."""
        wait_for(lambda: not runs(before), seconds)
        return self.server(seconds)

    def working_server(self) -> psutil.Process:
        """The engine, once it has answered more than the warm-up: by its own count of tokens, as
        the clock says little of what was done on a busy machine.
        """
        server = self.server()
        (port,) = {c.laddr.port for c in server.net_connections("tcp") if c.status == "LISTEN"}

        def worked() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as told:
                    said = told.read().decode()
            except OSError:  # it still loads
                return False
            found = re.search(r"^llamacpp:tokens_predicted_total (\S+)", said, re.MULTILINE)
            return found is not None and float(found[1]) > _WARM_UP_TOKENS

        wait_for(worked, 90)
        return server

    def catches_signals(self) -> None:
        """Wait until its handlers stand: before that a signal meets the interpreter alone."""

        def caught() -> bool:
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
            mask = int(status.partition("SigCgt:")[2].split()[0], 16)
            return bool(mask >> (signal.SIGTERM - 1) & 1)

        wait_for(caught, 60)

    def end(self, seconds: float = 120.0) -> tuple[int, str, str]:
        """Exit code, output and messages, when it has ended."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            self.look()
            try:
                self.process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        out, err = self.process.communicate(timeout=5)
        return self.process.returncode, out, err

    def nothing_left(self) -> None:
        """Fail where a process that it started still runs."""

        def gone() -> bool:
            return not [p for p in self._family if runs(p)]

        wait_for(gone, 20)


def wait_for(condition: Callable[[], object], seconds: float):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {condition.__name__}")


@pytest.fixture
def start(environ: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start ``velollm`` and leave it running; whatever is left at the end is killed."""
    started: list[Running] = []

    def run(*words: str, env: dict[str, str] | None = None) -> Running:
        started.append(Running(words, environ | (env or {}), tmp_path))
        return started[-1]

    yield run
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
        for process in running.look():
            if runs(process):
                os.kill(process.pid, signal.SIGKILL)
        running.process.communicate()
