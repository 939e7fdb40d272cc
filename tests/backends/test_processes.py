"""Engines end when they are told to, and when VeloLLM is gone in whatever way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from velollm_core.backends.processes import Place, describe_exit, tail
from velollm_core.errors import FailureKind, LaunchError

SLEEPER = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(600)"]
STUBBORN_TEXT = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("ready", flush=True)
time.sleep(600)
"""
STUBBORN = [sys.executable, "-c", STUBBORN_TEXT]
PARENT = """
import os, sys, time
from pathlib import Path
from velollm_core.backends.processes import Place
where = Path(sys.argv[1])
place = Place(directory=where, log_path=where / "log", environ=dict(os.environ), deadline=0.0)
child = place.start(sys.argv[2:])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def place(tmp_path):
    return Place(
        directory=tmp_path,
        log_path=tmp_path / "log",
        environ=dict(os.environ),
        deadline=time.monotonic() + 60,
    )


def wait_until(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def ready(place):
    return wait_until(lambda: "ready" in tail(place.log_path, 5))


def family(pid):
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def gone(processes):
    return all(
        not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        for process in processes
    )


def test_a_child_is_started_logged_and_stopped(place):
    child = place.start(SLEEPER)
    assert ready(place)
    assert child.exit_code() is None
    processes = family(child.pid)
    child.stop()
    child.stop()
    assert gone(processes)


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(place):
    child = place.start(STUBBORN)
    assert ready(place)
    processes = family(child.pid)
    assert len(processes) == 2
    child.stop(grace_s=0.2)
    assert gone(processes)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_ends_with_its_parent_however_that_ends(tmp_path, number):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), *STUBBORN],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    pid = int(parent.stdout.readline())
    assert wait_until(lambda: "ready" in tail(tmp_path / "log", 5))
    processes = family(pid)
    parent.send_signal(number)
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: gone(processes))


def test_the_exit_of_a_child_is_told(place):
    child = place.start([sys.executable, "-c", "print('last words'); raise SystemExit(3)"])
    assert wait_until(lambda: child.exit_code() is not None)
    assert child.exit_code() == 3
    assert child.log_tail() == "last words"
    child.stop()


def test_an_exit_code_above_128_that_is_no_signal_is_told_as_it_is(place):
    child = place.start([sys.executable, "-c", "raise SystemExit(255)"])
    assert wait_until(lambda: child.exit_code() is not None)
    assert child.exit_code() == 255
    child.stop()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_child_that_was_killed_says_by_what(place):
    child = place.start(SLEEPER)
    assert ready(place)
    os.kill(child.pid, signal.SIGKILL)
    assert wait_until(lambda: child.exit_code() is not None)
    assert describe_exit(child.exit_code()) == "signal SIGKILL"
    child.stop()


def test_a_program_that_is_not_there_is_one_sentence(place):
    with pytest.raises(LaunchError, match="could not be started: No such file") as caught:
        place.start(["/no/such/engine"])
    assert caught.value.kind is FailureKind.REFUSED


def test_no_shell_reads_the_arguments(place):
    word = "$(touch pwned); `id` 'a b' \"c\" *"
    child = place.start([sys.executable, "-c", "import sys; print(sys.argv[1])", word])
    assert wait_until(lambda: child.exit_code() is not None)
    assert child.log_tail() == word
    assert not (place.directory / "pwned").exists()
    child.stop()


def test_the_environment_is_the_places_own(place):
    child = place.start(
        [sys.executable, "-c", "import os; print(os.environ['A'], 'B' in os.environ)"], {"A": "1"}
    )
    assert wait_until(lambda: child.exit_code() is not None)
    assert child.log_tail() == "1 False"
    child.stop()
