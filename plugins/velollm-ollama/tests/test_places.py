"""Where settings of Ollama stand: files of llama.cpp, units, the server that runs, a container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attrs import evolve
from velollm_ollama.places import models_folder
from velollm_ollama.sources import environment_file, split, units

from velollm_core.backends.contract import Installation
from velollm_core.hardware.probe import Probe

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
    assert "is no number" in machine.left_out(told)["LLAMA_ARG_CACHE_RAM"][1]
    assert "spec_type" not in machine.current(PRIVATE).config


OWN_FILE = "/home/somebody/.config/llama.cpp/config.ini"


def test_the_file_of_llama_cpp_says_what_its_variables_say_and_they_are_stronger(machine):
    machine.plant(OWN_FILE, "[*]\nspec-type = ngram-mod\ncache-ram = 64\ntb = 3\n")
    machine.environ["LLAMA_ARG_CACHE_RAM"] = "128"
    told = machine.current(EXPERIMENTAL)
    config = told.config
    assert (config["spec_type"], config["cache_ram"], config["threads_batch"]) == (
        "ngram-mod",
        128,
        3,
    )
    assert told.origins["spec_type"] == "~/.config/llama.cpp/config.ini"


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("[*]\nspec-type = ngram-mod\n[*]\nx = 1\n", False),
        ("[ *]\nspec-type = ngram-mod\n", True),
        (" spec-type = ngram-mod\n", False),
        ("spec-type = ngram-mod\n[*] and more\n", False),
    ],
)
def test_the_file_of_llama_cpp_is_read_as_llama_cpp_reads_it(machine, text, counts):
    machine.plant(OWN_FILE, text)
    assert (machine.current(EXPERIMENTAL).config["spec_type"] == "ngram-mod") is counts


def test_what_a_private_server_does_not_read_of_that_file_is_named(machine):
    machine.plant("/etc/llama.cpp/config.ini", "mlock = on\n")
    machine.plant(OWN_FILE, "[*]\nspec-type = ngram-mod\nno-mmap = on\n")
    newer = evolve(PRIVATE, version="0.33.0")
    assert set(machine.left_out(machine.current(newer))) == {"spec-type", "no-mmap"}
    experimental = evolve(newer, options={"experimental": "on"})
    assert set(machine.left_out(machine.current(experimental))) == {"no-mmap"}
    assert machine.left_out(machine.current(evolve(PRIVATE, version="0.12.0"))) == {}
    assert machine.left_out(machine.current(evolve(SERVER, version="0.33.0"))) == {}


def test_a_service_of_the_system_does_not_read_the_file_of_this_user(machine):
    machine.plant("/etc/systemd/system/ollama.service", UNIT)
    machine.plant("/etc/llama.cpp/config.ini", "cache-ram = 64\n")
    machine.plant(OWN_FILE, "cache-ram = 128\n")
    attached = evolve(SERVER, options={"experimental": "on"})
    assert machine.current(attached).config["cache_ram"] == 64
    machine.runs(41, HOME="/home/somebody")
    assert machine.current(attached, pid=41).config["cache_ram"] == 128


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
    told = machine.current(PRIVATE)
    assert told.config["num_parallel"] == 3
    assert told.origins["num_parallel"] == f"{DROP_IN}/a.conf"
    assert told.config["keep_alive"] == 3600
    assert told.config["max_queue"] == 7


def test_a_line_that_systemd_cannot_read_changes_nothing(machine):
    machine.plant("/etc/systemd/system/ollama.service", UNIT)
    machine.plant(f"{DROP_IN}/a.conf", '[Service]\nEnvironment="OLLAMA_NUM_PARALLEL=7\n')
    assert machine.current(PRIVATE).config["num_parallel"] == 2


def test_an_empty_environment_forgets_what_was_before(machine):
    machine.plant("/etc/systemd/system/ollama.service", UNIT)
    machine.plant(f"{DROP_IN}/a.conf", "[Service]\nEnvironment=\n")
    assert machine.current(PRIVATE).config["num_parallel"] == 1


def test_a_file_of_variables_wins_over_lines_of_the_unit(machine):
    machine.plant("/usr/lib/systemd/system/ollama.service", f"{UNIT}EnvironmentFile=-/etc/ollama\n")
    machine.plant("/etc/ollama", '# mine\nOLLAMA_NUM_PARALLEL="5"\nOLLAMA_MAX_QUEUE=3 \n')
    told = machine.current(PRIVATE)
    assert (told.config["num_parallel"], told.config["max_queue"]) == (5, 3)
    assert told.origins["num_parallel"] == "/etc/ollama"


def test_variables_that_a_unit_unsets_are_not_there(machine):
    machine.plant("/etc/systemd/system/ollama.service", UNIT)
    machine.plant(f"{DROP_IN}/a.conf", "[Service]\nUnsetEnvironment=OLLAMA_NUM_PARALLEL\n")
    assert machine.current(PRIVATE).config["num_parallel"] == 1


def test_a_drop_in_of_the_administrator_hides_one_of_the_same_name(machine):
    machine.plant("/usr/lib/systemd/system/ollama.service", UNIT)
    for folder, number in (("/usr/lib", 6), ("/etc", 5)):
        machine.plant(
            f"{folder}/systemd/system/ollama.service.d/x.conf",
            f"[Service]\nEnvironment=OLLAMA_NUM_PARALLEL={number}\n",
        )
    assert machine.current(PRIVATE).config["num_parallel"] == 5


def test_the_users_own_unit_goes_before_the_systems(machine):
    machine.plant("/etc/systemd/system/ollama.service", UNIT)
    machine.plant(
        "/home/somebody/.config/systemd/user/ollama.service",
        "[Service]\nEnvironment=OLLAMA_NUM_PARALLEL=6\n",
    )
    told = machine.current(PRIVATE)
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
    why = machine.left_out(told)
    assert "started anew" in why["OLLAMA_KV_CACHE_TYPE"][1]
    assert "this shell does not reach it" in why["OLLAMA_KEEP_ALIVE"][1]
    assert set(why) == {"OLLAMA_KV_CACHE_TYPE", "OLLAMA_KEEP_ALIVE"}


def test_a_number_beyond_those_that_are_tried_is_not_taken_for_the_default(machine):
    machine.runs(41, OLLAMA_NUM_PARALLEL="300", OLLAMA_KEEP_ALIVE="876000h")
    told = machine.current(SERVER, pid=41)
    assert "num_parallel" not in told.config
    assert "'300' is not one of" in machine.left_out(told)["OLLAMA_NUM_PARALLEL"][1]
    assert told.config["keep_alive"] == 2**31


def test_a_word_that_a_running_server_hands_on_is_not_taken_for_the_default(machine):
    machine.runs(41, OLLAMA_KV_CACHE_TYPE="q5_1")
    told = machine.current(SERVER, pid=41)
    assert "kv_cache_type" not in told.config
    assert "'q5_1' is not one of" in machine.left_out(told)["OLLAMA_KV_CACHE_TYPE"][1]
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
    assert "cannot be seen" in machine.left_out(told)["OLLAMA_KEEP_ALIVE"][1]


def test_a_server_elsewhere_is_not_reached_by_anything_here(machine):
    machine.plant("/etc/systemd/system/ollama.service", UNIT)
    machine.environ["OLLAMA_KEEP_ALIVE"] = "2h"
    machine.parameters = "num_ctx 8192"
    told = machine.current(ELSEWHERE)
    assert told.config["num_parallel"] == 1
    assert "another machine" in machine.left_out(told)["OLLAMA_KEEP_ALIVE"][1]
    assert told.config["num_ctx"] == 8192


def test_models_lie_where_this_shell_else_the_server_else_its_service_says(machine):
    def folder(pid=None):
        return models_folder(machine.environ, machine.probe, pid)

    assert folder() == ""
    machine.plant("/etc/systemd/system/ollama.service", f"{UNIT}Environment=OLLAMA_MODELS=/unit\n")
    assert folder() == "/unit"
    machine.runs(41, OLLAMA_MODELS="/running")
    machine.runs(42, HOME="/")
    assert (folder(41), folder(42), folder(43)) == ("/running", "", "/unit")
    machine.environ["OLLAMA_MODELS"] = "/shell"
    assert folder(41) == "/shell"


def test_launchd_says_where_models_lie(machine):
    machine.system = "Darwin"
    machine.tools["launchctl"] = lambda _, name: {"OLLAMA_MODELS": "/mac\n"}.get(name, "\n")
    assert models_folder(machine.environ, machine.probe, None) == "/mac"


def test_a_container_tells_its_environment(machine):
    def docker(command, *rest):
        if command == "ps":
            return (
                "def456 0.0.0.0:8080->11434/tcp\nabc123 0.0.0.0:11434->80/tcp, [::]:11434->80/tcp\n"
            )
        return '["PATH=/bin","OLLAMA_NUM_PARALLEL=3"]\n'

    machine.tools["docker"] = docker
    told = machine.current(SERVER)
    assert told.config["num_parallel"] == 3
    assert told.origins["num_parallel"] == "container abc123"


@pytest.mark.parametrize("answer", ["", "null", "{", "[1]", "[]"])
def test_a_container_that_tells_nothing_usable_is_passed_over(machine, answer):
    machine.tools["docker"] = lambda command, *_: "abc :11434->1/tcp" if command == "ps" else answer
    assert machine.current(SERVER).config["num_parallel"] == 1


def test_the_environment_that_launchd_keeps_for_the_app(machine):
    machine.system = "Darwin"
    machine.tools["launchctl"] = lambda _, name: {"OLLAMA_NUM_PARALLEL": "4\n"}.get(name, "\n")
    told = machine.current(PRIVATE)
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
