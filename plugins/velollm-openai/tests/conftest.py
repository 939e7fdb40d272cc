from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import psutil
import pytest
from velollm_llamacpp.backend import LlamaCpp
from velollm_openai.backend import OpenAI
from velollm_openai.session import OpenAISession

from velollm_core.backends.contract import Session
from velollm_core.backends.processes import Place
from velollm_core.config import Config, Settings
from velollm_core.models.demo import DemoSource
from velollm_core.models.references import resolve
from velollm_core.models.spec import Model
from velollm_core.testing.raw_server import RawServer, answer

NATIVE = os.environ.get("VELOLLM_TEST_LLAMA_SERVER") or shutil.which("llama-server")
NOT_FOUND = "404 Not Found"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="session")
def backend() -> OpenAI:
    return OpenAI()


@pytest.fixture(scope="session")
def demo() -> Model:
    return resolve("demo", (DemoSource(),), progress=lambda *_: None, environ=os.environ)


@pytest.fixture(scope="module", params=["embedded", "native"])
def llama_server(request, demo, tmp_path_factory) -> Iterator[Session]:
    """A real llama-server of each kind that is here, as velollm-llamacpp starts it."""
    if request.param == "native" and NATIVE is None:
        pytest.skip("no llama-server here; name one in VELOLLM_TEST_LLAMA_SERVER")
    options = {"engine": "embedded"} if request.param == "embedded" else {"server": NATIVE}
    engine = LlamaCpp()
    installation = engine.probe(options, os.environ)[0]
    directory = tmp_path_factory.mktemp(request.param)
    place = Place(
        directory=directory,
        log_path=directory / "log",
        environ=dict(os.environ),
        deadline=time.monotonic() + 90,
    )
    # One thread: threads that wait for each other on a busy machine are slower than one.
    knobs = Config({"threads": 1, "context": 2048})
    config = engine.defaults(installation, demo).config | knobs
    with engine.launch(installation, demo, Settings(config=config), place) as session:
        yield session
    assert not [pid for pid in session.pids if psutil.pid_exists(pid)]


def event(data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def delta(*, finish: str | None = None, usage: object = None, **fields: object) -> bytes:
    """One chunk of a chat answer."""
    data = {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}
    return event(data if usage is None else data | {"usage": usage})


USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 4},
}
DONE = b"data: [DONE]\n\n"
WHOLE = (
    delta(role="assistant", content=""),
    delta(content="Hel"),
    delta(content="lo"),
    delta(finish="stop"),
    event({"choices": [], "usage": USAGE}),
    DONE,
)


@pytest.fixture(scope="session")
def protocol() -> SimpleNamespace:
    """The pieces of which answers are made."""
    return SimpleNamespace(event=event, delta=delta, USAGE=USAGE, DONE=DONE, WHOLE=WHOLE)


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.fixture
def serve(velollm_raw_server) -> Callable[..., RawServer]:
    """Starts OpenAI-compatible servers whose every byte is planted."""

    def make(
        *pieces: bytes,
        status: str | None = None,
        body: bytes = b"",
        owner: str = "someone",
        routes: dict[str, object] | None = None,
        stall_s: float = 0.0,
        whole: bool = True,
    ) -> RawServer:
        """Args: the pieces of each stream; or a ``status`` and ``body`` instead of it; the owner of
        the model ``m``; answers of other paths (JSON, or a callable that is given the connection
        and the request); seconds of silence after the pieces; whether the body gets its end.
        """
        known = {"/v1/models": {"data": [{"id": "m", "owned_by": owner}]}} | (routes or {})

        def behave(connection, request):
            path = request.split(b" ", 2)[1].decode()
            if path in known:
                route = known[path]
                if callable(route):
                    route(connection, request)
                else:
                    plain = route if isinstance(route, bytes) else json.dumps(route).encode()
                    answer(connection, plain)
            elif not path.endswith("/completions"):
                answer(connection, b"{}", NOT_FOUND)
            elif status is not None:
                answer(connection, body, status)
            else:
                connection.sendall(STREAM)
                for piece in pieces:
                    connection.sendall(chunked(piece))
                time.sleep(stall_s)
                if whole:
                    connection.sendall(b"0\r\n\r\n")

        return velollm_raw_server(behave)

    return make


@pytest.fixture
def connect(backend) -> Iterator[Callable[..., Session]]:
    """Opens sessions with the server at a URL, without the greeting that ``attach`` begins with."""
    sessions = []

    def make(url: str, environ: dict[str, str] | None = None, **options: str) -> Session:
        (installation,) = backend.probe({"url": url, **options}, environ or {})
        session = OpenAISession(installation, backend.models(installation)[0])
        sessions.append(session)
        return session

    yield make
    for session in sessions:
        session.close()
