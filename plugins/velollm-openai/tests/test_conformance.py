"""VeloLLM's conformance kit on a real server's ``/v1``."""

from __future__ import annotations

import pytest

from velollm_core.backends.contract import Capability, Request, Session
from velollm_core.backends.http import HttpClient
from velollm_core.config import Config
from velollm_core.testing.conformance import BackendConformance, EngineConformance, Facts

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def facts(backend, llama_server) -> Facts:
    return Facts(
        backend=backend,
        mode="attach",
        options={"url": llama_server.url},
        url_option="url",
        absent={"url": "http://127.0.0.1:9"},
        capabilities=frozenset({Capability.TOKEN_COUNTS, Capability.COUNTERS, Capability.MEMORY}),
        # Prompts are read afresh: what is reused of one is rounded otherwise.
        config=Config({"cache_prompt": False}),
        live=Config({"cache_prompt": True}),
        whole_answer=whole_answer,
    )


def whole_answer(session: Session, request: Request) -> str:
    """The text without streaming, from the server itself."""
    body = {
        "messages": [{"role": turn.role, "content": turn.content} for turn in request.prompt],
        "max_tokens": request.max_tokens,
        "temperature": 0.0,
        "seed": 0,
        "cache_prompt": False,
    }
    answer = HttpClient(session.url).post("/v1/chat/completions", body)
    return answer["choices"][0]["message"]["content"]


class TestBackend(BackendConformance):
    pass


class TestEngine(EngineConformance):
    pass
