"""A machine as the planners of memory and speed see it: what may be taken, and how fast it is."""

from __future__ import annotations

import math
from collections.abc import Mapping

from velollm_core.hardware.arithmetic import Kernel, kernels
from velollm_core.hardware.cards import published
from velollm_core.hardware.spec import GpuInfo, HardwareSpec
from velollm_core.models.fit import Budget
from velollm_core.models.roofline import OTHER, Arithmetic, DeviceRates, Rate, Rates

LINK_BYTES_PER_S = 16e9
"""PCIe 4.0 with 8 lanes or 3.0 with 16: what is taken where nothing is known of the link."""

_GPU_BANDWIDTH_SHARE = 0.6
_GPU_ARITHMETIC_SHARE = 0.5
_GPU_VECTOR_PER_S = 1e15  # one token's arithmetic never is what a GPU waits for
_GPU_LAYER_S = 10e-6
# By benchmarks/rates.py; of a step and an entry of the vocabulary the mean over its two runs.
_ONE_THREAD_LAYER_S = 10e-6
_THREADS_LAYER_S = 22e-6  # several, which wait for each other after every operation
_STEP_S = 130e-6
_CANDIDATE_S = 11e-9

_METAL_SHARES = ((36 << 30, 2 / 3), (math.inf, 3 / 4))


def used_gpus(hardware: HardwareSpec) -> tuple[GpuInfo, ...]:
    """The GPUs that llama.cpp uses: those that share main memory only where there is no other."""
    own = tuple(gpu for gpu in hardware.gpus if not gpu.unified_memory)
    return own or hardware.gpus


def budget(hardware: HardwareSpec) -> Budget:
    """What this process may take now: of main memory what is free and a control group leaves, of
    each GPU :func:`usable_bytes`.
    """
    gpus = used_gpus(hardware)
    return Budget(
        host_bytes=hardware.memory.usable_bytes,
        gpu_bytes=tuple(usable_bytes(gpu) for gpu in gpus),
        unified=any(gpu.unified_memory for gpu in gpus),
    )


def usable_bytes(gpu: GpuInfo) -> int:
    """What this process may take of a GPU now: what is free, or all of it where no tool tells.

    Metal lets a program have two thirds of a Mac's memory up to 36 GiB and three quarters above.
    """
    total = gpu.memory_total_bytes or 0
    free = total if gpu.memory_free_bytes is None else gpu.memory_free_bytes
    if gpu.vendor != "apple":
        return free
    share = next(share for most, share in _METAL_SHARES if total <= most)
    return min(free, int(total * share))


def rates(hardware: HardwareSpec, *, threads: int | None = None) -> Rates:
    """What the devices of a machine can do, as far as it was measured or its maker publishes it.

    The host's are known where ``hardware`` holds a measured bandwidth and clock
    (:func:`~velollm_core.hardware.detect.measured`), and its processor is like one whose arithmetic
    was measured. With fewer threads than that was measured with, the bandwidth is an upper bound.

    Args:
        hardware: the machine.
        threads: how many compute on the processor; one on each usable core if not told.
    """
    gpus = used_gpus(hardware)
    unified = any(gpu.unified_memory for gpu in gpus)
    of_gpus = tuple(_gpu_rates(gpu) for gpu in gpus)
    shared = of_gpus[0].bandwidth_bytes_per_s if unified and of_gpus[0] else LINK_BYTES_PER_S
    return Rates(
        host=_host_rates(hardware, threads),
        gpus=of_gpus,
        link_bytes_per_s=shared,
        step_s=_STEP_S,
        candidate_s=_CANDIDATE_S,
    )


def _host_rates(hardware: HardwareSpec, threads: int | None) -> DeviceRates | None:
    cpu, bandwidth = hardware.cpu, hardware.memory.bandwidth_bytes_per_s
    each = kernels(cpu)
    if bandwidth is None or cpu.clock_hz is None or each is None:
        return None
    cores = max(1.0, min(threads or cpu.physical, cpu.physical, cpu.usable))
    cycles_per_s = cores * cpu.clock_hz
    return DeviceRates(
        bandwidth_bytes_per_s=bandwidth,
        weights=_arithmetic(cycles_per_s, each.vector, each.matrix),
        attention=_arithmetic(cycles_per_s, each.attention_vector, each.attention_matrix),
        layer_s=_ONE_THREAD_LAYER_S if cores == 1 else _THREADS_LAYER_S,
    )


def _arithmetic(
    cycles_per_s: float, vector: Mapping[str, Kernel], matrix: Mapping[str, Kernel]
) -> Arithmetic:
    """What kernels do with so many cycles a second, of all cores together."""
    vector_rates, matrix_rates = (
        {
            kind: Rate(kernel.per_cycle * cycles_per_s, kernel.start_cycles / cycles_per_s)
            for kind, kernel in kernels.items()
        }
        for kernels in (vector, matrix)
    )
    return Arithmetic(vector=vector_rates, matrix=matrix_rates)


def _gpu_rates(gpu: GpuInfo) -> DeviceRates | None:
    """Less than the peaks, which kernels do not reach."""
    card = published(gpu)
    if card is None:
        return None
    matrix = {}
    if card.flops_per_s is not None:
        matrix[OTHER] = Rate(card.flops_per_s / 2 * _GPU_ARITHMETIC_SHARE)
    return DeviceRates(
        bandwidth_bytes_per_s=card.bandwidth_bytes_per_s * _GPU_BANDWIDTH_SHARE,
        weights=Arithmetic(vector={OTHER: Rate(_GPU_VECTOR_PER_S)}, matrix=matrix),
        layer_s=_GPU_LAYER_S,
    )
