"""Inference servers in the process table, and what only looks like one."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from velollm_core.experiment.activity import observe
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


def test_what_is_swapped_is_counted_while_it_is_watched(tmp_path):
    (tmp_path / "proc").mkdir()
    vmstat = tmp_path / "proc" / "vmstat"
    vmstat.write_text("pgpgin 7\npswpin 100\npswpout 20\npswpin_zero 3\n")
    assert observe(Probe(root=tmp_path), watch_s=0.01).swapped_bytes == 0
    vmstat.unlink()
    assert observe(Probe(root=tmp_path), watch_s=0.01).swapped_bytes is None
