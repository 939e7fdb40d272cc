"""A private Ollama is started beside the user's own, with what is to be measured and no more."""

from __future__ import annotations

import os
import socket
import time
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest
from velollm_ollama import launch as launching
from velollm_ollama.api import Api

from velollm_core.backends.contract import Message, Request
from velollm_core.config import ENGINE_DEFAULT, Config, Settings
from velollm_core.errors import FailureKind, LaunchError, ModelError, RequestError
from velollm_core.hardware.spec import GpuInfo
from velollm_core.models.spec import Model

NOTHING = Settings()
HELLO = Request(prompt=(Message(role="user", content="Hello"),), max_tokens=4)


@pytest.fixture(scope="module")
def users(double):
    """The user's own server, with a model in memory for ever."""
    server = double(OLLAMA_KEEP_ALIVE="-1")
    Api(server.url).load("small:latest", {"num_ctx": 512})
    return server


@pytest.fixture(autouse=True)
def no_process_left(users, no_process_left):
    """Whatever a test starts is gone after it."""
    return no_process_left


@pytest.fixture(scope="module")
def private(backend, program, models_folder):
    environ = {**os.environ, "OLLAMA_MODELS": str(models_folder), "PATH": ""}
    (found,) = backend.probe({"binary": str(program)}, environ)
    return found


@pytest.fixture
def start(backend, private, velollm_place):
    """Starts one with these knobs; further words are variables of the user's."""
    sessions = []

    def make(settings=NOTHING, seconds=30.0, **environ):
        place = velollm_place(seconds, **environ)
        model = backend.models(private)[0]
        sessions.append(backend.launch(private, model, settings, place))
        return sessions[-1]

    yield make
    for session in sessions:
        session.close()


def environment_of(session) -> dict[str, str]:
    return psutil.Process(session.pids[0]).environ()


def test_it_answers_at_a_port_of_its_own_with_its_model_loaded(start):
    session = start(Settings(config=Config({"num_ctx": 1024})))
    assert session.url.startswith("http://127.0.0.1:")
    assert session.load_ms > 0
    assert session.effective()["num_ctx"] == 1024
    *_, finish = session.generate(HELLO)
    assert finish.output_tokens == 4
    names = [psutil.Process(pid).name() for pid in session.pids]
    assert names == ["ollama", "llama-server"]
    assert session.memory().rss_bytes > 0


@pytest.mark.parametrize("fault", ["", "unhealthy", "load", "memory", "death"])
def test_the_users_own_server_is_left_as_it_is_whatever_happens(users, start, fault):
    api = Api(users.url)
    before = users.requests(), api.ps()
    told = {"OLLAMA_HOST": users.environ["OLLAMA_HOST"], "DOUBLE_FAULT": fault}
    with nullcontext() if not fault else pytest.raises((LaunchError, RequestError)):
        session = start(seconds=0.5 if fault == "unhealthy" else 30, **told)
        assert session.url != users.url
        list(session.generate(HELLO))
        session.close()
    assert (users.requests(), api.ps()) == before
    assert users.process.poll() is None
    assert psutil.Process(users.process.pid).children() != []


def test_nothing_that_was_pulled_is_deleted(backend, program, put_model, tmp_path, velollm_place):
    put_model(tmp_path)
    stray = tmp_path / "blobs" / f"sha256-{'0' * 64}"
    stray.write_bytes(b"an interrupted pull")
    environ = {**os.environ, "OLLAMA_MODELS": str(tmp_path), "OLLAMA_NOPRUNE": "0"}
    (found,) = backend.probe({"binary": str(program)}, environ)
    place = velollm_place(OLLAMA_NOPRUNE="0")
    with backend.launch(found, backend.models(found)[0], Settings(), place):
        pass
    assert stray.exists()


