from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from velollm_llamacpp.backend import LlamaCpp

from velollm_core.backends.contract import Installation, Session
from velollm_core.backends.processes import Place
from velollm_core.config import Config, Settings
from velollm_core.models.demo import DemoSource
from velollm_core.models.references import resolve
from velollm_core.models.spec import Model
from velollm_core.testing.raw_server import RawServer

NATIVE = os.environ.get("VELOLLM_TEST_LLAMA_SERVER") or shutil.which("llama-server")


@pytest.fixture(autouse=True)
def no_process_left(no_process_left):
    """Whatever a test starts is gone after it."""
    return no_process_left


@pytest.fixture(scope="session")
def backend() -> LlamaCpp:
    return LlamaCpp()


@pytest.fixture(scope="session")
def demo() -> Model:
    return resolve("demo", (DemoSource(),), progress=lambda *_: None, environ=os.environ)


@pytest.fixture(scope="session")
def embedded(backend) -> Installation:
    return backend.probe({"engine": "embedded"}, os.environ)[0]


@pytest.fixture(scope="session")
def native(backend) -> Installation:
    if NATIVE is None:
        pytest.skip("no llama-server here; name one in VELOLLM_TEST_LLAMA_SERVER")
    return backend.probe({"server": NATIVE}, os.environ)[0]


@pytest.fixture(params=["embedded", "native"])
def installation(request) -> Installation:
    """Each engine that is here."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def place(velollm_place) -> Callable[..., Place]:
    return velollm_place


@pytest.fixture
def start(backend, demo, place) -> Callable[..., Session]:
    """Starts an engine with a configuration over its defaults; it ends with the test."""
    sessions = []

    def make(installation: Installation, model: Model = demo, **knobs) -> Session:
        # One thread: the tests share their processors with others, and threads that wait for each
        # other on a busy machine are slower than one.
        config = backend.defaults(installation, model).config | Config({"threads": 1} | knobs)
        session = backend.launch(installation, model, Settings(config=config), place())
        sessions.append(session)
        return session

    yield make
    for session in sessions:
        session.close()


@pytest.fixture
def program(tmp_path) -> Callable[[str], Path]:
    """Makes an executable called llama-server out of the body of a Python script."""
    if os.name != "posix":
        pytest.skip("scripts are executables on POSIX only")
    count = iter(range(1000))

    def make(body: str) -> Path:
        directory = tmp_path / f"bin-{next(count)}"
        directory.mkdir()
        path = directory / "llama-server"
        path.write_text(f"#!{sys.executable}\n{textwrap.dedent(body)}", encoding="utf-8")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def scripted(velollm_raw_server) -> Callable[..., RawServer]:
    """Starts servers whose answer to each request is the bytes that ``answer`` yields."""

    def make(answer: Callable[[bytes], Iterator[bytes]]) -> RawServer:
        def behave(connection, request):
            for data in answer(request):
                connection.sendall(data)

        return velollm_raw_server(behave)

    return make
