"""What makers publish of their cards: for GPUs whose driver does not tell how fast they are.

Bandwidth is the peak of the memory in GB/s; arithmetic the peak of 16-bit matrix units without
sparsity, with 32-bit sums where the maker gives several, in TFLOPS, ``None`` where none is
published. Sources: NVIDIA's data sheets (T4, V100, V100S, A10, A40, A100, A6000, L4, L40S, H100,
H100 NVL, H200, B200) and architecture white papers (Turing, GA102, AD102, RTX Blackwell); AMD's
product pages and CDNA data sheets; Apple's press releases and technical specifications; Intel's
product pages.
"""

from __future__ import annotations

import re

from attrs import frozen

from velollm_core.hardware.spec import GpuInfo


@frozen
class Card:
    """Peaks of one kind of card, as published."""

    bandwidth_bytes_per_s: float
    flops_per_s: float | None


_CARDS: tuple[tuple[str, float, float | None], ...] = (
    # NVIDIA. The first pattern that is found in the name counts, so the longer ones come first.
    (r"RTX 5090(?! D)", 1792, 209.5),
    (r"RTX 5080", 960, 112.6),
    (r"RTX 5070 Ti", 896, 87.9),
    (r"RTX 5070", 672, 61.7),
    (r"RTX 4090(?! D)", 1008, 165.2),
    (r"RTX 4080 SUPER", 736, 104.4),
    (r"RTX 4080", 717, 97.5),
    (r"RTX 4070 Ti SUPER", 672, 88.2),
    (r"RTX 4070 Ti", 504, 80.2),
    (r"RTX 4070 SUPER", 504, 71.0),
    (r"RTX 4070", 504, 58.3),
    (r"RTX 4060 Ti", 288, 44.1),
    (r"RTX 4060", 272, 30.2),
    (r"RTX 3090 Ti", 1008, 80.0),
    (r"RTX 3090", 936, 71.2),
    (r"RTX 3080 Ti", 912, 68.2),
    (r"RTX 3080", 760, 59.5),
    (r"RTX 3070 Ti", 608, 43.5),
    (r"RTX 3070", 448, 40.6),
    (r"RTX 3060 Ti", 448, 32.4),
    (r"RTX 3060", 360, 25.5),
    (r"RTX 2080 Ti", 616, 53.8),
    (r"RTX A6000", 768, 154.8),
    (r"\bB200", 8000, 2250),
    (r"\bH200", 4800, 989),
    (r"H100 PCIe", 2000, 756),
    (r"H100 NVL", 3900, 835),
    (r"\bH100", 3350, 989),
    (r"A100.*80GB", 1935, 312),
    (r"\bA100", 1555, 312),
    (r"\bA40\b", 696, 149.7),
    (r"\bA10\b", 600, 125),
    (r"\bL40S", 864, 362),
    (r"\bL4\b", 300, 121),
    (r"V100S", 1134, 130),
    (r"\bV100", 900, 125),
    (r"\bT4\b", 320, 65),
    (r"\bP40\b", 346, None),
    # AMD
    (r"MI325X", 6000, 1307),
    (r"MI300X", 5300, 1307),
    # A program sees each half of these two as a card of its own.
    (r"MI250X", 1638, 191.5),
    (r"MI250\b", 1638, 181),
    (r"MI210", 1638, 181),
    (r"RX 9070 XT", 640, 195),
    (r"RX 7900 XTX", 960, 123),
    (r"RX 7900 XT\b", 800, 103),
    (r"RX 7800 XT", 624, 74.7),
    (r"RX 7600\b", 288, 43.5),
    (r"RX 6900 XT", 512, 46.1),
    (r"RX 6800 XT", 512, 41.5),
    (r"Radeon 8060S", 256, None),
    # Apple, whose arithmetic is published up to the M2; 32-bit, and no less than 16-bit.
    (r"Apple M1 Ultra", 800, 21.0),
    (r"Apple M1 Max", 400, 10.4),
    (r"Apple M1 Pro", 200, 5.2),
    (r"Apple M1\b", 68, 2.6),
    (r"Apple M2 Ultra", 800, 27.2),
    (r"Apple M2 Max", 400, 13.6),
    (r"Apple M2 Pro", 200, 6.8),
    (r"Apple M2\b", 100, 3.6),
    (r"Apple M3 Ultra", 819, None),
    (r"Apple M3 Max \(30 cores\)", 300, None),
    (r"Apple M3 Max", 400, None),
    (r"Apple M3 Pro", 150, None),
    (r"Apple M3\b", 100, None),
    (r"Apple M4 Max \(32 cores\)", 410, None),
    (r"Apple M4 Max", 546, None),
    (r"Apple M4 Pro", 273, None),
    (r"Apple M4\b", 120, None),
    (r"Apple M5\b", 153, None),
    # Intel
    (r"Arc.*A770M", 512, None),
    (r"Arc.*A770\b", 560, 137.6),
    (r"Arc.*A750\b", 512, 114.7),
    (r"Arc.*B580", 456, 116.5),
    (r"Arc.*B570", 380, 101.4),
)


def published(gpu: GpuInfo) -> Card | None:
    """The peaks of a card by its name; ``None`` where it is not in the table, or is a part of one.

    A card's own figure for its bandwidth, where its driver tells one, goes before the table's. The
    cards of laptops bear the names of faster ones.
    """
    if " MIG " in gpu.name:
        return None
    laptop = re.search("Laptop|Mobile|Max-Q", gpu.name)
    rows = () if laptop else _CARDS
    found = next((row for row in rows if re.search(row[0], gpu.name)), None)
    if found is None and gpu.memory_bandwidth_bytes_per_s is None:
        return None
    _, bandwidth, tflops = found or ("", 0.0, None)
    return Card(
        bandwidth_bytes_per_s=gpu.memory_bandwidth_bytes_per_s or bandwidth * 1e9,
        flops_per_s=None if tflops is None else tflops * 1e12,
    )
