"""What is proposed for Ollama alone: how long models stay, how many, and which context."""

from __future__ import annotations

import pytest
from attrs import evolve
from velollm_ollama import advice
from velollm_ollama.experimental import Row, require_seen, runs_llama_server
from velollm_ollama.knobs import knobs, llama_config, options, variables
from velollm_ollama.settings import defaults

from velollm_core.backends.advice import AdviceContext, Goal
from velollm_core.backends.contract import Installation
from velollm_core.config import ENGINE_DEFAULT, Config, Kept, Suggestion
from velollm_core.errors import UsageError
from velollm_core.hardware.spec import CpuInfo, GpuInfo, HardwareSpec, MemoryInfo, OsInfo
from velollm_core.models.spec import LayerShape, Model, ModelSpec

GIB = 1 << 30
PRIVATE = Installation(backend="ollama", kind="binary", location="/usr/bin/ollama")
EXPERIMENTAL = evolve(PRIVATE, options={"experimental": "on"})
LAYERS = 40


def spec_of(gib):
    """A dense model; its KV cache takes 160 KiB a token."""
    return ModelSpec(
        architecture="llama",
        parameter_count=gib * 10**9,
        layers=LAYERS,
        embedding_length=5120,
        feed_forward_length=14336,
        heads=(40,) * LAYERS,
        kv_heads=(8,) * LAYERS,
        head_dims_k=(128,) * LAYERS,
        head_dims_v=(128,) * LAYERS,
        context_length=131072,
        vocabulary_size=32000,
        type_bytes={"Q4_0": gib * GIB},
        layer_bytes=(gib * GIB // LAYERS,) * LAYERS,
        expert_bytes=(0,) * LAYERS,
        shapes=(LayerShape(feed_forward=14336),) * LAYERS,
        tensor_count=9 * LAYERS,
        file_bytes=gib * GIB,
    )


def context_of(goal=Goal.BALANCED, *, card=None, model=8, installation=PRIVATE, **more):
    gpus = ()
    if card:
        gpus = (
            GpuInfo(
                uuid="g",
                vendor="nvidia",
                name="card",
                memory_total_bytes=card * GIB,
                memory_free_bytes=card * GIB,
            ),
        )
    known = Model(reference="m", served_name="m", spec=spec_of(model))
    current = defaults(installation, known, gpus)
    changed = Config(more.pop("current", {}))
    current = evolve(
        current,
        config=current.config | changed,
        origins={**current.origins, **dict.fromkeys(changed, "environment")},
    )
    return AdviceContext(
        hardware=HardwareSpec(
            cpu=CpuInfo(model="x", architecture="x86_64", logical=16, physical=8),
            memory=MemoryInfo(total_bytes=64 * GIB, available_bytes=56 * GIB),
            os=OsInfo(system="Linux", release="6"),
            gpus=gpus,
        ),
        backend="ollama",
        installation=installation,
        model=known,
        knobs=knobs(installation, known),
        defaults=defaults(installation, known, gpus),
        current=current,
        goal=goal,
        **more,
    )


def proposed(context):
    told = list(advice.suggest(context))
    suggestions = [entry for entry in told if isinstance(entry, Suggestion)]
    assert all(e.reason and e.effect and e.source for e in suggestions)
    assert all(entry.reason for entry in told)
    found = {}
    for entry in suggestions:
        assert found.keys().isdisjoint(entry.assignments)
        found |= entry.assignments
    kept = [name for entry in told if isinstance(entry, Kept) for name in entry.knobs]
    assert set(kept).isdisjoint(found)
    return found


def test_a_machine_where_the_defaults_are_right_gets_no_proposal():
    assert proposed(context_of()) == {}
    assert proposed(context_of(card=24, model=8)) == {}


def test_a_model_that_is_unloaded_after_every_answer_is_kept():
    assert proposed(context_of(current={"keep_alive": 0})) == {"keep_alive": 300}
    assert proposed(context_of(Goal.MEMORY, current={"keep_alive": 0})) == {"max_loaded_models": 1}


def test_whoever_waits_for_nothing_keeps_the_model_loaded():
    assert proposed(context_of(Goal.LATENCY)) == {"keep_alive": -1}
    assert proposed(context_of(Goal.LATENCY, current={"keep_alive": -1})) == {}


def test_whoever_wants_memory_keeps_one_model_and_not_for_ever():
    found = proposed(context_of(Goal.MEMORY, current={"keep_alive": -1}))
    assert found == {"keep_alive": 300, "max_loaded_models": 1}
    now = {"keep_alive": 300, "max_loaded_models": 1}
    assert proposed(context_of(Goal.MEMORY, current=now)) == {}


@pytest.mark.parametrize("goal", list(Goal))
def test_what_is_in_force_is_not_proposed_again(goal):
    now = {"keep_alive": 0}

    def found():
        return proposed(context_of(goal, current=now, installation=EXPERIMENTAL, experimental=True))

    first = found()
    assert first
    now |= first
    assert found() == {}


def test_speculation_is_proposed_only_to_who_asks_for_experiments():
    for installation, experimental in ((PRIVATE, True), (EXPERIMENTAL, False)):
        context = context_of(Goal.LATENCY, installation=installation, experimental=experimental)
        assert "spec_type" not in proposed(context)
    context = context_of(Goal.LATENCY, installation=EXPERIMENTAL, experimental=True)
    assert proposed(context)["spec_type"] == "ngram-mod"
    (told,) = (e for e in advice.suggest(context) if getattr(e, "experimental", False))
    assert told.confidence == "low"


# What reaches llama.cpp


OLLAMA = Row(10, 1, ("/usr/local/bin/ollama", "serve"))
CHILD = Row(11, 10, ("/usr/local/lib/ollama/llama-server", "--port", "4711", "--offline"))


def test_an_ollama_that_runs_llama_server_is_recognised():
    assert runs_llama_server([CHILD, OLLAMA])
    mac = Row(10, 1, ("/Applications/Ollama.app/Contents/Resources/ollama", "serve"))
    assert runs_llama_server([mac, CHILD])


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [OLLAMA],
        [CHILD],
        [Row(10, 1, ("bash",)), CHILD],
        [OLLAMA, Row(11, 1, CHILD.argv)],
        [OLLAMA, Row(11, 10, ("/usr/local/bin/ollama", "runner", "--model", "x"))],
        [Row(10, 1, ("ollama", "run", "llama-server")), CHILD],
        [Row(10, 1, ()), Row(11, 10, ())],
    ],
)
def test_any_other_is_not(rows):
    assert not runs_llama_server(rows)
    with pytest.raises(UsageError, match="none is") as caught:
        require_seen(rows)
    assert "ollama run" in caught.value.hint


