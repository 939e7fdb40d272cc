from __future__ import annotations

import pytest

from velollm_core.hardware.gpu_amd import amd_gpus
from velollm_core.hardware.gpu_apple import apple_gpus
from velollm_core.hardware.gpu_intel import intel_gpus
from velollm_core.hardware.gpu_windows import windows_gpus
from velollm_core.hardware.probe import Finished

STATIC = "amd-smi static --json"
METRIC = "amd-smi metric --mem-usage --json"
ROCM_SMI = "rocm-smi --showproductname --showmeminfo vram --showbus --json"
DISCOVERY = "xpu-smi discovery -j"
PROFILER = "system_profiler SPDisplaysDataType -json"
PCI_IDS = (
    "# a comment\n1002  Advanced Micro Devices, Inc. [AMD/ATI]\n"
    "\t747e  Navi 32 [Radeon RX 7700 XT / 7800 XT]\n\t\t1eae 7801  RX-78TMERCB9\n"
    "\t1586  Strix Halo [Radeon Graphics]\n"
    "8086  Intel Corporation\n\t46a6  Alder Lake-P GT2 [Iris Xe Graphics]\n\t56a0  DG2 [Arc A770]\n"
)
APU_METRICS = bytes([0x88, 0, 3, 0]) + bytes(132)
CARD_METRICS = bytes([0x78, 0, 1, 3]) + bytes(116)


def test_amd_smi_of_rocm_7_tells_every_card(planted, data):
    tools = {
        STATIC: data("amd-smi/static-rocm7.json"),
        METRIC: data("amd-smi/metric-rocm7.json"),
    }
    probe = planted({"/opt/rocm/.info/version": "7.0.2-56\n"}, tools)
    first, second = amd_gpus(probe)
    assert (first.uuid, first.name) == ("amd:0000:03:00.0", "AMD Radeon RX 7800 XT")
    assert (first.memory_total_bytes, first.memory_free_bytes) == (16368 << 20, 15000 << 20)
    assert (first.driver_version, first.runtime_version) == ("6.12.12", "ROCm 7.0.2-56")
    assert first.compute_capability == "gfx1101"
    assert (second.uuid, second.name, second.index) == ("amd:0000:0f:00.0", "Raphael", 1)
    assert (second.memory_total_bytes, second.memory_free_bytes) == (512 << 20, None)
    assert probe.notes == []


def test_amd_smi_of_rocm_6_4_leaves_free_memory_to_be_reckoned(planted, data):
    tools = {
        STATIC: data("amd-smi/static-rocm64.json"),
        METRIC: data("amd-smi/metric-rocm64.json"),
    }
    (gpu,) = amd_gpus(planted(tools=tools))
    assert (gpu.name, gpu.compute_capability) == ("AMD Instinct MI300X", "gfx942")
    assert (gpu.memory_total_bytes, gpu.memory_free_bytes) == (196592 << 20, 196000 << 20)


def test_amd_smi_of_rocm_6_0_is_read_past_its_warnings(planted, data):
    (gpu,) = amd_gpus(planted(tools={STATIC: data("amd-smi/static-rocm60-warnings.json")}))
    assert (gpu.uuid, gpu.name) == ("amd:0000:c3:00.0", "AMD Radeon PRO W7900")
    assert (gpu.memory_total_bytes, gpu.driver_version) == (49136 << 20, "6.3.6")


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("rocm6.json", ("amd:0000:2f:00.0", "Radeon RX 7900 XT", 21458059264, 21430202368)),
        ("rocm5-warning.json", ("amd:0000:e7:00.0", "Instinct MI210", 68702699520, 68691738624)),
    ],
)
def test_rocm_smi_is_asked_where_amd_smi_is_missing(planted, data, file, expected):
    (gpu,) = amd_gpus(planted(tools={ROCM_SMI: data(f"rocm-smi/{file}")}))
    found = (gpu.uuid, gpu.name, gpu.memory_total_bytes, gpu.memory_free_bytes)
    assert (found, gpu.source) == (expected, "rocm-smi")


def test_rocm_smi_is_asked_where_amd_smi_fails(planted, data):
    tools = {
        STATIC: Finished(1, "", "libamd_smi.so not found"),
        ROCM_SMI: data("rocm-smi/rocm6.json"),
    }
    probe = planted(tools=tools)
    assert len(amd_gpus(probe)) == 1
    assert "amd-smi: failed with exit code 1: libamd_smi.so not found" in probe.notes


def test_where_amd_smi_hangs_the_files_tell_and_rocm_smi_is_spared(planted, drm_card):
    files = drm_card(0, "1002:747E", "0000:03:00.0", "amdgpu", mem_info_vram_total="17163091968")
    tools = {STATIC: TimeoutError(), METRIC: TimeoutError(), ROCM_SMI: AssertionError("asked")}
    probe = planted(files, tools)
    (gpu,) = amd_gpus(probe)
    assert gpu.memory_total_bytes == 17163091968
    assert probe.notes == ["amd-smi: gave no answer within 2 s and was ended"]


