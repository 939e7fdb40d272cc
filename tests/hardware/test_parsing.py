from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.hardware import parsing
from velollm_core.hardware.cpu import detect_cpu
from velollm_core.hardware.cpu_windows import read_topology
from velollm_core.hardware.gpu_amd import read_amd_smi, read_rocm_smi
from velollm_core.hardware.gpu_apple import read_system_profiler
from velollm_core.hardware.gpu_intel import read_xpu_smi
from velollm_core.hardware.gpu_nvidia import read_nvidia_smi
from velollm_core.hardware.memory import detect_memory
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.system import detect_container, detect_os

SHIPPED = sorted(Path(__file__).with_name("data").glob("*/*"))


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ("24560 MB", "", 24560 << 20),
        ("32768K", "", 32768 << 10),
        ("8 Go", "", 8 << 30),
        ("1 536 Mo", "", 1536 << 20),
        ("1\u00a0536 Mo", "", 1536 << 20),
        ("1,536 MB", "", 1536 << 20),
        ("1,5 GB", "", 3 << 29),
        ("1.5 GiB", "", 3 << 29),
        ({"value": 16368, "unit": "MB"}, "", 16368 << 20),
        ({"value": "16368"}, "M", 16368 << 20),
        (81559, "M", 81559 << 20),
        ("81559", "M", 81559 << 20),
        ("17179869184", "", 17179869184),
        ("1536 МБ", "", None),
        ("N/A", "M", None),
        ("-5 MB", "", None),
        (None, "M", None),
        (True, "M", None),
        (float("inf"), "M", None),
        (float("nan"), "M", None),
        ({"value": "N/A", "unit": "MB"}, "", None),
    ],
)
def test_sizes_are_read_in_every_spelling(value, unit, expected):
    assert parsing.size_bytes(value, unit) == expected


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("0-3,8", (0, 1, 2, 3, 8)),
        ("5", (5,)),
        ("", ()),
        (None, ()),
        ("3-1", ()),
        ("a-b,2", (2,)),
        ("0-", ()),
    ],
)
def test_lists_of_processors(listed, expected):
    assert parsing.cpu_list(listed) == expected


def test_a_garbled_range_does_not_fill_the_memory():
    assert len(parsing.cpu_list("0-999999999")) == 65537


@settings(deadline=None)
@given(st.sets(st.integers(0, 500)))
def test_lists_of_processors_come_back_as_written(cpus):
    assert parsing.cpu_list(",".join(map(str, cpus))) == tuple(sorted(cpus))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("00000000:3B:00.0", "0000:3b:00.0"),
        ("0000:C3:00.0", "0000:c3:00.0"),
        ("03:00.1", "0000:03:00.1"),
        ("0000:03:00.9", None),
        ("N/A", None),
        (3, None),
    ],
)
def test_pci_addresses_have_one_spelling(written, expected):
    assert parsing.bus_id(written) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ('{"a": 1}', {"a": 1}),
        ('WARNING: asleep\n\n[{"a": 1}]\n', [{"a": 1}]),
        ('[0] a warning\n[WARNING] another\n  {"a": [1]}\ntrailer', {"a": [1]}),
        ("[]", []),
        ("", None),
        ('{"a": 1', None),
        ("[" * 100000, None),
        ("[1\n" * 100000, None),
    ],
)
def test_json_is_found_among_other_lines(output, expected):
    assert parsing.json_inside(output) == expected


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
keys = st.sampled_from(
    [
        *("gpu_data", "gpu", "asic", "bus", "bdf", "vram", "size", "value", "unit", "mem_usage"),
        *("total_vram", "card0", "system", "PCI Bus", "VRAM Total Memory (B)", "device_list"),
        *("device_id", "device_name", "pci_bdf_address", "memory_physical_size_byte"),
        *("SPDisplaysDataType", "sppci_model", "sppci_cores", "spdisplays_vram", "market_name"),
    ]
)
answers = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=6)
)


def silent():
    return Probe(root=Path("/nonexistent"), system="Linux", environ={}, execute=_missing)


def _missing(argv, timeout_s, environ):
    raise FileNotFoundError


def readings(output):
    """What every reader makes of the same output."""
    probe = silent()
    yield read_amd_smi(probe, output, output)
    yield read_rocm_smi(probe, output)
    yield read_xpu_smi(output)
    yield read_system_profiler(probe, output)
    yield read_nvidia_smi(probe, output, output, output)


def check(output):
    for gpus in readings(output):
        for gpu in gpus:
            assert gpu.uuid
            for size in (gpu.memory_total_bytes, gpu.memory_free_bytes):
                assert size is None or size >= 0


@settings(deadline=None)
@given(answers)
def test_answers_of_any_shape_are_survived(answer):
    check(json.dumps(answer))


@settings(deadline=None)
@given(st.text())
def test_any_text_is_survived(output):
    check(output)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
@settings(deadline=None)
@given(data=st.data())
def test_answers_cut_off_or_garbled_anywhere_are_survived(file, data):
    content = file.read_text(encoding="utf-8")
    cut = data.draw(st.integers(0, len(content)))
    check(content[:cut])
    check(content[:cut] + data.draw(st.text(max_size=5)) + content[cut + 1 :])


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_table_of_windows_is_survived(table):
    topology = read_topology(table)
    assert topology.packages >= 0


FILES = [
    *("proc/cpuinfo", "proc/meminfo", "proc/self/status", "proc/self/cgroup", "proc/1/cgroup"),
    *("proc/self/mountinfo", "sys/fs/cgroup/cpu.max", "sys/fs/cgroup/memory.max", "etc/os-release"),
    *("sys/devices/system/cpu/online", "sys/devices/system/cpu/cpu0/topology/core_cpus_list"),
    *("sys/devices/system/cpu/cpu0/cpu_capacity", "sys/devices/cpu_atom/cpus"),
    *("sys/devices/system/cpu/cpu0/cache/index0/shared_cpu_list", "run/systemd/container"),
    *("sys/devices/system/cpu/cpu0/cache/index0/size", "sys/devices/system/node/node0/cpulist"),
    "System/Library/CoreServices/SystemVersion.plist",
]
lines = st.sampled_from(
    [
        *(
            "processor\t: 0",
            "core id : x",
            "MemTotal: 1 kB",
            "MemTotal: -1 kB",
            "0-1",
            "0::/a/../b",
        ),
        *("1:cpu:/", "Cpus_allowed_list: 7-3", "max 0", "1 0", "48K", "Cached: huge", "isa : rv"),
        "31 24 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw",
    ]
)
contents = st.binary(max_size=30) | st.lists(lines).map(lambda found: "\n".join(found).encode())


@settings(deadline=None)
@given(
    files=st.dictionaries(st.sampled_from(FILES), contents),
    system=st.sampled_from(["Linux", "Darwin"]),
)
def test_files_with_anything_in_them_are_survived(native, files, system):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        probe = Probe(
            root=root, system=system, environ={}, execute=_missing, native=native(counts=(4, 2))
        )
        cpu = detect_cpu(probe)
        memory = detect_memory(probe)
        detect_container(probe)
        assert detect_os(probe).system == system
    assert 0 < cpu.usable <= max(cpu.logical, 1)
    assert cpu.physical >= 1
    assert memory.total_bytes > 0
    assert 0 <= memory.usable_bytes <= memory.total_bytes
