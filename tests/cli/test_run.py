"""``velollm run`` on an engine that is planted: what it starts, and what it says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from velollm_core.cli.run import command
from velollm_core.config import Config
from velollm_core.errors import FailureKind
from velollm_core.experiment.spec import EngineRecord, ModelRecord, WorkloadRecord
from velollm_core.hardware.detect import detect, fingerprint
from velollm_core.testing.fakes import Script
from velollm_core.tune.profile import place, write
from velollm_core.tune.spec import Objective, Profile, Term

URL = "listening at fake:\n"


@pytest.fixture
def saved(tmp_path):
    """Writes a profile of two threads, measured here; ``saved(**changes)``."""

    def save(**changes):
        profile = Profile(
            **{
                "name": "mine",
                "created_at": "2026-11-25T07:00:00+00:00",
                "velollm_version": "0.1.0",
                "run": "20261125-070000-3fa9",
                "backend": "fake",
                "engine": EngineRecord(backend="fake", kind="binary", version="1"),
                "model": ModelRecord(name="fake-model", fingerprint="0f"),
                "hardware_fingerprint": fingerprint(detect(gpus=lambda _: ())),
                "config": Config({"threads": 2}),
                "base": Config({"threads": 8, "cache": True}),
                "objective": Objective(
                    name="decode",
                    terms=(Term(workload="short", concurrency=1, metric="decode_tok_s"),),
                ),
                "workloads": (
                    WorkloadRecord(
                        name="short",
                        digest="d",
                        requests=1,
                        concurrency=1,
                        warmup=0,
                        max_tokens=4,
                    ),
                ),
                **changes,
            }
        )
        write(place(tmp_path / "DATA" / "profiles", "mine"), profile)

    return save


@pytest.fixture
def serve(planted_command, monkeypatch):
    """Runs the command until Ctrl-C, which comes once the server has been looked at."""

    def run(*words, **planted):
        def interrupt(_):
            raise KeyboardInterrupt

        monkeypatch.setattr("velollm_core.cli.run.time.sleep", interrupt)
        done = planted_command(command, "--profile", "mine", *words, **planted)
        run.backend = planted_command.backend
        return done

    return run


def test_the_profile_is_laid_over_the_users_own_settings(serve, saved):
    saved()
    done = serve()
    assert done.code == 0, done.err
    assert done.out == URL
    assert "Ctrl-C" in done.err
    assert "warning" not in done.err
    assert serve.backend.measured == [("binary", {"threads": 2, "cache": True})]
    (session,) = serve.backend.sessions
    assert session.closed


def test_a_document_tells_where_it_listens(serve, saved):
    saved()
    told = json.loads(serve("--json").out)
    assert (told["url"], told["profile"], told["config"]) == ("fake:", "mine", {"threads": 2})


def test_what_differs_from_what_was_measured_is_told_and_it_starts_nevertheless(serve, saved):
    saved(hardware_fingerprint="beef", base=Config({"threads": 8, "cache": False}))
    done = serve("--model", "fake-model", version="2")
    assert done.code == 0
    assert done.out == URL
    for told in (
        "it was measured with fake 1 (binary), and this is fake 2 (binary)",
        "it was measured on another machine",
        "cache is on, and was off",
        "velollm tune --check measures it",
    ):
        assert told in done.err


def test_what_the_user_has_taken_out_since_is_told(serve, saved):
    saved(base=Config({"threads": 8, "cache": False}))
    done = serve(sparse=True)
    assert done.code == 0, done.err
    assert "cache is on, and was off" in done.err
    saved()
    assert "warning" not in serve(sparse=True).err


def test_another_model_has_to_be_named(serve, saved):
    saved(model=ModelRecord(name="big.gguf", fingerprint="ff"))
    done = serve()
    assert done.code == 2
    assert "profile mine was measured with model big.gguf" in done.err
    assert serve.backend.measured == []
    named = serve("--model", "fake-model")
    assert named.code == 0
    assert "it was measured with model big.gguf, and this is fake-model" in named.err


def test_what_the_engine_does_not_take_is_named(serve, saved):
    saved()
    done = serve(script=Script(ignores=frozenset({"threads"})))
    assert "threads is 1 and not 2: the engine did not take it" in done.err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"config": Config({"threads": 99})}, "threads cannot be 99"),
        ({"config": Config({"tools": "all"})}, "there is no knob 'tools'"),
        ({"backend": "other"}, "is for backend other"),
    ],
)
def test_a_profile_that_does_not_suit_the_engine_starts_nothing(serve, saved, changes, told):
    saved(**changes)
    done = serve()
    assert done.code == 2
    assert told in done.err
    assert serve.backend.measured == []


def test_a_server_that_runs_already_is_not_started(serve, saved):
    saved()
    done = serve(kinds=("server",))
    assert done.code == 2
    assert "a server that runs already cannot be started with a profile" in done.err
    assert serve(kinds=("server", "binary")).code == 0
    assert [kind for kind, _ in serve.backend.measured] == ["binary"]


def test_a_server_that_does_not_start_is_an_engine_that_is_not_there(serve, saved):
    saved()
    done = serve(script=Script(fail_launch={0: FailureKind.CRASH}))
    assert done.code == 3
    assert "the fake does not start, as planted" in done.err


def test_a_server_that_ends_by_itself_is_told(planted_command, saved):
    saved()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    done = planted_command(command, "--profile", "mine", pids=(ended.pid,))
    assert (done.code, done.out) == (3, URL)
    assert "the server ended. It said nothing." in done.err


def test_a_profile_that_is_not_there_is_named(serve):
    done = serve()
    assert done.code == 2
    assert "there is no profile 'mine'; there are: none" in done.err
