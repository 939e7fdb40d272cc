from __future__ import annotations

import os
import threading
import types

import pytest

from velollm_core.hardware.gpu_nvidia import nvidia_gpus
from velollm_core.hardware.probe import Finished

QUERY = (
    "nvidia-smi --query-gpu=index,uuid,name,driver_version,memory.total,memory.free,power.limit,"
    "mig.mode.current --format=csv,noheader,nounits"
)
CAPABILITY = "nvidia-smi --query-gpu=uuid,compute_cap --format=csv,noheader,nounits"
H100 = {
    "name": "NVIDIA H100 80GB HBM3",
    "uuid": "GPU-90c1b8de-77aa-4c4e-8a55-0d3c1f5e7a10",
    "memory": types.SimpleNamespace(total=85520809984, free=85014872064),
    "capability": (9, 0),
    "limit_mw": 700000,
    "clock_mhz": 2619,
    "width_bits": 5120,
    "mig": [0, 0],
}


def test_the_library_tells_everything_of_a_card(planted, nvml):
    probe = planted()
    (gpu,) = nvidia_gpus(probe, nvml([H100]))
    assert (gpu.vendor, gpu.name, gpu.uuid) == ("nvidia", H100["name"], H100["uuid"])
    assert (gpu.memory_total_bytes, gpu.memory_free_bytes) == (85520809984, 85014872064)
    assert (gpu.driver_version, gpu.runtime_version) == ("550.127.05", "CUDA 12.4")
    assert (gpu.compute_capability, gpu.power_limit_w) == ("9.0", 700)
    # 3.35 TB/s is what NVIDIA's data sheet gives for this card.
    assert gpu.memory_bandwidth_bytes_per_s == pytest.approx(3.35e12, rel=0.001)
    assert (gpu.unified_memory, gpu.source) == (False, "NVML")
    assert probe.notes == []


def test_a_card_that_supports_nothing_is_still_a_card(planted, nvml):
    (gpu,) = nvidia_gpus(planted(), nvml([{"name": "Quadro NVS 295"}]))
    assert (gpu.name, gpu.uuid) == ("Quadro NVS 295", "nvidia:0")
    assert gpu.memory_total_bytes is None
    assert gpu.power_limit_w is None
    assert gpu.compute_capability is None


def test_a_card_that_fell_off_the_bus_is_named_and_the_others_stay(planted, nvml):
    probe = planted()
    (gpu,) = nvidia_gpus(probe, nvml([None, H100]))
    assert gpu.index == 1
    assert probe.notes == ["NVML: card 0 does not answer"]


def test_a_card_split_by_mig_shows_its_instances(planted, nvml):
    instance = {
        "name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "uuid": "MIG-0ab3c1de-1111-5222-8333-944455566677",
        "memory": types.SimpleNamespace(total=10200547328, free=10187964416),
        "clock_mhz": 2619,
        "width_bits": 5120,
    }
    card = {**H100, "mig": [1, 1], "instances": [instance, None]}
    (gpu,) = nvidia_gpus(planted(), nvml([card]))
    assert gpu.uuid.startswith("MIG-")
    assert gpu.memory_total_bytes == 10200547328
    assert gpu.memory_bandwidth_bytes_per_s is None


def test_a_split_card_without_instances_is_shown_whole(planted, nvml):
    (gpu,) = nvidia_gpus(planted(), nvml([{**H100, "mig": [1, 1], "instances": []}]))
    assert gpu.uuid == H100["uuid"]


def test_a_chip_that_shares_the_hosts_memory_says_so(planted, nvml):
    files = {"/proc/meminfo": "MemTotal: 125000000 kB\nMemAvailable: 110000000 kB\n"}
    card = {"name": "NVIDIA GB10", "uuid": "GPU-1", "capability": (12, 1)}
    (gpu,) = nvidia_gpus(planted(files, machine="aarch64"), nvml([card]))
    assert gpu.unified_memory
    assert gpu.memory_total_bytes == 125000000 << 10
    assert gpu.memory_free_bytes == 110000000 << 10


def test_variables_that_hide_cards_are_pointed_out(planted, nvml):
    probe = planted(environ={"CUDA_VISIBLE_DEVICES": ""})
    assert len(nvidia_gpus(probe, nvml([H100]))) == 1
    assert probe.notes == ["CUDA_VISIBLE_DEVICES: is '': a program sees only the cards it names"]


def by_tool(planted, nvml, cards, **more):
    tools = {QUERY: cards, **more.pop("tools", {})}
    probe = planted(tools=tools, **more)
    return nvidia_gpus(probe, nvml(fault="LibraryNotFound")), probe.notes


