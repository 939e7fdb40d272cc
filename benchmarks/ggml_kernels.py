"""ggml's kernels, called in the library that the xllamacpp wheel brings, on one thread."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xllamacpp

from velollm_core.models.ggml_types import TENSOR_TYPES

NUMBERS = {kind.name: number for number, kind in TENSOR_TYPES.items()}
_ROWS = 256
_MOST_RUNS = 200
_POINTER, _WIDE = ctypes.c_void_p, ctypes.c_int64


class _Parameters(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("buffer", _POINTER), ("no_alloc", ctypes.c_bool))


class Kernels:
    """The few functions of ``ggml.h`` that are needed to run one operation."""

    def __init__(self) -> None:
        (library,) = Path(xllamacpp.__file__).parent.glob("xllamacpp.*so")
        self._library = ctypes.CDLL(str(library))
        pointer, wide = _POINTER, _WIDE
        for name, result, *arguments in (
            ("ggml_init", pointer, _Parameters),
            ("ggml_free", None, pointer),
            ("ggml_new_tensor_3d", pointer, pointer, ctypes.c_int, wide, wide, wide),
            ("ggml_get_data", pointer, pointer),
            ("ggml_nbytes", ctypes.c_size_t, pointer),
            ("ggml_mul_mat", pointer, pointer, pointer, pointer),
            ("ggml_flash_attn_ext", pointer, *(pointer,) * 5, *(ctypes.c_float,) * 3),
            ("ggml_new_graph", pointer, pointer),
            ("ggml_build_forward_expand", None, pointer, pointer),
            ("ggml_graph_compute_with_ctx", ctypes.c_int, pointer, pointer, ctypes.c_int),
        ):
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
        self._library.ggml_cpu_init()

    def row(self, kind: str, tokens: int, columns: int) -> float:
        """Seconds of a row of weights and one of so many tokens that it meets."""
        with self._memory() as memory:
            weights = self._tensor(memory, kind, columns, _ROWS)
            states = self._tensor(memory, "F32", columns, tokens)
            product = self._library.ggml_mul_mat(memory, weights, states)
            return self._seconds(memory, product) / (_ROWS * tokens)

    def attention(self, kind: str, tokens: int, head: int, *, positions: int = 1024) -> float:
        """Seconds of a pair of query and position, 8 heads that share 2 of keys and values."""
        heads, shared = 8, 2
        with self._memory() as memory:
            queries = self._tensor(memory, "F32", head, tokens, heads)
            keys = self._tensor(memory, kind, head, positions, shared)
            values = self._tensor(memory, kind, head, positions, shared)
            mask = self._tensor(memory, "F16", positions, tokens)
            answer = self._library.ggml_flash_attn_ext(
                memory, queries, keys, values, mask, head**-0.5, 0.0, 0.0
            )
            return self._seconds(memory, answer) / (heads * tokens * positions)

    @contextmanager
    def _memory(self) -> Iterator[int]:
        memory = self._library.ggml_init(_Parameters(256 << 20, None, False))
        try:
            yield memory
        finally:
            self._library.ggml_free(memory)

    def _tensor(self, memory: int, kind: str, *shape: int) -> int:
        sizes = (*shape, 1, 1)[:3]
        tensor = int(self._library.ggml_new_tensor_3d(memory, NUMBERS[kind], *sizes))
        size = self._library.ggml_nbytes(tensor)
        ctypes.memset(self._library.ggml_get_data(tensor), 0, size)
        return tensor

    def _seconds(self, memory: int, result: int) -> float:
        """The best of as many runs as a moment holds; each leaves its scratch in ``memory``."""
        graph = self._library.ggml_new_graph(memory)
        self._library.ggml_build_forward_expand(graph, result)
        best, deadline = float("inf"), time.perf_counter() + 0.05
        for _ in range(_MOST_RUNS):
            started = time.perf_counter()
            if started > deadline:
                break
            self._library.ggml_graph_compute_with_ctx(memory, graph, 1)
            best = min(best, time.perf_counter() - started)
        return best
