"""Memory bandwidth, measured: the limit of decoding, which reads every weight once a token."""

from __future__ import annotations

import ctypes
import threading
import time

from attrs import field, frozen

from velollm_core.hardware.parsing import GIB, MIB
from velollm_core.hardware.spec import CpuInfo, MemoryInfo

_CACHES_EXCEEDED = 4  # as STREAM asks: each array at least four times the last cache
_LEAST_BYTES = 64 * MIB
_MOST_BYTES = GIB
_SHARE_OF_MEMORY = 4


@frozen
class Bandwidth:
    """What was measured, bytes read plus bytes written a second, and how."""

    bytes_per_s: float
    method: str


def measure_bandwidth(
    cpu: CpuInfo, memory: MemoryInfo, budget_s: float = 2.0, threads: int | None = None
) -> Bandwidth | None:
    """Copy memory on all usable cores at once and take the best pass.

    Each thread copies a buffer of its own with C's ``memmove``, during which Python's lock is free.
    Bytes read and written are counted, as STREAM's "Copy" does; where the processor first reads
    what it is about to overwrite, it moves up to half as much again.

    Args:
        cpu: how many threads, and how large the caches are that must not matter.
        memory: at most a quarter of what is usable is taken.
        budget_s: seconds after which no further pass begins; two passes always run.
        threads: how many copy at once; one on each usable core if not told.

    Returns:
        The figure, or ``None`` where too little memory is free to get past the caches.
    """
    threads = threads or max(1, min(int(cpu.usable), cpu.physical))
    wanted = max(_LEAST_BYTES, _CACHES_EXCEEDED * _last_cache_bytes(cpu, threads))
    allowed = memory.usable_bytes // _SHARE_OF_MEMORY // 2  # there is a source and a target
    array_bytes = min(wanted, allowed, _MOST_BYTES)
    if array_bytes < min(wanted, _MOST_BYTES) / 2:
        return None
    copiers = _Copiers(threads, array_bytes // threads, time.perf_counter() + budget_s)
    passes = copiers.run()
    if not passes:
        return None
    return Bandwidth(
        2 * copiers.buffer_bytes * threads / min(passes),
        f"memmove of {array_bytes / MIB:.0f} MiB, threads: {threads}, best of {len(passes)} passes"
        ", bytes read and written",
    )


def _last_cache_bytes(cpu: CpuInfo, threads: int) -> int:
    """The part of the last cache level that ``threads`` threads could fill."""
    last = max((cache.level for cache in cpu.caches), default=0)
    return sum(
        cache.size_bytes * min(cache.instances, threads)
        for cache in cpu.caches
        if cache.level == last
    )


@frozen
class _Copiers:
    """Threads that copy in step. A pass lasts from the first one's start to the last one's end."""

    threads: int
    buffer_bytes: int
    deadline: float
    _spans: list[list[tuple[float, float]]] = field(factory=list, init=False)
    _ended: threading.Event = field(factory=threading.Event, init=False)

    def run(self) -> list[float]:
        """Seconds of every pass but the first; empty where memory ran out."""
        barrier = threading.Barrier(self.threads, action=self._begin_pass)
        workers = [
            threading.Thread(target=self._copy, args=(barrier,)) for _ in range(self.threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        complete = [spans for spans in self._spans if len(spans) == self.threads]
        return [
            max(end for _, end in spans) - min(start for start, _ in spans)
            for spans in complete[1:]
        ]

    def _begin_pass(self) -> None:
        """Run by one thread while all others wait, so that all end after the same pass."""
        if len(self._spans) >= 3 and time.perf_counter() > self.deadline:
            self._ended.set()
        else:
            self._spans.append([])

    def _copy(self, barrier: threading.Barrier) -> None:
        try:
            source, target = self._buffer(1), self._buffer(2)
        except MemoryError:
            barrier.abort()
            return
        while True:
            try:
                barrier.wait()
            except threading.BrokenBarrierError:
                return
            if self._ended.is_set():
                return
            start = time.perf_counter()
            ctypes.memmove(target, source, self.buffer_bytes)
            self._spans[-1].append((start, time.perf_counter()))

    def _buffer(self, value: int) -> ctypes.Array[ctypes.c_char]:
        buffer = (ctypes.c_char * self.buffer_bytes).from_buffer(bytearray(self.buffer_bytes))
        # Touched by its own thread: pages come from its NUMA node, and are not the zero page.
        ctypes.memset(buffer, value, self.buffer_bytes)
        return buffer
