"""What a user gets of an answer, whole or not, from a server that keeps to the protocol or not."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from velollm_openai.stream import decode

from velollm_core.backends.contract import Event, Finish, Message, Request, Sampling
from velollm_core.backends.http import HttpClient
from velollm_core.errors import FailureKind, RequestError

HELLO = (Message(role="user", content="Hello"),)


@pytest.fixture
def answers(serve, connect):
    """What a session gives when the server's stream consists of these pieces."""

    def run(*pieces, timeout_s=10.0, **server):
        session = connect(serve(*pieces, **server).url)
        return session.generate(Request(prompt=HELLO, max_tokens=5, timeout_s=timeout_s))

    return run


def test_a_whole_answer_gives_its_events_and_one_finish_with_the_servers_counts(answers, protocol):
    *events, finish = answers(*protocol.WHOLE)
    assert [(entry.text, entry.tokens) for entry in events] == [("Hel", None), ("lo", None)]
    assert isinstance(finish, Finish)
    assert finish.reason == "stop"
    assert (finish.prompt_tokens, finish.cached_tokens, finish.output_tokens) == (10, 4, 3)
    assert finish.timings is None
    times = [item.at_ms for item in (*events, finish)]
    assert times == sorted(times)


def test_without_usage_the_counts_stay_open(answers, protocol):
    *_, finish = answers(protocol.delta(content="a b c"), protocol.delta(finish="length"))
    assert finish == Finish(at_ms=finish.at_ms, reason="length")


@pytest.mark.parametrize("usage", [{}, {"completion_tokens": "3"}, {"completion_tokens": None}, 7])
def test_usage_that_says_nothing_is_no_count(answers, protocol, usage):
    *_, finish = answers(protocol.delta(content="a", finish="stop", usage=usage))
    assert finish.output_tokens is None


@pytest.mark.parametrize("count", [2**64 - 1, 2**31 + 1, -1, True, 1000])
def test_a_count_that_cannot_be_is_none(answers, protocol, count):
    usage = {"prompt_tokens": count, "completion_tokens": count}
    *_, finish = answers(protocol.delta(content="a", finish="stop", usage=usage))
    assert finish.output_tokens is None
    assert finish.prompt_tokens == (1000 if count == 1000 else None)


def test_tokens_that_were_thought_but_not_sent_are_no_part_of_the_answer(answers, protocol):
    usage = {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 6}}
    end = protocol.delta(finish="stop", usage=usage)
    *_, hidden = answers(protocol.delta(content="a"), end)
    *_, shown = answers(protocol.delta(reasoning="Hm"), protocol.delta(content="a"), end)
    assert (hidden.output_tokens, shown.output_tokens) == (None, 9)
    usage["completion_tokens_details"]["reasoning_tokens"] = 0
    *_, none = answers(protocol.delta(content="a", finish="stop", usage=usage))
    assert none.output_tokens == 9


@pytest.mark.parametrize("pieces", [(), (b'data: {"choices": [{"delta": {"role": "x"}}]}\n\n',)])
def test_an_empty_answer_is_no_answer(answers, protocol, pieces):
    with pytest.raises(RequestError, match="neither text nor") as caught:
        list(answers(*pieces, protocol.DONE))
    assert caught.value.kind is FailureKind.REFUSED


def test_an_answer_that_ends_at_once_with_its_reason_is_one(answers, protocol):
    (finish,) = answers(protocol.delta(finish="stop"), protocol.DONE)
    assert finish.reason == "stop"


def test_text_whose_end_is_only_marked_is_an_answer(answers, protocol):
    *_, finish = answers(protocol.delta(content="a"), protocol.DONE)
    assert finish.reason == "unknown"


def test_an_answer_that_goes_on_and_on_is_given_up(answers, protocol):
    with pytest.raises(RequestError, match="did not end") as caught:
        list(answers(protocol.delta(content="a") * 5000))
    assert caught.value.kind is FailureKind.REFUSED


def test_usage_may_come_with_the_last_text(answers, protocol):
    event, finish = answers(
        protocol.delta(content="Hi", finish="stop", usage=protocol.USAGE), protocol.DONE
    )
    assert event.text == "Hi"
    assert finish.output_tokens == 3


