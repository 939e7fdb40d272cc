"""What a planner is told of a machine: what may be taken, and what is known of its speed."""

from __future__ import annotations

import pytest
from attrs import evolve

from velollm_core.backends.machine import LINK_BYTES_PER_S, budget, rates, used_gpus
from velollm_core.hardware.spec import CpuInfo, GpuInfo, HardwareSpec, MemoryInfo, OsInfo

GIB = 1 << 30
CPU = CpuInfo(
    model="CPU",
    architecture="x86_64",
    logical=16,
    physical=8,
    instruction_sets=("AVX2",),
    clock_hz=4e9,
)
MACHINE = HardwareSpec(
    cpu=CPU,
    memory=MemoryInfo(total_bytes=64 * GIB, available_bytes=50 * GIB, bandwidth_bytes_per_s=4e10),
    os=OsInfo(system="Linux", release="6"),
)


def gpu(name, gib=24, **more):
    size = {"memory_total_bytes": gib * GIB, "memory_free_bytes": (gib - 1) * GIB}
    return GpuInfo(uuid=name, vendor="nvidia", name=name, **size, **more)


def with_gpus(*gpus):
    return evolve(MACHINE, gpus=gpus)


def test_a_control_group_s_limit_is_what_may_be_taken():
    memory = evolve(MACHINE.memory, limit_bytes=8 * GIB, limit_used_bytes=GIB)
    assert budget(evolve(MACHINE, memory=memory)).host_bytes == 7 * GIB
    assert budget(MACHINE).host_bytes == 50 * GIB


def test_of_a_card_what_is_free_may_be_taken_or_all_where_no_tool_tells():
    untold = evolve(gpu("B"), memory_free_bytes=None)
    unknown = evolve(untold, uuid="C", memory_total_bytes=None)
    room = budget(with_gpus(gpu("A"), untold, unknown))
    assert room.gpu_bytes == (23 * GIB, 24 * GIB, 0)
    assert not room.unified


def test_graphics_that_share_main_memory_are_used_only_where_there_is_no_other_card():
    shared, own = gpu("Arc", unified_memory=True), gpu("RTX 3090")
    assert used_gpus(with_gpus(shared, own)) == (own,)
    assert not budget(with_gpus(shared, own)).unified
    assert used_gpus(with_gpus(shared)) == (shared,)
    assert budget(with_gpus(shared)).unified


@pytest.mark.parametrize(("gib", "most"), [(18, 12), (36, 24), (64, 48)])
def test_metal_lets_a_program_have_a_part_of_a_mac_s_memory(gib, most):
    mac = GpuInfo(
        uuid="apple",
        vendor="apple",
        name="Apple M4 Max (40 cores)",
        memory_total_bytes=gib * GIB,
        memory_free_bytes=gib * GIB,
        unified_memory=True,
    )
    machine = with_gpus(mac)
    assert budget(machine).gpu_bytes == (most * GIB,)
    assert rates(machine).link_bytes_per_s == rates(machine).gpus[0].bandwidth_bytes_per_s


def test_arithmetic_grows_with_cores_and_clock_but_not_with_threads_beyond_the_cores():
    def speed(threads=None, cpu=CPU):
        return rates(evolve(MACHINE, cpu=cpu), threads=threads).host.weights.vector["Q8_0"].per_s

    assert speed(2) == pytest.approx(2 * speed(1))
    assert speed() == speed(8) == speed(16)
    assert speed(cpu=evolve(CPU, clock_hz=2e9)) == pytest.approx(speed() / 2)
    assert speed(cpu=evolve(CPU, usable=3.0)) == pytest.approx(3 * speed(1))


@pytest.mark.parametrize(
    "machine",
    [
        evolve(MACHINE, memory=evolve(MACHINE.memory, bandwidth_bytes_per_s=None)),
        evolve(MACHINE, cpu=evolve(CPU, clock_hz=None)),
        evolve(MACHINE, cpu=evolve(CPU, instruction_sets=("SSE3",))),
    ],
    ids=["no bandwidth", "no clock", "no kernels like it"],
)
def test_a_processor_that_was_not_measured_has_no_rates(machine):
    assert rates(machine).host is None


def test_a_card_that_nothing_is_known_of_has_no_rates_and_one_in_the_table_has_less_than_its_peak():
    found = rates(with_gpus(gpu("Voodoo 5"), gpu("NVIDIA GeForce RTX 3090")))
    assert found.gpus[0] is None
    assert 0.3 * 936e9 < found.gpus[1].bandwidth_bytes_per_s < 936e9
    assert found.gpus[1].weights.matrix["*"].per_s < 71.2e12 / 2
    assert found.link_bytes_per_s == LINK_BYTES_PER_S


def test_a_card_s_own_bandwidth_goes_before_the_table_s_and_needs_none():
    told = rates(
        with_gpus(
            gpu("RTX 3090", memory_bandwidth_bytes_per_s=1e12),
            gpu("Voodoo 5", memory_bandwidth_bytes_per_s=1e12),
        )
    )
    assert told.gpus[0].bandwidth_bytes_per_s == told.gpus[1].bandwidth_bytes_per_s
    assert "*" not in told.gpus[1].weights.matrix
