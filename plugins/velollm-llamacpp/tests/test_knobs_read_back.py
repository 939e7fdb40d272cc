"""Every knob, set to a value that is not its default, is seen in the running engine, or says why
it cannot be."""

from __future__ import annotations

import pytest

from velollm_core.backends.contract import mismatches
from velollm_core.config import Config

GROUPS = {
    "small, apart, quantized": {
        "threads": 1,
        "threads_batch": 2,
        "batch": 256,
        "ubatch": 64,
        "context": 1025,
        "slots": 2,
        "kv_unified": False,
        "cache_type_k": "q8_0",
        "cache_type_v": "q4_0",
        "flash_attention": "on",
        "gpu_layers": 1,
        "load_mode": "none",
        "cache_ram": 0,
        "ctx_checkpoints": 0,
        "spec_type": "ngram-simple",
        "ngram_simple_size_n": 3,
        "ngram_simple_size_m": 8,
        "ngram_simple_min_hits": 2,
    },
    "shared, capped, without flash attention": {
        "threads": 1,
        "batch": 4096,
        "ubatch": 4096,
        "context": 1000,
        "slots": 3,
        "flash_attention": "off",
        "load_mode": "mmap+mlock",
        "cache_ram": -1,
        "ctx_checkpoints": 4,
        "spec_type": "ngram-mod",
        "ngram_mod_n_match": 5,
        "ngram_mod_n_min": 3,
        "ngram_mod_n_max": 9,
    },
    "one slot, what cannot be read back": {
        "threads": 1,
        "context": 512,
        "slots": 1,
        "cache_type_k": "iq4_nl",
        "cache_type_v": "q5_1",
        "cache_ram": 100,
        "load_mode": "dio",
        "cache_prompt": False,
        "cache_reuse": 64,
        "slot_similarity": 0.5,
        "poll": 0,
        "spec_type": "ngram-map-k",
        "ngram_map_k_size_n": 5,
        "ngram_map_k_size_m": 7,
        "ngram_map_k_min_hits": 2,
    },
    "a part of the training length each": {
        "threads": 1,
        "slots": 3,
        "kv_unified": False,
        "cache_type_k": "q4_0",
        "cache_type_v": "q4_0",
        "load_mode": "mlock",
        "spec_type": "ngram-map-k4v",
        "ngram_map_k4v_size_n": 5,
        "ngram_map_k4v_size_m": 7,
        "ngram_map_k4v_min_hits": 2,
    },
}


def groups_of(backend, installation, demo):
    names = {knob.name for knob in backend.knobs(installation, demo)}
    return {
        title: {name: value for name, value in group.items() if name in names}
        for title, group in GROUPS.items()
    }


def test_every_knob_is_tried_with_a_value_that_is_not_its_default(backend, installation, demo):
    knobs = backend.knobs(installation, demo)
    defaults = backend.defaults(installation, demo).config
    groups = groups_of(backend, installation, demo)
    assert {knob.name for knob in knobs} == set().union(*groups.values())
    for group in groups.values():
        assert all(value != defaults[name] for name, value in group.items())
        assert backend.check(installation, demo, Config(group)) == ()


def test_each_knob_is_read_back_in_some_group_or_says_why_it_cannot_be(backend, installation, demo):
    readable = {
        name
        for group in groups_of(backend, installation, demo).values()
        for name in backend.expected(installation, demo, Config(group))
    }
    for knob in backend.knobs(installation, demo):
        assert (knob.name in readable) != bool(knob.unreadable)


def test_layers_on_a_gpu_are_tried_where_there_is_one():
    assert any("gpu_layers" in group for group in GROUPS.values())


def test_a_batch_that_cannot_hold_one_token_of_each_slot_is_named(backend, installation, demo):
    def named(**knobs):
        return [problem.knob for problem in backend.check(installation, demo, Config(knobs))]

    assert named(batch=3, ubatch=3) == ["batch"]  # the engine's own choice is four slots
    assert named(batch=4, ubatch=4) == []
    assert named(batch=1, ubatch=1, slots=1) == []
    assert named(batch=7, slots=8) == ["batch"]


@pytest.mark.engine
@pytest.mark.parametrize("title", GROUPS)
def test_a_started_engine_reports_what_is_expected(backend, installation, demo, start, title):
    config = Config(groups_of(backend, installation, demo)[title])
    effective = start(installation, **config).effective()
    complete = backend.defaults(installation, demo).config | config
    assert mismatches(backend.expected(installation, demo, complete), effective) == ()


@pytest.mark.engine
def test_left_to_the_engine_a_cache_in_parts_holds_the_training_length_for_each_slot(
    start, embedded
):
    assert start(embedded, slots=2, kv_unified=False).effective()["context"] == 2 * 8192
