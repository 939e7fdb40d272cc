"""``velollm optimize`` on an Ollama: advice, the comparison beside the user's server, undo."""

from __future__ import annotations

import json

import pytest

WORDS = ("--backend", "ollama", "--model", "small", "optimize", "--parallel", "2")
SHORT = ("--force", "--launches", "2", "--workload", "short", "--requests", "1", "--warmup", "0")


@pytest.fixture
def users(double):
    return double()


@pytest.fixture
def environ(users, program, models_folder, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    return {
        "HOME": str(home),
        "PATH": str(program.parent),
        "OLLAMA_HOST": users.environ["OLLAMA_HOST"],
        "OLLAMA_MODELS": str(models_folder),
    }


def test_what_needs_a_restart_is_measured_beside_the_users_server(velollm, users, environ):
    done = velollm(*WORDS, "--verify", *SHORT, "--max-tokens", "4", "--json", env=environ)
    assert done.returncode == 4, done.stderr  # two pairs decide nothing
    told = json.loads(done.stdout)
    moves = [move for proposal in told["plan"]["proposals"] for move in proposal["moves"]]
    assert ("num_parallel", 1, 2) in [(m["knob"], m["current"], m["proposed"]) for m in moves]
    assert "starts beside it" in done.stderr
    assert {path for path, _ in users.requests()} <= {"/api/show"}
    run = json.loads(
        velollm("results", "show", told["verification"]["run"], "--json", env=environ).stdout
    )
    effective = {trial["arm"]: trial["effective"]["num_parallel"] for trial in run["trials"]}
    assert effective == {"current": 1, "proposed": 2}


def test_what_is_applied_is_written_where_it_is_said_and_taken_back(velollm, environ, tmp_path):
    done = velollm(*WORDS, "--apply", "--target", "env", env=environ)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "config" / "ollama.sh"
    assert "export OLLAMA_NUM_PARALLEL=2\n" in file.read_text(encoding="utf-8")
    assert "ollama serve" in done.stdout
    assert velollm("undo", env=environ).returncode == 0
    assert not file.exists()


def test_a_variable_that_ollama_does_not_read_is_named_with_the_place_that_counts(velollm, environ):
    done = velollm(*WORDS, env=environ | {"OLLAMA_NUM_CTX": "4096"})
    said = " ".join(done.stdout.split())
    assert "Without effect here OLLAMA_NUM_CTX Ollama does not read it" in said
    assert "PARAMETER num_ctx 4096" in said