@pytest.mark.parametrize("answer", ["", "not json", "{", "[1, 2]", '{"gpu_data": 7}', "null"])
def test_what_is_no_answer_gives_no_card(planted, answer):
    tools = {STATIC: answer, METRIC: answer}
    assert amd_gpus(planted(tools=tools)) == ()
    assert amd_gpus(planted(tools={ROCM_SMI: answer})) == ()


def test_an_answer_that_is_no_json_is_named(planted):
    probe = planted(tools={STATIC: "Segmentation fault", METRIC: "[]"})
    assert amd_gpus(probe) == ()
    assert probe.notes == ["amd-smi: its answer could not be read"]


def test_files_and_tool_describe_one_card_once(planted, data, drm_card):
    files = drm_card(
        1,
        "1002:747E",
        "0000:03:00.0",
        "amdgpu",
        mem_info_vram_total="17163091968\n",
        mem_info_vram_used="163091968\n",
        gpu_metrics=CARD_METRICS,
        hwmon__hwmon3__power1_cap="245000000\n",
    )
    files["/usr/share/misc/pci.ids"] = PCI_IDS
    tools = {STATIC: data("amd-smi/static-rocm7.json"), METRIC: data("amd-smi/metric-rocm7.json")}
    first, second = amd_gpus(planted(files, tools))
    assert first.name == "AMD Radeon RX 7800 XT"
    assert (first.memory_total_bytes, first.memory_free_bytes) == (17163091968, 17000000000)
    assert (first.power_limit_w, first.unified_memory) == (245, False)
    assert first.source == "sysfs+amd-smi"
    assert second.name == "Raphael"


def test_files_alone_name_the_card_from_the_systems_table(planted, drm_card):
    files = drm_card(0, "1002:747E", "0000:03:00.0", "amdgpu")
    (gpu,) = amd_gpus(planted({**files, "/usr/share/hwdata/pci.ids": PCI_IDS}))
    assert gpu.name == "Navi 32 [Radeon RX 7700 XT / 7800 XT]"
    (gpu,) = amd_gpus(planted({**files, "/usr/share/hwdata/pci.ids": "1002  AMD\n"}))
    assert gpu.name == "AMD card 747e"


def test_an_apus_memory_is_the_carve_out_and_what_it_may_map(planted, drm_card):
    files = drm_card(
        0,
        "1002:1586",
        "0000:c4:00.0",
        "amdgpu",
        mem_info_vram_total=str(1 << 30),
        mem_info_vram_used=str(1 << 29),
        mem_info_gtt_total=str(60 << 30),
        mem_info_gtt_used=str(1 << 29),
        gpu_metrics=APU_METRICS,
    )
    (gpu,) = amd_gpus(planted({**files, "/usr/share/hwdata/pci.ids": PCI_IDS}))
    assert gpu.unified_memory
    assert (gpu.memory_total_bytes, gpu.memory_free_bytes) == (61 << 30, 60 << 30)


def test_a_container_without_the_devices_does_not_claim_the_hosts_cards(planted, drm_card):
    files = drm_card(0, "1002:747E", "0000:03:00.0", "amdgpu")
    del files["/dev/dri/renderD128"]
    probe = planted(files)
    assert amd_gpus(probe) == ()
    assert probe.notes == [
        "/dev/dri: has no device for the card at 0000:03:00.0, so it cannot be used from here"
    ]


def test_an_arc_card_and_integrated_graphics_are_told_apart(planted, data, drm_card):
    files = {
        **drm_card(0, "8086:46A6", "0000:00:02.0", "i915"),
        **drm_card(
            1, "8086:56A0", "0000:03:00.0", "xe", tile0__physical_vram_size_bytes="17079205888"
        ),
        "/usr/share/misc/pci.ids": PCI_IDS,
        "/proc/meminfo": "MemTotal: 32000000 kB\nMemAvailable: 20000000 kB\n",
    }
    tools = {
        DISCOVERY: data("xpu-smi/discovery.json"),
        "xpu-smi discovery -d 0 -j": data("xpu-smi/device-0.json"),
    }
    probe = planted(files, tools)
    integrated, card = intel_gpus(probe)
    assert integrated.name == "Alder Lake-P GT2 [Iris Xe Graphics]"
    assert integrated.unified_memory
    assert integrated.memory_total_bytes == 32000000 << 10
    assert integrated.memory_free_bytes == 20000000 << 10
    assert (card.uuid, card.name) == ("intel:0000:03:00.0", "Intel(R) Arc(TM) A770 Graphics")
    assert (card.memory_total_bytes, card.memory_free_bytes) == (17079205888, 15900000256)
    assert (card.driver_version, card.unified_memory) == ("1.3.30049", False)
    assert card.source == "sysfs+xpu-smi"
    assert probe.notes == []


