"""The command line: help, settings, errors, plugins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_help_lists_the_commands_and_shows_an_example(velollm):
    done = velollm("--help")
    assert done.returncode == 0
    for name in ("bench", "detect", "models", "plugins", "results"):
        assert f"\n  {name}" in done.stdout
    assert "Example:" in done.stdout


@pytest.mark.parametrize(
    "words",
    [["bench"], ["benchmark"], ["detect"], ["models"], ["models", "show"], ["models", "fit"],
     ["optimize"], ["undo"], ["plugins"], ["results"],
     ["results", "show"], ["results", "export"], ["results", "remove"], ["results", "list"]],
)  # fmt: skip
def test_every_command_has_help_with_an_example(velollm, words):
    done = velollm(*words, "--help")
    assert done.returncode == 0
    assert "Example: velollm" in done.stdout
    assert "VELOLLM_" in done.stdout


def test_the_lines_of_help_are_those_of_the_commands():
    import importlib

    from velollm_core.cli.app import COMMANDS

    for name in COMMANDS:
        command = importlib.import_module(f"velollm_core.cli.{name}").command
        assert command.name == name
        assert COMMANDS[name].endswith(".")


def test_help_imports_nothing_heavy(velollm, environ):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "velollm_core.cli", "--help"],
        capture_output=True,
        text=True,
        env=environ,
        check=True,
    )
    for heavy in (
        "rich",
        "cattrs",
        "psutil",
        "pluggy",
        "requests",
        "numpy",
        "sqlite3",
        "velollm_llamacpp",
    ):
        assert f"| {heavy}\n" not in done.stderr.replace("|   ", "| ").replace("  ", "")


def test_global_options_stand_before_or_after_the_command(velollm):
    first = velollm("--json", "plugins")
    second = velollm("plugins", "--json")
    assert json.loads(first.stdout) == json.loads(second.stdout)


def test_plugins_names_version_hooks_and_what_is_broken(velollm):
    rows = {row["name"]: row for row in json.loads(velollm("plugins", "--json").stdout)}
    assert rows["core-workloads"]["hooks"] == ["velollm_register_workloads"]
    assert rows["llamacpp"]["distribution"] == "velollm-llamacpp"
    assert all(row["broken"] == [] for row in rows.values())


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["frobnicate"], 2, "No such command"),
        (["bench", "--requests", "0"], 2, "--requests"),
        (["bench", "--concurrency", "1,x"], 2, "1,4,8"),
        (["--backend", "nothing", "bench"], 2, "there is no backend 'nothing'; installed:"),
        (["--backend", "llamacpp", "-X", "server", "bench"], 2, "key=value"),
        (["--backend", "llamacpp", "-X", "colour=red", "bench"], 2, "no option 'colour'"),
        (["--backend", "llamacpp", "-X", "server=/no/such", "bench"], 3, "/no/such"),
        (["--model", "nosuch:thing", "bench"], 2, "nosuch"),
        (["--model", "/no/such.gguf", "bench"], 3, "/no/such.gguf"),
        (["models", "show", "/no/such.gguf"], 3, "/no/such.gguf"),
        (["bench", "--workload", "poetry"], 2, "there is no workload 'poetry'"),
        (["bench", "--prompts", "x", "--workload", "short"], 2, "exclude each other"),
        (["bench", "--prompts", "/no/prompts.txt"], 2, "/no/prompts.txt"),
        (["bench", "--set", "wings=2"], 2, "no knob 'wings'"),
        (["bench", "--set", "threads"], 2, "KNOB=VALUE"),
        (["bench", "--set", "threads=many"], 2, "threads cannot be 'many'"),
        (["bench", "-o", "no/such/folder/x.json"], 2, "no folder"),
        (["bench", "--resume", "nothing"], 2, "no run"),
        (["bench", "-X", "servr=/my/llama-server"], 2, "no backend takes -X servr"),
        (["bench", "--duration", "nan"], 2, "no number of seconds"),
        (["bench", "--duration", "inf"], 2, "no number of seconds"),
        (["bench", "--request-timeout", "inf"], 2, "86400"),
        (["bench", "-o", "-"], 2, "-o takes a file"),
        (["results", "export", "last", "-o", "-"], 2, "-o takes a file"),
        (["bench", "-X", "url=http://me:secret@127.0.0.1:1"], 2, "not the URL"),
        (["results", "show", "nothing"], 2, "no run"),
        (["--config", "/no/config.toml", "detect"], 2, "/no/config.toml"),
    ],
)
def test_wrong_usage_is_one_message_with_its_exit_code(velollm, words, code, told):
    done = velollm(*words)
    assert told in done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("backend = ", "is not TOML"),
        ("colour = 1", "unknown key 'colour'"),
        ("backend = 5", "backend must be str"),
        ("bench = 5", "bench must be a table"),
        ("[bench]\nrequest = 5", "unknown key 'request' in [bench]"),
        ('[bench]\nlaunches = "two"', "launches in [bench] cannot be 'two'"),
        ("[bench]\nconcurrency = 0", "concurrency in [bench] cannot be 0"),
    ],
)
def test_a_wrong_configuration_names_the_file_the_key_and_the_fix(velollm, tmp_path, text, told):
    path = tmp_path / "my.toml"
    path.write_text(text)
    done = velollm("--config", str(path), "plugins")
    assert done.returncode == 2
    assert told in done.stderr
    assert "my.toml" in done.stderr


def test_the_configuration_gives_defaults_and_the_command_line_goes_first(velollm, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text(
        'backend = "nothing"\n[bench]\nworkload = ["poetry"]\n'
    )
    assert "there is no backend 'nothing'" in velollm("bench").stderr
    assert "there is no workload 'poetry'" in velollm("--backend", "llamacpp", "bench").stderr
    other = velollm("bench", "--backend", "llamacpp", "--workload", "prose")
    assert "there is no workload 'prose'" in other.stderr
    variable = velollm(
        "bench", env={"VELOLLM_BACKEND": "llamacpp", "VELOLLM_BENCH_WORKLOAD": "verse"}
    )
    assert "there is no workload 'verse'" in variable.stderr


def test_one_word_is_enough_where_the_configuration_may_hold_several(velollm, tmp_path):
    (tmp_path / "my.toml").write_text('[bench]\nworkload = "poetry"\n')
    done = velollm("--config", "my.toml", "bench")
    assert "there is no workload 'poetry'" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_result_that_cannot_be_printed_is_said_so(velollm, environ):
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "velollm_core.cli", "detect", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
            check=False,
        )
    assert done.returncode != 0
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_results_of_nothing_is_said_so(velollm):
    done = velollm("results")
    assert done.returncode == 0
    assert "nothing measured yet" in done.stderr


def test_detect_prints_one_document_with_json(velollm):
    done = velollm("detect", "--json")
    spec = json.loads(done.stdout)
    assert spec["schema"] == "velollm.hardware/1"
    assert spec["cpu"]["logical"] == os.cpu_count()
    assert spec["memory"]["total_bytes"] > 2**28


def test_models_show_reads_the_demo_model(velollm):
    done = velollm("models", "show", "demo", "--json", timeout=600)
    model = json.loads(done.stdout)
    assert model["spec"]["architecture"] == "llama"
    assert model["spec"]["layers"] == 30
    assert model["spec"]["vocabulary_size"] == 49152


def test_output_into_a_closed_pipe_is_no_error(velollm, environ):
    producer = subprocess.Popen(
        [sys.executable, "-m", "velollm_core.cli", "detect"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
    )
    producer.stdout.close()
    assert b"Traceback" not in producer.stderr.read()
    producer.stderr.close()
    assert producer.wait() == 0


def test_no_colour_goes_into_a_pipe(velollm):
    assert "\x1b[" not in velollm("detect").stdout
