"""Arithmetic of a processor: how fast its clock runs, measured, and what ggml does in a cycle.

There is no way to try vector instructions from Python alone. So the clock is measured, and what one
core does in a cycle comes from a table that was measured once, of ggml's own kernels.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping

from attrs import field, frozen

from velollm_core.hardware.spec import CpuInfo

_MD5_CYCLES_PER_BYTE = 5.0
_CHUNK = bytes(256 * 1024)


@frozen
class Kernel:
    """Multiplications, each with its addition, that one core does in a cycle, and the cycles that
    each dot product takes beside.
    """

    per_cycle: float
    start_cycles: float


@frozen(kw_only=True)
class Kernels:
    """Kernels by tensor type; ``*`` is every type that is not named.

    ``vector``: weights that one token meets; ``matrix``: that many meet. ``attention_vector`` and
    ``attention_matrix`` go by the type of the KV cache; there ``start_cycles`` are those of each
    head and position.
    """

    vector: Mapping[str, Kernel] = field(factory=dict)
    matrix: Mapping[str, Kernel] = field(factory=dict)
    attention_vector: Mapping[str, Kernel] = field(factory=dict)
    attention_matrix: Mapping[str, Kernel] = field(factory=dict)


AVX2 = Kernels(
    vector={
        "F32": Kernel(3.0, 33),
        "F16": Kernel(5.4, 22),
        "BF16": Kernel(3.2, 23),
        "Q4_0": Kernel(5.0, 40),
        "Q4_1": Kernel(5.4, 44),
        "Q5_0": Kernel(4.4, 43),
        "Q5_1": Kernel(4.4, 44),
        "Q8_0": Kernel(5.3, 31),
        "Q2_K": Kernel(7.9, 73),
        "Q3_K": Kernel(5.8, 82),
        "Q4_K": Kernel(6.6, 80),
        "Q5_K": Kernel(4.8, 73),
        "Q6_K": Kernel(5.6, 77),
        "IQ4_NL": Kernel(4.9, 45),
        "IQ4_XS": Kernel(5.3, 79),
        "*": Kernel(4.4, 44),
    },
    matrix={
        "F32": Kernel(4.7, 1),
        "F16": Kernel(4.3, 0),
        "BF16": Kernel(4.4, 2),
        "Q4_0": Kernel(7.4, 1),
        "Q4_1": Kernel(4.9, 21),
        "Q5_0": Kernel(5.9, 0),
        "Q5_1": Kernel(4.2, 24),
        "Q8_0": Kernel(7.8, 1),
        "Q2_K": Kernel(10.4, 20),
        "Q3_K": Kernel(9.8, 20),
        "Q4_K": Kernel(11.2, 20),
        "Q5_K": Kernel(11.2, 20),
        "Q6_K": Kernel(10.0, 21),
        "IQ4_NL": Kernel(6.9, 1),
        "IQ4_XS": Kernel(10.0, 20),
        "*": Kernel(4.2, 24),
    },
    attention_vector={
        "F32": Kernel(2.6, 70),
        "F16": Kernel(3.6, 48),
        "Q8_0": Kernel(1.8, 80),
        "Q5_1": Kernel(0.5, 86),
        "Q4_0": Kernel(0.83, 95),
        "*": Kernel(0.5, 86),
    },
    attention_matrix={
        "F32": Kernel(6.1, 2),
        "F16": Kernel(6.0, 2),
        "Q8_0": Kernel(1.7, 90),
        "Q5_1": Kernel(0.45, 90),
        "Q4_0": Kernel(0.8, 110),
        "*": Kernel(0.45, 90),
    },
)
"""Measured by benchmarks/rates.py on a Zen 3 core; ``*`` is the slowest quantized type."""


def kernels(cpu: CpuInfo) -> Kernels | None:
    """What a core of this processor does in a cycle; ``None`` where nothing like it was measured.

    The table was measured with AVX2. Wider instruction sets do more (AVX-512 at best twice as
    much), so for them it is a lower bound; NEON with dot products is taken to do as much.
    """
    known = {"AVX2", "AVX512", "DOTPROD"}
    return AVX2 if known & set(cpu.instruction_sets) else None


def measure_clock(threads: int, budget_s: float = 0.05) -> float:
    """Cycles a second of each of ``threads`` processors while all of them work.

    MD5 is one chain of dependent additions and rotations, which neither a compiler nor wider units
    can shorten: about 5 cycles a byte on every processor of the last 15 years. The same figure is
    used wherever something is told in cycles, so that its error cancels.

    Args:
        threads: how many work at once; Python's lock is free meanwhile.
        budget_s: seconds after which no further pass begins.
    """
    deadline = time.perf_counter() + budget_s
    best = [float("inf")] * threads

    def hash_until_deadline(position: int) -> None:
        while True:
            started = time.perf_counter()
            hashlib.md5(_CHUNK, usedforsecurity=False).digest()
            ended = time.perf_counter()
            best[position] = min(best[position], ended - started)
            if ended > deadline:
                return

    workers = [threading.Thread(target=hash_until_deadline, args=(k,)) for k in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return _MD5_CYCLES_PER_BYTE * len(_CHUNK) * sum(1 / seconds for seconds in best) / threads
