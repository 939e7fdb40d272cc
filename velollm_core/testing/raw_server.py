"""A server whose every byte is planted, for faults that no well-behaved server shows."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

Behave = Callable[[socket.socket, bytes], None]


class RawServer:
    """Accepts connections, and hands each with its request to ``behave(connection, request)``.

    A connection is closed when ``behave`` returns.
    """

    def __init__(self, behave: Behave) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        self._behave = behave
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        request = b""
        with connection, suppress(OSError):
            # The whole request is read: closing on unread bytes would reset the connection.
            while not _whole(request):
                data = connection.recv(65536)
                if not data:
                    return
                request += data
            self.requests.append(request)
            self._behave(connection, request)

    def close(self) -> None:
        """Stop listening and drop every connection."""
        # A blocked accept() is woken by shutdown on Linux only; a connection wakes it everywhere.
        port = self._listener.getsockname()[1]
        self._listener.close()
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        for connection in self._connections:
            connection.close()


def _whole(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


def answer(connection: socket.socket, body: bytes, status: str = "200 OK") -> None:
    """Send one whole answer of JSON."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    connection.sendall(head.encode() + b"\r\n\r\n" + body)
