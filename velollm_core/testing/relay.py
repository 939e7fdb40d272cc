"""A relay in front of a real server, whose line can be cut or held at will."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit, urlunsplit

_PIECE_BYTES = 65536


class Relay:
    """Passes every byte between its clients and the server at ``url``; a context manager.

    Args:
        url: ``http://host:port``, with a path or without. A line of ``https`` is bound to its
            server's name, and bears no relay.

    Raises:
        ValueError: ``url`` is not of ``http``.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http":
            raise ValueError(f"no relay can stand before {url!r}: it is not an http:// URL")
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address: tuple[str, int] = self._listener.getsockname()
        self.url = urlunsplit(parts._replace(netloc=f"127.0.0.1:{self._address[1]}"))
        self._flows = threading.Event()
        self._flows.set()
        self._ended = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def hold(self) -> None:
        """From now on nothing arrives any more, and nothing ends."""
        self._flows.clear()

    def cut(self) -> None:
        """Break every connection and accept no other. May be called twice."""
        if self._ended:
            return
        self._ended = True
        # A blocked accept() is woken by shutdown on Linux only; a connection wakes it everywhere.
        self._listener.close()
        with suppress(OSError):
            socket.create_connection(self._address, 0.2).close()
        self._flows.set()
        for pair in tuple(self._pairs):
            _break(pair)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._ended:
                client.close()
                return
            try:
                server = socket.create_connection(self._target, 10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            pair = (client, server)
            self._pairs.append(pair)
            for source, drain in (pair, pair[::-1]):
                threading.Thread(target=self._pass, args=(source, drain), daemon=True).start()

    def _pass(self, source: socket.socket, drain: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_PIECE_BYTES):
                self._flows.wait()
                drain.sendall(data)
        _break((source, drain))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        for pair in self._pairs:
            for end in pair:
                end.close()


def _break(pair: tuple[socket.socket, socket.socket]) -> None:
    for end in pair:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
