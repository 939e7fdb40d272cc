"""HTTP to a server: the same lines however they are cut, and one clear sentence for each fault."""

from __future__ import annotations

import json
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.backends.http import HttpClient, server_sent_events
from velollm_core.backends.http_body import Chunked, Sized, body_for
from velollm_core.errors import FailureKind, RequestError, UsageError

STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWER = b'data: {"a": 1}\r\n\n: a comment\n\nevent: x\ndata:{"b": 2}\n\ndata: [DONE]\n\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def lines_of(client: HttpClient, timeout_s: float = 5.0) -> list[bytes]:
    return [line for _, line in client.stream("/x", {}, timeout_s)]


@given(st.lists(st.binary(min_size=1, max_size=40)), st.data())
def test_chunks_give_the_same_content_however_the_bytes_are_cut(parts, data):
    wire = b"".join(map(chunk, parts)) + b"0\r\n\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)))))
    body = Chunked()
    got = b"".join(
        body.feed(wire[start:end])
        for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)
    )
    assert got == b"".join(parts)
    assert body.complete


def test_a_chunk_may_be_cut_at_every_single_byte():
    wire = chunk(b"hello\nworld") + chunk(b"!") + b"0\r\n\r\n"
    body = Chunked()
    assert b"".join(body.feed(wire[i : i + 1]) for i in range(len(wire))) == b"hello\nworld!"
    assert body.complete


def test_a_sized_body_ends_where_it_says():
    body = body_for({"content-length": "5"})
    assert isinstance(body, Sized)
    assert body.feed(b"abc") == b"abc"
    assert not body.complete
    assert body.feed(b"defgh") == b"de"
    assert body.complete


@pytest.mark.parametrize("wire", [b"zz\r\n", b"-5\r\nhello", b"1" * 5000])
def test_broken_framing_is_noticed(wire):
    body = Chunked()
    with pytest.raises(ValueError, match="chunk"):
        body.feed(wire)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_stream_gives_the_same_events_whatever_the_packets(serve, size):
    def behave(connection, request):
        wire = STREAM + b"".join(chunk(ANSWER[i : i + size]) for i in range(0, len(ANSWER), size))
        for i in range(0, len(wire), size):
            connection.sendall(wire[i : i + size])
        connection.sendall(b"0\r\n\r\n")

    client = HttpClient(serve(behave).url)
    payloads = [p for _, p in server_sent_events(client.stream("/x", {}, 5.0))]
    assert payloads == [b'{"a": 1}', b'{"b": 2}', b"[DONE]"]


def test_arrival_is_the_time_since_the_request_was_sent(serve):
    def behave(connection, request):
        connection.sendall(STREAM)
        for _ in range(3):
            time.sleep(0.1)
            connection.sendall(chunk(b"x\n"))
        connection.sendall(b"0\r\n\r\n")

    arrivals = [at for at, _ in HttpClient(serve(behave).url).stream("/x", {}, 5.0)]
    for at_ms, due_ms in zip(arrivals, (100, 200, 300), strict=True):
        assert due_ms - 1 <= at_ms < due_ms + 90


def test_json_goes_out_with_the_key_and_comes_back(serve):
    def behave(connection, request):
        body = json.dumps({"ok": True}).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    server = serve(behave)
    assert HttpClient(server.url + "/base/", "secret").post("/v1", {"x": 1}) == {"ok": True}
    request = server.requests[0].decode()
    assert request.startswith("POST /base/v1 HTTP/1.1")
    assert "Authorization: Bearer secret" in request


@pytest.mark.parametrize(
    ("wire", "told", "kind"),
    [
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "HTTP 401", FailureKind.REFUSED),
        (
            b'HTTP/1.1 503 Busy\r\n\r\n{"error":{"code":503,"message":"Loading model"}}',
            "Loading model",
            FailureKind.REFUSED,
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>hello", "not JSON", FailureKind.REFUSED),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no HTTP answer", FailureKind.CRASH),
        (b"", "without an answer", FailureKind.CRASH),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{", "in the middle", FailureKind.CRASH),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{", "broke off", FailureKind.CRASH),
    ],
)
def test_each_wrong_answer_is_one_sentence(serve, wire, told, kind):
    def behave(connection, request):
        connection.sendall(wire)
        connection.close()

    with pytest.raises(RequestError) as caught:
        HttpClient(serve(behave).url).get("/props")
    assert told in caught.value.message
    assert caught.value.kind is kind


def test_a_stream_that_stops_in_the_middle_of_a_line_is_not_taken_for_its_end(serve):
    def behave(connection, request):
        connection.sendall(STREAM + chunk(b"data: 1\n\n") + chunk(b'data: {"half'))
        connection.close()

    got = []

    def take():
        for _, line in HttpClient(serve(behave).url).stream("/x", {}, 5.0):
            got.append(line)

    with pytest.raises(RequestError, match="in the middle of the answer"):
        take()
    assert got == [b"data: 1"]


def test_a_server_that_accepts_and_never_answers_is_given_up(serve):
    client = HttpClient(serve(lambda connection, request: time.sleep(20)).url)
    started = time.monotonic()
    with pytest.raises(RequestError, match=r"silent for 0\.3 seconds") as caught:
        lines_of(client, timeout_s=0.3)
    assert time.monotonic() - started < 5
    assert caught.value.kind is FailureKind.TIMEOUT


def test_nothing_listening_is_said_so():
    with pytest.raises(RequestError, match=r"nothing answers at http://127\.0\.0\.1:1"):
        HttpClient("http://127.0.0.1:1").get("/health")


def test_a_host_that_nobody_knows_is_said_so():
    with pytest.raises(RequestError, match="is not known") as caught:
        HttpClient("http://no-such-host.invalid").get("/health")
    assert caught.value.hint == "Mend the URL."


def test_a_line_without_end_is_given_up(serve, monkeypatch):
    monkeypatch.setattr("velollm_core.backends.http._MAX_LINE_BYTES", 100_000)

    def behave(connection, request):
        connection.sendall(STREAM)
        while True:
            connection.sendall(chunk(b"x" * 50_000))

    with pytest.raises(RequestError, match="a line of more than"):
        lines_of(HttpClient(serve(behave).url))


def test_abort_wakes_whoever_waits(serve):
    client = HttpClient(serve(lambda connection, request: time.sleep(20)).url)
    caught = []

    def wait():
        try:
            lines_of(client, timeout_s=20)
        except RequestError as error:
            caught.append(error.kind)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    client.abort()
    thread.join(5)
    assert caught == [FailureKind.INTERRUPTED]
    with pytest.raises(RequestError):
        client.get("/health")


@pytest.mark.parametrize(
    "url",
    ["", "http://me:secret@host", "localhost:8080", "ftp://x", "http://", "http://h:notaport"],
)
def test_what_is_no_url_of_a_server_is_refused(url):
    with pytest.raises(UsageError, match="is not the URL of a server"):
        HttpClient(url)
