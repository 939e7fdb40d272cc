from __future__ import annotations

import os

import pytest

from velollm_core.hardware.cpu import detect_cpu
from velollm_core.hardware.cpu_windows import read_topology
from velollm_core.hardware.instruction_sets import from_flags
from velollm_core.hardware.native import Native
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.spec import CacheInfo, NumaNode

XEON_FLAGS = (
    "fpu sse3 pni ssse3 fma f16c avx avx2 bmi2 avx512f avx512dq avx512cd avx512bw avx512vl "
    "avx512vbmi avx512_vnni avx512_bf16 avx_vnni amx_bf16 amx_tile amx_int8"
)


def pairs(count, package=0, start=0, step=None):
    """Cores of two threads each, numbered as Linux does: siblings ``step`` apart."""
    step = step or count
    return [((start + core, start + core + step), package) for core in range(count)]


def test_a_dual_socket_server_shows_packages_threads_caches_and_nodes(planted, cpu_files):
    cores = [((core, core + 32), core // 16) for core in range(32)]
    files = cpu_files(
        cores,
        model="Intel(R) Xeon(R) Platinum 8462Y+",
        flags=XEON_FLAGS,
        caches=[
            (0, 1, "Data", "48K", [f"{core}" for core in range(64)]),
            (3, 3, "Unified", "61440K", ["0-15", "16-31"]),
        ],
    )
    files["/sys/devices/system/node/node0/cpulist"] = "0-15,32-47"
    files["/sys/devices/system/node/node0/meminfo"] = "Node 0 MemTotal:  131072000 kB\n"
    files["/sys/devices/system/node/node1/cpulist"] = "16-31,48-63"
    files["/sys/devices/system/node/possible"] = "0-1"
    cpu = detect_cpu(planted(files))
    assert (cpu.model, cpu.packages, cpu.physical, cpu.logical) == (
        "Intel(R) Xeon(R) Platinum 8462Y+",
        2,
        32,
        64,
    )
    assert cpu.performance_cores is None
    assert CacheInfo(level=3, kind="unified", size_bytes=60 << 20, instances=2) in cpu.caches
    assert CacheInfo(level=1, kind="data", size_bytes=48 << 10, instances=64) in cpu.caches
    assert [node.memory_bytes for node in cpu.numa_nodes] == [131072000 << 10, None]
    assert cpu.numa_nodes[0].cpus[:17] == (*range(16), 32)
    assert cpu.usable == 64


def test_instruction_sets_are_spelled_as_llama_cpp_spells_them(planted, cpu_files):
    cpu = detect_cpu(planted(cpu_files(pairs(2), flags=XEON_FLAGS)))
    assert cpu.instruction_sets == (
        *("SSE3", "SSSE3", "AVX", "AVX_VNNI", "AVX2", "F16C", "FMA", "BMI2", "AVX512"),
        *("AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16", "AMX_TILE", "AMX_INT8", "AMX_BF16"),
    )


def test_avx512_needs_all_the_parts_that_llama_cpp_builds_with(planted, cpu_files):
    cpu = detect_cpu(planted(cpu_files([((0,), 0)], flags="avx avx2 avx512f avx512cd")))
    assert cpu.instruction_sets == ("AVX", "AVX2")


def test_intels_hybrid_shows_performance_and_efficiency_cores(planted, cpu_files):
    cores = [((2 * core, 2 * core + 1), 0) for core in range(8)]
    cores += [((cpu,), 0) for cpu in range(16, 32)]
    files = cpu_files(cores)
    files["/sys/devices/cpu_core/cpus"] = "0-15"
    files["/sys/devices/cpu_atom/cpus"] = "16-31"
    cpu = detect_cpu(planted(files))
    assert (cpu.physical, cpu.logical) == (24, 32)
    assert (cpu.performance_cores, cpu.efficiency_cores) == (8, 16)


def test_hybrids_without_hyper_threading_are_counted_right(planted, cpu_files):
    files = cpu_files([((cpu,), 0) for cpu in range(20)])
    files["/sys/devices/cpu_atom/cpus"] = "8-19"
    cpu = detect_cpu(planted(files))
    assert (cpu.physical, cpu.performance_cores, cpu.efficiency_cores) == (20, 8, 12)


def test_arm_big_little_is_told_by_capacity_and_named_by_lscpu(planted, cpu_files):
    cores = [((cpu,), cpu // 4) for cpu in range(8)]
    files = cpu_files(cores, cpu_capacity=[530] * 4 + [1024] * 4)
    files["/proc/cpuinfo"] = "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\n\n" * 8
    files["/proc/device-tree/model"] = b"Radxa ROCK 5B\0"
    lscpu = "Architecture: aarch64\nModel name:   Cortex-A55\nModel name:   Cortex-A76\n"
    cpu = detect_cpu(planted(files, {"lscpu": lscpu}, machine="aarch64"))
    assert cpu.model == "Cortex-A55 + Cortex-A76 (Radxa ROCK 5B)"
    assert (cpu.performance_cores, cpu.efficiency_cores, cpu.packages) == (4, 4, 1)
    assert cpu.instruction_sets == ("NEON", "FP16_VA", "DOTPROD")


def test_a_chip_of_three_kinds_of_cores_has_only_the_slowest_as_efficiency_cores(
    planted, cpu_files
):
    capacity = [325] * 3 + [870] * 4 + [1024]
    cpu = detect_cpu(planted(cpu_files([((c,), 0) for c in range(8)], cpu_capacity=capacity)))
    assert (cpu.performance_cores, cpu.efficiency_cores) == (5, 3)


@pytest.mark.parametrize(
    ("khz", "expected"),
    [
        ([5100000] * 8 + [3300000] * 16, (4, 8)),
        ([5000000] * 4 + [4800000] * 20, (None, None)),
        ([3000000] * 24, (None, None)),
    ],
)
def test_dense_cores_are_told_by_frequency_and_favoured_cores_are_not(
    planted, cpu_files, khz, expected
):
    cores = [((2 * core, 2 * core + 1), 0) for core in range(12)]
    files = cpu_files(cores, cpufreq__cpuinfo_max_freq=khz)
    cpu = detect_cpu(planted(files))
    assert (cpu.performance_cores, cpu.efficiency_cores) == expected


def test_with_hyper_threading_switched_off_threads_are_cores(planted, cpu_files):
    files = cpu_files(pairs(8), offline=range(8, 16))
    cpu = detect_cpu(planted(files))
    assert (cpu.physical, cpu.logical, cpu.usable) == (8, 8, 8)


def test_where_sys_is_hidden_cpuinfo_tells_cores_and_packages(planted):
    block = (
        "processor\t: {}\nmodel name\t: Xeon\nphysical id\t: {}\ncore id\t\t: {}\nflags\t: avx2\n\n"
    )
    content = "".join(block.format(cpu, cpu // 4, cpu % 2) for cpu in range(8))
    cpu = detect_cpu(planted({"/proc/cpuinfo": content}))
    assert (cpu.packages, cpu.physical, cpu.logical) == (2, 4, 8)
    assert cpu.usable_cpus == tuple(range(8))


def test_where_nothing_can_be_read_the_system_itself_is_asked(planted):
    cpu = detect_cpu(planted(counts=(8, 4), affinity=(0, 1), flags=("avx2",)))
    assert (cpu.logical, cpu.physical, cpu.usable) == (8, 4, 2)
    assert cpu.instruction_sets == ("AVX2",)
    assert cpu.model == "unknown x86_64 processor"


def test_affinity_to_2_of_64_threads_leaves_2(planted, cpu_files):
    files = cpu_files(pairs(32))
    files["/proc/self/status"] = "Name:\tpython\nCpus_allowed_list:\t4,36\n"
    cpu = detect_cpu(planted(files))
    assert (cpu.logical, cpu.usable_cpus, cpu.usable) == (64, (4, 36), 2)


def test_a_quota_of_2_of_64_threads_leaves_2(planted, cpu_files):
    files = cpu_files(pairs(32))
    files["/proc/self/cgroup"] = "0::/\n"
    files["/proc/self/mountinfo"] = "31 24 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
    files["/sys/fs/cgroup/cpu.max"] = "200000 100000\n"
    cpu = detect_cpu(planted(files))
    assert (cpu.logical, len(cpu.usable_cpus), cpu.quota_cpus, cpu.usable) == (64, 64, 2, 2)


def test_a_risc_v_board_shows_its_vector_unit(planted):
    content = "processor\t: 0\nisa\t\t: rv64imafdcv_zicsr\nuarch\t\t: spacemit,x60\n\n"
    cpu = detect_cpu(planted({"/proc/cpuinfo": content}, machine="riscv64"))
    assert (cpu.model, cpu.instruction_sets) == ("spacemit,x60", ("RISCV_V",))
    plain = content.replace("imafdcv_zicsr", "imafdc_zve32x")
    assert detect_cpu(planted({"/proc/cpuinfo": plain})).instruction_sets == ()


def test_power_and_mainframe_show_theirs(planted):
    power = "processor\t: 0\ncpu\t\t: POWER9, altivec supported\n\n"
    cpu = detect_cpu(planted({"/proc/cpuinfo": power}, machine="ppc64le"))
    assert (cpu.model, cpu.instruction_sets) == ("POWER9, altivec supported", ("VSX",))
    z16 = "vendor_id  : IBM/S390\nprocessor 0: version = FF\nfeatures\t: vx vxe vxe2 nnpa\n"
    files = {"/proc/cpuinfo": z16, "/sys/devices/system/cpu/online": "0-3"}
    cpu = detect_cpu(planted(files, machine="s390x"))
    assert (cpu.model, cpu.logical, cpu.instruction_sets) == ("IBM/S390", 4, ("VXE", "NNPA"))


def macos(planted, output, machine="arm64"):
    tools = {"sysctl hw machdep.cpu": output}
    return detect_cpu(planted(tools=tools, system="Darwin", machine=machine))


def test_an_apple_chip_shows_both_kinds_of_cores_and_their_caches(planted, data):
    cpu = macos(planted, data("sysctl/m3-pro.txt"))
    assert (cpu.model, cpu.physical, cpu.logical, cpu.packages) == ("Apple M3 Pro", 11, 11, 1)
    assert (cpu.performance_cores, cpu.efficiency_cores) == (5, 6)
    assert cpu.instruction_sets == ("NEON", "FP16_VA", "MATMUL_INT8", "DOTPROD")
    assert CacheInfo(level=1, kind="data", size_bytes=131072, instances=5) in cpu.caches
    assert CacheInfo(level=2, kind="unified", size_bytes=16777216, instances=1) in cpu.caches
    assert CacheInfo(level=2, kind="unified", size_bytes=4194304, instances=1) in cpu.caches
    assert cpu.usable == 11


def test_before_macos_named_the_levels_the_second_is_the_efficiency_cores(planted, data):
    cpu = macos(planted, data("sysctl/m1-macos-12.txt"))
    assert (cpu.performance_cores, cpu.efficiency_cores) == (4, 4)


def test_an_intel_mac_is_not_hybrid(planted, data):
    cpu = macos(planted, data("sysctl/intel-i9-9980hk.txt"), machine="x86_64")
    assert (cpu.physical, cpu.logical, cpu.performance_cores) == (8, 16, None)
    assert cpu.instruction_sets == ("SSE3", "SSSE3", "AVX", "AVX2", "F16C", "FMA", "BMI2")
    assert CacheInfo(level=2, kind="unified", size_bytes=262144, instances=8) in cpu.caches
    assert CacheInfo(level=3, kind="unified", size_bytes=16777216, instances=1) in cpu.caches


def test_a_mac_without_sysctl_is_counted_by_the_system(planted):
    cpu = detect_cpu(planted(system="Darwin", machine="arm64", counts=(8, 8)))
    assert (cpu.logical, cpu.usable) == (8, 8)


CPU_KEY = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"


def test_a_windows_hybrid_shows_its_cores_caches_and_mask(planted, windows_table):
    table = windows_table(
        cores=[(1, 0b11, 0), (1, 0b1100, 0), (0, 1 << 4, 0), (0, 1 << 5, 0), (0, 1 << 6, 0)],
        caches=[(1, 2, 49152, 0b11), (1, 2, 49152, 0b1100), (3, 0, 25165824, 0x7F), (1, 3, 1, 1)],
        nodes=[(0, 0x7F, 0)],
    )
    probe = planted(
        system="Windows",
        machine="AMD64",
        topology=table,
        affinity=(0, 1, 2),
        flags=("avx", "avx2", "fma", "avx512vnni", "avx_vnni"),
        registry={CPU_KEY: {"ProcessorNameString": "12th Gen Intel(R) Core(TM) i5-1240P  "}},
    )
    cpu = detect_cpu(probe)
    assert cpu.model == "12th Gen Intel(R) Core(TM) i5-1240P"
    assert (cpu.packages, cpu.physical, cpu.logical) == (1, 5, 7)
    assert (cpu.performance_cores, cpu.efficiency_cores) == (2, 3)
    assert cpu.caches == (
        CacheInfo(level=1, kind="data", size_bytes=49152, instances=2),
        CacheInfo(level=3, kind="unified", size_bytes=25165824, instances=1),
    )
    assert cpu.numa_nodes == (NumaNode(id=0, cpus=tuple(range(7))),)
    assert cpu.usable == 3
    assert cpu.instruction_sets == ("AVX", "AVX_VNNI", "AVX2", "FMA", "AVX512_VNNI")


def test_windows_counts_processors_of_every_group(windows_table):
    full = (1 << 64) - 1
    cores = [(0, 1 << bit, group) for group in (0, 1) for bit in range(64)]
    nodes = [(0, full, 0), (1, full, 1)]
    topology = read_topology(windows_table(cores=cores, packages=2, nodes=nodes))
    assert topology.packages == 2
    assert [cpus for _, cpus in topology.cores] == [(cpu,) for cpu in range(128)]
    assert topology.numa_nodes[1].cpus == tuple(range(64, 128))


def test_windows_on_arm_asks_for_each_feature(planted):
    probe = planted(system="Windows", machine="ARM64", counts=(12, 12), features={19, 43, 66})
    cpu = detect_cpu(probe)
    assert cpu.instruction_sets == ("NEON", "MATMUL_INT8", "DOTPROD")
    assert (cpu.logical, cpu.physical, cpu.performance_cores) == (12, 12, None)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_on_this_machine_psutil_and_py_cpuinfo_agree():
    cpu, native = detect_cpu(Probe()), Native()
    assert cpu.usable_cpus == tuple(sorted(os.sched_getaffinity(0))) == native.cpu_affinity()
    assert (cpu.logical, cpu.physical) == native.cpu_counts()
    assert cpu.instruction_sets == from_flags(native.cpu_flags())
