"""The values of a GGUF header: scalars, texts and arrays, each checked before it is taken.

:class:`HeaderReader` holds the front of a file, read as far as it is needed and never past its end.
"""

from __future__ import annotations

import struct
from io import FileIO
from mmap import mmap
from pathlib import Path
from typing import Any

from attrs import field, frozen

from velollm_core.errors import ModelError

Scalar = bool | int | float | str

_SCALARS = {
    0: ("uint8", "B"),
    1: ("int8", "b"),
    2: ("uint16", "H"),
    3: ("int16", "h"),
    4: ("uint32", "I"),
    5: ("int32", "i"),
    6: ("float32", "f"),
    7: ("bool", "?"),
    10: ("uint64", "Q"),
    11: ("int64", "q"),
    12: ("float64", "d"),
}
_CODES = dict(_SCALARS.values())
_STRING = 8
_ARRAY = 9

# Limits that no real model comes near and that keep a damaged file from costing memory or time.
# Together they hold any file below 64 MiB: the header once, and what is made of it. Python takes up
# to four bytes for each byte of a text, and some hundred for each key, tensor or array.
COUNT_LIMIT = 1 << 14  # keys, tensors, inner arrays; the largest models have thousands of tensors
_HEADER_LIMIT_BYTES = 32 << 20  # half a million words and as many merges take less than 20 MB
_TEXTS_LIMIT_BYTES = 1 << 20  # all that are decoded, together; the longest templates take 30 KB
_NAMES_LIMIT_BYTES = 1 << 20  # likewise; thousands of tensors take 200 KB
_NAME_LIMIT_BYTES = (1 << 16) - 1  # the format's own
_NESTING_LIMIT = 4

_BLOCK_BYTES = 1 << 20
AGAIN = "Download or copy it again."


@frozen(eq=False)
class GgufArray:
    """An array of the metadata: its element type (``int32``, ``string``, ``array`` ...) and length.

    The elements stay as they are in the file until :meth:`values` is asked. A single text that
    would bring the texts of the file beyond a mebibyte is kept in the same way, as an array of one.
    """

    element_type: str
    length: int
    _buffer: mmap = field(repr=False)
    _start: int = field(repr=False)
    _end: int = field(repr=False)
    _order: str = field(repr=False)
    _inner: tuple[GgufArray, ...] = field(default=(), repr=False)

    @property
    def raw(self) -> memoryview:
        """The bytes of the elements, in the file's byte order, string lengths included."""
        return memoryview(self._buffer)[self._start : self._end]

    def values(self) -> list[Any]:
        """The elements: numbers, booleans, text (invalid UTF-8 replaced) or arrays."""
        if self.element_type == "array":
            return list(self._inner)
        if self.element_type == "string":
            length_at = struct.Struct(self._order + "Q").unpack_from
            at, words = self._start, []
            for _ in range(self.length):
                start = at + 8
                at = start + length_at(self._buffer, at)[0]
                words.append(self._buffer[start:at].decode("utf-8", "replace"))
            return words
        return list(
            struct.unpack(f"{self._order}{self.length}{_CODES[self.element_type]}", self.raw)
        )


