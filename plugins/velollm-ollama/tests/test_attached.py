"""A running Ollama is measured as it is: knobs of a request and of a load, and nothing else."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from attrs import evolve
from velollm_ollama.api import Api

from velollm_core.backends.contract import Capability, Message, Request
from velollm_core.config import Config
from velollm_core.errors import NeedsRestart, RequestError
from velollm_core.models.spec import Model

HELLO = Request(prompt=(Message(role="user", content="Hello"),), max_tokens=4)


@pytest.fixture(scope="module")
def server(double):
    return double(OLLAMA_NUM_PARALLEL="2")


@pytest.fixture
def attached(backend, server):
    sessions = []

    def make(config=Config(), model="small:latest"):
        (found,) = backend.probe({}, server.environ)
        wanted = Model(reference=model, served_name=model)
        sessions.append(backend.attach(found, wanted, config))
        return sessions[-1]

    yield make
    for session in sessions:
        session.close()


def test_the_model_is_loaded_before_anything_is_timed(attached, server):
    session = attached()
    assert server.requests()[-1][1] == {"model": "small:latest", "stream": False, "options": {}}
    assert session.load_ms is None
    assert [held.name for held in Api(server.url).ps()] == ["small:latest"]


def test_a_model_that_cannot_be_loaded_is_said_before_anything_is_timed(attached, server):
    with pytest.raises(RequestError, match="not found"):
        attached(model="llama3.2:latest")


def test_its_processes_and_its_settings_are_seen(attached, server):
    session = attached(Config({"num_ctx": 2048, "num_thread": 3}))
    assert session.pids[0] == server.process.pid
    assert Capability.MEMORY in session.capabilities
    told = session.effective()
    assert (told["num_ctx"], told["num_thread"], told["num_parallel"]) == (2048, 3, 2)
    assert "max_queue" not in told


def test_a_knob_that_takes_a_load_loads_the_model_anew_and_its_time_is_told(attached):
    session = attached(Config({"num_ctx": 2048}))
    before = session.pids
    session.reconfigure(Config({"num_ctx": 1024, "num_batch": 128}))
    assert session.load_ms > 0
    assert session.pids != before
    told = session.effective()
    assert (told["num_ctx"], told["num_batch"]) == (1024, 128)
    *_, finish = session.generate(HELLO)
    assert finish.output_tokens == 4
    assert session.effective()["num_ctx"] == 1024


def test_two_arms_on_one_server_each_find_their_own_setting(attached):
    small, large = Config({"num_ctx": 512}), Config({"num_ctx": 4096})
    first, second = attached(small), attached(large)
    for _ in range(2):
        first.reconfigure(small)
        assert first.effective()["num_ctx"] == 512
        second.reconfigure(large)
        assert second.effective()["num_ctx"] == 4096


def test_every_request_asks_for_the_same_so_that_none_loads_the_model_anew(attached, server):
    session = attached(Config({"num_ctx": 2048, "use_mmap": "on", "keep_alive": 90}))
    engine = session.pids
    list(session.generate(HELLO))
    body = server.requests()[-1][1]
    assert body["options"]["num_ctx"] == 2048
    assert body["options"]["use_mmap"] is True
    assert body["keep_alive"] == 90
    assert session.pids == engine


def test_a_longer_context_than_the_model_has_is_capped_as_foretold(attached, backend, server):
    (found,) = backend.probe({}, server.environ)
    model = backend.models(found)[0]
    config = Config({"num_ctx": 100_000})
    assert attached(config, model.served_name).effective()["num_ctx"] == 8192
    assert backend.expected(found, model, config) == Config({"num_ctx": 8192})


def test_what_only_a_start_can_change_is_refused(attached):
    session = attached()
    with pytest.raises(NeedsRestart, match="kv_cache_type") as caught:
        session.reconfigure(Config({"kv_cache_type": "q8_0"}))
    assert "mode=private" in caught.value.hint
    with pytest.raises(NeedsRestart):
        attached(Config({"num_parallel": 4}))
    session.reconfigure(Config({"num_parallel": 2}))  # as it is already


def test_what_cannot_be_loaded_changes_nothing(attached, server):
    session = attached(Config({"num_ctx": 2048}))
    server.show("memory")
    try:
        with pytest.raises(RequestError, match="more system memory"):
            session.reconfigure(Config({"num_ctx": 8192}))
    finally:
        server.show("")
    list(session.generate(HELLO))
    assert server.requests()[-1][1]["options"]["num_ctx"] == 2048


def test_keep_alive_holds_the_model_as_long_as_it_says(attached, server):
    session = attached()
    list(session.generate(Request(prompt="x", max_tokens=1, config=Config({"keep_alive": 0}))))
    time.sleep(0.01)
    assert Api(server.url).ps() == ()
    assert session.effective() == Config()


def test_a_model_that_is_unloaded_after_every_answer_is_there_to_be_looked_at(attached, server):
    session = attached(Config({"keep_alive": 0, "num_ctx": 1024}))
    assert session.effective()["num_ctx"] == 1024
    list(session.generate(HELLO))
    assert server.requests()[-1][1]["keep_alive"] == 0
    time.sleep(0.01)
    assert Api(server.url).ps() == ()
    before = len(server.requests())
    session.close()
    assert len(server.requests()) == before, "a model that is gone is not loaded for its keep-alive"


def test_so_is_one_of_a_server_that_keeps_none(backend, double):
    server = double(OLLAMA_KEEP_ALIVE="0")
    (found,) = backend.probe({}, server.environ)
    with backend.attach(found, backend.models(found)[0], Config({"num_ctx": 1024})) as session:
        assert session.effective()["num_ctx"] == 1024
        list(session.generate(HELLO))
        assert server.requests()[-1][1]["keep_alive"] == 0


@pytest.mark.parametrize(("own", "seconds"), [("30m", 1800), ("", 300)])
def test_a_model_that_was_kept_for_a_measurement_stays_as_long_as_the_server_keeps_it(
    backend, double, own, seconds
):
    server = double(OLLAMA_KEEP_ALIVE=own)
    (found,) = backend.probe({}, server.environ)
    session = backend.attach(found, backend.models(found)[0], Config({"keep_alive": -1}))
    list(session.generate(HELLO))
    assert stays_s(server) > 1e6
    for _ in range(2):
        session.close()
    assert seconds - 60 < stays_s(server) <= seconds
    assert server.requests()[-1][1]["keep_alive"] == seconds


def stays_s(server) -> float:
    (held,) = Api(server.url).client.get("/api/ps")["models"]
    return (datetime.fromisoformat(held["expires_at"]) - datetime.now(UTC)).total_seconds()


def test_what_is_kept_with_the_model_cannot_be_left_to_ollama(backend, server):
    (found,) = backend.probe({}, server.environ)
    plain, own = backend.models(found)
    assert own.served_name == "other/one:q4"
    (problem,) = backend.check(found, own, Config({"num_ctx": 0, "num_gpu": -1}))
    assert problem.knob == "num_ctx"
    assert "stays 2048" in problem.message
    assert backend.check(found, own, Config({"num_ctx": 4096})) == ()
    assert backend.check(found, plain, Config({"num_ctx": 0})) == ()


def test_closing_leaves_the_server_and_its_model(attached, server):
    attached().close()
    assert server.process.poll() is None
    assert len(Api(server.url).ps()) == 1


def test_an_older_ollama_tells_less_and_is_not_asked_for_it(backend, server):
    (found,) = backend.probe({}, server.environ)
    model = backend.models(found)[0]
    older, elsewhere = evolve(found, version="0.12.3"), evolve(found, options={})
    for installation in (older, elsewhere):
        silent = {knob.name for knob in backend.knobs(installation, model) if knob.unreadable}
        assert "num_thread" in silent
        assert "num_ctx" not in silent
    with backend.attach(older, model, Config()) as session:
        assert Capability.LOGPROBS not in session.capabilities
    readable = {knob.name for knob in backend.knobs(found, model) if not knob.unreadable}
    assert {"num_thread", "num_parallel", "kv_cache_type"} <= readable


def test_the_users_own_settings_are_those_of_the_server(backend, server):
    (found,) = backend.probe({}, server.environ)
    model = backend.models(found)[1]
    current = backend.current(found, model, server.environ)
    assert current.config["num_parallel"] == 2
    assert "OLLAMA_NUM_PARALLEL" in current.origins["num_parallel"]
    assert current.config["num_ctx"] == 2048
    assert "PARAMETER num_ctx" in current.origins["num_ctx"]