def test_it_has_no_setting_that_was_not_asked_for(start, tmp_path):
    config = Config({"num_parallel": 2, "spec_type": "ngram-mod", "threads_batch": 2})
    extra = {"OLLAMA_ORIGINS": "*", "LD_PRELOAD": "x.so", "CUDA_VISIBLE_DEVICES": "1"}
    session = start(
        Settings(config=config, extra_env=extra),
        OLLAMA_NUM_PARALLEL="9",
        OLLAMA_KV_CACHE_TYPE="q4_0",
        OLLAMA_ORIGINS="*",
        LLAMA_ARG_CACHE_RAM="0",
        XDG_CONFIG_HOME=str(tmp_path / "users"),
    )
    own = environment_of(session)
    kept = {name for name in own if name.startswith(("OLLAMA_", "LLAMA_"))}
    assert kept == {
        "LLAMA_ARG_SPEC_TYPE",
        "OLLAMA_HOST",
        "OLLAMA_MODELS",
        "OLLAMA_NOPRUNE",
        "OLLAMA_NO_CLOUD",
        "OLLAMA_NUM_PARALLEL",
    }
    assert own["CUDA_VISIBLE_DEVICES"] == "1"
    assert "LD_PRELOAD" not in own
    assert session.effective()["num_parallel"] == 2
    written = Path(own["XDG_CONFIG_HOME"], "llama.cpp", "config.ini")
    assert written.read_text("utf-8") == "[*]\nthreads-batch = 2\n"
    assert tmp_path / "users" not in written.parents


def test_what_nobody_set_is_left_to_ollama(start, backend, private):
    defaults = backend.defaults(private, backend.models(private)[0])
    assert set(defaults.origins.values()) == {ENGINE_DEFAULT}
    session = start(defaults)
    assert not {"OLLAMA_NUM_PARALLEL", "OLLAMA_KV_CACHE_TYPE"} & set(environment_of(session))
    assert session._api.client.get("/double")["requests"][0][1]["options"] == {}


def test_a_port_that_another_program_takes_in_that_moment_is_no_hindrance(start, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1], launching._free_port()]
        monkeypatch.setattr(launching, "_free_port", lambda: ports.pop(0))
        session = start()
    assert ports == []
    assert list(session.generate(HELLO))


def test_another_ollama_at_that_port_is_not_taken_for_it(start, users, monkeypatch):
    before = users.requests()
    ports = [int(users.url.rpartition(":")[2]), launching._free_port()]
    monkeypatch.setattr(launching, "_free_port", lambda: ports.pop(0))
    assert start().url != users.url
    assert users.requests() == before


