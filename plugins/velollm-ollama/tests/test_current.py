"""Whose settings count: each value with its place, and what is set without any effect."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attrs import evolve
from velollm_ollama import settings
from velollm_ollama.believed import BELIEVED
from velollm_ollama.knobs import BY_NAME, BY_VARIABLE, ENTRIES, knobs
from velollm_ollama.sources import environment_file, split, units

from velollm_core.backends.contract import Installation
from velollm_core.config import ENGINE_DEFAULT, problems
from velollm_core.hardware.probe import Finished, Probe
from velollm_core.hardware.spec import GpuInfo
from velollm_core.models.spec import Model, ModelSpec

GIB = 1 << 30
SERVER = Installation(backend="ollama", kind="server", location="http://127.0.0.1:11434")
ELSEWHERE = evolve(SERVER, location="http://192.168.1.9:11434")
PRIVATE = Installation(backend="ollama", kind="binary", location="/usr/local/bin/ollama")
EXPERIMENTAL = evolve(PRIVATE, options={"experimental": "on"})
UNIT = """
[Unit]
Description=Ollama Service
Environment=OLLAMA_NUM_PARALLEL=9

[Service]
ExecStart=/usr/local/bin/ollama serve
User=ollama
Environment="PATH=/usr/bin:/bin"
Environment="OLLAMA_NUM_PARALLEL=2"
"""
DROP_IN = "/etc/systemd/system/ollama.service.d"


def spec_of(architecture="llama", context_length=131072):
    return ModelSpec(
        architecture=architecture,
        parameter_count=8_000_000_000,
        layers=32,
        embedding_length=4096,
        context_length=context_length,
    )


def model_of(**about):
    return Model(reference="llama3", served_name="llama3", spec=spec_of(**about))


def card(gib, vendor="nvidia", **more):
    return GpuInfo(
        uuid=f"{vendor}-{gib}", vendor=vendor, name="card", memory_total_bytes=gib * GIB, **more
    )


class Machine:
    def __init__(self, root):
        self.root = root
        self.system = "Linux"
        self.environ = {"HOME": "/home/somebody"}
        self.tools = {}
        self.asked = []
        self.gpus = ()
        self.parameters = ""
        self.model = model_of()

    def plant(self, path, text):
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode())

    def runs(self, pid, **variables):
        self.plant(f"/proc/{pid}/environ", "".join(f"{k}={v}\0" for k, v in variables.items()))

    def execute(self, argv, timeout_s, environ):
        self.asked.append(tuple(argv))
        if argv[0] not in self.tools:
            raise FileNotFoundError(argv[0])
        return Finished(0, self.tools[argv[0]](*argv[1:]))

    @property
    def probe(self):
        return Probe(root=self.root, system=self.system, environ=self.environ, execute=self.execute)

    def current(self, installation=PRIVATE, pid=None):
        told = settings.current(
            installation,
            self.model,
            self.environ,
            self.gpus,
            self.parameters,
            probe=self.probe,
            pid=pid,
        )
        assert problems(knobs(installation, self.model), told.config) == ()
        assert set(told.config) <= set(told.origins)
        return told


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "machine")


def left_out(told):
    return {entry.name: (entry.origin, entry.reason) for entry in told.left_out}


# What Ollama does by itself


def test_defaults_are_complete_and_nobodys(machine):
    told = settings.defaults(PRIVATE, machine.model, ())
    assert set(told.config) == {entry.knob.name for entry in ENTRIES}
    assert set(told.origins.values()) == {ENGINE_DEFAULT}
    assert problems(knobs(PRIVATE, machine.model), told.config) == ()


@pytest.mark.parametrize(
    ("gpus", "tokens"),
    [
        ((), 4096),
        ((card(8),), 4096),
        ((card(16),), 4096),
        ((card(24),), 32768),
        ((card(12), card(12)), 32768),
        ((card(80),), 131072),
        ((card(48, "amd"),), 131072),
        ((card(64, "amd", unified_memory=True),), 4096),
        ((card(16, "apple", unified_memory=True),), 4096),
        ((card(64, "apple", unified_memory=True),), 131072),
    ],
)
def test_the_context_goes_by_the_memory_of_all_gpus_and_the_models_training(gpus, tokens):
    told = settings.defaults(PRIVATE, model_of(), gpus)
    assert told.config["num_ctx"] == tokens


def test_a_large_machine_takes_the_largest_context():
    told = settings.defaults(PRIVATE, model_of(context_length=1 << 20), (card(80),))
    assert told.config["num_ctx"] == 262144


def test_memory_that_is_kept_free_counts_for_the_context(machine):
    machine.gpus = (card(24),)
    machine.environ["OLLAMA_GPU_OVERHEAD"] = str(2 * GIB)
    assert machine.current().config["num_ctx"] == 4096


def test_defaults_take_back_what_the_model_brings_where_that_can_be_said(machine):
    told = settings.defaults(PRIVATE, machine.model, (), "num_ctx  16384\nnum_batch  256")
    assert told.config["num_ctx"] == 4096
    assert told.origins["num_ctx"] == "engine default, over PARAMETER num_ctx of the model"
    assert told.config["num_batch"] == 256
    assert left_out(told)["num_batch"][0] == "PARAMETER num_batch of the model"


# This shell


def test_every_knob_has_a_value(machine):
    for installation in (PRIVATE, SERVER, ELSEWHERE):
        told = machine.current(installation)
        assert set(told.config) == {knob.name for knob in knobs(installation, machine.model)}


def test_the_variables_of_this_shell(machine):
    machine.environ |= {"OLLAMA_NUM_PARALLEL": "'4'", "OLLAMA_KEEP_ALIVE": "1h30m"}
    told = machine.current()
    assert (told.config["num_parallel"], told.config["keep_alive"]) == (4, 5400)
    assert told.origins["num_parallel"] == "environment OLLAMA_NUM_PARALLEL"
    assert told.origins["max_queue"] == ENGINE_DEFAULT


def test_the_context_of_the_server_is_the_context(machine):
    machine.environ["OLLAMA_CONTEXT_LENGTH"] = "16384"
    told = machine.current()
    assert told.config["num_ctx"] == 16384
    assert told.origins["num_ctx"] == "environment OLLAMA_CONTEXT_LENGTH"


def test_the_models_own_context_is_stronger(machine):
    machine.environ["OLLAMA_CONTEXT_LENGTH"] = "16384"
    machine.parameters = 'num_ctx                        8192\nstop    "<|end|>"\nuse_mmap false'
    told = machine.current()
    assert told.config["num_ctx"] == 8192
    assert told.origins["num_ctx"] == "PARAMETER num_ctx of the model"
    assert told.config["use_mmap"] == "off"


@pytest.mark.parametrize("words", ["1e+06", "1000000"])
def test_parameters_are_numbers_as_go_prints_them(machine, words):
    machine.parameters = f"num_ctx {words}\nnum_gpu many\nnum_thread 99999\nunknown 1"
    told = machine.current()
    assert told.config["num_ctx"] == 1_000_000
    assert (told.config["num_gpu"], told.config["num_thread"]) == (-1, 0)


def test_a_bad_number_is_left_out_with_the_default_that_counts(machine):
    machine.environ["OLLAMA_NUM_PARALLEL"] = "four"
    told = machine.current()
    assert told.config["num_parallel"] == 1
    assert left_out(told)["OLLAMA_NUM_PARALLEL"] == (
        "environment OLLAMA_NUM_PARALLEL",
        "'four' is no number: the default 1 is taken",
    )


def test_flash_attention_off_in_words_is_on(machine):
    machine.environ["OLLAMA_FLASH_ATTENTION"] = "off"
    told = machine.current()
    assert told.config["flash_attention"] == "on"
    assert "counts as true" in told.origins["flash_attention"]


@pytest.mark.parametrize(("name", "option"), BELIEVED.items())
def test_a_believed_variable_is_named_with_where_the_setting_lives(machine, name, option):
    machine.environ[name] = "8"
    for installation in (PRIVATE, SERVER, ELSEWHERE):
        told = machine.current(installation)
        assert told.origins[option] == ENGINE_DEFAULT
        reason = left_out(told)[name][1]
        assert reason.startswith("Ollama does not read it")
        assert f"PARAMETER {option} 8 in a Modelfile" in reason
    assert name not in BY_VARIABLE


def test_choices_of_devices_are_passed_on_and_doors_are_not(machine):
    machine.environ |= {
        "CUDA_VISIBLE_DEVICES": "1",
        "OLLAMA_ORIGINS": "*",
        "OLLAMA_HOST": "0.0.0.0",
        "OLLAMA_NEWEST": "1",
        "LLAMA_ARG_TOOLS": "all",
        "LLAMA_ARG_SPEC_TYPE": "ngram-mod",
    }
    told = machine.current()
    assert told.extra_env == {"CUDA_VISIBLE_DEVICES": "1"}
    assert told.origins["CUDA_VISIBLE_DEVICES"] == "environment CUDA_VISIBLE_DEVICES"
    assert set(left_out(told)) == {
        "OLLAMA_ORIGINS",
        "OLLAMA_NEWEST",
        "LLAMA_ARG_TOOLS",
        "LLAMA_ARG_SPEC_TYPE",
    }
    assert machine.current(SERVER).extra_env == {}


def test_a_family_that_takes_one_request_at_a_time_has_no_more(machine):
    machine.model = model_of(architecture="qwen3vl")
    machine.environ["OLLAMA_NUM_PARALLEL"] = "4"
    told = machine.current()
    assert told.config["num_parallel"] == 1
    assert "one request at a time" in left_out(told)["num_parallel"][1]


def test_what_reaches_llama_cpp_is_looked_at_for_who_asks(machine):
    machine.environ |= {"LLAMA_ARG_SPEC_TYPE": "ngram-mod", "LLAMA_ARG_CACHE_RAM": "64MB"}
    machine.plant("/etc/llama.cpp/config.ini", "[*]\nspec-ngram-mod-n-max = 9\n")
    machine.plant(
        "/home/somebody/.config/llama.cpp/config.ini",
        "spec-ngram-mod-n-max = 32 ; stronger\n[*]\nspec-ngram-mod-n-max = 8\n"
        "[x]\nthreads-batch = 7\n",
    )
    told = machine.current(EXPERIMENTAL)
    assert told.config["spec_type"] == "ngram-mod"
    assert told.origins["spec_type"] == "environment LLAMA_ARG_SPEC_TYPE"
    assert told.config["ngram_mod_n_max"] == 32
    assert told.origins["ngram_mod_n_max"] == "~/.config/llama.cpp/config.ini"
    assert (told.config["threads_batch"], told.config["cache_ram"]) == (0, 8192)
    assert "is no number" in left_out(told)["LLAMA_ARG_CACHE_RAM"][1]
    assert "spec_type" not in machine.current().config


# Units of systemd


def test_a_unit_and_its_drop_ins_in_their_order(machine):
    machine.plant("/etc/systemd/system/ollama.service", UNIT)
    machine.plant(f"{DROP_IN}/b.conf", "[Service]\nEnvironment=OLLAMA_KEEP_ALIVE=1h\n")
    machine.plant(
        f"{DROP_IN}/a.conf",
        "[Service]\nEnvironment='OLLAMA_NUM_PARALLEL=3' OLLAMA_KEEP_ALIVE=2h \\\n"
        "# a comment in between\n  OLLAMA_MAX_QUEUE=7\n",
    )
    machine.plant(f"{DROP_IN}/c.txt", "[Service]\nEnvironment=OLLAMA_NUM_PARALLEL=8\n")
    told = machine.current()
    assert told.config["num_parallel"] == 3
    assert told.origins["num_parallel"] == f"{DROP_IN}/a.conf"
    assert told.config["keep_alive"] == 3600
    assert told.config["max_queue"] == 7


def test_a_line_that_systemd_cannot_read_changes_nothing(machine):
    machine.plant("/etc/systemd/system/ollama.service", UNIT)
    machine.plant(f"{DROP_IN}/a.conf", '[Service]\nEnvironment="OLLAMA_NUM_PARALLEL=7\n')
    assert machine.current().config["num_parallel"] == 2


def test_an_empty_environment_forgets_what_was_before(machine):
    machine.plant("/etc/systemd/system/ollama.service", UNIT)
    machine.plant(f"{DROP_IN}/a.conf", "[Service]\nEnvironment=\n")
    assert machine.current().config["num_parallel"] == 1


def test_a_file_of_variables_wins_over_lines_of_the_unit(machine):
    machine.plant("/usr/lib/systemd/system/ollama.service", f"{UNIT}EnvironmentFile=-/etc/ollama\n")
    machine.plant("/etc/ollama", '# mine\nOLLAMA_NUM_PARALLEL="5"\nOLLAMA_MAX_QUEUE=3 \n')
    told = machine.current()
    assert (told.config["num_parallel"], told.config["max_queue"]) == (5, 3)
    assert told.origins["num_parallel"] == "/etc/ollama"


def test_variables_that_a_unit_unsets_are_not_there(machine):
    machine.plant("/etc/systemd/system/ollama.service", UNIT)
    machine.plant(f"{DROP_IN}/a.conf", "[Service]\nUnsetEnvironment=OLLAMA_NUM_PARALLEL\n")
    assert machine.current().config["num_parallel"] == 1


def test_a_drop_in_of_the_administrator_hides_one_of_the_same_name(machine):
    machine.plant("/usr/lib/systemd/system/ollama.service", UNIT)
    for folder, number in (("/usr/lib", 6), ("/etc", 5)):
        machine.plant(
            f"{folder}/systemd/system/ollama.service.d/x.conf",
            f"[Service]\nEnvironment=OLLAMA_NUM_PARALLEL={number}\n",
        )
    assert machine.current().config["num_parallel"] == 5


def test_the_users_own_unit_goes_before_the_systems(machine):
    machine.plant("/etc/systemd/system/ollama.service", UNIT)
    machine.plant(
        "/home/somebody/.config/systemd/user/ollama.service",
        "[Service]\nEnvironment=OLLAMA_NUM_PARALLEL=6\n",
    )
    told = machine.current()
    assert told.config["num_parallel"] == 6
    assert told.origins["num_parallel"] == "~/.config/systemd/user/ollama.service"
    assert [unit.own for unit in units(machine.probe)] == [True, False]


def test_words_are_taken_apart_as_systemd_does():
    assert split(r'''A=1 "B=two words" 'C=3'D E=a\x20b\tc "F=\"q\""''') == [
        "A=1",
        "B=two words",
        "C=3D",
        "E=a b\tc",
        'F="q"',
    ]
    assert split('"A=1') == []
    assert split("''") == [""]
    assert [v.text for v in environment_file("A='x y'\nB = 2\n;C=3\nD=\"a", "f")] == ["x y", "2"]


# The server that runs


def test_of_a_running_server_its_own_environment_decides(machine):
    machine.plant("/etc/systemd/system/ollama.service", UNIT)
    machine.plant(f"{DROP_IN}/a.conf", "[Service]\nEnvironment=OLLAMA_KV_CACHE_TYPE=q8_0\n")
    machine.environ["OLLAMA_KEEP_ALIVE"] = "2h"
    machine.runs(41, OLLAMA_NUM_PARALLEL="2", OLLAMA_MAX_QUEUE="9", HOME="/")
    told = machine.current(SERVER, pid=41)
    assert told.config["num_parallel"] == 2
    assert told.origins["num_parallel"] == "/etc/systemd/system/ollama.service"
    assert told.origins["max_queue"] == "environment of the running server"
    assert told.config["kv_cache_type"] == "f16"
    assert told.config["keep_alive"] == 300
    why = left_out(told)
    assert "started anew" in why["OLLAMA_KV_CACHE_TYPE"][1]
    assert "this shell does not reach it" in why["OLLAMA_KEEP_ALIVE"][1]
    assert set(why) == {"OLLAMA_KV_CACHE_TYPE", "OLLAMA_KEEP_ALIVE"}


def test_a_word_that_a_running_server_hands_on_is_not_taken_for_the_default(machine):
    machine.runs(41, OLLAMA_KV_CACHE_TYPE="q5_1")
    told = machine.current(SERVER, pid=41)
    assert "kv_cache_type" not in told.config
    assert "'q5_1' is not one of" in left_out(told)["OLLAMA_KV_CACHE_TYPE"][1]
    machine.environ["OLLAMA_KV_CACHE_TYPE"] = "q5_1"
    assert machine.current(PRIVATE).config["kv_cache_type"] == "f16"


def test_a_running_server_was_started_from_this_shell(machine):
    machine.environ["OLLAMA_NUM_PARALLEL"] = "4"
    machine.runs(41, OLLAMA_NUM_PARALLEL="4")
    told = machine.current(SERVER, pid=41)
    assert told.origins["num_parallel"] == "environment OLLAMA_NUM_PARALLEL"
    assert told.left_out == ()


def test_a_private_server_gets_what_the_running_one_has_and_this_shell_over_it(machine):
    machine.runs(41, OLLAMA_NUM_PARALLEL="2", OLLAMA_KV_CACHE_TYPE="q8_0")
    machine.environ["OLLAMA_NUM_PARALLEL"] = "4"
    told = machine.current(PRIVATE, pid=41)
    assert (told.config["num_parallel"], told.config["kv_cache_type"]) == (4, "q8_0")


def test_of_a_server_that_cannot_be_looked_into_the_unit_is_what_is_known(machine):
    machine.plant("/etc/systemd/system/ollama.service", UNIT)
    machine.environ["OLLAMA_KEEP_ALIVE"] = "2h"
    told = machine.current(SERVER, pid=41)
    assert told.config["num_parallel"] == 2
    assert told.config["keep_alive"] == 300
    assert "cannot be seen" in left_out(told)["OLLAMA_KEEP_ALIVE"][1]


def test_a_server_elsewhere_is_not_reached_by_anything_here(machine):
    machine.plant("/etc/systemd/system/ollama.service", UNIT)
    machine.environ["OLLAMA_KEEP_ALIVE"] = "2h"
    machine.parameters = "num_ctx 8192"
    told = machine.current(ELSEWHERE)
    assert told.config["num_parallel"] == 1
    assert "another machine" in left_out(told)["OLLAMA_KEEP_ALIVE"][1]
    assert told.config["num_ctx"] == 8192


def test_a_container_tells_its_environment(machine):
    def docker(command, *rest):
        if command == "ps":
            assert "publish=11434" in rest
            return "abc123\n"
        return '["PATH=/bin","OLLAMA_NUM_PARALLEL=3"]\n'

    machine.tools["docker"] = docker
    told = machine.current(SERVER)
    assert told.config["num_parallel"] == 3
    assert told.origins["num_parallel"] == "container abc123"


@pytest.mark.parametrize("answer", ["", "null", "{", "[1]", "[]"])
def test_a_container_that_tells_nothing_usable_is_passed_over(machine, answer):
    machine.tools["docker"] = lambda command, *_: "abc\n" if command == "ps" else answer
    assert machine.current(SERVER).config["num_parallel"] == 1


def test_the_environment_that_launchd_keeps_for_the_app(machine):
    machine.system = "Darwin"
    machine.tools["launchctl"] = lambda _, name: {"OLLAMA_NUM_PARALLEL": "4\n"}.get(name, "\n")
    told = machine.current()
    assert told.config["num_parallel"] == 4
    assert told.origins["num_parallel"] == "launchctl getenv OLLAMA_NUM_PARALLEL"
    assert told.left_out == ()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc here")
def test_the_environment_of_a_real_process_is_read():
    from velollm_ollama.sources import running

    found = running(Probe(system="Linux"), os.getpid())
    assert found is not None
    assert found["PATH"]
    assert running(Probe(system="Linux"), 2**22 + 1) is None


def test_every_variable_has_one_knob():
    assert len(BY_VARIABLE) == sum(1 for entry in BY_NAME.values() if entry.variable)
