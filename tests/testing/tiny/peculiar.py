"""The kit, pointed at backends that are right in ways that one does not expect."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest
from attrs import evolve
from suite import COMMON, launched
from tiny_backend import TinyBackend, TinySession
from wrong_backends import with_session

from velollm_core.backends.contract import Event
from velollm_core.testing.conformance import EngineConformance

SLOW_NAME = "tiny.test"
LOOKUP_S = 0.12
look_up = socket.getaddrinfo


def look_up_slowly(host, *arguments, **named):
    if host == SLOW_NAME:
        time.sleep(LOOKUP_S)
        host = "127.0.0.1"
    return look_up(host, *arguments, **named)


class BeginsSlowly(TinyBackend):
    """Takes longer for its first token than a healthy server is silent elsewhere."""

    def command(self, installation, model, config):
        return [*super().command(installation, model, config), "--prompt-ms", "1200"]


class ConnectsSlowly(TinyBackend):
    """Its clock starts when the request is sent, a good while after it was asked for."""

    def address(self, child, place):
        return super().address(child, place).replace("127.0.0.1", SLOW_NAME)


class BeginsWithoutText(TinySession):
    """The first token is a mark that is not shown."""

    def generate(self, request):
        first = True
        for item in super().generate(request):
            yield evolve(item, text="") if first and isinstance(item, Event) else item
            first = False


class KeepsItsConnections(TinySession):
    """Takes a connection that is open already, as a client with a pool does."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.kept = self.connection()

    def connection(self):
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port)
        connection.connect()
        return connection

    def generate(self, request):
        connection, self.kept = self.kept, None
        try:
            sent = time.perf_counter()
            connection.request("POST", "/generate", json.dumps(self.body(request)))
            for line in connection.getresponse():
                if line.strip():
                    at_ms = (time.perf_counter() - sent) * 1000
                    yield from self.items(at_ms, self.parsed(line))
        finally:
            connection.close()
            self.kept = self.connection()


class NamesAnEndedProcess(TinySession):
    """Lists a helper that has done its work, and the engine under two titles."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        with subprocess.Popen([sys.executable, "-c", ""]) as helper:
            pass
        self.pids = (helper.pid, *self.pids, *self.pids)


PECULIAR = {
    "begins-slowly": BeginsSlowly(),
    "connects-slowly": ConnectsSlowly(),
    "begins-without-text": with_session(BeginsWithoutText),
    "keeps-its-connections": with_session(KeepsItsConnections),
    "names-an-ended-process": with_session(NamesAnEndedProcess),
}


@pytest.fixture(scope="module", params=PECULIAR)
def facts(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up_slowly)
        yield launched(backend=PECULIAR[request.param], **COMMON)


class TestEngine(EngineConformance):
    pass
