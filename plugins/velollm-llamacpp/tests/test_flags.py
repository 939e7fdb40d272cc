"""Flags are learnt from the help of the build at hand, whatever its age."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from velollm_llamacpp.arguments import arguments, settable
from velollm_llamacpp.flags import parse_help
from velollm_llamacpp.record import recorded_flags

from velollm_core.config import Choices, Config
from velollm_core.errors import UsageError

# The layout of llama-server's help, old spellings and new ones, in words of our own.
OLD = """----- common params -----

-h,    --help, --usage                  print usage and exit
-t,    --threads N                      threads (default: -1)
                                        (env: LLAMA_ARG_THREADS)
-c,    --ctx-size N                     context (default: 4096, 0 = loaded from model)
                                        (env: LLAMA_ARG_CTX_SIZE)
-fa,   --flash-attn                     enable Flash Attention (default: disabled)
                                        (env: LLAMA_ARG_FLASH_ATTN)
-ctk,  --cache-type-k TYPE              type of K
                                        allowed values: f32, f16, q8_0
                                        (default: f16)
--mlock                                 keep the model in RAM
--no-mmap                               do not map the model
                                        (env: LLAMA_ARG_NO_MMAP)
-np,   --parallel N                     sequences to decode (default: 1)
--swa-checkpoints N                     checkpoints (default: 3)
--spec-ngram-size-n N                   length of the n-gram (default: 12)
-lv,   --verbosity, --log-verbosity N   threshold; higher ones are ignored
--port PORT                             port to listen (default: 8080)
"""
NEW = """-fa,   --flash-attn [on|off|auto]       use it ('on', 'off', or 'auto', default: 'auto')
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        whether to offload (default: enabled)
--repack, -nr, --no-repack              whether to repack (default: enabled)
--no-host                               bypass the host buffer
--no-mmap, --mmap                       made up: a negative that comes first
-kvu,  --kv-unified, -no-kvu, --no-kv-unified
                                        one buffer (default: enabled if slots are auto)
                                        (env: LLAMA_ARG_KV_UNIFIED)
-lm,   --load-mode MODE                 mode (default: auto)
                                        - auto: as it fits
                                        - mmap+mlock: mapped and kept
--draft, --draft-max N                  the argument has been removed. use --spec-draft-n-max
--spec-type none,draft-simple,ngram-mod
                                        comma-separated list (default: none)
-lv,   --verbosity, --log-verbosity N   threshold. Values:
                                         - 3: info
                                         - 4: trace (more info)
