"""What llama.cpp says that it has allocated, as its log tells it at the level ``trace``.

Sizes of buffers are there in MiB with two decimals. What caches are made of is told exactly: how
many cells, in how many layers and streams.
"""

from __future__ import annotations

import re
from typing import Literal

from attrs import frozen

from velollm_llamacpp.readback import SPEAKER, own_lines

Content = Literal["model", "KV", "RS", "compute", "output"]

_BUFFER = re.compile(
    SPEAKER + r"\s*(\S+)\s+(model|KV|RS|compute|output) buffer size =\s*([\d.]+) MiB$",
    re.MULTILINE,
)
_CELLS = re.compile(
    r"^llama_(?:kv_cache\w*|memory_recurrent): size = .*?\(\s*(\d+) cells,\s*(\d+) layers,"
    r"\s*(?:\d+/)?(\d+) seqs",
    re.MULTILINE,
)
_LAST = re.compile(SPEAKER + r"graph[^:\n]*: nodes = ", re.MULTILINE)


@frozen
class Buffer:
    """``name`` is the engine's own, ``CPU_Mapped`` or ``CUDA0``; ``RS`` are recurrent states."""

    name: str
    content: Content
    mib: float


@frozen
class Cells:
    """What one cache is made of; of recurrent states ``streams`` is the number of sequences."""

    cells: int
    layers: int
    streams: int


@frozen
class Allocation:
    """All buffers, and the caches in their order: full attention, sliding window, recurrent."""

    buffers: tuple[Buffer, ...]
    caches: tuple[Cells, ...]

    def mib(self, *contents: Content) -> float:
        """The sum of the buffers with one of ``contents``, of all where none is named."""
        wanted = contents or ("model", "KV", "RS", "compute", "output")
        return sum(buffer.mib for buffer in self.buffers if buffer.content in wanted)


def read_allocation(log: str) -> Allocation | None:
    """What the model whose start ``log`` tells took; ``None`` where it is not told to the end."""
    log = own_lines(log)
    end = _LAST.search(log)
    if end is None:
        return None
    log = log[: end.start()]
    return Allocation(
        buffers=tuple(
            Buffer(name, content, float(size)) for name, content, size in _BUFFER.findall(log)
        ),
        caches=tuple(Cells(*map(int, numbers)) for numbers in _CELLS.findall(log)),
    )
