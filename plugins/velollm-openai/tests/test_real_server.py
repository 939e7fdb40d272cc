"""A real llama-server's /v1, attached to as any other server."""

from __future__ import annotations

import threading

import psutil
import pytest

from velollm_core.backends.contract import Capability, Finish, Message, Request
from velollm_core.config import Config
from velollm_core.errors import FailureKind, RequestError

pytestmark = pytest.mark.engine

STORY = (Message(role="user", content="Write a long story about a dog and a river."),)


@pytest.fixture(scope="module")
def session(backend, llama_server):
    (found,) = backend.probe({"url": f"{llama_server.url}/v1"}, {})
    with backend.attach(found, backend.models(found)[0], Config()) as running:
        yield running


def ask(session, prompt=STORY, **more):
    *events, finish = session.generate(Request(prompt=prompt, **{"max_tokens": 24, **more}))
    assert isinstance(finish, Finish)
    return events, finish


def test_it_is_recognised_with_its_processes_and_left_running(backend, llama_server):
    (found,) = backend.probe({"url": llama_server.url}, {})
    assert found.version.startswith("llamacpp")
    with backend.attach(found, backend.models(found)[0], Config()) as session:
        assert session.capabilities == {
            Capability.TOKEN_COUNTS,
            Capability.COUNTERS,
            Capability.MEMORY,
        }
        assert set(llama_server.pids) <= set(session.pids)
        assert session.memory().rss_bytes > 50 * 1024**2
    assert all(psutil.pid_exists(pid) for pid in llama_server.pids)


def test_text_and_counts_are_those_of_the_servers_own_protocol(session, llama_server):
    events, finish = ask(session)
    own, own_finish = ask(llama_server)
    assert "".join(entry.text for entry in events) == "".join(entry.text for entry in own)
    assert finish.output_tokens == own_finish.output_tokens == 24
    assert finish.prompt_tokens == own_finish.prompt_tokens
    assert finish.reason == own_finish.reason == "length"
    assert all(entry.tokens is None for entry in events)
    assert (finish.timings, finish.drafted_tokens) == (None, None)


def test_the_end_of_the_text_is_told_apart_from_the_limit(session):
    prompt = (Message(role="user", content="Say: yes"),)
    assert ask(session, prompt, max_tokens=200)[1].reason == "stop"


def test_a_raw_text_and_its_token_ids_are_continued_alike(session, llama_server):
    text = "The capital of France is"
    from_text, _ = ask(session, text, max_tokens=8)
    from_ids, _ = ask(session, tuple(llama_server.tokenize(text)), max_tokens=8)
    assert [entry.text for entry in from_ids] == [entry.text for entry in from_text]


def test_a_prompt_is_reused_unless_the_knob_says_no(session):
    ask(session)
    assert ask(session)[1].cached_tokens > 0
    assert not ask(session, config=Config({"cache_prompt": False}))[1].cached_tokens


def test_counters_count_what_was_generated(session):
    before = session.counters()["llamacpp:tokens_predicted_total"]
    ask(session, max_tokens=5)
    assert session.counters()["llamacpp:tokens_predicted_total"] == before + 5


def test_many_threads_may_ask_at_once(session):
    counts = []

    def client(number: int) -> None:
        counts.append(ask(session, f"Number {number}:", max_tokens=8)[1].output_tokens)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [8] * 6


def test_a_prompt_longer_than_the_context_is_refused_with_the_servers_reason(session):
    with pytest.raises(RequestError, match="context") as caught:
        ask(session, "word " * 4000)
    assert caught.value.kind is FailureKind.REFUSED


def test_closing_a_session_wakes_whoever_waits_and_ends_no_server(backend, llama_server):
    (found,) = backend.probe({"url": llama_server.url}, {})
    session = backend.attach(found, backend.models(found)[0], Config())
    stream = session.generate(Request(prompt=STORY, max_tokens=1500))
    next(stream)
    session.close()
    session.close()
    with pytest.raises(RequestError) as caught:
        list(stream)
    assert caught.value.kind is FailureKind.INTERRUPTED
    assert all(psutil.pid_exists(pid) for pid in llama_server.pids)
