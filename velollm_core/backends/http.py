"""HTTP to an inference server: JSON calls, and streams whose lines carry their time of arrival.

A measuring instrument has to take the time right after ``recv`` returns, and must not buffer,
retry, pool or honour a proxy on the way to 127.0.0.1. So requests are written by the standard
library's client and answers are read from its socket; see ``docs/decisions/0003-http-client.md``.
Every request opens its own connection: llama.cpp's server can close a kept-alive one between two
requests.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Self
from urllib.parse import quote, urlsplit

from velollm_core.backends.http_body import UntilClosed, body_for
from velollm_core.errors import FailureKind, RequestError, UsageError

_MAX_LINE_BYTES = 16 * 1024 * 1024
_MAX_BODY_BYTES = 64 * 1024 * 1024
_CONNECT_S = 10.0
_MAX_HEAD_BYTES = 1024 * 1024
_READ_BYTES = 65536
_EVENT = (b"data:", b"error:")
_UNANSWERED = "gave no whole answer in {:g} seconds"


class HttpClient:
    """Talks to one server; safe from many threads. :meth:`abort` ends every exchange under way.

    Args:
        url: ``http://host:port`` or ``https://...``, with a path prefix or without.
        api_key: sent as a bearer token; never shown.
        key_hint: what the user is told to do where the server wants a key, or another one.

    Raises:
        UsageError: ``url`` is not such a URL, or no header can hold ``api_key``.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        key_hint: str = "Give the server's key: -X api_key=...",
    ) -> None:
        self.url = url.rstrip("/")
        parts = _split(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/json", "Connection": "close"}
        self.key_hint = key_hint
        self._key = api_key
        if api_key:
            if not (api_key.isascii() and api_key.isprintable()):  # the library would quote it
                raise UsageError("the server's key holds characters that no header can.")
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._live: set[HTTPConnection] = set()
        self._lock = threading.Lock()
        self.aborted = False

    def get(self, path: str, timeout_s: float = 10.0) -> Any:
        """The JSON at ``path``.

        Raises:
            RequestError: no answer in time, an HTTP error, or no JSON.
        """
        return self._json("GET", path, None, timeout_s)

    def post(self, path: str, body: Mapping[str, Any], timeout_s: float = 60.0) -> Any:
        """The JSON that ``path`` answers to ``body``; raises as :meth:`get`."""
        return self._json("POST", path, body, timeout_s)

    def text(self, path: str, timeout_s: float = 10.0) -> str:
        """The text at ``path``; raises as :meth:`get`."""
        overdue = _UNANSWERED.format(timeout_s)
        with _Exchange(self, "GET", path, None, timeout_s=timeout_s, overdue=overdue) as exchange:
            return exchange.read().decode("utf-8", "replace")

    def _json(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float
    ) -> Any:
        overdue = _UNANSWERED.format(timeout_s)
        with _Exchange(self, method, path, body, timeout_s=timeout_s, overdue=overdue) as exchange:
            raw = exchange.read()
        try:
            return json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise RequestError(
                f"{self.url}{path} answered something that is not JSON: {self._excerpt(raw)}.",
                "Is this the URL of an inference server?",
                FailureKind.REFUSED,
            ) from error

    def stream(
        self,
        path: str,
        body: Mapping[str, Any],
        timeout_s: float,
        event: tuple[bytes, ...] = _EVENT,
    ) -> Generator[tuple[float, bytes], None, None]:
        """Post ``body`` and yield each line of the answer that is not empty, with its arrival.

        Args:
            path: where to.
            body: what is posted.
            timeout_s: longest silence between two events.
            event: how a line begins that is one; a field of server-sent events unless told.

        Yields:
            ``(milliseconds since the request was sent, line without its end)``. A last line without
            an end is yielded too, so that the caller sees where the server stopped.

        Raises:
            RequestError: refused, broken off, or without an event for ``timeout_s`` seconds, which
                no comment prolongs.
        """
        overdue = f"was silent for {timeout_s:g} seconds"
        with _Exchange(self, "POST", path, body, timeout_s=timeout_s, overdue=overdue) as exchange:
            pending = b""
            heard_ms, hurried = 0.0, True
            for at_ms, data in exchange.arrivals():
                pending += data
                if b"\n" in data:
                    *lines, pending = pending.split(b"\n")
                    for line in lines:
                        if line and line != b"\r":
                            if line.startswith(event) and line[5:].strip():
                                heard_ms = at_ms
                            yield at_ms, line.removesuffix(b"\r")
                elif len(pending) > _MAX_LINE_BYTES:
                    raise RequestError(
                        f"{self.url}{path} sent a line of more than {_MAX_LINE_BYTES} bytes."
                    )
                # The time for the next event runs on; it is only set anew where it has to be.
                if hurried or heard_ms < at_ms:
                    exchange.allow(timeout_s - (at_ms - heard_ms) / 1000.0)
                    hurried = heard_ms < at_ms
            if pending:
                yield at_ms, pending

    def abort(self) -> None:
        """End every exchange, now and from now on: whoever waits for one gets a
        :class:`RequestError`.
        """
        with self._lock:
            self.aborted = True
            live = tuple(self._live)
        for connection in live:
            open_socket = connection.sock  # read once: its owner may let go of it meanwhile
            if open_socket is not None:
                with suppress(OSError):  # it may just have ended by itself
                    open_socket.shutdown(socket.SHUT_RDWR)

    def _connect(self, timeout_s: float) -> HTTPConnection:
        kind = HTTPSConnection if self._secure else HTTPConnection
        connection = kind(self._host, self._port, timeout=min(timeout_s, _CONNECT_S))
        connection.connect()
        connection.sock.settimeout(timeout_s)
        with self._lock:
            if self.aborted:
                connection.close()
                raise RequestError(
                    f"requests to {self.url} were stopped.", "", FailureKind.INTERRUPTED
                )
            self._live.add(connection)
        return connection

    def _release(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._live.discard(connection)
        connection.close()

    def quoted(self, said: bytes | str, most: int = 500) -> str:
        """What a server said, as a message can hold it: without the key, which some servers quote,
        in one line, and at most ``most`` characters long.
        """
        text = said if isinstance(said, str) else said.decode("utf-8", "replace")
        if self._key:
            text = text.replace(self._key, "***")
        # Only now may it be cut: half a key would not have been found.
        text = "".join(char if char.isprintable() else " " for char in text[: 4 * most])
        return " ".join(text.split())[:most]

    def _excerpt(self, raw: bytes) -> str:
        text = self.quoted(raw, 300)
        return repr(text) if text else "an empty answer"

    def reason(self, raw: bytes) -> str:
        """Why the server refused, by the body of its answer."""
        try:
            error = json.loads(raw)["error"]
            return self.quoted(str(error["message"] if isinstance(error, dict) else error))
        except (ValueError, KeyError, TypeError, RecursionError):
            return self._excerpt(raw)

    def failure(self, path: str, error: Exception, overdue: str) -> RequestError:
        """``error`` of the transport as the user is told; ``overdue`` where it is the time."""
        where = f"{self.url}{path}"
        if self.aborted:
            return RequestError(
                f"requests to {self.url} were stopped.", "", FailureKind.INTERRUPTED
            )
        if isinstance(error, TimeoutError):
            return RequestError(
                f"{where} {overdue}.",
                "The server hangs or is far too slow; look at its log.",
                FailureKind.TIMEOUT,
            )
        if isinstance(error, ConnectionRefusedError):
            return RequestError(f"nothing answers at {self.url}.", "Is the server running?")
        if isinstance(error, socket.gaierror):
            return RequestError(f"{self.url} is not known: {error.strerror}.", "Mend the URL.")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return RequestError(f"{where} broke off: {reason}.", "The server died or was stopped.")


class _Exchange:
    """One request and its answer, on a connection of its own that is gone at the end.

    Args:
        timeout_s: for all up to the answer's head; after that, see :meth:`allow`.
        overdue: what the user is told where that was not enough.
    """

    def __init__(
        self,
        client: HttpClient,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        *,
        timeout_s: float,
        overdue: str,
    ) -> None:
        self._client = client
        self._path = path
        self._overdue = overdue
        self._due = time.perf_counter() + timeout_s
        data = None if body is None else json.dumps(body).encode()
        try:
            self._connection = client._connect(timeout_s)  # noqa: SLF001 - one unit with the client
        except (OSError, HTTPException, ValueError) as error:
            raise client.failure(path, error, overdue) from error
        try:
            self._sent = time.perf_counter()
            self._connection.request(
                method,
                client._prefix + path,  # noqa: SLF001 - one unit with the client
                data,
                client._headers,  # noqa: SLF001 - one unit with the client
            )
            self._socket: socket.socket = self._connection.sock
            status, headers, self._first = self._head()
            self._body = body_for(headers)
            if status >= 400:
                raise self._refusal(status)
            if status >= 300:
                raise self._elsewhere(status, headers.get("location", ""))
        except BaseException as error:
            client._release(self._connection)  # noqa: SLF001 - one unit with the client
            if isinstance(error, (OSError, HTTPException, ValueError)):
                raise client.failure(path, error, overdue) from error
            raise

    def _head(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers by name in lower case, and what arrived together with them.

        Interim answers (RFC 9110, section 15.2) are passed over.
        """
        raw = b""
        while True:
            while b"\r\n\r\n" not in raw:
                self._allow_rest()
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    raise HTTPException("the server closed the connection without an answer")
                raw += data
                if len(raw) > _MAX_HEAD_BYTES:
                    raise HTTPException("the answer has no end of its headers")
            head, _, raw = raw.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            words = first.split(None, 2)
            if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
                raise HTTPException(f"this is no HTTP answer: {self._client.quoted(first, 80)!r}")
            status = int(words[1])
            if status < 200:
                continue
            headers = {}
            for line in lines:
                name, _, value = line.partition(":")
                headers[name.strip().lower()] = value.strip()
            return status, headers, raw

    def _refusal(self, status: int) -> RequestError:
        hint = self._client.key_hint if status in {401, 403} else ""
        reason = self._client.reason(self.read())
        return RequestError(
            f"{self._client.url}{self._path} refused: HTTP {status}, {reason}.",
            hint,
            FailureKind.REFUSED,
            status,
        )

    def _elsewhere(self, status: int, location: str) -> RequestError:
        # Without its query, which may hold what is nobody's business.
        place = self._client.quoted(re.split("[?#]", location, maxsplit=1)[0])
        where = f"to {place}" if place else "without saying where"
        return RequestError(
            f"{self._client.url}{self._path} points elsewhere: HTTP {status}, {where}.",
            "Nothing was sent there; give that URL if it is the server's.",
            FailureKind.REFUSED,
            status,
        )

    def allow(self, seconds: float) -> None:
        """Let the next piece take no longer than that."""
        if seconds <= 0.0:
            raise self._client.failure(self._path, TimeoutError(), self._overdue)
        self._socket.settimeout(seconds)

    def _allow_rest(self) -> None:
        self.allow(self._due - time.perf_counter())

    def read(self) -> bytes:
        """The whole body, bounded in size and in time."""
        parts: list[bytes] = []
        size = 0
        for _, data in self.arrivals():
            parts.append(data)
            size += len(data)
            if size > _MAX_BODY_BYTES:
                raise RequestError(f"{self._client.url}{self._path} answered without an end.")
            self._allow_rest()
        return b"".join(parts)

    def arrivals(self) -> Iterator[tuple[float, bytes]]:
        """Pieces of content as they arrive, with milliseconds since the request was sent; an empty
        one where what arrived, or the head, brought none.

        Raises:
            RequestError: the connection ended before the body did, or was silent too long.
        """
        clock, sent, recv, feed = time.perf_counter, self._sent, self._socket.recv, self._body.feed
        body, lasting = self._body, isinstance(self._body, UntilClosed)
        data = self._first
        try:
            while True:
                at_ms = (clock() - sent) * 1000.0
                content = feed(data) if data else b""
                ended = body.complete and not lasting
                if content or not ended:
                    yield at_ms, content
                if ended:
                    return
                data = recv(_READ_BYTES)
                if not data:
                    break
        except (OSError, ValueError) as error:
            raise self._client.failure(self._path, error, self._overdue) from error
        if not body.complete or self._client.aborted:
            cut = ConnectionError("the connection ended in the middle of the answer")
            raise self._client.failure(self._path, cut, self._overdue)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client._release(self._connection)  # noqa: SLF001 - one unit with the client


def server_sent_events(lines: Iterator[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """The payloads of an event stream with their arrival; comments, blank lines and other fields
    are dropped.

    llama.cpp's ``error:`` field is passed on as a payload: it is JSON with a key ``error``.
    """
    for at_ms, line in lines:
        if line.startswith(b"data:"):
            yield at_ms, line[5:].strip()
        elif line.startswith(b"error:"):
            yield at_ms, line[6:].strip()


def _split(url: str) -> Any:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host.encode("idna")  # as it will be before it is looked up
        usable = parts.scheme in {"http", "https"} and host and (parts.port or 1)
        usable = usable and host.isprintable() and " " not in host
        usable = usable and parts.username is None  # a key belongs into its own option
        path = quote(parts.path, safe="/%:@!$&'()*+,;=")
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"{url!r} is not the URL of a server.", "Write http://HOST:PORT.")
    if path != parts.path:
        raise UsageError(
            f"the path of {url!r} holds characters that no request can.", f"Write it as {path}"
        )
    return parts
