"""What a user gets of an answer, whole or not; each fault is one clear message."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from velollm_ollama.session import OllamaSession
from velollm_ollama.stream import decode

from velollm_core.backends.contract import (
    Event,
    Finish,
    Installation,
    Message,
    Request,
    Sampling,
)
from velollm_core.backends.http import HttpClient
from velollm_core.config import Config
from velollm_core.errors import FailureKind, NeedsRestart, RequestError, UsageError
from velollm_core.testing.raw_server import answer

HELLO = (Message(role="user", content="Hello"),)


@pytest.fixture(scope="module")
def server(double):
    return double()


def session_with(url: str, model: str = "small:latest") -> OllamaSession:
    found = Installation(backend="ollama", kind="server", location=url, version="0.33.0")
    return OllamaSession(found, model)


@pytest.fixture
def ask(server):
    """The items of an answer of the double, which shows a fault."""

    def run(fault="", prompt=HELLO, max_tokens=8, **more):
        server.show(fault)
        request = Request(prompt=prompt, max_tokens=max_tokens, **more)
        return list(session_with(server.url).generate(request))

    return run


@pytest.mark.parametrize("prompt", [HELLO, "Once upon a time"])
def test_a_whole_answer_has_the_servers_own_counts_and_times(ask, prompt):
    *events, finish = ask(prompt=prompt)
    assert len(events) == 8
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.output_tokens) == ("length", 8)
    assert finish.prompt_tokens == (2 if prompt is HELLO else 5)
    assert 0 < finish.timings.prompt_ms < finish.at_ms
    assert 7 < finish.timings.predicted_ms < finish.at_ms
    assert (finish.cached_tokens, finish.timings.prompt_per_second) == (None, None)


def test_an_answer_that_ends_by_itself_says_so(ask):
    finish = ask(prompt=(Message(role="user", content="Say: yes"),), max_tokens=50)[-1]
    assert (finish.reason, finish.output_tokens) == ("stop", 3)


def test_a_prompt_that_was_reused_whole_has_no_count(ask):
    finish = ask("cached")[-1]
    assert (finish.prompt_tokens, finish.output_tokens) == (None, 8)
    assert finish.timings.prompt_ms == 0


FAULTS = {
    "busy": (
        "HTTP 503, server busy, please try again. maximum pending requests exceeded",
        "OLLAMA_MAX_QUEUE",
        FailureKind.REFUSED,
    ),
    "load": ("HTTP 500, llama-server process has terminated: error", "log", FailureKind.CRASH),
    "memory": ("HTTP 500, model requires more", "lower num_ctx", FailureKind.OUT_OF_MEMORY),
    "error": ("gave up: an error was encountered", "log", FailureKind.CRASH),
    "runner": ("gave up: model runner has unexpectedly stopped", "log", FailureKind.CRASH),
    "truncated": ("stopped in the middle of a line", "died", FailureKind.CRASH),
    "unended": ("ended an answer before its end", "log", FailureKind.CRASH),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_clear_message(ask, server, fault):
    message, hint, kind = FAULTS[fault]
    with pytest.raises(RequestError) as caught:
        ask(fault)
    assert message in caught.value.message
    assert server.url in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.kind is kind
    assert ask()[-1].output_tokens == 8, "the next answer is whole"


def test_a_model_that_is_not_there_is_to_be_pulled(server):
    with pytest.raises(RequestError, match="HTTP 404, model 'llama3") as caught:
        list(
            session_with(server.url, "llama3.2:latest").generate(Request(prompt="x", max_tokens=1))
        )
    assert caught.value.hint == "Pull it: ollama pull llama3.2"


@pytest.mark.parametrize("name", ["x'; reboot #", 'a"b', "$(reboot)", "\x1b]0;owned\x07", "a\nb"])
def test_a_name_that_is_none_is_sent_as_it_is_and_never_becomes_a_command(server, name):
    before = len(server.requests())
    with pytest.raises(RequestError, match="HTTP 400") as caught:
        list(session_with(server.url, name).generate(Request(prompt="x", max_tokens=1)))
    assert server.requests()[before][1]["model"] == name
    assert name not in caught.value.hint
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("fault", ["slow", "hang"])
def test_silence_ends_the_request_after_its_time(ask, fault):
    started = time.monotonic()
    with pytest.raises(RequestError, match=r"silent for 0\.3 seconds") as caught:
        ask(fault, timeout_s=0.3)
    assert caught.value.kind is FailureKind.TIMEOUT
    assert time.monotonic() - started < 5


def test_an_answer_may_take_longer_than_its_silence_may(ask):
    assert ask(max_tokens=400, timeout_s=0.3)[-1].output_tokens == 400


def test_a_server_that_dies_in_mid_answer_is_a_crash(double):
    server = double("death")
    session = session_with(server.url)
    with pytest.raises(RequestError, match="broke off") as caught:
        list(session.generate(Request(prompt="x", max_tokens=8)))
    assert caught.value.kind is FailureKind.CRASH
    server.process.wait()
    with pytest.raises(RequestError, match="nothing answers"):
        list(session.generate(Request(prompt="x", max_tokens=8)))


def test_token_ids_are_refused(ask):
    with pytest.raises(UsageError, match="no token ids"):
        ask(prompt=(1, 2, 3))


@pytest.mark.parametrize("knob", ["num_ctx", "num_parallel", "no_such_knob"])
def test_what_takes_a_load_is_no_matter_of_one_request(ask, knob):
    with pytest.raises(NeedsRestart, match=knob):
        ask(config=Config({knob: 4}))


def sent(server) -> tuple[str, dict]:
    path, body = server.requests()[-1]
    return path, body


def test_a_text_goes_raw_with_its_sampling_and_its_limit(ask, server):
    sampling = Sampling(temperature=0.5, seed=7, top_k=40, top_p=0.9)
    config = Config({"keep_alive": 60})
    ask(prompt="Once", max_tokens=3, sampling=sampling, config=config)
    path, body = sent(server)
    assert path == "/api/generate"
    assert body == {
        "model": "small:latest",
        "prompt": "Once",
        "raw": True,
        "stream": True,
        "keep_alive": 60,
        "options": {
            "num_predict": 3,
            "temperature": 0.5,
            "seed": 7,
            "top_k": 40,
            "top_p": 0.9,
        },
    }


def test_messages_go_through_the_template(ask, server):
    prompt = (Message(role="system", content="Be brief."), *HELLO)
    ask(prompt=prompt)
    path, body = sent(server)
    assert path == "/api/chat"
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
    ]
    assert "prompt" not in body


@pytest.fixture
def planted(velollm_raw_server):
    """What a session gives when the server sends these bytes."""

    def run(body: bytes, **more):
        raw = velollm_raw_server(lambda connection, _: answer(connection, body))
        return list(session_with(raw.url).generate(Request(prompt="x", max_tokens=5, **more)))

    return run


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


END = line(done=True, done_reason="stop", eval_count=2, eval_duration=3_000_000)


def test_reasoning_is_text_and_comes_first(planted):
    told = line(message={"role": "assistant", "thinking": "Hm", "content": ""}, done=False)
    told += line(message={"content": "yes"}, done=False)
    *events, finish = planted(told + END)
    assert [event.text for event in events] == ["Hm", "yes"]
    assert finish.timings.predicted_ms == 3


def test_the_last_line_may_bring_text_and_end_without_a_newline(planted):
    event, finish = planted(line(response="all", done=True, done_reason="stop").rstrip())
    assert (event.text, finish.reason) == ("all", "stop")


def test_blank_lines_and_empty_texts_are_no_events(planted):
    told = b"\n\r\n" + line(response="", done=False) + line(response="a", done=False) + END
    assert len(planted(told)) == 2


def test_a_line_without_an_end_is_no_sign_of_life(velollm_raw_server):
    def drip(connection, _):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(100):
            connection.sendall(b" ")
            time.sleep(0.02)

    raw = velollm_raw_server(drip)
    with pytest.raises(RequestError, match=r"silent for 0\.3 seconds"):
        list(session_with(raw.url).generate(Request(prompt="x", max_tokens=5, timeout_s=0.3)))


def test_an_answer_without_an_end_is_given_up(planted):
    with pytest.raises(RequestError, match="did not end an answer of 5 tokens") as caught:
        planted(line(response="a", done=False) * 5000)
    assert caught.value.kind is FailureKind.REFUSED


@pytest.mark.parametrize("body", [b"", b"<html>hello</html>", b"[1, 2]\n", b"7\n", b"null\n"])
def test_what_is_no_answer_is_named(planted, body):
    with pytest.raises(RequestError, match=r"before its end|middle of a line|no object"):
        planted(body)


@pytest.mark.parametrize(
    "words", ["\x1b]0;owned\x07first\nsecond " + "A" * 100_000, {"a": ["A" * 100_000]}, 7, None]
)
def test_an_error_in_mid_answer_is_one_line_of_bounded_length(planted, words):
    with pytest.raises(RequestError) as caught:
        planted(line(response="a") + line(error=words))
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 600


@pytest.mark.parametrize("count", [-1, 2**64, True, "3", None, 2.5])
def test_a_count_that_cannot_be_is_none(planted, count):
    told = line(done=True, eval_count=count, prompt_eval_count=count, eval_duration=count)
    (finish,) = planted(told)
    assert finish == Finish(at_ms=finish.at_ms, reason="unknown")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["message", "content", "thinking", "response", "done", "error", "logprobs",
                 "logprob", "eval_count", "eval_duration", "done_reason"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(JSON, max_size=4))
def test_whatever_a_server_sends_is_an_answer_or_a_named_fault(chunks):
    lines = [(float(number), json.dumps(chunk).encode()) for number, chunk in enumerate(chunks)]
    items, fault = [], None
    try:
        items += decode(iter(lines), HttpClient("http://server"), max_tokens=5)
    except RequestError as error:
        fault = error
    assert isinstance(items[-1], Finish) if fault is None else "http://server" in fault.message
    assert all(item.tokens is None for item in items if isinstance(item, Event))