def test_the_experimental_group_is_there_only_for_who_asks():
    model = Model(reference="m")
    plain = {knob.name for knob in knobs(PRIVATE, model)}
    whole = {knob.name: knob for knob in knobs(EXPERIMENTAL, model)}
    group = set(whole) - plain
    assert {"spec_type", "ngram_mod_n_max", "threads_batch", "cache_ram"} <= group
    assert all(whole[name].summary.startswith("experimental") for name in group)
    assert all(whole[name].experimental for name in group)
    assert {whole[name].change for name in group} == {"restart"}


# What a server and a request are told


def test_what_nobody_set_is_not_said():
    told = defaults(EXPERIMENTAL, Model(reference="m"), ())
    assert variables(told.config, told.origins) == {}
    assert options(told.config, told.origins) == {}
    assert llama_config(told.config, told.origins) is None


def test_each_setting_is_said_to_who_reads_it():
    config = Config(
        {
            "num_ctx": 8192,
            "use_mmap": "off",
            "num_gpu": -1,
            "num_batch": 0,
            "num_parallel": 4,
            "keep_alive": -1,
            "spec_type": "ngram-mod",
            "ngram_mod_n_max": 32,
        }
    )
    origins = {"num_parallel": ENGINE_DEFAULT}
    assert options(config, origins) == {"num_ctx": 8192, "use_mmap": False, "num_gpu": -1}
    assert variables(config, origins) == {
        "OLLAMA_KEEP_ALIVE": "-1",
        "LLAMA_ARG_SPEC_TYPE": "ngram-mod",
    }
    assert llama_config(config, origins) == "[*]\nspec-ngram-mod-n-max = 32\n"
