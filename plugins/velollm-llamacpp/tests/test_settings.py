"""The user's own settings: where they stand, which of them count, and which are left out."""

from __future__ import annotations

import os
import re

import pytest
from attrs import evolve
from velollm_llamacpp import settings
from velollm_llamacpp.engines import Engine
from velollm_llamacpp.record import recorded_flags
from velollm_llamacpp.vetting import vet

from velollm_core.errors import LaunchError, UsageError

ENGINE = Engine(version="1", build=None, flags=recorded_flags(), gpus=(), cpu_features=())


@pytest.fixture
def machine(tmp_path):
    """A root and a home with configuration files."""

    class Machine:
        def __init__(self):
            self.root = tmp_path / "root"
            self.environ = {"HOME": str(tmp_path / "home")}

        def write(self, text, *, system=False, xdg=False):
            if system:
                path = self.root / "etc" / "llama.cpp" / "config.ini"
            elif xdg:
                self.environ = {**self.environ, "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
                path = tmp_path / "xdg" / "llama.cpp" / "config.ini"
            else:
                path = tmp_path / "home" / ".config" / "llama.cpp" / "config.ini"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

        def current(self, embedded=False, engine=ENGINE, **variables):
            environ = {**self.environ, **variables}
            return settings.current(engine, environ, embedded=embedded, root=self.root)

    return Machine()


def reasons(found):
    return {entry.name: entry.reason for entry in found.left_out}


def test_with_nothing_set_the_current_settings_are_the_defaults(machine):
    current = machine.current()
    assert current.config == settings.default_config(ENGINE)
    assert set(current.origins.values()) == {"engine default"}
    assert (current.extra_args, current.extra_env, current.left_out) == ((), {}, ())


def test_the_environment_goes_before_the_users_file_and_that_before_the_systems(machine):
    machine.write("[*]\nthreads = 3\nbatch-size = 111\nubatch-size = 11\n", system=True)
    machine.write("[*]\nthreads = 5\nbatch-size = 222\n")
    current = machine.current(LLAMA_ARG_THREADS="7")
    assert (current.config["threads"], current.config["batch"], current.config["ubatch"]) == (
        7,
        222,
        11,
    )
    assert current.origins["threads"] == "environment LLAMA_ARG_THREADS"
    assert current.origins["batch"] == "~/.config/llama.cpp/config.ini"
    assert current.origins["ubatch"].endswith("etc/llama.cpp/config.ini")


def test_no_origin_names_the_users_home(machine, tmp_path):
    machine.write("threads = 5\n")
    assert str(tmp_path) not in machine.current().origins["threads"]
    machine.write("threads = 6\n", xdg=True)
    assert machine.current().origins["threads"] == "$XDG_CONFIG_HOME/llama.cpp/config.ini"
    assert machine.current().config["threads"] == 6


@pytest.mark.parametrize(
    ("text", "threads"),
    [
        ("threads = 3", 3),
        ("[*]\nt = 3  ; all of them", 3),
        ("[default]\nthreads = 3\n[*]\nthreads = 5", 3),
        ("[*]\nthreads = 5\n[default]\nthreads = 3", 3),
        ("# by hand\n[*]\nLLAMA_ARG_THREADS = 3", 3),
        ("[some-model]\nthreads = 3", 0),
        ("[*]\nTHREADS = 3", 0),
        ("version = 1\nthreads = 3", 3),
        ("threads = 3\n[*]\nthreads = 5\n[*]\n", 3),
        ("[*]\nthreads = 3\n[*]\nbatch-size = 9\n", 0),
        ("[ *]\nthreads = 3", 3),
    ],
)
def test_a_configuration_file_is_read_as_llama_cpp_reads_it(machine, text, threads):
    machine.write(text)
    assert machine.current().config["threads"] == threads


def test_the_version_of_a_file_is_no_unknown_key(machine):
    machine.write("version = 1\n")
    assert machine.current().left_out == ()


def test_a_build_that_reads_no_files_has_nothing_from_them(machine):
    machine.write("[*]\nthreads = 5\n")
    machine.write("nonsense\n", system=True)
    older = evolve(ENGINE, flags=evolve(ENGINE.flags, reads_files=False))
    assert machine.current(engine=older, LLAMA_ARG_BATCH="64").config["threads"] == 0
    assert (
        settings.defaults(older, machine.environ, embedded=False, root=machine.root).left_out == ()
    )


@pytest.mark.parametrize(
    ("text", "unified"),
    [
        ("kv-unified = on", True),
        ("kv-unified = 0", False),
        ("no-kv-unified = true", False),
        ("no-kvu = false", True),
    ],
)
def test_switches_have_a_negative_spelling(machine, text, unified):
    machine.write(f"parallel = 2\n{text}\n")
    assert machine.current().config["kv_unified"] is unified


def test_a_negative_variable_wins_whatever_it_says(machine):
    current = machine.current(
        LLAMA_ARG_N_PARALLEL="2", LLAMA_ARG_KV_UNIFIED="1", LLAMA_ARG_NO_KV_UNIFIED="0"
    )
    assert current.config["kv_unified"] is False


def test_a_number_of_slots_turns_the_shared_cache_off_as_llama_server_does(machine):
    assert machine.current(LLAMA_ARG_N_PARALLEL="2").config["kv_unified"] is False
    assert machine.current(LLAMA_ARG_N_PARALLEL="-1").config["kv_unified"] is True
    assert machine.current().config["kv_unified"] is True


def test_what_has_no_knob_is_passed_on_to_a_server_if_it_is_harmless(machine):
    machine.write("numa = distribute\nno-repack = on\nthreads = -1\nfit = off\n")
    current = machine.current(GGML_OP_OFFLOAD_MIN_BATCH="64")
    assert set(zip(current.extra_args, current.extra_args[1:], strict=False)) >= {
        ("--numa", "distribute"),
        ("--fit", "off"),
        ("--threads", "-1"),
    }
    assert "--no-repack" in current.extra_args
    assert current.extra_env == {"GGML_OP_OFFLOAD_MIN_BATCH": "64"}
    assert current.left_out == ()
    vet(current, ENGINE.flags)


def test_what_runs_programs_or_opens_doors_is_stripped_and_named(machine):
    machine.write("host = 0.0.0.0\nlora = /x\ntemp = 0.1\nnonsense = 1\n")
    current = machine.current(
        LLAMA_ARG_TOOLS="all",
        LLAMA_ARG_MCP_SERVERS_JSON="{}",
        LLAMA_ARG_AGENT="1",
        LLAMA_API_KEY="secret",
        LLAMA_ARG_HF_REPO="a/b",
        LLAMA_ARG_INVENTED="1",
        GGML_BACKEND_PATH="/tmp/x.so",
        GGML_INVENTED="1",
        HF_TOKEN="secret",
        HF_HOME="/secret",
        LLAMA_CACHE="/secret",
        MTMD_BACKEND_DEVICE="secret",
        AIP_MODE="PREDICTION",
        AIP_HTTP_PORT="9477",
        LLAMA_GRAPH_REUSE_DISABLE="1",
        AIPLANE="1",
    )
    assert current.extra_args == ()
    assert current.extra_env == {"LLAMA_GRAPH_REUSE_DISABLE": "1"}
    found = reasons(current)
    assert set(found) == {
        "host",
        "lora",
        "temp",
        "nonsense",
        "LLAMA_ARG_TOOLS",
        "LLAMA_ARG_MCP_SERVERS_JSON",
        "LLAMA_ARG_AGENT",
        "LLAMA_API_KEY",
        "LLAMA_ARG_HF_REPO",
        "LLAMA_ARG_INVENTED",
        "GGML_BACKEND_PATH",
        "GGML_INVENTED",
        "HF_TOKEN",
        "HF_HOME",
        "LLAMA_CACHE",
        "MTMD_BACKEND_DEVICE",
        "AIP_MODE",
        "AIP_HTTP_PORT",
    }
    assert "runs programs" in found["LLAMA_ARG_TOOLS"]
    assert "changes the answers" in found["temp"]
    assert "does not know" in found["nonsense"]
    assert "secret" not in str(current)


def test_for_the_wheel_settings_become_fields_and_the_rest_is_listed(machine):
    machine.write("numa = distribute\nthreads = -1\n")
    current = machine.current(embedded=True, LLAMA_ARG_CACHE_TYPE_K="q8_0", LLAMA_ARG_FIT="off")
    assert current.config["cache_type_k"] == "q8_0"
    assert current.config["threads"] == os.cpu_count()  # so it is where -1 is given in words
    assert current.extra_args == ()
    assert set(reasons(current)) == {"numa", "LLAMA_ARG_FIT"}
    assert "embedded" in reasons(current)["numa"]


@pytest.mark.parametrize("text", ["-1", "0"])
def test_threads_for_the_prompt_given_in_words_are_every_processor_for_either_engine(machine, text):
    machine.write(f"threads-batch = {text}\n")
    assert machine.current(embedded=True).config["threads_batch"] == os.cpu_count()
    assert machine.current().extra_args == ("--threads-batch", text)


def test_layers_for_a_gpu_that_is_not_there_are_no_knob(machine):
    assert machine.current(LLAMA_ARG_N_GPU_LAYERS="99").extra_args == ("--gpu-layers", "99")
    left_out = machine.current(embedded=True, LLAMA_ARG_N_GPU_LAYERS="99").left_out
    assert [entry.name for entry in left_out] == ["LLAMA_ARG_N_GPU_LAYERS"]


def test_a_value_that_is_none_goes_to_the_server_which_refuses_it(machine):
    current = machine.current(LLAMA_ARG_CACHE_TYPE_K="q9_9")
    assert current.config["cache_type_k"] == "f16"
    assert current.extra_args == ("--cache-type-k", "q9_9")
    assert "LLAMA_ARG_CACHE_TYPE_K" in reasons(
        machine.current(embedded=True, LLAMA_ARG_CACHE_TYPE_K="q9_9")
    )


@pytest.mark.parametrize(
    "text", ["[*\nthreads = 3", "threads 3", " threads = 3", "[*] x", "\udcff"]
)
def test_a_broken_configuration_file_is_one_sentence_that_names_it(machine, text):
    machine.write("")
    path = next(machine.root.parent.rglob("config.ini"))
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=r"config\.ini"):
        machine.current()


