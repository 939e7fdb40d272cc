"""A processor's clock by its own arithmetic, and what makers publish of their cards."""

from __future__ import annotations

import re

import pytest
from attrs import evolve

from velollm_core.hardware import cards
from velollm_core.hardware.arithmetic import kernels, measure_clock
from velollm_core.hardware.cards import published
from velollm_core.hardware.spec import CpuInfo, GpuInfo
from velollm_core.models.ggml_types import BY_NAME

CPU = CpuInfo(model="CPU", architecture="x86_64", logical=1, physical=1)


def bandwidth(name, **more):
    card = published(GpuInfo(uuid="1", vendor="other", name=name, **more))
    return card and card.bandwidth_bytes_per_s / 1e9


def test_a_clock_of_some_gigahertz_is_measured_on_one_core_and_on_two():
    assert 2e8 < measure_clock(1) < 2e10
    assert 1e8 < measure_clock(2) < 2e10


@pytest.mark.parametrize("sets", [("AVX2", "FMA"), ("AVX2", "AVX512"), ("NEON", "DOTPROD")])
def test_kernels_are_known_for_the_instruction_sets_that_everybody_has(sets):
    found = kernels(evolve(CPU, instruction_sets=sets))
    for table in (found.vector, found.matrix, found.attention_vector, found.attention_matrix):
        assert table.keys() - {"*"} <= BY_NAME.keys()
        assert all(kernel.per_cycle > 0 <= kernel.start_cycles for kernel in table.values())
        slowest = min(kernel.per_cycle for kernel in table.values())
        assert table["*"].per_cycle <= 2 * slowest


def test_kernels_of_a_processor_without_vectors_are_not_known():
    assert kernels(evolve(CPU, instruction_sets=("SSE3",))) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA GeForce RTX 4070 Ti SUPER", 672),
        ("NVIDIA GeForce RTX 4070 Ti", 504),
        ("NVIDIA GeForce RTX 4070", 504),
        ("NVIDIA GeForce RTX 3060 Ti", 448),
        ("NVIDIA GeForce RTX 3060", 360),
        ("NVIDIA H100 PCIe", 2000),
        ("NVIDIA H100 NVL", 3900),
        ("NVIDIA H100 80GB HBM3", 3350),
        ("Tesla V100S-PCIE-32GB", 1134),
        ("Tesla V100-SXM2-16GB", 900),
        ("NVIDIA A100-SXM4-80GB", 1935),
        ("NVIDIA A10", 600),
        ("NVIDIA L4", 300),
        ("NVIDIA L40S", 864),
        ("AMD Radeon RX 7900 XTX", 960),
        ("AMD Radeon RX 7900 XT", 800),
        ("AMD Instinct MI250X", 1638),
        ("AMD INSTINCT MI250 (MCM) OAM AC MBA", 1638),
        ("Apple M3 Max (30 cores)", 300),
        ("Apple M3 Max (40 cores)", 400),
        ("Apple M1 (8 cores)", 68),
        ("Intel(R) Arc(TM) A770 Graphics", 560),
        ("Intel(R) Arc(TM) A770M Graphics", 512),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("Voodoo 5", None),
    ],
)
def test_a_card_is_known_by_its_whole_name(name, expected):
    assert bandwidth(name) == expected


def test_what_the_driver_tells_goes_before_the_table():
    assert bandwidth("NVIDIA GeForce RTX 4090", memory_bandwidth_bytes_per_s=9e11) == 900
    assert bandwidth("Voodoo 5", memory_bandwidth_bytes_per_s=9e11) == 900


def test_no_row_of_the_table_is_hidden_by_one_above_it():
    for position, (pattern, *_) in enumerate(cards._CARDS):
        name = re.sub(r"\(\?!.*?\)|\\b", "", pattern)
        name = re.sub(r"\((\w+)\|.*?\)", r"\1", name).replace("\\", "").replace(".*", " ")
        first = next(row for row in cards._CARDS if re.search(row[0], name))
        assert first is cards._CARDS[position], name
