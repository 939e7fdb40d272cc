"""Each thing that holds a machine back is found, it alone, and what is no trouble is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from velollm_core.config import Config, Settings
from velollm_core.doctor.spec import Folder
from velollm_core.hardware.spec import ContainerInfo
from velollm_core.models.spec import Model
from velollm_core.plugins import BrokenPlugin

GIB = 1 << 30


def test_a_clean_machine_has_none_and_everything_was_looked_at(machine):
    told = machine.diagnosis()
    assert [entry for entry in told.checks if entry.findings or entry.unseen] == []
    assert not told.costs_speed
    assert len({entry.code for entry in told.checks}) == len(told.checks) > 15


# Clocks and power


def test_a_governor_that_holds_the_lowest_frequency(machine, paths):
    machine.plant(f"{paths.cpu}/cpu{{}}/cpufreq/scaling_governor", "powersave")
    found = machine.only("cpu-governor")
    assert found.costs_speed
    assert "16 processors" in found.evidence
    assert "0.80 GHz of 4.50 GHz" in found.cost.text


@pytest.mark.parametrize("driver", ["intel_pstate", "amd-pstate-epp"])
def test_powersave_of_a_driver_that_follows_the_load_is_no_finding(machine, paths, driver):
    machine.plant(f"{paths.cpu}/cpu{{}}/cpufreq/scaling_governor", "powersave")
    machine.plant(f"{paths.cpu}/cpu{{}}/cpufreq/scaling_driver", driver)
    name = f"{paths.cpu}/cpu{{}}/cpufreq/energy_performance_preference"
    machine.plant(name, "balance_performance")
    assert machine.findings() == []
    machine.plant(name, "power")
    assert "power on 16 processors" in machine.only("cpu-energy-preference").evidence


@pytest.mark.parametrize("governor", ["performance", "ondemand", "schedutil", "conservative"])
def test_governors_that_reach_the_top_are_no_finding(machine, paths, governor):
    machine.plant(f"{paths.cpu}/cpu{{}}/cpufreq/scaling_governor", governor)
    assert machine.findings() == []


def test_a_cap_on_the_clock(machine, paths):
    machine.plant(f"{paths.cpu}/cpu{{}}/cpufreq/scaling_max_freq", "2250000")
    found = machine.only("cpu-frequency-cap")
    assert "at most 50% of the clock" in found.cost.text
    machine.plant(f"{paths.cpu}/cpu{{}}/cpufreq/scaling_max_freq", "4400000")
    assert machine.findings() == []


def test_a_limit_at_the_nominal_frequency_is_no_cap_where_the_boost_goes_above_it(machine, paths):
    machine.plant(f"{paths.cpu}/cpu{{}}/cpufreq/scaling_max_freq", "3500000")
    name = f"{paths.cpu}/cpu{{}}/cpufreq/scaling_available_frequencies"
    machine.plant(name, "3500000 2800000 2200000")
    assert machine.findings() == []
    machine.plant(f"{paths.cpu}/cpu{{}}/cpufreq/scaling_boost_frequencies", "4500000")
    assert "3.50 GHz of 4.50 GHz" in machine.only("cpu-frequency-cap").evidence


def test_processors_that_this_process_may_not_use_do_not_count(machine, paths):
    machine.plant(f"{paths.cpu}/cpu9/cpufreq/scaling_governor", "powersave")
    machine.cpu = evolve(machine.cpu, usable_cpus=tuple(range(8)), usable=8.0)
    assert machine.findings() == []


def test_turbo_that_is_off(machine, paths):
    machine.plant(paths.turbo, "0")
    assert "echo 1" in machine.only("cpu-turbo-off").advice


def test_turbo_that_is_off_by_intels_switch(machine, paths):
    machine.plant(f"{paths.cpu}/intel_pstate/no_turbo", "1")
    assert "echo 0" in machine.only("cpu-turbo-off").advice


def test_a_processor_without_turbo_has_none_to_switch_on(machine, paths):
    machine.plant(f"{paths.cpu}/intel_pstate/no_turbo", "1")
    machine.plant("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu avx2 ida arat")
    assert machine.only("cpu-turbo-off")
    machine.plant("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu avx2 arat")
    assert machine.findings() == []
    assert "no turbo" in machine.unseen()["cpu-turbo-off"]


def test_energy_saving_of_linux(machine, paths):
    machine.plant(paths.profile, "low-power")
    assert machine.only("energy-saver").costs_speed
    machine.plant(paths.profile, "performance")
    assert machine.findings() == []


def test_energy_saving_of_macos(machine):
    machine.system = "Darwin"
    machine.tools["pmset"] = "Currently in use:\n standby 1\n lowpowermode 1\n sleep 1 (powerd)\n"
    assert "lowpowermode 1" in machine.only("energy-saver").evidence
    machine.tools["pmset"] = "Currently in use:\n lowpowermode 0\n"
    assert machine.findings() == []


def test_energy_saving_of_a_windows_that_speaks_german(machine):
    machine.system = "Windows"
    saver = "GUID des Energieschemas: A1841308-3541-4fab-bc81-f71556f20b4a  (Energiesparmodus)"
    machine.tools["powercfg"] = saver
    assert machine.only("energy-saver").costs_speed
    machine.tools["powercfg"] = saver.replace("A1841308", "381b4222")
    assert machine.findings() == []


def test_a_tool_that_is_missing_is_said_not_guessed(machine):
    machine.system = "Darwin"
    assert machine.findings() == []
    assert machine.unseen()["energy-saver"] == "pmset does not answer"


def test_a_battery(machine):
    machine.activity = evolve(machine.activity, on_battery=True)
    assert machine.only("on-battery").costs_speed
    machine.activity = evolve(machine.activity, on_battery=None)
    assert machine.findings() == []


def test_a_virtual_machine_has_no_frequency_and_no_finding(machine, paths):
    for cpu in range(16):
        for file in (machine.root / f"{paths.cpu}/cpu{cpu}/cpufreq".lstrip("/")).iterdir():
            file.unlink()
    (machine.root / paths.turbo.lstrip("/")).unlink()
    (machine.root / paths.profile.lstrip("/")).unlink()
    assert machine.findings() == []
    assert set(machine.unseen()) == {
        "cpu-governor",
        "cpu-energy-preference",
        "cpu-frequency-cap",
        "cpu-turbo-off",
        "energy-saver",
    }


# Load


def test_a_second_server_at_work(machine):
    machine.run("/usr/bin/llama-server", "-m", "x.gguf", cpus=3.5, rss_bytes=5 * GIB)
    found = machine.only("server-at-work")
    assert found.costs_speed
    assert "llama-server (process 100) uses 3.5 processors" in found.evidence
    assert found.cost.basis == "measured"


def test_a_second_server_that_is_idle_but_holds_a_model_is_a_remark(machine):
    machine.run("ollama", "runner", "--model", "x", rss_bytes=5 * GIB)
    assert not machine.only("server-idle").costs_speed
    assert not machine.diagnosis().costs_speed


def test_a_server_without_a_model_is_in_nobodys_way(machine):
    machine.run("/usr/local/bin/ollama", "serve", rss_bytes=60 << 20)
    assert machine.findings() == []


def test_the_server_that_is_looked_at_is_no_other_one(machine):
    machine.run("llama-server", "-m", "x.gguf", cpus=1.0, rss_bytes=5 * GIB)
    machine.more["engines"] = (evolve(machine.context().engines[0], pids=(100,)),)
    assert machine.findings() == []


def test_a_busy_server_is_not_called_a_foreign_load_as_well(machine):
    machine.run("vllm", "serve", "x", cpus=15.0, rss_bytes=5 * GIB)
    assert machine.only("server-at-work")


def test_other_programs_that_leave_too_little(machine):
    machine.run("/usr/bin/cc1plus", cpus=6.0)
    assert machine.findings() == []  # a desktop in use
    machine.run("/usr/bin/ffmpeg", cpus=7.0)
    found = machine.only("foreign-load")
    assert "ffmpeg (process 101) 7.0, cc1plus (process 100) 6.0" in found.evidence


def test_a_busy_host_is_in_nobodys_way_while_the_container_gets_its_quota(machine):
    machine.cpu = evolve(machine.cpu, quota_cpus=2.0, usable=2.0)
    machine.set(threads=2)
    machine.run("/usr/bin/ffmpeg", cpus=12.0)
    assert machine.findings() == []


def test_swap_that_was_used_long_ago_is_no_finding(machine):
    machine.memory = evolve(machine.memory, swap_used_bytes=5 * GIB)
    assert machine.findings() == []


def test_swapping_now(machine, paths):
    machine.activity = evolve(machine.activity, swapped_bytes=40 << 20, swapped_out_bytes=6 << 20)
    machine.memory = evolve(machine.memory, swap_used_bytes=5 * GIB)
    found = machine.only("swapping")
    assert "40.0 MiB moved" in found.evidence
    assert "read from the disk" in found.cost.text
    machine.plant("/proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 8 5 100")
    assert "disk" not in machine.only("swapping").cost.text


def test_a_program_that_wakes_up_is_no_swapping_while_memory_is_to_be_had(machine):
    machine.activity = evolve(machine.activity, swapped_bytes=40 << 20, swapped_out_bytes=1 << 20)
    assert machine.findings() == []
    machine.memory = evolve(machine.memory, available_bytes=7 * GIB)
    assert machine.only("swapping").statement == "The machine is swapping."


def test_in_a_container_the_host_is_said_to_swap(machine):
    machine.activity = evolve(machine.activity, swapped_bytes=40 << 20, swapped_out_bytes=40 << 20)
    machine.container = ContainerInfo(kind="docker", evidence="/.dockerenv exists")
    found = machine.only("swapping")
    assert found.statement == "The host of this container is swapping."
    assert "its whole host" in found.evidence


def test_swap_in_use_while_memory_is_short(machine):
    machine.memory = evolve(machine.memory, swap_used_bytes=6 * GIB, available_bytes=2 * GIB)
    codes = {code for code, _ in machine.findings()}
    assert codes == {"swapping", "model-memory"}  # nor does the model fit


# Threads


def test_a_quota_below_the_threads_that_the_engine_chooses(machine):
    machine.cpu = evolve(machine.cpu, quota_cpus=2.5, usable=2.5)
    found = machine.only("threads-above-limit")
    assert found.costs_speed
    assert "8 threads (engine default), a quota of 2.5 processors" in found.evidence
    assert "bench --ab threads=2" in found.advice


def test_of_a_large_quota_the_advice_is_what_optimize_proposes(machine):
    more = {"logical": 128, "physical": 64, "quota_cpus": 57.0, "usable": 57.0}
    machine.cpu = evolve(machine.cpu, **more)
    assert "bench --ab threads=56" in machine.only("threads-above-limit").advice


def test_efficiency_cores_are_not_counted_among_the_threads_that_an_engine_chooses(machine):
    machine.cpu = evolve(
        machine.cpu, performance_cores=6, efficiency_cores=2, quota_cpus=6.0, usable=6.0
    )
    assert machine.findings() == []


def test_a_quota_that_the_threads_keep_to_is_no_finding(machine):
    machine.cpu = evolve(machine.cpu, quota_cpus=2.5, usable=2.5)
    machine.set(threads=2)
    assert machine.findings() == []


def test_an_affinity_mask_below_the_threads(machine):
    machine.cpu = evolve(machine.cpu, usable_cpus=(0, 1, 2, 3), usable=4.0)
    machine.set(threads=6)
    assert "6 threads (~/.planted.ini)" in machine.only("threads-above-limit").evidence


def test_threads_above_the_physical_cores(machine):
    machine.set(threads=16)
    assert "8 cores" in machine.only("threads-above-cores").evidence
    machine.set(threads=8)
    assert machine.findings() == []


def test_more_threads_than_the_machine_has(machine):
    machine.set(threads=32)
    assert machine.only("threads-above-limit")


# Settings and memory


def test_settings_that_contradict_each_other(machine):
    machine.set(threads=1, draft=64, spec="ngram")
    assert "draft=64 (~/.planted.ini)" in machine.only("contradictory-settings").evidence


def test_a_setting_that_does_nothing(machine):
    machine.set(draft=16)
    found = machine.only("dead-settings")
    assert "counts only with spec ngram, which is none" in found.evidence
    assert not found.costs_speed


def test_a_model_that_does_not_fit(machine):
    machine.memory = evolve(machine.memory, limit_bytes=3 * GIB)
    found = machine.only("model-memory")
    assert "a limit of 3.0 GiB" in found.evidence
    assert found.advice.startswith("Free memory")
    assert not found.costs_speed


def test_a_server_that_holds_the_memory_which_a_model_lacks_is_named(machine):
    machine.memory = evolve(machine.memory, available_bytes=3 * GIB + (1 << 29))
    machine.run("llama-server-cuda", "-m", "x.gguf", rss_bytes=5 * GIB)
    found = dict(machine.findings())["model-memory"]
    assert "Stop llama-server (process 100, 5.0 GiB), which is idle" in found.advice


def test_a_model_is_named_without_its_folders(machine):
    machine.memory = evolve(machine.memory, limit_bytes=3 * GIB)
    path = Path("/data/alice/m.gguf")
    machine.model = Model(reference=str(path), path=path)
    told = machine.only("model-memory")
    assert told.statement == "The model m.gguf does not fit into memory."


def test_settings_that_cannot_be_read_are_said_not_guessed(machine):
    machine.settings = None
    machine.more["engines"] = (evolve(machine.context().engines[0], fault="x.ini is a folder."),)
    assert machine.findings() == []
    assert machine.unseen()["dead-settings"] == "x.ini is a folder."


def test_an_engine_without_threads_to_set_is_left_alone(machine):
    machine.settings = Settings(config=Config())
    machine.backend.knobs = lambda installation, model: ()
    assert machine.findings() == []


# VeloLLM itself


def test_a_broken_plugin(machine):
    machine.more["broken_plugins"] = (
        BrokenPlugin(
            name="x",
            distribution="velollm-x",
            version="1",
            reason="could not be loaded: it was built for VELOLLM_HOOKS 7, this VeloLLM has 1",
        ),
    )
    found = machine.only("broken-plugins")
    assert "VELOLLM_HOOKS 7" in found.evidence
    assert "velollm-x" in found.advice
    assert not found.costs_speed


def test_a_folder_that_cannot_be_written(machine):
    machine.environ["HOME"] = str(machine.root)
    machine.more["folders"] = (
        Folder(
            purpose="the journal",
            path=machine.root / "x",
            variable="VELOLLM_DATA_DIR",
            obstacle="no permission to write there",
        ),
    )
    found = machine.only("unwritable-folders")
    assert found.evidence.replace("\\", "/") == "~/x: no permission to write there"


def test_a_disk_that_is_all_but_full(machine):
    (folder,) = machine.context().folders
    machine.more["folders"] = (evolve(folder, free_bytes=1 << 20),)
    assert "1 MiB free" in machine.only("disk-space").evidence
