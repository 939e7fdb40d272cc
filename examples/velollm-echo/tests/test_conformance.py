"""VeloLLM's conformance kit, pointed at the echo."""

from __future__ import annotations

import pytest
from velollm_echo import EchoBackend

from velollm_core.backends.contract import Capability
from velollm_core.config import Config
from velollm_core.testing.conformance import BackendConformance, EngineConformance, Facts


@pytest.fixture(scope="module")
def facts() -> Facts:
    return Facts(
        backend=EchoBackend(),
        capabilities=frozenset({Capability.SERVER_TIMINGS, Capability.TOKEN_COUNTS}),
        change=Config({"delay_ms": 3}),
        live=Config({"breath": 2, "vowels": False}),
    )


class TestBackend(BackendConformance):
    pass


class TestEngine(EngineConformance):
    pass