def test_what_the_systems_file_sets_and_nothing_can_turn_back_is_named_in_the_defaults(machine):
    machine.write("temp = 0.1\nthreads = 3\nbatch-size = 64\nflash-attn = off\n", system=True)
    found = settings.defaults(ENGINE, machine.environ, embedded=False, root=machine.root)
    # Given as arguments, which go before the file.
    assert (found.config["batch"], found.config["flash_attention"]) == (2048, "auto")
    assert set(reasons(found)) == {"temp", "threads"}
    assert settings.defaults(ENGINE, {}, embedded=True, root=machine.root).left_out == ()


@pytest.mark.parametrize(
    "line",
    [
        "tools = all",
        "fim-qwen-1.5b-default = on",
        "fim-qwen-7b-spec = on",
        "embd-gemma-default = on",
        "log-prompts-dir = /tmp",
        "log-file = /tmp/log",
        "log-disable = on",
        "log-jsonl = on",
    ],
)
def test_a_systems_file_that_opens_doors_or_silences_servers_stops_the_launch(machine, line):
    machine.write(f"{line}\n", system=True)
    with pytest.raises(LaunchError, match=re.escape(line.split()[0])):
        settings.refuse_open_doors(ENGINE.flags, machine.environ, machine.root)


@pytest.mark.parametrize("line", ["threads = 3", "spec-default = on"])
def test_a_systems_file_that_only_changes_settings_does_not(machine, line):
    machine.write(f"{line}\n", system=True)
    assert settings.refuse_open_doors(ENGINE.flags, machine.environ, machine.root) is None