def test_usage_that_grows_with_each_chunk_ends_in_the_last(answers, protocol):
    *_, finish = answers(
        protocol.delta(content="a", usage={"completion_tokens": 1}),
        protocol.delta(content="b", usage={"completion_tokens": 2}),
        protocol.delta(finish="length", usage={"completion_tokens": 2, "prompt_tokens": 9}),
    )
    assert (finish.prompt_tokens, finish.output_tokens) == (9, 2)


def test_a_chunk_with_only_a_role_is_no_first_token(answers, protocol):
    first = next(answers(protocol.delta(role="assistant"), *protocol.WHOLE))
    assert first.text == "Hel"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_text(answers, protocol, name):
    *events, _ = answers(protocol.delta(**{name: "Hm"}), *protocol.WHOLE)
    assert [entry.text for entry in events] == ["Hm", "Hel", "lo"]


def test_reasoning_under_both_names_counts_once(answers, protocol):
    *events, _ = answers(protocol.delta(reasoning="Hm", reasoning_content="Hm"), *protocol.WHOLE)
    assert events[0].text == "Hm"


def test_comments_blank_lines_and_other_fields_are_no_events(answers, protocol):
    noise = (b": ping\n\n", b"\n\n", b"event: message\nid: 1\nretry: 5\n", b"data:\n\n")
    *events, finish = answers(
        *(part for pair in zip(noise, protocol.WHOLE[:4], strict=True) for part in pair),
        *protocol.WHOLE[4:],
    )
    assert "".join(entry.text for entry in events) == "Hello"
    assert finish.output_tokens == 3


def test_lines_may_end_in_cr_lf(answers, protocol):
    *events, finish = answers(*(piece.replace(b"\n", b"\r\n") for piece in protocol.WHOLE))
    assert "".join(entry.text for entry in events) == "Hello"
    assert finish.output_tokens == 3


def test_an_answer_without_done_is_whole_once_its_reason_came(answers, protocol):
    *_, finish = answers(*protocol.WHOLE[:-1])
    assert (finish.reason, finish.output_tokens) == ("stop", 3)


def test_an_answer_without_a_reason_is_whole_once_done_came(answers, protocol):
    *_, finish = answers(*protocol.WHOLE[:3], protocol.DONE)
    assert finish.reason == "unknown"


def test_an_answer_that_ends_with_neither_is_not_taken_for_whole(answers, protocol):
    with pytest.raises(RequestError, match="before its end") as caught:
        list(answers(*protocol.WHOLE[:3]))
    assert caught.value.kind is FailureKind.CRASH


def test_a_connection_that_drops_is_a_crash(answers, protocol):
    with pytest.raises(RequestError, match="in the middle of the answer") as caught:
        list(answers(*protocol.WHOLE[:3], whole=False))
    assert caught.value.kind is FailureKind.CRASH


def test_silence_ends_the_request_after_its_time(answers, protocol):
    started = time.monotonic()
    with pytest.raises(RequestError, match=r"silent for 0\.3 seconds") as caught:
        list(answers(*protocol.WHOLE[:3], timeout_s=0.3, stall_s=2))
    assert caught.value.kind is FailureKind.TIMEOUT
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "fault",
    [
        {"error": {"message": "the engine is dead", "code": 500}},
        {"error": "the engine is dead"},
        {"object": "error", "message": "the engine is dead"},
    ],
)
def test_an_error_in_mid_stream_is_told_in_the_servers_words(answers, protocol, fault):
    stream = answers(*protocol.WHOLE[:2], protocol.event(fault), protocol.DONE)
    assert isinstance(next(stream), Event)
    with pytest.raises(RequestError, match="the engine is dead") as caught:
        list(stream)
    assert caught.value.kind is FailureKind.REFUSED


@pytest.mark.parametrize(
    "message", ["\x1b]0;owned\x07first\nsecond " + "A" * 100_000, {"a": ["A" * 100_000]}]
)
def test_an_error_in_mid_stream_is_one_line_of_bounded_length(answers, protocol, message):
    with pytest.raises(RequestError) as caught:
        list(answers(protocol.event({"error": {"message": message}})))
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 600


