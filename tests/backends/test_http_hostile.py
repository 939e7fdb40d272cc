"""Servers that err, on purpose or not: every request ends, in a sentence, without the key."""

from __future__ import annotations

import json
import threading
import time

import pytest

from velollm_core.backends.http import HttpClient, server_sent_events
from velollm_core.errors import FailureKind, RequestError, UsageError
from velollm_core.testing.raw_server import answer

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
KEY = "sk-0123456789-0123456789-0123456789"


@pytest.fixture
def sending(serve):
    """A client of a server that sends these bytes as its answer, and then closes."""

    def make(*pieces: bytes, key: str | None = None) -> HttpClient:
        def behave(connection, request):
            for piece in pieces:
                connection.sendall(piece)

        return HttpClient(serve(behave).url, key)

    return make


@pytest.fixture
def dripping(serve):
    """A client of a server that sends ``head`` and then one piece every 50 ms, for ever."""

    def make(head: bytes, piece: bytes) -> HttpClient:
        def behave(connection, request):
            connection.sendall(head)
            while True:
                connection.sendall(piece)
                time.sleep(0.05)

        return HttpClient(serve(behave).url)

    return make


@pytest.mark.parametrize(
    "head",
    [HEAD, b"HTTP/1.1 200 OK\r\n", b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"],
)
def test_an_answer_that_drips_is_given_up_when_its_time_is_over(dripping, head):
    started = time.monotonic()
    with pytest.raises(RequestError, match=r"in 0\.4 seconds") as caught:
        dripping(head, b"1").text("/metrics", 0.4)
    assert caught.value.kind is FailureKind.TIMEOUT
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("noise", [b": ping\n\n", b"data:\n\n", b"id: 7\n\n", b"x"])
def test_what_is_no_event_does_not_break_the_silence_of_a_stream(dripping, noise):
    started = time.monotonic()
    with pytest.raises(RequestError, match=r"silent for 0\.4 seconds") as caught:
        list(server_sent_events(dripping(HEAD, noise).stream("/x", {}, 0.4)))
    assert caught.value.kind is FailureKind.TIMEOUT
    assert time.monotonic() - started < 3


def test_events_break_the_silence_and_comments_between_them_do_no_harm(serve):
    def behave(connection, request):
        connection.sendall(HEAD)
        for number in range(8):
            connection.sendall(b": ping\n\n")
            time.sleep(0.1)
            connection.sendall(b"data: %d\n\n" % number)

    lines = HttpClient(serve(behave).url).stream("/x", {}, 0.6)
    assert [payload for _, payload in server_sent_events(lines)] == [b"%d" % n for n in range(8)]


@pytest.mark.parametrize("wire", [b"[" * 200_000, b'{"error":' * 100_000])
@pytest.mark.parametrize("status", ["200 OK", "500 Broken"])
def test_json_that_is_nested_too_deep_is_no_answer(serve, wire, status):
    client = HttpClient(serve(lambda connection, _: answer(connection, wire, status)).url)
    with pytest.raises(RequestError) as caught:
        client.get("/v1/models")
    assert len(caught.value.message) < 600


@pytest.mark.parametrize("status", ["301 Moved", "307 Temporary Redirect", "304 Not Modified"])
def test_a_server_that_points_elsewhere_is_not_followed(sending, status):
    head = f"HTTP/1.1 {status}\r\nLocation: https://elsewhere/v1?token=abc\r\n\r\n".encode()
    with pytest.raises(RequestError, match="https://elsewhere/v1") as caught:
        sending(head).get("/v1/models")
    assert "abc" not in str(caught.value)
    assert caught.value.status == int(status[:3])
    assert caught.value.kind is FailureKind.REFUSED


def test_what_a_server_says_before_its_answer_is_passed_over(sending):
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    assert sending(early + HEAD + b"[1]").get("/x") == [1]
    assert sending(early, HEAD, b"[1]").get("/x") == [1]


@pytest.mark.parametrize("length", [b"-5", b"+5", b"5_0", b"0x5", b"", b"5, 5", b"9" * 5000])
def test_a_length_that_is_none_is_refused(sending, length):
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n[1,2]" % length
    with pytest.raises(RequestError, match="broke off"):
        sending(wire).get("/x")


def test_a_stop_while_a_body_without_a_length_arrives_is_no_crash_of_the_server(serve):
    def behave(connection, request):
        connection.sendall(HEAD + b"data: 1\n")
        time.sleep(5)

    client = HttpClient(serve(behave).url)
    stream = client.stream("/x", {}, 5.0)
    next(stream)
    threading.Timer(0.2, client.abort).start()
    with pytest.raises(RequestError) as caught:
        list(stream)
    assert caught.value.kind is FailureKind.INTERRUPTED


def test_many_small_pieces_are_read_in_little_time(sending, monkeypatch):
    monkeypatch.setattr("velollm_core.backends.http._READ_BYTES", 1)
    assert sending(HEAD + b" " * 50_000 + b"true").get("/x", 10.0) is True


@pytest.mark.parametrize(
    "url",
    [
        "http://a..b:80",
        f"http://{'a' * 70}:80",
        "http://a b:80",
        "http://a\x00b:80",
        "http://a/\udcff",
    ],
)
def test_a_host_that_no_name_can_be_is_refused(url):
    with pytest.raises(UsageError, match="is not the URL of a server"):
        HttpClient(url)


def test_a_path_that_no_request_can_hold_is_refused_with_how_to_write_it():
    with pytest.raises(UsageError) as caught:
        HttpClient("http://127.0.0.1:80/é b/v1")
    assert "/%C3%A9%20b/v1" in caught.value.hint
    HttpClient("http://127.0.0.1:80/%C3%A9%20b/~user/v1:2")


@pytest.mark.parametrize("before", [0, 20, 55, 285, 290, 455, 495])
@pytest.mark.parametrize("form", ["error", "message", "plain", "head", "location", "chunk"])
def test_a_key_that_a_server_quotes_is_hidden_wherever_its_words_are_cut(sending, before, form):
    said = "z" * before + KEY
    refusal = b"HTTP/1.1 401 No\r\n\r\n"
    wire = {
        "error": refusal + json.dumps({"error": said}).encode(),
        "message": refusal + json.dumps({"error": {"message": said}}).encode(),
        "plain": HEAD + said.encode(),
        "head": said.encode() + b"\r\n\r\n",
        "location": b"HTTP/1.1 302 X\r\nLocation: /" + said.encode() + b"\r\n\r\n",
        "chunk": HEAD[:-2] + b"Transfer-Encoding: chunked\r\n\r\n" + said.encode() + b"\r\n",
    }[form]
    with pytest.raises(RequestError) as caught:
        sending(wire, key=KEY).get("/x")
    assert "sk-0" not in str(caught.value)


def test_what_a_server_says_is_one_line_of_bounded_length(sending):
    said = json.dumps({"error": {"message": "\x1b[2J\x07evil\nnext " + "A" * 10_000}}).encode()
    with pytest.raises(RequestError) as caught:
        sending(b"HTTP/1.1 500 Broken\r\n\r\n" + said).get("/x")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 600
