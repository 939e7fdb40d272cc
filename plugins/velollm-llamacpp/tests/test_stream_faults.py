"""A server that errs in the middle of an answer is told apart from one that is slow, and named."""

from __future__ import annotations

import json
import os
import signal
import time
from itertools import islice

import pytest
from velollm_llamacpp.session import LlamaSession

from velollm_core.backends.contract import Event, Finish, Message, Request
from velollm_core.errors import FailureKind, RequestError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
TIMINGS = {
    "cache_n": 3,
    "prompt_n": 7,
    "prompt_ms": 5.0,
    "predicted_n": 2,
    "predicted_ms": 4.0,
    "draft_n": 6,
    "draft_n_accepted": 1,
}


def chunk(text=None, *, finish=None, timings=None, **delta) -> bytes:
    if text is not None:
        delta["content"] = text
    data = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    if timings is not None:
        data["timings"] = timings
    return b"data: " + json.dumps(data).encode() + b"\n\n"


WHOLE = [
    chunk(role="assistant"),
    chunk("Hel", timings={"predicted_n": 1}),
    chunk("lo", timings={"predicted_n": 2}),
    chunk(finish="stop", timings=TIMINGS),
    b"data: [DONE]\n\n",
]


@pytest.fixture
def answers(scripted):
    """What a session gives when the server answers with these pieces, and then closes."""

    def run(*pieces, timeout_s=10.0, stall_s=0.0):
        def answer(request):
            if b"/v1/chat/completions" not in request.split(b"\r\n")[0]:
                yield b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
                return
            yield HEAD
            yield from pieces
            time.sleep(stall_s)

        session = LlamaSession(scripted(answer).url)
        request = Request(
            prompt=(Message(role="user", content="Hi"),), max_tokens=5, timeout_s=timeout_s
        )
        return session.generate(request)

    return run


def test_a_whole_answer_gives_its_events_and_one_finish(answers):
    *events, finish = answers(*WHOLE)
    assert [(event.text, event.tokens) for event in events] == [("Hel", 1), ("lo", 1)]
    assert isinstance(finish, Finish)
    assert (finish.prompt_tokens, finish.cached_tokens, finish.output_tokens) == (10, 3, 2)
    assert (finish.drafted_tokens, finish.accepted_tokens) == (6, 1)
    assert finish.reason == "stop"


def test_a_chunk_with_only_a_role_is_no_first_token_and_reasoning_is(answers):
    *events, _ = answers(chunk(role="assistant"), chunk(reasoning_content="Hm"), *WHOLE[1:])
    assert [event.text for event in events] == ["Hm", "Hel", "lo"]


def test_tokens_without_text_are_counted_with_the_next_text(answers):
    *events, _ = answers(
        chunk("", timings={"predicted_n": 1}), chunk("ö", timings={"predicted_n": 3}), *WHOLE[3:]
    )
    assert [(event.text, event.tokens) for event in events] == [("ö", 3)]


def test_a_server_that_counts_nothing_leaves_the_counts_open(answers):
    *events, finish = answers(chunk("a"), chunk("b", finish="length"))
    assert [event.tokens for event in events] == [None, None]
    assert finish.output_tokens is None
    assert finish.timings is None
    assert finish.reason == "length"


@pytest.mark.parametrize("field", ["data", "error"])
def test_an_error_in_the_stream_is_the_servers_reason(answers, field):
    fault = field.encode() + b': {"error": {"code": 500, "message": "slot is unavailable"}}\n\n'
    if field == "error":
        fault = b'error: {"error": {"message": "slot is unavailable"}}\n\n'
    stream = answers(*WHOLE[:2], fault)
    assert isinstance(next(stream), Event)
    with pytest.raises(RequestError, match="slot is unavailable") as caught:
        list(stream)
    assert caught.value.kind is FailureKind.REFUSED


def test_an_answer_without_its_end_is_not_taken_for_whole(answers):
    with pytest.raises(RequestError, match="before its end") as caught:
        list(answers(*WHOLE[:3]))
    assert caught.value.kind is FailureKind.CRASH


def test_a_server_that_stops_in_the_middle_of_a_line_is_named(answers):
    with pytest.raises(RequestError, match="in the middle of a line"):
        list(answers(*WHOLE[:2], WHOLE[2][:20]))


def test_silence_ends_the_request_after_its_time(answers):
    started = time.monotonic()
    with pytest.raises(RequestError, match=r"silent for 0\.3 seconds") as caught:
        list(answers(*WHOLE[:2], timeout_s=0.3, stall_s=2))
    assert caught.value.kind is FailureKind.TIMEOUT
    assert time.monotonic() - started < 2


def test_a_server_that_accepts_and_never_answers_is_given_up(scripted):
    def never(request):
        if b"/metrics" in request:
            yield b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        time.sleep(2)
        yield b""

    session = LlamaSession(scripted(never).url)
    with pytest.raises(RequestError) as caught:
        list(session.generate(Request(prompt="a", max_tokens=1, timeout_s=0.3)))
    assert caught.value.kind is FailureKind.TIMEOUT


def test_garbage_instead_of_events_is_refused(answers):
    with pytest.raises(RequestError, match="before its end"):
        list(answers(b"<html>hello</html>\n"))
    with pytest.raises(RequestError, match="no object"):
        list(answers(b"data: [1, 2]\n\n"))


@pytest.mark.engine
@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
def test_the_death_of_the_server_is_told_with_its_exit(start, installation):
    session = start(installation)
    stream = session.generate(Request(prompt="Once upon a time", max_tokens=4000))
    assert len(list(islice(stream, 3))) == 3
    os.kill(session.pids[0], signal.SIGKILL)
    with pytest.raises(RequestError, match="SIGKILL") as caught:
        list(stream)
    assert "prompt" in caught.value.message  # its log says what it was doing
    assert caught.value.kind is FailureKind.CRASH
    assert "memory" in caught.value.hint


@pytest.mark.engine
def test_closing_a_session_wakes_whoever_waits_for_it(start, embedded):
    session = start(embedded)
    stream = session.generate(Request(prompt="Once upon a time", max_tokens=4000))
    next(stream)
    session.close()
    session.close()
    with pytest.raises(RequestError) as caught:
        list(stream)
    assert caught.value.kind is FailureKind.INTERRUPTED
