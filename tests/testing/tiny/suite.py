"""The kit, pointed at the backend that the variable TINY names."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tiny_backend import HERE, AttachedTiny, TinyBackend
from wrong_backends import WRONG

from velollm_core.backends.contract import Capability
from velollm_core.config import Config
from velollm_core.testing.conformance import BackendConformance, EngineConformance, Facts


def whole_answer(session, request):
    return session.client.post("/whole", session.body(request))["text"]


TELLS = {
    Capability.SERVER_TIMINGS,
    Capability.TOKEN_COUNTS,
    Capability.TOKENIZE,
    Capability.COUNTERS,
}
COMMON = {
    "live": Config({"greeting": True}),
    "whole_answer": whole_answer,
    "launch_s": 30,
    "answer_s": 30,
    "patience_s": 3,
}
BACKEND = {"right": TinyBackend(), "attached": AttachedTiny(), **WRONG}[
    os.environ.get("TINY", "right")
]


def launched(backend=BACKEND, **options):
    return Facts(
        backend=backend,
        registered=False,
        absent={"engine": "/no/such/engine.py"},
        capabilities=frozenset(TELLS | {Capability.MEMORY}),
        change=Config({"burst": 3}),
        **options,
    )


def attached(url, **options):
    return Facts(
        backend=BACKEND,
        registered=False,
        mode="attach",
        options={"url": url},
        url_option="url",
        absent={"url": "http://127.0.0.1:9"},
        capabilities=frozenset(TELLS),
        **options,
    )


@pytest.fixture(scope="module")
def facts():
    if not isinstance(BACKEND, AttachedTiny):
        yield launched(**COMMON)
        return
    command = [sys.executable, str(HERE / "engine.py"), str(HERE / "model.tiny")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
        yield attached(engine.stdout.readline().split()[-1], **COMMON)
        engine.kill()


class TestBackend(BackendConformance):
    pass


class TestEngine(EngineConformance):
    pass
