"""Inference servers in the process table, and what only looks like one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from velollm_core.experiment.activity import observe
from velollm_core.experiment.monitor import on_battery
from velollm_core.experiment.servers import server_of
from velollm_core.hardware.probe import Probe


@pytest.mark.parametrize(
    ("words", "server"),
    [
        ("/opt/llama.cpp/llama-server -m x.gguf", "llama-server"),
        (r"C:\llama\llama-server.exe -m x.gguf", "llama-server"),
        ("/usr/local/bin/ollama serve", "ollama"),
        ("ollama runner --model /x --port 40001", "ollama"),
        ("/v/bin/python3.12 /v/bin/vllm serve Qwen/Qwen3", "vllm"),
        ("python -m vllm.entrypoints.openai.api_server --model x", "vllm"),
        ("python3 -u -m llama_cpp.server --model x", "llama-cpp-python"),
        ("VLLM::EngineCore", "vllm"),
        ("koboldcpp --model x", "koboldcpp"),
        ("python3 koboldcpp.py --model x", "koboldcpp"),
        ("./koboldcpp-linux-x64 --model x", "koboldcpp"),
        (r"D:\k\koboldcpp_cu12.exe --model x", "koboldcpp"),
        ("/opt/llama-server-cuda -m x.gguf", "llama-server"),
        ("llamafile-0.9.3 -m x.gguf", "llamafile"),
        ("./Qwen3-0.6B-Q8_0.llamafile --server", "llamafile"),
        ("/opt/LM-Studio-0.3.5-x64.AppImage", "lm-studio"),
        ("lms server start", "lms"),
        ("/home/x/.lmstudio/llmster", "llmster"),
    ],
)
def test_a_server_is_recognised(words, server):
    assert server_of(words.split()) == server


@pytest.mark.parametrize(
    "words",
    [
        "ollama run llama3",
        "ollama",
        "vim llama-server",
        "man ollama",
        "tail -f llama-server.log",
        "grep -r llama-server /etc",
        "python -m pytest vllm",
        "python llama_client.py llama-server",
        "python",
        "python -c 'x'",
        "bash run-llama-server.sh",
        "vllm bench latency",
        "python llama-server-client.py",
        "lms ls",
        "lm-studio --type=renderer",
    ],
)
def test_another_program_is_not(words):
    assert server_of(words.split()) is None
    assert server_of(()) is None


def test_the_process_table_tells_who_works_and_who_waits():
    programs = {
        name: subprocess.Popen([sys.executable, "-c", code])
        for name, code in (
            ("busy", "while True: pass"),
            ("idle", "import time; time.sleep(60)"),
        )
    }
    try:
        time.sleep(0.3)
        seen = observe(Probe(), watch_s=0.5)
    finally:
        for program in programs.values():
            program.kill()
            program.wait()
    by_pid = {entry.pid: entry for entry in seen.processes}
    busy, idle = (by_pid[programs[name].pid] for name in ("busy", "idle"))
    assert busy.cpus > idle.cpus
    assert busy.argv[1:] == ("-c", "while True: pass")
    assert busy.rss_bytes > 1 << 20
    assert seen.busy_cpus > 0
    assert os.getpid() not in by_pid
    assert busy.name.startswith("python")


@pytest.mark.skipif(sys.platform != "linux", reason="programs rename themselves by prctl")
def test_a_program_that_renames_itself_to_a_command_line_is_named_by_its_first_word():
    code = "import ctypes,time; ctypes.CDLL(None).prctl(15, b'app --token=x'); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code]) as program:
        try:
            time.sleep(0.3)
            seen = observe(Probe(), watch_s=0.01)
        finally:
            program.kill()
    (found,) = (entry for entry in seen.processes if entry.pid == program.pid)
    assert found.name == "app"


def supply(folder, **files):
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n", encoding="utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="supplies are files on Linux alone")
def test_the_battery_of_a_mouse_is_none_of_the_machine(tmp_path):
    assert on_battery(tmp_path) is None
    mouse = {"type": "Battery", "scope": "Device", "status": "Discharging"}
    supply(tmp_path / "hidpp_battery_0", **mouse)
    assert on_battery(tmp_path) is None
    supply(tmp_path / "BAT0", type="Battery", status="Discharging")
    assert on_battery(tmp_path) is True
    supply(tmp_path / "ADP1", type="Mains", online="1")
    assert on_battery(tmp_path) is False


def test_a_battery_that_does_not_tell_whether_it_is_plugged_in_is_not_taken_for_discharging(
    tmp_path, monkeypatch
):
    supply(tmp_path / "BAT0", type="Battery", status="Unknown")
    silent = SimpleNamespace(power_plugged=None)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: silent, raising=False)
    for linux in (psutil.LINUX, False):
        monkeypatch.setattr(psutil, "LINUX", linux)
        assert on_battery(tmp_path) is None


def test_what_is_swapped_is_counted_while_it_is_watched(tmp_path):
    (tmp_path / "proc").mkdir()
    vmstat = tmp_path / "proc" / "vmstat"
    vmstat.write_text("pgpgin 7\npswpin 100\npswpout 20\npswpin_zero 3\n")
    seen = observe(Probe(root=tmp_path), watch_s=0.01)
    assert (seen.swapped_bytes, seen.swapped_out_bytes) == (0, 0)
    vmstat.unlink()
    assert observe(Probe(root=tmp_path), watch_s=0.01).swapped_bytes is None