def test_a_server_out_of_memory_is_recorded_as_that(answers, protocol):
    with pytest.raises(RequestError, match="CUDA out of memory") as caught:
        list(answers(protocol.event({"error": {"message": "CUDA out of memory. Tried to"}})))
    assert caught.value.kind is FailureKind.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        ("401 Unauthorized", b'{"error": "Unauthorized"}', "HTTP 401, Unauthorized"),
        ("404 Not Found", b'{"error": {"message": "no model m"}}', "HTTP 404, no model m"),
        ("429 Too Many", b'{"error": {"message": "slow down"}}', "HTTP 429, slow down"),
        ("503 Busy", b'{"error": {"message": "Loading model"}}', "HTTP 503, Loading model"),
        ("502 Bad Gateway", b"<html><h1>nginx</h1></html>", "nginx"),
    ],
)
def test_a_refusal_is_told_with_its_status_and_reason(answers, status, body, told):
    with pytest.raises(RequestError, match=told) as caught:
        list(answers(status=status, body=body))
    assert caught.value.kind is FailureKind.REFUSED
    assert caught.value.status == int(status[:3])


def test_a_web_page_instead_of_a_stream_is_no_answer(answers):
    with pytest.raises(RequestError, match="before its end"):
        list(answers(status="200 OK", body=b"<html>hello</html>"))


@pytest.mark.parametrize("piece", [b"data: [1, 2]\n\n", b"data: 7\n\n", b"data: {\n\n"])
def test_an_event_that_is_no_object_is_named(answers, piece):
    with pytest.raises(RequestError, match="sent an event that is no"):
        list(answers(piece))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "content",
                    "text",
                    "usage",
                    "error",
                    "finish_reason",
                    "message",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=4))
def test_whatever_a_server_sends_is_an_answer_or_a_named_fault(chunks):
    payloads = [(float(k), json.dumps(chunk).encode()) for k, chunk in enumerate(chunks)]
    items, fault = [], None
    try:
        items += decode(iter(payloads), HttpClient("http://server"), max_tokens=5)
    except RequestError as error:
        fault = error
    assert isinstance(items[-1], Finish) if fault is None else "http://server" in fault.message
    assert all(item.text and item.tokens is None for item in items if isinstance(item, Event))


def sent(server) -> tuple[str, dict]:
    head, _, body = server.requests[-1].partition(b"\r\n\r\n")
    return head.split(b" ")[1].decode(), json.loads(body)


def test_messages_go_to_chat_with_the_model_the_limit_and_the_sampling(serve, connect, protocol):
    server = serve(*protocol.WHOLE)
    sampling = Sampling(temperature=0.5, seed=7, top_p=0.9, top_k=40)
    list(connect(server.url).generate(Request(prompt=HELLO, max_tokens=5, sampling=sampling)))
    path, body = sent(server)
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "temperature": 0.5,
        "seed": 7,
        "top_p": 0.9,
        "top_k": 40,
    }


@pytest.mark.parametrize(
    ("prompt", "posted"),
    [
        ((Message(role="system", content="Be brief."), *HELLO), "Be brief.\n\nHello"),
        ("Once", "Once"),
        ((1, 2, 3), [1, 2, 3]),
    ],
)
def test_completions_take_texts_and_token_ids_as_they_are(serve, connect, prompt, posted):
    server = serve(
        b'data: {"choices": [{"text": " upon"}]}\n\n',
        b'data: {"choices": [{"text": " a", "finish_reason": "length"}]}\n\ndata: [DONE]\n\n',
    )
    session = connect(server.url, endpoint="completions")
    *events, finish = session.generate(Request(prompt=prompt, max_tokens=2))
    path, body = sent(server)
    assert (path, body["prompt"], "messages" in body) == ("/v1/completions", posted, False)
    assert [entry.text for entry in events] == [" upon", " a"]
    assert finish.reason == "length"


def test_a_raw_text_never_goes_through_the_chat_template(serve, connect, protocol):
    server = serve(*protocol.WHOLE)
    list(connect(server.url).generate(Request(prompt="Once", max_tokens=2)))
    assert sent(server)[0] == "/v1/completions"