"""


def test_names_values_defaults_and_variables_are_read():
    flags = parse_help(OLD)
    threads = flags.get("-t")
    assert threads.names == ("-t", "--threads")
    assert (threads.name, threads.takes_value, threads.default) == ("--threads", True, "-1")
    assert flags.by_environ("LLAMA_ARG_THREADS") == (threads, False)
    assert flags.get("--cache-type-k").values == ("f32", "f16", "q8_0")
    assert not flags.get("-fa").takes_value
    assert not flags.traces


def test_both_directions_of_a_switch_are_told_apart():
    flags = parse_help(NEW)
    assert flags.get("-kvo").negatives == ("-nkvo", "--no-kv-offload")
    assert flags.get("--repack").negatives == ("-nr", "--no-repack")
    assert flags.get("--no-host").negatives == ()
    assert flags.by_key("no-kv-unified") == (flags.get("-kvu"), True)
    assert flags.by_environ("LLAMA_ARG_NO_KV_UNIFIED") == (flags.get("-kvu"), True)


def test_listed_values_are_read_in_every_form_they_are_printed():
    flags = parse_help(NEW)
    assert flags.get("-fa").values == ("on", "off", "auto")
    assert flags.get("--load-mode").values == ("auto", "mmap+mlock")
    assert flags.get("--spec-type").values == ("none", "draft-simple", "ngram-mod")
    assert flags.traces


def test_flags_that_are_only_listed_to_say_they_are_gone_are_unknown():
    assert parse_help(NEW).get("--draft-max") is None


def test_something_that_is_no_help_has_no_flags():
    assert parse_help("").entries == ()
    assert parse_help("usage: python [option] ...\n  -b : issue warnings").entries == ()


@given(st.text(alphabet="-fa, \n[|]<>{}(default:)envLLAMA_ARG=09", max_size=400))
def test_no_text_breaks_the_parser(text):
    assert all(entry.names for entry in parse_help(text).entries)


def domains(text):
    return {knob.name: knob.domain for knob in settable(parse_help(text), gpus=True)}


def test_a_build_has_the_knobs_and_values_that_it_has_flags_for():
    old = domains(OLD)
    assert old["cache_type_k"] == Choices(("f32", "f16", "q8_0"))
    assert old["flash_attention"] == Choices(("on", "off"))
    assert old["load_mode"] == Choices(("auto", "none", "mmap+mlock"))
    assert "kv_unified" not in old
    assert "ngram_mod_n_match" not in old
    new = domains(NEW)
    assert new["load_mode"] == Choices(("auto", "mmap+mlock"))
    assert new["spec_type"] == Choices(("none", "ngram-mod"))


@pytest.mark.parametrize(
    ("help_text", "knobs", "words"),
    [
        (OLD, {"flash_attention": "on"}, "--flash-attn"),
        (OLD, {"flash_attention": "off"}, ""),
        (NEW, {"flash_attention": "off"}, "--flash-attn off"),
        (OLD, {"load_mode": "none"}, "--no-mmap"),
        (OLD, {"load_mode": "mmap+mlock"}, "--mlock"),
        (NEW, {"load_mode": "mmap+mlock"}, "--load-mode mmap+mlock"),
        (OLD, {"ctx_checkpoints": 5}, "--swa-checkpoints 5"),
        (OLD, {"ngram_simple_size_n": 4}, "--spec-ngram-size-n 4"),
        (NEW, {"kv_unified": True}, "--kv-unified"),
        (NEW, {"kv_unified": False}, "--no-kv-unified"),
        (OLD, {"threads": 3, "slots": 2}, "--parallel 2 --threads 3"),
        (OLD, {"threads": 0, "context": 0}, ""),
    ],
)
def test_a_knob_is_spelled_as_the_build_spells_it(help_text, knobs, words):
    assert " ".join(arguments(parse_help(help_text), Config(knobs))) == words


def test_a_knob_without_a_flag_is_an_error_that_names_both():
    with pytest.raises(UsageError, match=r"kv_unified.*--kv-unified"):
        arguments(parse_help(OLD), Config({"kv_unified": True}))
    with pytest.raises(UsageError, match="load_mode"):
        arguments(parse_help(OLD), Config({"load_mode": "dio"}))


def test_check_names_the_knob_the_build_lacks_and_the_values_it_does_not_take(
    backend, program, demo
):
    path = program(f"import sys\nprint('''{OLD}''')\nprint('version: 4242 (abc1234)')")
    installation = backend.probe({"server": str(path)}, {})[0]
    config = Config({"kv_unified": True, "cache_type_k": "q5_1", "nonsense": 1, "threads": 2})
    messages = {p.knob: p.message for p in backend.check(installation, demo, config)}
    assert set(messages) == {"kv_unified", "cache_type_k", "nonsense"}
    assert "--kv-unified" in messages["kv_unified"]
    assert "4242" in messages["kv_unified"]


def test_defaults_are_those_of_the_build(backend, program, demo):
    path = program(f"import sys\nprint('''{OLD}''')")
    installation = backend.probe({"server": str(path)}, {})[0]
    config = backend.defaults(installation, demo).config
    assert (config["slots"], config["context"], config["ctx_checkpoints"]) == (1, 4096, 3)
    assert (config["flash_attention"], config["threads"]) == ("off", 0)


def test_what_an_older_build_will_report_and_take_is_told_too(backend, program, demo):
    more = "-b, --batch-size N (default: 2048)\n-ub, --ubatch-size N (default: 512)\n"
    more += "-ctv,   --cache-type-v TYPE              type of V (default: f16)\n"
    path = program(f"print('''{OLD}{more}''')")
    installation = backend.probe({"server": str(path)}, {})[0]
    config = Config({"context": 1000, "slots": 2, "batch": 5000})
    expected = backend.expected(installation, demo, config)
    assert expected == Config({"context": 1024, "slots": 2, "batch": 1000})
    assert backend.footprint(installation, demo, config).host_bytes > 100 * 2**20


def test_every_knob_of_the_recorded_build_can_be_spelled(backend, embedded, demo):
    flags = recorded_flags()
    for knob in settable(flags, gpus=True):
        ends = (
            knob.domain.values
            if isinstance(knob.domain, Choices)
            else (knob.domain.low, knob.domain.high)
        )
        for value in ends:
            for word in arguments(flags, Config({knob.name: value})):
                assert flags.get(word) or not word.startswith("--")


@pytest.mark.engine
def test_the_help_of_a_real_server_holds_every_knob(native):
    from velollm_llamacpp.engines import examine_binary

    engine = examine_binary(Path(native.location))
    assert len(engine.flags.entries) > 150
    assert engine.cpu_features
    assert {knob.name for knob in settable(engine.flags, gpus=True)} >= {
        "threads",
        "batch",
        "context",
        "slots",
        "cache_type_k",
        "spec_type",
        "gpu_layers",
    }
