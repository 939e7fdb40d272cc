from __future__ import annotations

import json
import os
import sys
import time

import pytest
from attrs import evolve

from velollm_core import documents
from velollm_core.hardware import bandwidth, gpu_amd
from velollm_core.hardware.bandwidth import Bandwidth, measure_bandwidth
from velollm_core.hardware.describe import describe, limits
from velollm_core.hardware.detect import available_bytes, detect, fingerprint
from velollm_core.hardware.gpu_hooks import velollm_detect_gpus
from velollm_core.hardware.gpus import merge_gpus
from velollm_core.hardware.probe import Finished
from velollm_core.hardware.spec import (
    CacheInfo,
    ContainerInfo,
    CpuInfo,
    GpuInfo,
    HardwareSpec,
    MemoryInfo,
    NumaNode,
    OsInfo,
)

NOTHING = lambda probe: ()  # noqa: E731 - no graphics
GPU = GpuInfo(uuid="amd:0000:03:00.0", vendor="amd", name="")


def test_what_several_sources_know_of_a_card_is_put_together():
    found = merge_gpus(
        [
            evolve(GPU, memory_total_bytes=16 << 30, source="sysfs"),
            evolve(GPU, uuid="amd:0000:04:00.0", name="other", source="sysfs"),
            evolve(
                GPU,
                name="AMD Radeon RX 7800 XT",
                memory_total_bytes=1,
                driver_version="6",
                source="x",
            ),
            evolve(GPU, name="Navi 32", unified_memory=True, memory_free_bytes=0, source="sysfs"),
        ]
    )
    assert [gpu.uuid for gpu in found] == ["amd:0000:03:00.0", "amd:0000:04:00.0"]
    assert found[0] == evolve(
        GPU,
        name="AMD Radeon RX 7800 XT",
        memory_total_bytes=16 << 30,
        memory_free_bytes=0,
        driver_version="6",
        unified_memory=True,
        source="sysfs+x",
    )


def test_an_index_or_memory_of_zero_is_known():
    first, second = (
        evolve(GPU, index=0, memory_free_bytes=0),
        evolve(GPU, index=3, memory_free_bytes=9),
    )
    assert merge_gpus([first, second]) == (first,)


def test_cards_of_several_vendors_are_found_together(planted, nvml, data, drm_card):
    nvml([{"name": "NVIDIA GeForce RTX 4090", "uuid": "GPU-1"}])
    tools = {"amd-smi static --json": data("amd-smi/static-rocm64.json")}
    files = drm_card(0, "8086:46A6", "0000:00:02.0", "i915")
    spec = detect(planted(files, tools), gpus=velollm_detect_gpus)
    assert {gpu.vendor for gpu in spec.gpus} == {"nvidia", "amd", "intel"}


def test_one_vendors_crash_costs_only_its_own_cards(planted, nvml, monkeypatch):
    nvml([{"name": "NVIDIA GeForce RTX 4090", "uuid": "GPU-1"}])

    def amd_gpus(probe):
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(gpu_amd, "amd_gpus", amd_gpus)
    spec = detect(planted(), gpus=velollm_detect_gpus)
    assert [gpu.uuid for gpu in spec.gpus] == ["GPU-1"]
    assert spec.notes == ("amd_gpus: failed: ZeroDivisionError: boom",)