def test_without_the_library_the_tool_tells(planted, nvml, data):
    more = {
        CAPABILITY: data("nvidia-smi/two-cards-capability.csv"),
        "nvidia-smi": data("nvidia-smi/summary.txt"),
    }
    gpus, notes = by_tool(planted, nvml, data("nvidia-smi/two-cards.csv"), tools=more)
    assert [gpu.name for gpu in gpus] == ["NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 3060"]
    assert [gpu.memory_total_bytes for gpu in gpus] == [24564 << 20, 12288 << 20]
    assert [gpu.memory_free_bytes for gpu in gpus] == [23912 << 20, 11900 << 20]
    assert [gpu.compute_capability for gpu in gpus] == ["8.9", "8.6"]
    assert [gpu.power_limit_w for gpu in gpus] == [450, 170]
    assert {gpu.runtime_version for gpu in gpus} == {"CUDA 12.4"}
    assert {gpu.driver_version for gpu in gpus} == {"550.127.05"}
    assert notes == []


def test_an_old_tool_that_knows_no_capability_tells_the_rest(planted, nvml, data):
    gpus, notes = by_tool(planted, nvml, data("nvidia-smi/two-cards.csv"))
    assert [gpu.compute_capability for gpu in gpus] == [None, None]
    assert notes == []


def test_values_that_are_not_supported_are_unknown(planted, nvml, data):
    (gpu,), notes = by_tool(planted, nvml, data("nvidia-smi/unsupported.csv"))
    assert gpu.name == "Tesla K80"
    assert gpu.memory_total_bytes is None
    assert gpu.memory_free_bytes is None
    assert gpu.power_limit_w is None
    assert notes == []


def test_the_tool_knows_shared_memory_too(planted, nvml, data):
    (gpu,), _ = by_tool(planted, nvml, data("nvidia-smi/gb10.csv"), machine="aarch64")
    assert gpu.unified_memory
    assert gpu.memory_total_bytes == 36 << 30


def test_the_tool_names_a_card_that_is_split(planted, nvml, data):
    (gpu,), notes = by_tool(planted, nvml, data("nvidia-smi/mig.csv"))
    assert gpu.memory_total_bytes == 81559 << 20
    assert notes == ["nvidia-smi: card 0 is split by MIG; its instances need NVML"]


def test_of_a_broken_answer_the_whole_lines_count(planted, nvml, data):
    gpus, notes = by_tool(planted, nvml, data("nvidia-smi/broken.csv"))
    assert [gpu.index for gpu in gpus] == [0]
    assert len(notes) == 1
    assert "nvidia-smi: a line could not be read: '1, GPU-" in notes[0]


def test_a_decimal_comma_is_read(planted, nvml, data):
    (gpu,), _ = by_tool(planted, nvml, data("nvidia-smi/decimal-comma.csv"))
    assert gpu.power_limit_w == 450


@pytest.mark.parametrize("answer", ["", "gibberish\n", "\0\0"])
def test_an_answer_that_says_nothing_is_named(planted, nvml, answer):
    gpus, notes = by_tool(planted, nvml, answer)
    assert gpus == ()
    assert notes == ["nvidia-smi: its answer could not be read"]


def test_no_devices_is_no_fault(planted, nvml):
    assert by_tool(planted, nvml, "No devices were found\n") == ((), [])


@pytest.mark.skipif(os.name != "posix", reason="PCI addresses are no file names on Windows")
def test_a_driver_that_is_not_loaded_is_named(planted, nvml):
    failed = Finished(9, "NVIDIA-SMI has failed: it couldn't reach the driver.\n")
    bus = "/sys/bus/pci/devices/0000:01:00"
    files = {
        f"{bus}.0/vendor": "0x10de\n",
        f"{bus}.0/class": "0x030000\n",
        f"{bus}.1/vendor": "0x10de\n",
        f"{bus}.1/class": "0x040300\n",
    }
    probe = planted(files, {QUERY: failed})
    assert nvidia_gpus(probe, nvml(fault="DriverNotLoaded")) == ()
    assert probe.notes == [
        "NVML: NVMLError_DriverNotLoaded: DriverNotLoaded",
        "nvidia-smi: failed with exit code 9: NVIDIA-SMI has failed: it couldn't reach the driver.",
        "NVIDIA: the card at 0000:01:00.0 cannot be used: its driver does not answer",
    ]


def test_a_library_that_hangs_is_named_and_the_tool_is_spared(planted, nvml):
    freed = threading.Event()
    probe = planted(tools={QUERY: TimeoutError()})
    probe.timeout_s = 0.05
    assert nvidia_gpus(probe, nvml(fault=freed.wait)) == ()
    freed.set()
    assert probe.notes == ["NVML: gave no answer within 0.05 s"]


def test_a_machine_without_nvidia_is_no_news(planted, nvml):
    probe = planted()
    assert nvidia_gpus(probe, nvml(fault="LibraryNotFound")) == ()
    assert probe.notes == []
