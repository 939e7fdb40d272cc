"""VeloLLM's conformance kit on real engines."""

from __future__ import annotations

import pytest

from velollm_core.backends.contract import Capability, Request, Session
from velollm_core.backends.http import HttpClient
from velollm_core.config import Config
from velollm_core.testing.conformance import BackendConformance, EngineConformance, Facts

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=["embedded", "native"])
def facts(request, backend) -> Facts:
    engine = request.getfixturevalue(request.param)
    options = {"server": engine.location} if request.param == "native" else {"engine": "embedded"}
    return Facts(
        backend=backend,
        options=options,
        absent={"server": "/no/such/llama-server"},
        model="demo",
        capabilities=frozenset(Capability),
        # Prompts are read afresh: what is reused of one is rounded otherwise.
        config=Config({"threads": 1, "context": 4096, "cache_prompt": False}),
        change=Config({"ubatch": 64, "context": 2048, "cache_type_k": "q8_0"}),
        live=Config({"cache_prompt": True}),
        whole_answer=whole_answer,
    )


@pytest.fixture(autouse=True)
def no_process_left():
    """The session of a class outlives each test on purpose."""


def whole_answer(session: Session, request: Request) -> str:
    """The text without streaming, from the server itself."""
    body = {
        "messages": [{"role": turn.role, "content": turn.content} for turn in request.prompt],
        "max_tokens": request.max_tokens,
        "temperature": 0.0,
        "seed": 0,
    }
    answer = HttpClient(session.url).post("/v1/chat/completions", body)
    return answer["choices"][0]["message"]["content"]


class TestBackend(BackendConformance):
    pass


class TestEngine(EngineConformance):
    pass