def test_the_older_driver_tells_local_memory_of_the_whole_card(planted, drm_card):
    files = drm_card(1, "8086:56A0", "0000:03:00.0", "i915")
    files["/sys/class/drm/card1/lmem_total_bytes"] = "16225243136\n"
    (gpu,) = intel_gpus(planted(files))
    assert (gpu.name, gpu.memory_total_bytes) == ("Intel graphics 56a0", 16225243136)


def test_xpu_smi_alone_tells_a_card(planted, data):
    tools = {
        DISCOVERY: data("xpu-smi/discovery.json"),
        "xpu-smi discovery -d 0 -j": data("xpu-smi/device-0.json"),
    }
    (gpu,) = intel_gpus(planted(tools=tools))
    assert (gpu.memory_total_bytes, gpu.memory_free_bytes) == (16225243136, 15900000256)


@pytest.mark.parametrize("answer", ["", "{}", "[]", '{"device_list": {}}', "noise", "[[[["])
def test_xpu_smi_without_a_list_gives_no_card(planted, answer):
    assert intel_gpus(planted(tools={DISCOVERY: answer})) == ()


def test_an_error_of_xpu_smi_is_no_card(planted, data):
    assert intel_gpus(planted(tools={DISCOVERY: data("xpu-smi/error.json")})) == ()


def test_an_apple_chip_shares_the_main_memory(planted, data):
    probe = planted(tools={PROFILER: data("system_profiler/m3-pro.json")}, system="Darwin")
    (gpu,) = apple_gpus(probe)
    assert (gpu.vendor, gpu.name, gpu.unified_memory) == ("apple", "Apple M3 Pro (18 cores)", True)
    assert (gpu.memory_total_bytes, gpu.memory_free_bytes) == (36 << 30, 20 << 30)
    assert gpu.runtime_version == "Metal 3"


def test_an_intel_mac_in_french_shows_both_graphics(planted, data):
    tools = {PROFILER: data("system_profiler/macbook-2019-french.json")}
    integrated, card = apple_gpus(planted(tools=tools, system="Darwin"))
    assert (integrated.vendor, integrated.unified_memory) == ("intel", True)
    assert (card.vendor, card.name) == ("amd", "AMD Radeon Pro 5500M")
    assert (card.memory_total_bytes, card.unified_memory) == (8 << 30, False)
    assert integrated.uuid != card.uuid


@pytest.mark.parametrize("answer", ["", "{}", '{"SPDisplaysDataType": "none"}', "\x00"])
def test_a_profiler_that_says_nothing_is_named(planted, answer):
    probe = planted(tools={PROFILER: answer}, system="Darwin")
    assert apple_gpus(probe) == ()
    assert probe.notes == ["system_profiler: its answer could not be read"]


def test_a_profiler_that_hangs_is_named(planted):
    probe = planted(tools={PROFILER: TimeoutError()}, system="Darwin")
    assert apple_gpus(probe) == ()
    assert probe.notes == ["system_profiler: gave no answer within 2 s and was ended"]


DISPLAYS = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"


def test_windows_tells_amd_and_intel_graphics_from_the_registry(planted):
    registry = {
        rf"{DISPLAYS}\0000": {
            "DriverDesc": "AMD Radeon RX 7900 XTX",
            "MatchingDeviceId": r"pci\ven_1002&dev_744c",
            "DriverVersion": "32.0.12019.1028",
            "HardwareInformation.qwMemorySize": 25753026560,
        },
        rf"{DISPLAYS}\0001": {
            "DriverDesc": "Intel(R) UHD Graphics 770",
            "MatchingDeviceId": r"PCI\VEN_8086&DEV_4680",
            "HardwareInformation.qwMemorySize": 134217728,
        },
        rf"{DISPLAYS}\0002": {
            "DriverDesc": "NVIDIA GeForce RTX 4090",
            "MatchingDeviceId": r"pci\ven_10de&dev_2684",
        },
        rf"{DISPLAYS}\0003": {"DriverDesc": "Microsoft Remote Display Adapter"},
        rf"{DISPLAYS}\Properties": {},
    }
    amd, intel = windows_gpus(planted(system="Windows", registry=registry))
    assert (amd.vendor, amd.name) == ("amd", "AMD Radeon RX 7900 XTX")
    assert (amd.memory_total_bytes, amd.driver_version) == (25753026560, "32.0.12019.1028")
    assert (intel.vendor, intel.memory_total_bytes) == ("intel", 134217728)


@pytest.mark.parametrize("detector", [amd_gpus, intel_gpus])
@pytest.mark.parametrize("system", ["Darwin", "Windows"])
def test_linux_detectors_keep_silent_elsewhere(planted, detector, system):
    assert detector(planted(system=system)) == ()


@pytest.mark.parametrize("detector", [apple_gpus, windows_gpus])
def test_detectors_of_other_systems_keep_silent_on_linux(planted, detector):
    assert detector(planted()) == ()
