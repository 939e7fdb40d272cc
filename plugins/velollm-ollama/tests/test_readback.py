"""What a running Ollama tells of its configuration is read as it came out."""

from __future__ import annotations

import pytest
from velollm_ollama.entries import ENTRIES
from velollm_ollama.experimental import EXPERIMENTAL
from velollm_ollama.readback import expected, read_arguments, read_log, unreadable

from velollm_core.config import Config
from velollm_core.models.spec import Model, ModelSpec

SPEC = ModelSpec(
    architecture="qwen3vl", parameter_count=1, layers=1, embedding_length=1, context_length=8192
)
# As startLlamaServer in Ollama's llm/llama_server.go puts them together.
FEW = "--model /m --port 1 --no-webui -c 8192 -np 2 --flash-attn auto -b 512 -ub 512"
MANY = (
    "--model /m -c 4096 -np 1 --spec-type draft --spec-draft-n-max 7 --load-mode none "
    "--cache-type-k q8_0 --cache-type-v q8_0 --flash-attn on -b 1024 -ub 1024 -ngl 12 -t 3 "
    "--split-mode none --main-gpu 1 --context-shift --keep 4"
)


def test_arguments_that_are_not_given_leave_the_choice_to_the_engine():
    assert read_arguments(FEW.split()) == Config(
        {
            "num_ctx": 4096,
            "num_parallel": 2,
            "num_batch": 512,
            "num_gpu": -1,
            "num_thread": 0,
            "main_gpu": -1,
            "draft_num_predict": -1,
            "kv_cache_type": "f16",
            "use_mmap": "on",
            "flash_attention": "auto",
        }
    )


def test_arguments_that_are_given_are_told():
    assert read_arguments(MANY.split()) == Config(
        {
            "num_ctx": 4096,
            "num_parallel": 1,
            "num_batch": 1024,
            "num_gpu": 12,
            "num_thread": 3,
            "main_gpu": 1,
            "draft_num_predict": 7,
            "kv_cache_type": "q8_0",
            "use_mmap": "off",
            "flash_attention": "on",
        }
    )


@pytest.mark.parametrize("words", ["-c x -np 2", "-c 4096 -np 0", "-c", "--load-mode dio -t"])
def test_arguments_of_another_form_tell_nothing_wrong(words):
    told = read_arguments(words.split())
    assert "num_ctx" not in told
    assert told.get("use_mmap") == (None if "dio" in words else "on")


def test_no_arguments_tell_nothing():
    assert read_arguments(()) == Config()


def log(**values: str) -> str:
    shown = " ".join(f"OLLAMA_{name}:{value}" for name, value in values.items())
    return (
        "time=2026-11-25T02:00:00Z level=INFO source=routes.go:1 "
        f'msg="server config" env="map[CUDA_VISIBLE_DEVICES: {shown} http_proxy:]"\n'
    )


def test_a_servers_log_tells_its_variables_as_it_has_read_them():
    told = read_log(
        log(
            GPU_OVERHEAD="1024",
            LOAD_TIMEOUT="1h30m0s",
            MAX_LOADED_MODELS="0",
            MAX_QUEUE="7",
            ORIGINS="[http://localhost https://localhost]",
            SCHED_SPREAD="true",
        )
    )
    assert told == Config(
        {
            "gpu_overhead": 1024,
            "load_timeout": 5400,
            "max_loaded_models": 0,
            "max_queue": 7,
            "sched_spread": True,
        }
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m0s", 300), ("2562047h47m16.854775807s", 0), ("1.5s", 2), ("soon", None), ("", None)],
)
def test_a_limit_is_told_in_seconds_and_none_as_0(text, seconds):
    assert read_log(log(LOAD_TIMEOUT=text)).get("load_timeout") == seconds


def test_a_log_without_that_line_tells_nothing():
    assert read_log("level=INFO msg=starting\n") == Config()


def test_every_knob_can_be_read_back_or_says_why_not():
    names = {entry.knob.name for entry in (*ENTRIES, *EXPERIMENTAL)}
    silent = {name for name in names if unreadable(name, seen=True, private=True)}
    assert silent == {"keep_alive"} | {entry.knob.name for entry in EXPERIMENTAL}
    elsewhere = {name for name in names if not unreadable(name, seen=False, private=False)}
    assert elsewhere == {"num_ctx"}


def test_what_ollama_caps_is_foretold():
    knobs = [entry.knob for entry in ENTRIES]
    config = Config({"num_ctx": 100_000, "num_parallel": 4, "num_thread": 0, "num_batch": 0})
    known, unknown = Model(reference="m", spec=SPEC), Model(reference="m")
    assert expected(knobs, known, config) == Config({"num_ctx": 8192, "num_parallel": 1})
    assert expected(knobs, unknown, config) == Config({"num_ctx": 100_000, "num_parallel": 4})
