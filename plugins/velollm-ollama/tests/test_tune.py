"""``velollm tune`` on an Ollama: what needs a restart on a private server, the rest by requests."""

from __future__ import annotations

import json

import pytest
from velollm_ollama.api import Api

from velollm_core.config import Config
from velollm_core.documents import loads
from velollm_core.experiment.journal import Journal
from velollm_core.tune.spec import KIND, MAJOR, Conclusion, TuneResult

PACE = json.dumps({"--flash-attn auto": 4, "--flash-attn off": 4, "--load-mode none": 2})
"""The double is slow as it is; flash attention, which the server is started with, makes it four
times as fast, and a mapped model, which each request asks for, twice.
"""
WORDS = (
    *("tune", "--force", "--only", "flash_attention,use_mmap", "--objective", "decode"),
    *("--workload", "short", "--requests", "1", "--warmup", "0", "--max-tokens", "8"),
    *("--launches", "6", "--budget", "30s", "--json"),
)


@pytest.fixture
def environ(program, models_folder, tmp_path):
    """Of somebody who has set nothing."""
    home = tmp_path / "home"
    home.mkdir()
    return {
        "HOME": str(home),
        "PATH": str(program.parent),
        "OLLAMA_MODELS": str(models_folder),
        "DOUBLE_PACE": PACE,
    }


@pytest.fixture
def tune(velollm, environ, tmp_path):
    """Tunes while this server runs: ``tune(server, "-X", "mode=attach")``; the result, and its
    trials.
    """

    def run(server, *words):
        host = {"OLLAMA_HOST": server.environ["OLLAMA_HOST"]}
        whole = ("--backend", "ollama", *words, "--model", "small", *WORDS)
        done = velollm(*whole, env=environ | host)
        assert done.returncode == 0, done.stderr
        result = loads(done.stdout, KIND, MAJOR, TuneResult, "standard output")
        journal = Journal(tmp_path / "data" / "journal.sqlite3")
        return result, journal.trials(result.run), done.stderr

    return run


def reasons(result):
    return {left.name: left.reason for left in result.untouched}


def test_gains_of_a_restart_and_of_a_request_are_proven_beside_the_users_server(double, tune):
    users = double()
    api = Api(users.url)
    api.load("small:latest", {"num_ctx": 512}, {"keep_alive": -1})
    before = api.ps()
    result, trials, said = tune(users)
    assert result.conclusion is Conclusion.FASTER
    assert result.changes == Config({"flash_attention": "on", "use_mmap": "on"})
    assert result.failed == 0
    assert result.task.mode == "launch"
    assert "VeloLLM starts beside yours" in said
    proof = [trial.effective for trial in trials if trial.arm == "confirm.tuned"]
    assert {(told["flash_attention"], told["use_mmap"]) for told in proof} == {("on", "on")}
    # The user's own server was only asked what it has, and holds what it held.
    assert {path for path, _ in users.requests()[1:]} <= {"/api/show"}
    assert api.ps() == before
    assert users.process.poll() is None
    # What is left alone is named, and was the same in every trial.
    left = reasons(result)
    assert "changes answers" in left["kv_cache_type"]
    assert "requirement" in left["num_ctx"]
    assert "one client at a time" in left["num_parallel"]
    assert "how much memory" in left["gpu_overhead"]
    assert {"keep_alive", "max_loaded_models", "draft_num_predict"} <= set(left)
    assert not {"flash_attention", "use_mmap"} & set(left)
    for name in ("kv_cache_type", "num_ctx", "num_parallel", "num_batch", "num_thread"):
        assert len({trial.effective[name] for trial in trials}) == 1, name


def test_of_the_users_own_server_only_what_requests_can_ask_for_is_tuned(double, tune):
    users = double(DOUBLE_PACE=PACE)
    result, trials, said = tune(users, "-X", "mode=attach")
    assert result.conclusion is Conclusion.FASTER
    assert result.changes == Config({"use_mmap": "on"})
    assert result.task.mode == "attach"
    assert "only what needs no restart is tuned" in said
    assert "would need a restart" in reasons(result)["flash_attention"]
    assert {trial.effective["flash_attention"] for trial in trials} == {"auto"}
    asked = {name for _, body in users.requests() for name in body.get("options", {})}
    assert asked - {"num_predict", "temperature", "seed", "top_k", "top_p"} == {"use_mmap"}
    assert users.process.poll() is None
