"""A server that runs already is measured as it is, and is still there afterwards."""

from __future__ import annotations

import os

import pytest
from velollm_llamacpp.launch import wait_until_ready

from velollm_core.backends.contract import Capability, Message, Request
from velollm_core.config import Config
from velollm_core.errors import NeedsRestart, RequestError, Unavailable


@pytest.fixture(params=[None, "a-secret"], ids=["without a key", "with a key"])
def running(request, native, demo, place):
    """A llama-server of the user's own, and its key."""
    where = place(LLAMA_ARG_UBATCH="64")
    argv = [native.location, "-m", str(demo.path), "--host", "127.0.0.1", "--port", "0"]
    argv += ["-c", "1024", "-np", "2", "-t", "1", "--numa", "distribute"]
    argv += ["--api-key", request.param] if request.param else []
    child = where.start(argv)
    yield wait_until_ready(child, where, "llama-server"), request.param, child
    child.stop()


@pytest.fixture
def server(backend, running):
    url, key, _ = running
    options = {"url": url} | ({"api_key": key} if key else {})
    (found,) = backend.probe(options, os.environ)
    return found


@pytest.mark.engine
def test_it_answers_tells_its_model_and_is_left_running(backend, server, running, demo):
    assert (server.kind, server.location) == ("server", running[0])
    (model,) = backend.models(server)
    assert model.served_name is not None
    assert model.fingerprint == demo.fingerprint
    prompt = (Message(role="user", content="Hi"),)
    with backend.attach(server, model, Config()) as session:
        *events, finish = session.generate(Request(prompt=prompt, max_tokens=8))
        assert sum(event.tokens for event in events) == finish.output_tokens
        assert session.pids == (running[2].pid,)
        assert Capability.MEMORY in session.capabilities
        assert Capability.COUNTERS not in session.capabilities  # it runs without --metrics
        assert session.memory().rss_bytes > 0
        assert session.load_ms is None
    assert running[2].exit_code() is None


@pytest.mark.engine
def test_its_settings_are_those_of_its_arguments_and_environment(backend, server, demo):
    current = backend.current(server, demo, {})
    wanted = {"context": 1024, "slots": 2, "threads": 1, "ubatch": 64, "spec_type": "none"}
    assert {name: current.config[name] for name in wanted} == wanted
    assert "argument -c" in current.origins["context"]
    assert "LLAMA_ARG_UBATCH" in current.origins["ubatch"]
    assert "batch" not in current.config  # nobody tells, so it is not assumed
    assert current.extra_args == ("--numa", "distribute")  # neither paths nor keys
    assert "a-secret" not in str(current)


@pytest.mark.engine
def test_only_what_a_running_server_tells_is_effective(backend, server, demo):
    with backend.attach(server, demo, Config()) as session:
        assert session.effective() == Config({"slots": 2, "spec_type": "none"})
    unreadable = {knob.name for knob in backend.knobs(server, demo) if knob.unreadable}
    assert {"threads", "context", "batch"} <= unreadable
    expected = backend.expected(server, demo, backend.current(server, demo, {}).config)
    assert set(expected) == {"slots", "spec_type"}


@pytest.mark.engine
def test_what_it_has_already_may_be_asked_for_and_what_needs_a_restart_may_not(
    backend, server, demo
):
    current = backend.current(server, demo, {}).config
    backend.attach(server, demo, current | Config({"cache_prompt": False})).close()
    with pytest.raises(NeedsRestart, match="threads"):
        backend.attach(server, demo, current | Config({"threads": 2}))


@pytest.mark.engine
def test_a_wrong_key_is_said_and_a_right_one_may_stand_in_the_environment(backend, running):
    url, key, _ = running
    if key is None:
        pytest.skip("this one asks for no key")
    with pytest.raises(Unavailable, match="401") as caught:
        backend.probe({"url": url, "api_key": "wrong"}, {})
    assert "api_key" in caught.value.hint
    (found,) = backend.probe({"url": url}, {"LLAMA_API_KEY": key})
    assert key not in repr(found)


def test_nothing_at_that_url(backend):
    with pytest.raises(Unavailable, match="nothing answers"):
        backend.probe({"url": "http://127.0.0.1:9"}, {})


def test_another_kind_of_server(backend, scripted):
    def answer(request):
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

    with pytest.raises(Unavailable, match=r"no server of llama\.cpp"):
        backend.probe({"url": scripted(answer).url}, {})


@pytest.mark.engine
def test_a_server_that_dies_is_named(backend, server, running, demo):
    with backend.attach(server, demo, Config()) as session:
        running[2].stop()
        with pytest.raises(RequestError, match="nothing answers"):
            list(session.generate(Request(prompt="a", max_tokens=1)))