class HeaderReader:
    """Steps through a header, value by value.

    The parameter ``what`` of its methods names for the user what is being read. All of them raise
    :class:`ModelError` where the file is shorter than it claims.
    """

    def __init__(self, path: Path, file: FileIO, file_bytes: int) -> None:
        self.path = path
        self.file_bytes = file_bytes
        self.at = 0
        self.order = "<"
        # Anonymous memory takes no more room than what is written to it, and never has to move.
        self._buffer = mmap(-1, min(file_bytes, _HEADER_LIMIT_BYTES))
        self._filled = 0
        self._file = file
        self._inner_arrays = 0
        self._texts_bytes = 0
        self._names_bytes = 0

    def damaged(self, why: str) -> ModelError:
        """The error that says why the file cannot be what it claims."""
        return ModelError(f"{self.path} is damaged: {why}.", AGAIN)

    def step(self, count: int, what: str) -> int:
        """Step over ``count`` bytes and say where they start; afterwards they are in the buffer."""
        start = self.at
        if start + count > self._filled:
            self._extend(start + count, what)
        self.at = start + count
        return start

    def expect(self, count: int, least_bytes: int, limit: int, what: str) -> None:
        """Refuse ``count`` things that take at least ``least_bytes`` each and cannot be there."""
        if count > limit or count * least_bytes > self.file_bytes - self.at:
            raise self.damaged(f"it claims {count:,} {what}, more than it can hold")

    def passed(self) -> memoryview:
        """Everything that has been stepped over."""
        return memoryview(self._buffer)[: self.at]

    def u32(self, what: str) -> int:
        """An unsigned number of four bytes."""
        return int(self._scalar("I", what))

    def u64(self, what: str) -> int:
        """An unsigned number of eight bytes."""
        return int(self._scalar("Q", what))

    def name(self, what: str) -> str:
        """The name of a key or a tensor."""
        length = self.u64(what)
        if length > _NAME_LIMIT_BYTES:
            raise self.damaged(f"{what} is {length:,} bytes long")
        self._names_bytes += length
        if self._names_bytes > _NAMES_LIMIT_BYTES:
            raise self.damaged(f"{what} brings its names beyond {_NAMES_LIMIT_BYTES:,} bytes")
        return self._text(length, what)

    def value(self, what: str) -> Scalar | GgufArray:
        """The value of a key, its type first."""
        kind = self.u32(what)
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind][1], what)
        if kind == _ARRAY:
            return self._array(what, 1)
        if kind != _STRING:
            raise self.damaged(f"{what} has the unknown type {kind}")
        start, length = self.at, self.u64(what)
        if self._texts_bytes + length <= _TEXTS_LIMIT_BYTES:
            self._texts_bytes += length
            return self._text(length, what)
        self.step(length, what)
        return GgufArray("string", 1, self._buffer, start, self.at, self.order)

    def _extend(self, end: int, what: str) -> None:
        """Have the buffer reach to ``end``."""
        if end > self.file_bytes:
            raise ModelError(
                f"{self.path} is cut short or damaged: {what} would end at byte {end:,}, "
                f"the file at {self.file_bytes:,}.",
                AGAIN,
            )
        if end > _HEADER_LIMIT_BYTES:
            raise self.damaged(f"{what} lies beyond {_HEADER_LIMIT_BYTES:,} bytes of metadata")
        while self._filled < end:
            target = min(max(end, self._filled + _BLOCK_BYTES), len(self._buffer))
            with memoryview(self._buffer) as memory, memory[self._filled : target] as room:
                count = self._file.readinto(room)
            if not count:
                raise ModelError(f"{self.path} became shorter while it was read.", AGAIN)
            self._filled += count

    def _scalar(self, code: str, what: str) -> Scalar:
        layout = self.order + code
        start = self.step(struct.calcsize(layout), what)
        value: Scalar = struct.unpack_from(layout, self._buffer, start)[0]
        return value

    def _text(self, length: int, what: str) -> str:
        start = self.step(length, what)
        return self._buffer[start : self.at].decode("utf-8", "replace")

    def _array(self, what: str, depth: int) -> GgufArray:
        kind, length = self.u32(what), self.u64(what)
        start, inner = self.at, tuple[GgufArray, ...]()
        if kind in _SCALARS:
            name, code = _SCALARS[kind]
            self.step(length * struct.calcsize(self.order + code), what)
        elif kind == _STRING:
            name = "string"
            self._skip_strings(length, what)
        elif kind == _ARRAY and depth < _NESTING_LIMIT:
            name = "array"
            self.expect(length, 12, COUNT_LIMIT - self._inner_arrays, f"arrays in {what}")
            self._inner_arrays += length
            inner = tuple(self._array(what, depth + 1) for _ in range(length))
        else:
            raise self.damaged(f"{what} is an array of type {kind} at depth {depth}")
        return GgufArray(name, length, self._buffer, start, self.at, self.order, inner)

    def _skip_strings(self, count: int, what: str) -> None:
        self.expect(count, 8, self.file_bytes, f"texts in {what}")
        # The one loop that runs hundreds of thousands of times: local names, one comparison a turn.
        buffer, at = self._buffer, self.at
        length_at = struct.Struct(self.order + "Q").unpack_from
        limit = self._filled - 8
        for _ in range(count):
            if at > limit:
                self._extend(at + 8, what)
                limit = self._filled - 8
            at += 8 + length_at(buffer, at)[0]
        self.step(at - self.at, what)
