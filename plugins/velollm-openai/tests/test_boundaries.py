"""A sample does not depend on how the network or the server cut the answer."""

from __future__ import annotations

from http.client import HTTPConnection
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from velollm_core.backends import http
from velollm_core.backends.contract import Message, Request
from velollm_core.experiment.phases import measure
from velollm_core.experiment.spec import Sample

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
BLANK = Sample(index=0, started_ms=0.0, total_ms=0.0, prompt_sha256="")
REQUEST = Request(prompt=(Message(role="user", content="Hello"),), max_tokens=5)


class PlantedSocket:
    """Gives the bytes of an answer, cut as planted."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = iter(pieces)

    def recv(self, size: int) -> bytes:
        return next(self._pieces, b"")

    def settimeout(self, seconds: float) -> None:
        """Time stands still."""


class PlantedConnection(HTTPConnection):
    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__("server")
        self.sock = PlantedSocket(pieces)

    def request(self, *_: object, **__: object) -> None:
        """Nobody is there to read it."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def sample_of(serve, connect, monkeypatch):
    """The sample that is made of an answer which arrives in these pieces, while time stands
    still.
    """
    session = connect(serve().url)
    monkeypatch.setattr(http.time, "perf_counter", lambda: 1.0)

    def make(pieces: list[bytes]) -> Sample:
        session._client._connect = lambda _: PlantedConnection(pieces)
        return measure(session, REQUEST, BLANK, keep_text=True)

    return make


@pytest.fixture
def body(protocol) -> bytes:
    pieces = [
        b": hello\n\n",
        protocol.delta(role="assistant", content=""),
        protocol.delta(reasoning_content="Größe? "),
        protocol.delta(content="你好\n🐕").replace(b"\n", b"\r\n"),
        b"\n: ping\n\n",
        protocol.delta(content=" data: [DONE] \\n\\n"),
        protocol.delta(finish="stop"),
        protocol.event({"choices": [], "usage": protocol.USAGE}),
        protocol.DONE,
    ]
    return b"".join(pieces)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    ends = sorted({0, len(data), *(place % len(data) for place in at)})
    return [data[start:end] for start, end in pairwise(ends)]


def framed(parts: list[bytes]) -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return STREAM + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def test_the_sample_of_an_answer_in_one_piece_is_what_the_server_said(sample_of, body):
    sample = sample_of([framed([body])])
    assert sample.error is None
    assert sample.text == "Größe? 你好\n🐕 data: [DONE] \\n\\n"
    assert len(sample.event_ms) == 3
    assert (sample.prompt_tokens, sample.output_tokens, sample.finish_reason) == (10, 3, "stop")


def test_it_is_the_same_when_every_single_byte_comes_alone(sample_of, body):
    wire = framed([body[i : i + 1] for i in range(len(body))])
    whole = sample_of([framed([body])])
    assert sample_of([wire[i : i + 1] for i in range(len(wire))]) == whole
    assert sample_of([wire]) == whole


CUTS = st.lists(st.integers(0, 10_000), max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(chunks=CUTS, packets=CUTS)
def test_it_is_the_same_wherever_chunks_and_packets_are_cut(sample_of, body, chunks, packets):
    wire = framed(cut(body, chunks))
    assert sample_of(cut(wire, packets)) == sample_of([framed([body])])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(packets=CUTS)
def test_it_is_the_same_where_the_connection_ends_the_body(sample_of, body, packets):
    wire = STREAM + b"\r\n" + body
    assert sample_of(cut(wire, packets)) == sample_of([framed([body])])