@pytest.mark.engine
def test_a_started_server_sees_neither_stray_variables_nor_the_users_file(
    backend, installation, demo, place, machine
):
    cloud = {"AIP_MODE": "PREDICTION", "AIP_HTTP_PORT": "9477", "LLAMA_API_KEY": "x"}
    machine.write("threads = 2\nctx-size = 256\nparallel = 2\n")
    where = place(HOME=machine.environ["HOME"], LLAMA_ARG_CTX_SIZE="768", **cloud)
    defaults = backend.defaults(installation, demo)
    with backend.launch(installation, demo, defaults, where) as session:
        effective = session.effective()
        assert not session.url.endswith(":9477")
    assert (effective["context"], effective["slots"]) == (8192, 4)


@pytest.mark.engine
def test_current_settings_are_what_a_server_of_the_users_own_would_have(
    backend, installation, demo, place, machine
):
    machine.write("parallel = 2\nubatch-size = 128\n")
    environ = {**machine.environ, "LLAMA_ARG_CTX_SIZE": "1024", "LLAMA_ARG_SPEC_TYPE": "ngram-mod"}
    current = backend.current(installation, demo, environ)
    with backend.launch(installation, demo, current, place()) as session:
        effective = session.effective()
    wanted = {
        "context": 1024,
        "slots": 2,
        "kv_unified": False,
        "ubatch": 128,
        "spec_type": "ngram-mod",
    }
    assert {name: effective[name] for name in wanted} == wanted