def test_without_a_free_port_it_says_so(start, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(launching, "_free_port", lambda: port)
        with pytest.raises(LaunchError, match="no free port in 3 tries") as caught:
            start()
    assert caught.value.kind is FailureKind.REFUSED


def test_one_that_never_gets_healthy_is_given_up_with_its_last_words(start):
    started = time.monotonic()
    with pytest.raises(LaunchError, match="not ready in time") as caught:
        start(seconds=0.5, DOUBLE_FAULT="unhealthy")
    assert "msg=starting" in caught.value.message
    assert caught.value.kind is FailureKind.TIMEOUT
    assert time.monotonic() - started < 10


def test_one_that_does_not_start_is_quoted(start):
    with pytest.raises(LaunchError) as caught:
        start(DOUBLE_FAULT="broken")
    assert "the private Ollama ended with exit code 1" in caught.value.message
    assert "Error: could not create the key pair" in caught.value.message


def test_a_load_that_fails_is_told_in_ollamas_words(start):
    with pytest.raises(LaunchError, match="error loading model") as caught:
        start(DOUBLE_FAULT="load")
    assert "log" in caught.value.hint


def test_where_memory_is_short_what_the_users_own_server_holds_is_named(start, users):
    with pytest.raises(LaunchError, match="more system memory") as caught:
        start(DOUBLE_FAULT="memory", OLLAMA_HOST=users.environ["OLLAMA_HOST"])
    assert caught.value.kind is FailureKind.OUT_OF_MEMORY
    assert "ollama stop small:latest" in caught.value.hint


def test_the_death_of_the_server_is_told_with_its_end(start):
    session = start(DOUBLE_FAULT="death")
    with pytest.raises(RequestError, match="ended with signal SIGKILL") as caught:
        list(session.generate(HELLO))
    assert caught.value.kind is FailureKind.CRASH


@pytest.mark.parametrize("reference", ["demo", "/models/x.gguf", "hf:owner/repo/x.gguf"])
def test_a_file_is_no_model_of_ollama(backend, private, velollm_place, reference):
    with pytest.raises(ModelError, match="by the names it has them under") as caught:
        backend.launch(private, Model(reference=reference), Settings(), velollm_place())
    assert "ollama pull" in caught.value.hint


def test_a_model_that_was_not_pulled_is_refused_before_anything_starts(
    backend, private, velollm_place
):
    with pytest.raises(ModelError, match=r"has no model llama3\.2 on"):
        backend.launch(private, Model(reference="ollama:llama3.2"), Settings(), velollm_place())


def test_a_model_may_be_named_as_for_other_engines(backend, private, velollm_place):
    model = Model(reference="ollama:other/one:q4")
    with backend.launch(private, model, Settings(), velollm_place()) as session:
        assert session.effective()["num_ctx"] == 2048  # its own parameter


def test_a_name_in_other_letters_is_the_same_model(backend, private, velollm_place):
    model = Model(reference="ollama:SMALL")
    with backend.launch(private, model, Settings(), velollm_place()) as session:
        assert session.effective()["num_ctx"] == 4096


def test_a_model_that_is_unloaded_after_every_answer_is_there_to_be_looked_at(start):
    session = start(Settings(config=Config({"keep_alive": 0, "num_ctx": 1024})))
    assert session.effective()["num_ctx"] == 1024
    list(session.generate(HELLO))
    assert session._api.client.get("/double")["requests"][-1][1]["keep_alive"] == 0


def test_a_context_that_nobody_asked_for_is_not_demanded_back(backend, private, monkeypatch):
    card = GpuInfo(uuid="g", vendor="nvidia", name="card", memory_total_bytes=24 << 30)
    monkeypatch.setattr("velollm_ollama.backend._gpus", lambda: (card,))
    model = backend.models(private)[0]
    own = backend.defaults(private, model).config
    assert own["num_ctx"] == 8192, "it is thought to take this much, and may know better"
    assert "num_ctx" not in backend.expected(private, model, own)
    asked = backend.expected(private, model, own | {"num_ctx": 2048})
    assert asked["num_ctx"] == 2048


def test_a_gpu_that_ollama_passes_over_is_no_reason_not_to_look_at_the_memory(
    backend, private, monkeypatch
):
    model, config = backend.models(private)[0], Config({"num_ctx": 512})
    for shares, told in ((True, True), (False, False)):
        card = GpuInfo(
            uuid="g", vendor="amd", name="x", memory_total_bytes=8 << 30, unified_memory=shares
        )
        monkeypatch.setattr("velollm_ollama.backend._gpus", lambda card=card: (card,))
        assert (backend.footprint(private, model, config) is not None) is told


def test_it_tells_what_it_has_read_of_its_variables(start):
    config = Config(
        {
            "max_loaded_models": 2,
            "max_queue": 7,
            "load_timeout": 90,
            "gpu_overhead": 1024,
            "sched_spread": True,
            "kv_cache_type": "q8_0",
            "flash_attention": "on",
            "num_gpu": 0,
            "use_mmap": "on",
        }
    )
    told = start(Settings(config=config)).effective()
    assert {name: told.get(name) for name in config} == dict(config)


def test_the_memory_that_it_takes_grows_with_the_context_and_the_slots(backend, private):
    model = backend.models(private)[0]

    def bytes_of(**knobs):
        return backend.footprint(private, model, Config({"num_gpu": 0, **knobs})).host_bytes

    least = bytes_of(num_ctx=512)
    assert least < bytes_of(num_ctx=4096) < bytes_of(num_ctx=4096, num_parallel=4)
    assert bytes_of(num_ctx=8192) == bytes_of(num_ctx=100_000), "a model has no more than its own"
    assert bytes_of(num_ctx=4096, kv_cache_type="q8_0") <= bytes_of(num_ctx=4096)
