"""Instruction sets that matter for inference, under the names that llama.cpp prints for its builds.

The names follow ``system_info`` of llama.cpp (``ggml_backend_cpu_get_features``), and its build
options where that prints none (``AMX_TILE``, ``AMX_BF16``, ``SVE2``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# By flag in lower case without "_" and ".": Linux, macOS and py-cpuinfo2 punctuate differently.
_X86 = {
    "pni": "SSE3",
    "sse3": "SSE3",
    "ssse3": "SSSE3",
    "avx": "AVX",
    "avx10": "AVX",  # macOS' "AVX1.0"
    "avxvnni": "AVX_VNNI",
    "avx2": "AVX2",
    "f16c": "F16C",
    "fma": "FMA",
    "bmi2": "BMI2",
    "avx512vbmi": "AVX512_VBMI",
    "avx512vnni": "AVX512_VNNI",
    "avx512bf16": "AVX512_BF16",
    "amxtile": "AMX_TILE",
    "amxint8": "AMX_INT8",
    "amxbf16": "AMX_BF16",
}
_AVX512_PARTS = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
_ARM = {
    "asimd": "NEON",
    "neon": "NEON",
    "asimddp": "DOTPROD",
    "asimdhp": "FP16_VA",
    "i8mm": "MATMUL_INT8",
    "sve": "SVE",
    "sve2": "SVE2",
    "sme": "SME",
}
_S390 = {"vxe": "VXE", "nnpa": "NNPA"}
_MACOS_ARM = {
    "hw.optional.AdvSIMD": "NEON",
    "hw.optional.neon": "NEON",
    "hw.optional.arm.FEAT_DotProd": "DOTPROD",
    "hw.optional.arm.FEAT_FP16": "FP16_VA",
    "hw.optional.arm.FEAT_I8MM": "MATMUL_INT8",
    "hw.optional.arm.FEAT_SME": "SME",
}
# IsProcessorFeaturePresent's PF_ARM_* numbers, from winnt.h.
_WINDOWS_ARM = {
    19: "NEON",
    43: "DOTPROD",
    46: "SVE",
    47: "SVE2",
    66: "MATMUL_INT8",
    67: "FP16_VA",
    70: "SME",
}
WINDOWS_ARM_FEATURES = tuple(_WINDOWS_ARM)
_ORDER = tuple(
    dict.fromkeys(
        [
            *("SSE3", "SSSE3", "AVX", "AVX_VNNI", "AVX2", "F16C", "FMA", "BMI2", "AVX512"),
            *_X86.values(),
            *("NEON", "FP16_VA", "MATMUL_INT8", "SVE", "SVE2", "DOTPROD", "SME"),
            *("RISCV_V", "VSX", "VXE", "NNPA"),
        ]
    )
)


def from_flags(flags: Iterable[str]) -> tuple[str, ...]:
    """From flags as ``/proc/cpuinfo``, macOS' ``machdep.cpu`` or py-cpuinfo2 list them."""
    plain = {re.sub(r"[_.]", "", flag.lower()) for flag in flags}
    known = {**_X86, **_ARM, **_S390}
    found = {known[flag] for flag in plain if flag in known}
    if plain >= _AVX512_PARTS:
        found.add("AVX512")
    return _ordered(found)


def from_riscv_isa(isa: str) -> tuple[str, ...]:
    """From a RISC-V ISA string: ``v`` among the single letters of ``rv64imafdcv_zicsr``."""
    base = re.match(r"rv(?:32|64|128)([a-z]*)", isa.lower())
    return ("RISCV_V",) if base and "v" in base[1] else ()


def from_power_model(model: str) -> tuple[str, ...]:
    """From a POWER processor's name: vector-scalar instructions came with POWER7."""
    generation = re.search(r"POWER(\d{1,2})", model, re.IGNORECASE)
    return ("VSX",) if generation and int(generation[1]) >= 7 else ()


def from_macos(values: Mapping[str, str]) -> tuple[str, ...]:
    """From macOS' ``sysctl hw machdep.cpu``, of Apple and of Intel processors."""
    found = {name for key, name in _MACOS_ARM.items() if values.get(key) == "1"}
    features = "machdep.cpu.features", "machdep.cpu.leaf7_features"
    flags = [flag for key in features for flag in values.get(key, "").split()]
    return _ordered({*found, *from_flags(flags)})


def from_windows_arm(features: Iterable[int]) -> tuple[str, ...]:
    """From those of :data:`WINDOWS_ARM_FEATURES` that Windows says are present."""
    return _ordered({_WINDOWS_ARM[feature] for feature in features})


def _ordered(found: set[str]) -> tuple[str, ...]:
    return tuple(name for name in _ORDER if name in found)
