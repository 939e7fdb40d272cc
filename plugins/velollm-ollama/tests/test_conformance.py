"""VeloLLM's conformance kit on the double of Ollama, attached to and started, and on a real one."""

from __future__ import annotations

import os

import pytest
from velollm_ollama.server import running

from velollm_core.backends.contract import Capability, Request, Session
from velollm_core.backends.http import HttpClient
from velollm_core.config import Config
from velollm_core.testing.conformance import BackendConformance, EngineConformance, Facts

TOLD = frozenset(
    {
        Capability.SERVER_TIMINGS,
        Capability.TOKEN_COUNTS,
        Capability.LOGPROBS,
        Capability.MEMORY,
    }
)


def whole_answer(session: Session, request: Request) -> str:
    """The text without streaming, from the server itself."""
    body = {
        "model": session._model,
        "messages": [{"role": turn.role, "content": turn.content} for turn in request.prompt],
        "stream": False,
        "options": {"num_predict": request.max_tokens, "temperature": 0, "seed": 0},
    }
    return HttpClient(session.url).post("/api/chat", body)["message"]["content"]


@pytest.fixture(scope="module")
def private(backend, program, models_folder) -> Facts:
    return Facts(
        backend=backend,
        options={"binary": str(program)},
        environ={**os.environ, "OLLAMA_MODELS": str(models_folder)},
        absent={"binary": "/no/such/ollama"},
        model="small:latest",
        capabilities=TOLD,
        config=Config({"num_ctx": 2048}),
        change=Config({"num_parallel": 3, "kv_cache_type": "q8_0", "max_queue": 7}),
        live=Config({"num_ctx": 1024, "num_thread": 2, "use_mmap": "on", "keep_alive": 60}),
        whole_answer=whole_answer,
        launch_s=30,
        answer_s=30,
    )


@pytest.fixture(scope="module")
def attached(backend, double) -> Facts:
    server = double(OLLAMA_NUM_PARALLEL="4")
    return Facts(
        backend=backend,
        mode="attach",
        options={"host": server.url},
        url_option="host",
        environ=server.environ,
        absent={"host": "127.0.0.1:9"},
        model="small:latest",
        capabilities=TOLD,
        live=Config({"num_ctx": 1024, "num_batch": 256, "keep_alive": 60}),
        whole_answer=whole_answer,
        launch_s=30,
        answer_s=30,
    )


@pytest.fixture(scope="module")
def real(backend) -> Facts:
    """Whatever Ollama answers here, with the model that it has loaded or changed last."""
    found = running({}, os.environ)
    if found is None:
        pytest.skip("no Ollama answers here; start one: ollama serve")
    models = backend.models(found)
    if not models:
        pytest.skip("the Ollama here has no model; pull one: ollama pull NAME")
    capabilities = TOLD if "pid" in found.options else TOLD - {Capability.MEMORY}
    return Facts(
        backend=backend,
        mode="attach",
        options={"host": found.location},
        url_option="host",
        absent={"host": "127.0.0.1:9"},
        model=os.environ.get("VELOLLM_TEST_OLLAMA_MODEL", models[0].reference),
        capabilities=capabilities,
        config=Config({"num_ctx": 4096}),
        live=Config({"num_ctx": 2048, "keep_alive": 60}),
        whole_answer=whole_answer,
        deterministic=False,  # what is reused of a prompt is rounded otherwise
        answer_s=300,
        patience_s=120,
    )


@pytest.fixture(
    scope="module", params=["private", "attached", pytest.param("real", marks=pytest.mark.ollama)]
)
def facts(request) -> Facts:
    return request.getfixturevalue(request.param)


class TestBackend(BackendConformance):
    pass


class TestEngine(EngineConformance):
    pass
