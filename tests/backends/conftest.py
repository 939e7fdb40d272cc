"""Servers that a test plants."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from velollm_core.testing.raw_server import Behave, RawServer


@pytest.fixture
def serve() -> Iterator[Callable[[Behave], RawServer]]:
    servers: list[RawServer] = []

    def start(behave: Behave) -> RawServer:
        servers.append(RawServer(behave))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
