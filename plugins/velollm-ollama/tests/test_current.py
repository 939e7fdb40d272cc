"""Whose settings count: each value with its place, and what is set without any effect."""

from __future__ import annotations

import pytest
from attrs import evolve
from velollm_ollama import settings
from velollm_ollama.believed import BELIEVED
from velollm_ollama.entries import ENTRIES
from velollm_ollama.knobs import BY_NAME, BY_VARIABLE, knobs

from velollm_core.backends.contract import Installation
from velollm_core.config import ENGINE_DEFAULT, problems
from velollm_core.hardware.spec import GpuInfo

GIB = 1 << 30
SERVER = Installation(backend="ollama", kind="server", location="http://127.0.0.1:11434")
ELSEWHERE = evolve(SERVER, location="http://192.168.1.9:11434")
PRIVATE = Installation(backend="ollama", kind="binary", location="/usr/local/bin/ollama")
EXPERIMENTAL = evolve(PRIVATE, options={"experimental": "on"})


def card(gib, vendor="nvidia", **more):
    return GpuInfo(
        uuid=f"{vendor}-{gib}", vendor=vendor, name="card", memory_total_bytes=gib * GIB, **more
    )


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
def test_the_context_goes_by_the_memory_of_all_gpus_and_the_models_training(machine, gpus, tokens):
    told = settings.defaults(PRIVATE, machine.model, gpus)
    assert told.config["num_ctx"] == tokens


def test_a_large_machine_takes_the_largest_context(machine):
    longer = evolve(machine.model, spec=evolve(machine.model.spec, context_length=1 << 20))
    told = settings.defaults(PRIVATE, longer, (card(80),))
    assert told.config["num_ctx"] == 262144


def test_memory_that_is_kept_free_counts_for_the_context(machine):
    machine.gpus = (card(24),)
    machine.environ["OLLAMA_GPU_OVERHEAD"] = str(2 * GIB)
    assert machine.current(PRIVATE).config["num_ctx"] == 4096


def test_defaults_take_back_what_the_model_brings_where_that_can_be_said(machine):
    told = settings.defaults(PRIVATE, machine.model, (), "num_ctx  16384\nnum_batch  256")
    assert told.config["num_ctx"] == 4096
    assert told.origins["num_ctx"] == "engine default, over PARAMETER num_ctx of the model"
    assert told.config["num_batch"] == 256
    assert machine.left_out(told)["num_batch"][0] == "PARAMETER num_batch of the model"


# This shell


def test_every_knob_has_a_value(machine):
    for installation in (PRIVATE, SERVER, ELSEWHERE):
        told = machine.current(installation)
        assert set(told.config) == {knob.name for knob in knobs(installation, machine.model)}


def test_the_variables_of_this_shell(machine):
    machine.environ |= {"OLLAMA_NUM_PARALLEL": "'4'", "OLLAMA_KEEP_ALIVE": "1h30m"}
    told = machine.current(PRIVATE)
    assert (told.config["num_parallel"], told.config["keep_alive"]) == (4, 5400)
    assert told.origins["num_parallel"] == "environment OLLAMA_NUM_PARALLEL"
    assert told.origins["max_queue"] == ENGINE_DEFAULT


def test_the_context_of_the_server_is_the_context(machine):
    machine.environ["OLLAMA_CONTEXT_LENGTH"] = "16384"
    told = machine.current(PRIVATE)
    assert told.config["num_ctx"] == 16384
    assert told.origins["num_ctx"] == "environment OLLAMA_CONTEXT_LENGTH"


def test_the_models_own_context_is_stronger(machine):
    machine.environ["OLLAMA_CONTEXT_LENGTH"] = "16384"
    machine.parameters = 'num_ctx                        8192\nstop    "<|end|>"\nuse_mmap false'
    told = machine.current(PRIVATE)
    assert told.config["num_ctx"] == 8192
    assert told.origins["num_ctx"] == "PARAMETER num_ctx of the model"
    assert told.config["use_mmap"] == "off"


@pytest.mark.parametrize("words", ["1e+06", "1000000"])
def test_parameters_are_numbers_as_go_prints_them(machine, words):
    machine.parameters = f"num_ctx {words}\nnum_gpu many\nnum_thread 99999\nunknown 1"
    told = machine.current(PRIVATE)
    assert told.config["num_ctx"] == 1_000_000
    assert (told.config["num_gpu"], told.config["num_thread"]) == (-1, 0)


def test_a_bad_number_is_left_out_with_the_default_that_counts(machine):
    machine.environ["OLLAMA_NUM_PARALLEL"] = "four"
    told = machine.current(PRIVATE)
    assert told.config["num_parallel"] == 1
    assert machine.left_out(told)["OLLAMA_NUM_PARALLEL"] == (
        "environment OLLAMA_NUM_PARALLEL",
        "'four' is no number: the default 1 is taken",
    )


def test_flash_attention_off_in_words_is_on(machine):
    machine.environ["OLLAMA_FLASH_ATTENTION"] = "off"
    told = machine.current(PRIVATE)
    assert told.config["flash_attention"] == "on"
    assert "counts as true" in told.origins["flash_attention"]


@pytest.mark.parametrize(("name", "option"), BELIEVED.items())
def test_a_believed_variable_is_named_with_where_the_setting_lives(machine, name, option):
    machine.environ[name] = "8"
    for installation in (PRIVATE, SERVER, ELSEWHERE):
        told = machine.current(installation)
        assert told.origins[option] == ENGINE_DEFAULT
        reason = machine.left_out(told)[name][1]
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
    told = machine.current(PRIVATE)
    assert told.extra_env == {"CUDA_VISIBLE_DEVICES": "1"}
    assert told.origins["CUDA_VISIBLE_DEVICES"] == "environment CUDA_VISIBLE_DEVICES"
    assert set(machine.left_out(told)) == {
        "OLLAMA_ORIGINS",
        "OLLAMA_NEWEST",
        "LLAMA_ARG_TOOLS",
        "LLAMA_ARG_SPEC_TYPE",
    }
    assert machine.current(SERVER).extra_env == {}


def test_a_family_that_takes_one_request_at_a_time_has_no_more(machine):
    machine.model = evolve(machine.model, spec=evolve(machine.model.spec, architecture="qwen3vl"))
    machine.environ["OLLAMA_NUM_PARALLEL"] = "4"
    told = machine.current(PRIVATE)
    assert told.config["num_parallel"] == 1
    assert "one request at a time" in machine.left_out(told)["num_parallel"][1]


def test_every_variable_has_one_knob():
    assert len(BY_VARIABLE) == sum(1 for entry in BY_NAME.values() if entry.variable)
