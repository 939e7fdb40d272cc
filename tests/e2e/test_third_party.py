"""A plugin from elsewhere, installed by pip in an environment of its own, and a broken one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = """
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "velollm-broken"
version = "6.6.6"

[project.entry-points.velollm]
broken = "velollm_broken"
raising = "velollm_raising"

[project.entry-points."velollm.commands"]
bust = "velollm_broken.nowhere:command"
hello = "velollm_raising:hello"

[tool.hatch.build.targets.wheel]
include = ["velollm_broken", "velollm_raising.py"]
"""
RAISING = """
import click
from velollm_core import hookimpl

@hookimpl
def velollm_detect_gpus(probe):
    raise ValueError("the driver said no")

@click.command()
def hello():
    click.echo("hello from a plugin")
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment with the core, the echo, and a plugin that is broken in several ways."""
    place = tmp_path_factory.mktemp("third-party")
    broken = place / "velollm-broken"
    (broken / "velollm_broken").mkdir(parents=True)
    (broken / "pyproject.toml").write_text(PYPROJECT)
    (broken / "velollm_broken" / "__init__.py").write_text("import libcuda_missing\n")
    (broken / "velollm_raising.py").write_text(RAISING)
    venv = place / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    programs = venv / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run(
        [str(programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         str(ROOT), str(ROOT / "examples" / "velollm-echo"), str(broken)],
        check=True,
    )  # fmt: skip

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("VELOLLM_")}
        clean |= {"VELOLLM_DATA_DIR": str(place / "data"), "COLUMNS": "120"}
        return subprocess.run(
            [str(programs / "velollm"), *words],
            capture_output=True,
            text=True,
            env=clean,
            cwd=place,
            timeout=120,
            check=False,
        )

    return run


pytestmark = pytest.mark.timeout(600)


def test_a_backend_of_a_third_party_is_benchmarked_with_no_line_changed_in_the_core(environment):
    done = environment(
        "--backend", "echo", "bench", "--force", "--workload", "short", "--launches", "2",
        "--requests", "2", "--set", "delay_ms=3", "--concurrency", "1,2", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["complete"]
    assert len(result["trials"]) == 2
    for trial in result["trials"]:
        assert trial["effective"] == {"delay_ms": 3, "breath": 1, "vowels": True}
        assert trial["mismatches"] == []
        for phase in trial["phases"]:
            for sample in phase["samples"]:
                assert sample["error"] is None
                gaps = [
                    b - a for a, b in zip(sample["event_ms"], sample["event_ms"][1:], strict=False)
                ]
                assert all(gap >= 2.9 for gap in gaps)


def test_a_backend_of_a_third_party_is_tuned_with_no_line_changed_in_the_core(environment):
    done = environment(
        "--backend", "echo", "tune", "--force", "--workload", "short", "--requests", "1",
        "--warmup", "0", "--max-tokens", "16", "--launches", "6", "--budget", "60s", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["complete"]
    assert result["changes"]["breath"] == 4
    assert result["changes"].get("delay_ms", 1) == 1
    assert [entry["name"] for entry in result["untouched"]] == ["vowels"]


def test_the_echo_is_shown_as_a_table(environment):
    done = environment(
        "--backend", "echo", "bench", "--force", "--workload", "short", "--launches", "1"
    )
    assert done.returncode == 0, done.stderr
    assert "short" in done.stdout
    assert "echo" in done.stdout


def test_a_broken_plugin_does_not_take_detect_down(environment):
    done = environment("detect", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["cpu"]["logical"] == os.cpu_count()
    assert (
        "plugin broken (velollm-broken 6.6.6) could not be loaded: "
        "ModuleNotFoundError: No module named 'libcuda_missing'"
    ) in done.stderr
    assert "failed in velollm_detect_gpus: ValueError: the driver said no" in done.stderr


def test_plugins_says_what_is_broken_and_why(environment):
    rows = {row["name"]: row for row in json.loads(environment("plugins", "--json").stdout)}
    assert "libcuda_missing" in rows["broken"]["broken"][0]
    assert rows["echo"]["version"] == "0.1.0"
    assert rows["echo"]["hooks"] == ["velollm_register_backends"]


def test_a_broken_backend_that_is_asked_for_shows_the_cause(environment):
    done = environment("--backend", "broken", "bench")
    assert done.returncode == 3
    assert "libcuda_missing" in done.stderr


def test_an_example_is_never_chosen_by_itself(environment):
    done = environment("bench")
    assert done.returncode == 3
    assert "no inference engine was found" in done.stderr


def test_commands_of_plugins_are_listed_unloaded_and_loaded_when_called(environment):
    listed = environment("--help")
    assert listed.returncode == 0
    assert "From plugin velollm-broken" in listed.stdout
    assert environment("hello").stdout == "hello from a plugin\n"
    bust = environment("bust")
    assert bust.returncode == 2
    assert "command bust of velollm-broken 6.6.6 cannot be loaded" in bust.stderr
