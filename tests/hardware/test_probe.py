from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time

import psutil
import pytest

from velollm_core.hardware.probe import Probe

posix = pytest.mark.skipif(os.name != "posix", reason="the planted tools are shell scripts")


@pytest.fixture
def tools(tmp_path):
    """Real executables on a PATH of their own, and a probe that gives them half a second."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(**scripts):
        for name, script in scripts.items():
            file = folder / name.replace("_", "-")
            file.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
            file.chmod(file.stat().st_mode | stat.S_IXUSR)
        environ = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        return Probe(environ=environ, timeout_s=0.5)

    return make


@posix
def test_a_tools_output_comes_back_and_nothing_is_noted(tools):
    probe = tools(some_smi='echo "$1 $2"')
    assert probe.run("some-smi", "--list", "all") == "--list all\n"
    assert probe.notes == []


def test_a_missing_tool_is_no_news(tools):
    probe = tools()
    assert probe.run("no-such-smi") is None
    assert probe.notes == []


@posix
def test_a_tool_that_hangs_is_ended_with_its_children_and_named(tools, tmp_path):
    probe = tools(nvidia_smi=f"sleep 60 & echo $! > {tmp_path}/child; echo partial; sleep 60")
    start = time.monotonic()
    assert probe.run("nvidia-smi") is None
    assert time.monotonic() - start < 5
    assert probe.notes == ["nvidia-smi: gave no answer within 0.5 s and was ended"]
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(child)


_INTERRUPTED = """
import os, sys
from velollm_core.hardware.probe import execute
try:
    execute(sys.argv[1:], 60, os.environ)
except KeyboardInterrupt:
    print("interrupted")
"""


@posix
def test_an_interrupt_ends_the_tool_and_its_children(tools, tmp_path):
    pids = tmp_path / "pids"
    probe = tools(slow_smi=f"sleep 60 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; sleep 60")
    with subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, "slow-smi"],
        env=probe.environ,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        deadline = time.monotonic() + 20
        while not pids.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        started = [int(pid) for pid in pids.read_text().split()]
        assert all(_runs(pid) for pid in started)
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=20)[0] == "interrupted\n"
    deadline = time.monotonic() + 5
    while any(_runs(pid) for pid in started) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in started if _runs(pid)]


def _runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_tool_that_hung_once_is_not_asked_again(planted):
    tools = {"nvidia-smi": TimeoutError(), "nvidia-smi -L": "GPU 0: ..."}
    probe = planted(tools=tools)
    assert probe.run("nvidia-smi") is None
    assert probe.run("nvidia-smi", "-L") is None
    assert probe.notes == ["nvidia-smi: gave no answer within 2 s and was ended"]


@posix
def test_a_tool_that_writes_without_end_is_ended_without_filling_the_memory(tools):
    before = psutil.Process().memory_info().rss
    probe = tools(noisy="exec cat /dev/zero")
    assert probe.run("noisy") is None
    assert "noisy: gave no answer" in probe.notes[0]
    assert psutil.Process().memory_info().rss - before < 64 << 20


@posix
def test_a_tool_whose_child_lives_on_still_answers(tools):
    probe = tools(launcher="sleep 60 & echo done")
    assert probe.run("launcher") == "done\n"
    assert probe.notes == []


@posix
def test_a_tool_that_fails_is_named_with_its_own_last_words(tools):
    probe = tools(nvidia_smi="echo NVIDIA-SMI has failed; echo 'no driver' >&2; exit 9")
    assert probe.run("nvidia-smi") is None
    assert probe.notes == ["nvidia-smi: failed with exit code 9: no driver"]


@posix
def test_a_script_whose_interpreter_is_gone_is_named(tools):
    probe = tools(rocm_smi="#!/nonexistent/python3\n")
    assert probe.run("rocm-smi") is None
    assert probe.notes == ["rocm-smi: is a script whose interpreter is missing"]


@posix
def test_tools_are_asked_in_plain_english(tools):
    probe = tools(locale_smi='echo "$LC_ALL $LANG"')
    probe.environ = {**probe.environ, "LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8"}
    assert probe.run("locale-smi") == "C C\n"


@posix
def test_output_in_another_encoding_is_read_as_far_as_it_goes(tools):
    probe = tools(latin="printf 'Gr\\374n 24 Go'")
    assert probe.run("latin") == "Gr\ufffdn 24 Go"


@posix
def test_several_tools_run_at_the_same_time(tools, tmp_path):
    meet = "touch {0}/{1}; while [ ! -e {0}/{2} ]; do sleep 0.01; done; echo met"
    probe = tools(one=meet.format(tmp_path, "a", "b"), two=meet.format(tmp_path, "b", "a"))
    probe.timeout_s = 20
    assert probe.run_all(("one",), ("two",), ("none",)) == ["met\n", "met\n", None]


def test_a_library_call_that_hangs_is_left_behind_and_named():
    probe = Probe(timeout_s=0.05)
    freed = threading.Event()
    assert probe.bounded("NVML", freed.wait) is None
    freed.set()
    assert probe.notes == ["NVML: gave no answer within 0.05 s"]
    assert "NVML" in probe.hung


def test_a_library_call_that_raises_is_named_with_its_reason():
    probe = Probe()
    assert probe.bounded("NVML", lambda: 1 // 0) is None
    assert probe.notes == ["NVML: ZeroDivisionError: integer division or modulo by zero"]


def test_notes_come_once_and_without_the_users_home():
    probe = Probe(environ={"HOME": "/home/ada"})
    for _ in range(2):
        probe.note("amd-smi", "cannot open /home/ada/.config/amd")
    assert probe.notes == ["amd-smi: cannot open ~/.config/amd"]


def test_files_are_read_below_the_root_and_missing_ones_are_none(planted):
    probe = planted({"/proc/x": " value\n\0", "/proc/y": b"\xff"})
    assert probe.read("/proc/x") == "value"
    assert probe.read("/proc/y") == "\ufffd"
    assert probe.read("/proc/z") is None
    assert probe.read("/proc") is None
    assert probe.read("/proc/\0") is None
    assert probe.names("/proc") == ("x", "y")
    assert probe.names("/nowhere") == ()
    assert probe.exists("/proc/x")
    assert not probe.exists("/etc")


@pytest.mark.skipif(not os.path.exists("/proc/sys/kernel/osrelease"), reason="needs Linux")  # noqa: PTH110
def test_kernel_files_that_refuse_large_buffers_are_read():
    assert Probe().read("/proc/sys/kernel/osrelease") == os.uname().release
