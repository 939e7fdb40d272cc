"""Reads what a GGUF file says about itself: key/values and tensor descriptions, never the weights.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, either byte
order. Nothing in the file is believed: every count and length is checked against what is left of
the file before anything is allocated for it, and against limits of its own, so that no file costs
more than 64 MiB of memory, whatever it holds.
"""

from __future__ import annotations

import math
import stat
from bisect import bisect_right
from collections.abc import Mapping
from io import FileIO
from pathlib import Path

from attrs import field, frozen

from velollm_core.errors import ModelError
from velollm_core.models.foreign import looks_like
from velollm_core.models.ggml_types import TENSOR_TYPES
from velollm_core.models.gguf_values import AGAIN, COUNT_LIMIT, GgufArray, HeaderReader, Scalar

_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_DIMENSION_LIMIT = 4
_ELEMENT_LIMIT = 1 << 63


@frozen
class TensorInfo:
    """One tensor. ``shape`` is in ggml's order, the dimension that is contiguous in memory first.

    ``offset`` counts from the file's ``data_offset``. A type that is not known here is called
    ``type N``; ``bytes`` then reaches to the next tensor, padding included.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    bytes: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@frozen(eq=False)
class GgufFile:
    """The metadata of one GGUF file. ``header`` is all that precedes the tensor data, as it is."""

    path: Path
    version: int
    big_endian: bool
    alignment: int
    metadata: Mapping[str, Scalar | GgufArray] = field(repr=False)
    tensors: tuple[TensorInfo, ...] = field(repr=False)
    data_offset: int
    file_bytes: int
    header: memoryview = field(repr=False)


def read_gguf(path: Path) -> GgufFile:
    """Read the metadata of the GGUF file at ``path``.

    Raises:
        ModelError: the file is missing, not readable, no GGUF file, cut short or damaged.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ModelError(f"{path} is a directory.", _inside(path))
        if not stat.S_ISREG(mode):
            raise ModelError(f"{path} is no regular file.", "Give the path of a .gguf file.")
        with path.open("rb", buffering=0) as file:
            return _read(path, file, path.stat().st_size)
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {path}.", "Check the path of the model.") from error
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ModelError(
            f"{path} cannot be read: {reason}.", "Check its path and rights."
        ) from error


def _inside(directory: Path) -> str:
    models = sorted(entry.name for entry in directory.glob("*.gguf"))[:5]
    return f"Name a file in it: {', '.join(models)}." if models else "It holds no .gguf file."


def _read(path: Path, file: FileIO, file_bytes: int) -> GgufFile:
    if not file_bytes:
        raise ModelError(f"{path} is empty.", AGAIN)
    magic = file.read(4)
    if magic != b"GGUF":
        kind = looks_like(magic + file.read(512))
        raise ModelError(f"{path} is no GGUF file but {kind}.", "Give a model in GGUF format.")
    file.seek(0)
    header = HeaderReader(path, file, file_bytes)
    header.step(4, "the header")
    version = _version(header)
    tensor_count, key_count = header.u64("the header"), header.u64("the header")
    metadata = _metadata(header, key_count)
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise header.damaged(f"general.alignment is {alignment!r}, not a power of two")
    described = _described(header, tensor_count)
    data_offset = -(-header.at // alignment) * alignment
    return GgufFile(
        path=path,
        version=version,
        big_endian=header.order == ">",
        alignment=alignment,
        metadata=metadata,
        tensors=_placed(header, described, data_offset),
        data_offset=data_offset,
        file_bytes=file_bytes,
        header=header.passed(),
    )


def _version(header: HeaderReader) -> int:
    """The version; sets the byte order, which shows in the half of the number that is zero."""
    version = header.u32("the header")
    if version and not version & 0xFFFF:
        header.order = ">"
        version = int.from_bytes(version.to_bytes(4, "little"), "big")
    if version == 1:
        raise ModelError(
            f"{header.path} is of GGUF version 1, which no engine reads any more.",
            "Get a newer conversion of the model.",
        )
    if version not in _VERSIONS:
        raise ModelError(
            f"{header.path} says that it is of GGUF version {version}; 2 and 3 are known here.",
            "It is damaged, or newer than this VeloLLM.",
        )
    return version


def _metadata(header: HeaderReader, count: int) -> dict[str, Scalar | GgufArray]:
    header.expect(count, 13, COUNT_LIMIT, "keys")
    metadata: dict[str, Scalar | GgufArray] = {}
    for index in range(count):
        key = header.name(f"the name of key {index + 1}")
        if key in metadata:
            raise header.damaged(f"it holds the key {_short(key)} twice")
        metadata[key] = header.value(f"the value of key {_short(key)}")
    return metadata


def _described(header: HeaderReader, count: int) -> dict[str, tuple[tuple[int, ...], int, int]]:
    """Shape, type and offset by name."""
    header.expect(count, 24, COUNT_LIMIT, "tensors")
    tensors = {}
    for index in range(count):
        name = header.name(f"the name of tensor {index + 1}")
        what = f"tensor {_short(name)}"
        if name in tensors:
            raise header.damaged(f"it holds {what} twice")
        dimensions = header.u32(what)
        if dimensions > _DIMENSION_LIMIT:
            raise header.damaged(f"{what} has {dimensions:,} dimensions")
        shape = tuple(header.u64(what) for _ in range(dimensions))
        tensors[name] = (shape, header.u32(what), header.u64(what))
    return tensors


def _placed(
    header: HeaderReader, tensors: dict[str, tuple[tuple[int, ...], int, int]], data_offset: int
) -> tuple[TensorInfo, ...]:
    """The tensors with their sizes, all of them within the file."""
    data_bytes = max(0, header.file_bytes - data_offset)
    ends = sorted({offset for _, _, offset in tensors.values()} | {data_bytes})
    placed = []
    for name, (shape, number, offset) in tensors.items():
        kind = TENSOR_TYPES.get(number)
        size: int | None
        if kind is None:
            following = bisect_right(ends, offset)
            size = ends[following] - offset if following < len(ends) else 0
        else:
            # Rows are stored one after another, each in whole blocks.
            size = kind.row_bytes(shape[0] if shape else 1)
            size = None if size is None else size * math.prod(shape[1:])
        if size is None or math.prod(shape) >= _ELEMENT_LIMIT:
            raise header.damaged(f"tensor {_short(name)} cannot have the shape {shape}")
        label = f"type {number}" if kind is None else kind.name
        placed.append(TensorInfo(name, shape, label, offset, size))
    needed = max((data_offset + tensor.offset + tensor.bytes for tensor in placed), default=0)
    if needed > header.file_bytes:
        raise ModelError(
            f"{header.path} is cut short: its tensors need {needed:,} bytes, "
            f"the file has {header.file_bytes:,}.",
            f"{AGAIN} If it is one of several pieces, join them first.",
        )
    return tuple(placed)


def _short(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:60]}...")
