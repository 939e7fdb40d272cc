"""Takes the framing off an HTTP/1.1 body, piece by piece, however the pieces were cut.

The standard library's response object does this too, at a price that a stream of 2,000 events a
second cannot pay: see ``docs/decisions/0003-http-client.md``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

_MAX_SIZE_LINE_BYTES = 4096
_LENGTH = re.compile("[0-9]{1,18}")
_HEXADECIMAL = re.compile(rb"[0-9a-fA-F]{1,16}")


class Body(Protocol):
    """A body under way. ``complete`` turns true with its last byte."""

    complete: bool

    def feed(self, data: bytes) -> bytes:
        """The content in ``data``, which is what the socket gave next.

        Raises:
            ValueError: the framing is broken.
        """


def body_for(headers: Mapping[str, str]) -> Body:
    """The decoder that ``headers`` (names in lower case) ask for: chunked, by length, or until the
    end.

    Raises:
        ValueError: the length is none.
    """
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return Chunked()
    length = headers.get("content-length")
    if length is not None:
        if not _LENGTH.fullmatch(length):  # int() would also take a sign
            raise ValueError("its Content-Length is no length")
        return Sized(int(length))
    return UntilClosed()


class UntilClosed:
    """A body that lasts until the server closes the connection."""

    def __init__(self) -> None:
        self.complete = True  # any end is as good as another: the caller's protocol has to tell

    def feed(self, data: bytes) -> bytes:
        """All of it."""
        return data


class Sized:
    """A body of ``length`` bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete = length == 0

    def feed(self, data: bytes) -> bytes:
        """What belongs to the body; anything beyond its length is dropped."""
        data = data[: self._left]
        self._left -= len(data)
        self.complete = self._left == 0
        return data


class Chunked:
    """``Transfer-Encoding: chunked`` (RFC 9112, section 7.1); trailers are dropped."""

    def __init__(self) -> None:
        self.complete = False
        self._pending = b""
        self._left = 0  # bytes of the chunk under way, its closing CRLF included

    def feed(self, data: bytes) -> bytes:
        """The content of every chunk, or part of one, in ``data``."""
        if not self._pending and self._left == 0:
            # Nearly always a packet is one whole chunk, and thousands arrive in a second.
            head, _, rest = data.partition(b"\r\n")
            if _HEXADECIMAL.fullmatch(head) and 0 < int(head, 16) == len(rest) - 2:
                return rest[:-2]
        pending = self._pending + data if self._pending else data
        content: list[bytes] = []
        at, end = 0, len(pending)
        while at < end and not self.complete:
            if self._left > 0:
                taken = min(self._left, end - at)
                # The last two bytes that are left are the CRLF behind the chunk, no content.
                content.append(pending[at : at + min(taken, max(0, self._left - 2))])
                at += taken
                self._left -= taken
                continue
            line_end = pending.find(b"\n", at)
            if line_end < 0:
                break
            digits = pending[at:line_end].split(b";", 1)[0].strip()
            if not _HEXADECIMAL.fullmatch(digits):  # int() would also take a sign
                raise ValueError("the size of a chunk is no number")
            size = int(digits, 16)
            at = line_end + 1
            if size == 0:
                self.complete = True
            else:
                self._left = size + 2
        self._pending = b"" if self.complete else pending[at:]
        if len(self._pending) > _MAX_SIZE_LINE_BYTES:
            raise ValueError("the size line of a chunk never ends")
        return content[0] if len(content) == 1 else b"".join(content)