@pytest.mark.skipif(os.name != "posix", reason="the planted tools are shell scripts")
def test_tools_of_all_vendors_that_hang_are_named_and_cost_one_waiting_time(
    planted, nvml, tmp_path
):
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("nvidia-smi", "amd-smi", "xpu-smi"):
        (folder / tool).write_text("#!/bin/sh\nsleep 60\n")
        (folder / tool).chmod(0o755)
    nvml(fault="LibraryNotFound")
    probe = planted()
    planted_tools = type(probe)(
        root=probe.root,
        system="Linux",
        environ={"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        native=probe.native,
    )
    start = time.monotonic()
    spec = detect(planted_tools, gpus=velollm_detect_gpus)
    assert time.monotonic() - start < 5  # one after the other they would take 6 seconds
    named = {note.split(":")[0] for note in spec.notes}
    assert named == {"nvidia-smi", "amd-smi", "xpu-smi"}


def test_this_machine_is_detected_in_under_a_second_on_linux(nvml):
    nvml(fault="LibraryNotFound")
    start = time.monotonic()
    spec = detect(gpus=velollm_detect_gpus)
    # Windows and macOS start tools of their own for this, on shared machines slowly.
    assert time.monotonic() - start < (1 if sys.platform == "linux" else 5)
    assert spec.memory.total_bytes >= spec.memory.available_bytes > 0
    assert 0 < spec.cpu.usable <= spec.cpu.logical


def test_what_may_still_be_taken_is_asked_of_this_machine():
    assert 0 < available_bytes() <= detect(gpus=NOTHING).memory.total_bytes


def test_a_machine_is_written_and_read_back_whole(planted, nvml, cpu_files, data):
    nvml([{"name": "NVIDIA GeForce RTX 4090", "uuid": "GPU-1", "limit_mw": 450000}])
    probe = planted(cpu_files([((0, 1), 0)]), {"amd-smi static --json": "oops"})
    spec = detect(probe, gpus=velollm_detect_gpus)
    text = documents.dumps("hardware", 1, spec)
    assert documents.loads(text, "hardware", 1, HardwareSpec, "x") == spec


def test_nothing_written_names_user_or_container(planted, nvml, data):
    nvml(fault="LibraryNotFound")
    identifier = "4f5d8a0c1b2e3f405162738495a6b7c8d9eaf0b1c2d3e4f5061728394a5b6c7d"
    files = {"/proc/self/cgroup": f"0::/docker/{identifier}\n"}
    tools = {"amd-smi static --json": Finished(1, "", 'File "/home/ada/venv/bin/amd-smi", line 3')}
    probe = planted(files, tools, environ={"HOME": "/home/ada"})
    text = json.dumps(documents.to_plain(detect(probe, gpus=velollm_detect_gpus)))
    assert "ada" not in text
    assert identifier[:12] not in text


SPEC = HardwareSpec(
    cpu=CpuInfo(
        numa_nodes=(
            NumaNode(id=0, cpus=tuple(range(32)), memory_bytes=32 << 30),
            NumaNode(id=1, cpus=(32,)),
        ),
        model="AMD EPYC 9754",
        architecture="x86_64",
        logical=64,
        physical=32,
        packages=2,
        performance_cores=8,
        efficiency_cores=24,
        instruction_sets=("AVX2", "FMA"),
        caches=(
            CacheInfo(level=1, kind="data", size_bytes=32 << 10, instances=32),
            CacheInfo(level=3, kind="unified", size_bytes=48 << 19, instances=2),
        ),
        usable_cpus=tuple(range(4)),
        quota_cpus=1.5,
    ),
    memory=MemoryInfo(
        total_bytes=64 << 30,
        available_bytes=32 << 30,
        swap_total_bytes=8 << 30,
        limit_bytes=4 << 30,
        limit_used_bytes=1 << 30,
    ),
    os=OsInfo(system="Linux", release="6.8.0", distribution="Ubuntu 24.04"),
    container=ContainerInfo(kind="docker", evidence="/.dockerenv exists"),
    gpus=(
        GpuInfo(
            uuid="GPU-1",
            vendor="nvidia",
            name="NVIDIA GeForce RTX 4090",
            memory_total_bytes=24 << 30,
            memory_free_bytes=23 << 30,
            driver_version="550.127.05",
            runtime_version="CUDA 12.4",
            compute_capability="8.9",
            power_limit_w=450,
            memory_bandwidth_bytes_per_s=1.008e12,
        ),
        GpuInfo(
            uuid="intel:1",
            vendor="intel",
            name="Iris Xe",
            memory_total_bytes=64 << 30,
            unified_memory=True,
        ),
    ),
    notes=("rocm-smi: gave no answer within 2 s and was ended",),
)


def test_the_table_says_what_matters_in_human_units():
    rows = dict(describe(SPEC))
    assert rows["System"] == "Ubuntu 24.04, Linux 6.8.0"
    assert rows["Cores"] == "2 packages, 32 cores, 64 threads; 8 performance + 24 efficiency"
    assert rows["Usable"] == "1.5 of 64 threads (CPU quota and affinity)"
    assert rows["Caches"] == "L1d 32 x 32 KiB, L3 2 x 24 MiB"
    assert rows["Memory"] == "64.0 GiB, 32.0 GiB available"
    assert rows["Memory limit"] == "4.0 GiB (control group), 1.0 GiB of it used"
    assert rows["Swap"] == "8.0 GiB, 0.0 GiB used"
    assert rows["GPU 0"] == (
        "NVIDIA GeForce RTX 4090, 24.0 GiB, 23.0 GiB free, driver 550.127.05, CUDA 12.4, "
        "compute 8.9, limit 450 W, 1008 GB/s peak"
    )
    assert rows["GPU 1"] == "Iris Xe, 64.0 GiB shared with the processor"
    assert rows["Note"] == "rocm-smi: gave no answer within 2 s and was ended"
    assert rows["Container"] == "docker (/.dockerenv exists)"
    assert rows["NUMA nodes"] == "0: 32 processors, 32.0 GiB; 1: 1 processor"


def test_a_plain_machine_has_a_plain_table():
    spec = HardwareSpec(
        cpu=CpuInfo(model="CPU", architecture="arm64", logical=1, physical=1),
        memory=MemoryInfo(total_bytes=1 << 30, available_bytes=1 << 29),
        os=OsInfo(system="Darwin", release="23"),
    )
    rows = dict(describe(spec))
    assert rows["Cores"] == "1 core, 1 thread"
    assert rows["Usable"] == "1 of 1 thread"
    assert rows["GPU"] == "none found"
    for absent in ("Container", "Caches", "NUMA nodes", "Swap", "Memory limit", "Note"):
        assert absent not in rows
    assert "Memory bandwidth" not in rows


def test_the_fingerprint_stays_while_the_machine_does():
    later = evolve(
        SPEC,
        memory=evolve(SPEC.memory, available_bytes=1, swap_used_bytes=7, bandwidth_bytes_per_s=1e9),
        gpus=(evolve(SPEC.gpus[0], memory_free_bytes=5, driver_version="560"), SPEC.gpus[1]),
        notes=(),
    )
    assert fingerprint(later) == fingerprint(SPEC)
    assert len(fingerprint(SPEC)) == 16


@pytest.mark.parametrize(
    "other",
    [
        evolve(SPEC, cpu=evolve(SPEC.cpu, model="AMD EPYC 9654")),
        evolve(SPEC, cpu=evolve(SPEC.cpu, usable=2.0)),
        evolve(SPEC, cpu=evolve(SPEC.cpu, instruction_sets=("AVX2",))),
        evolve(SPEC, memory=evolve(SPEC.memory, total_bytes=32 << 30)),
        evolve(SPEC, gpus=()),
        evolve(SPEC, os=evolve(SPEC.os, system="Windows")),
    ],
)
def test_the_fingerprint_changes_with_the_machine(other):
    assert fingerprint(other) != fingerprint(SPEC)


def measured(threads, **memory):
    cpu = CpuInfo(
        model="CPU",
        architecture="x86_64",
        logical=4,
        physical=2,
        usable_cpus=tuple(range(threads)),
        caches=(CacheInfo(level=2, kind="unified", size_bytes=1 << 20),),
    )
    sizes = {"total_bytes": 8 << 30, "available_bytes": 4 << 30, **memory}
    return measure_bandwidth(cpu, MemoryInfo(**sizes), budget_s=0.1)


def test_bandwidth_is_measured_and_says_how():
    found = measured(4)
    assert 1e8 < found.bytes_per_s < 1e13
    assert found.method.startswith("memmove of 64 MiB, threads: 2, best of ")
    assert found.method.endswith(" passes, bytes read and written")


def test_bandwidth_takes_no_more_than_a_quarter_of_the_memory():
    assert "memmove of 50 MiB" in measured(1, available_bytes=400 << 20).method
    assert measured(1, available_bytes=100 << 20) is None
    assert measured(1, limit_bytes=100 << 20) is None


def test_bandwidth_gives_up_where_memory_runs_out_for_one_thread(monkeypatch):
    have = bandwidth._Copiers._buffer
    refused = iter([True])

    def refuse_once(copiers, value):
        if next(refused, False):
            raise MemoryError
        return have(copiers, value)

    monkeypatch.setattr(bandwidth._Copiers, "_buffer", refuse_once)
    assert measured(2) is None


def test_bandwidth_goes_past_the_caches_that_its_threads_can_fill():
    cpu = CpuInfo(
        model="CPU",
        architecture="x86_64",
        logical=128,
        physical=64,
        quota_cpus=2.0,
        caches=(CacheInfo(level=3, kind="unified", size_bytes=32 << 20, instances=8),),
    )
    memory = MemoryInfo(total_bytes=64 << 30, available_bytes=64 << 30)
    assert "memmove of 256 MiB, threads: 2," in measure_bandwidth(cpu, memory, 0.0).method


def test_measuring_is_on_request_and_its_failure_is_noted(planted, monkeypatch):
    monkeypatch.setattr(bandwidth, "measure_bandwidth", lambda *_: Bandwidth(2e10, "copy"))
    spec = detect(planted(), gpus=NOTHING, measure=True)
    assert (spec.memory.bandwidth_bytes_per_s, spec.memory.bandwidth_method) == (2e10, "copy")
    assert ("Memory bandwidth", "20.0 GB/s (copy)") in describe(spec)
    assert detect(planted(), gpus=NOTHING).memory.bandwidth_bytes_per_s is None
    monkeypatch.setattr(bandwidth, "measure_bandwidth", lambda *_: None)
    spec = detect(planted(), gpus=NOTHING, measure=True)
    assert spec.notes == ("memory bandwidth: too little memory is free to measure it",)


@pytest.mark.parametrize(
    ("quota_cpus", "usable_cpus", "said"),
    [
        (None, (), "8 processors"),
        (1.5, (), "a quota of 1.5 processors"),
        (64.0, (), "8 processors"),
        (4.0, (0, 1), "an affinity mask of 2 of 8 processors"),
        (1.5, (0, 1), "a quota of 1.5 processors and an affinity mask of 2 of 8 processors"),
    ],
)
def test_only_what_leaves_less_than_the_machine_has_is_named_as_a_limit(
    quota_cpus, usable_cpus, said
):
    cpu = evolve(SPEC.cpu, logical=8, quota_cpus=quota_cpus, usable_cpus=usable_cpus)
    assert limits(cpu) == said
