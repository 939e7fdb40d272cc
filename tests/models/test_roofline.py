"""Predicted speeds: the formula by hand where one device works, and what may never happen."""

from __future__ import annotations

import math

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.errors import UsageError
from velollm_core.models.memory import Placement, Use
from velollm_core.models.roofline import Arithmetic, DeviceRates, Rate, Rates, decode, prefill

USE = Use(context_tokens=4096, slots=1)
SLOW = Arithmetic(vector={"*": Rate(1e9)}, matrix={"*": Rate(1e9)})
ALL_ON_GPU = Placement(gpu_layers=5)
KV_BYTES = 4 * 2 * 2 * 64 * 2
"""A position takes so much: layers, KV heads, keys and values, elements, float16."""


def device(bandwidth=1e9, vector=1e30, matrix=1e30, **more):
    weights = Arithmetic(vector={"*": Rate(vector)}, matrix={"*": Rate(matrix)})
    return DeviceRates(bandwidth_bytes_per_s=bandwidth, weights=weights, **more)


def test_where_memory_is_all_that_takes_time_a_token_reads_every_weight_and_the_cache(small_spec):
    spec = small_spec()
    read = sum(spec.layer_bytes) + spec.output_bytes + 1001 * KV_BYTES
    found = decode(spec, USE, Rates(host=device()), depth_tokens=1000)
    assert found.tokens_per_s == pytest.approx(1e9 / read)
    assert found.binds == "bandwidth"


def test_where_arithmetic_is_all_each_weight_takes_one_multiplication(small_spec):
    spec = small_spec()
    rates = Rates(host=device(bandwidth=1e30, vector=1e6))
    weights = sum(spec.layer_bytes) / (34 / 32) + spec.output_bytes / 2
    found = decode(spec, USE, rates)
    assert found.tokens_per_s == pytest.approx(1e6 / weights)
    assert found.binds == "arithmetic"


def test_every_type_has_its_own_rate_and_the_output_that_of_its_own_type(small_spec):
    spec = small_spec()
    weights = Arithmetic(vector={"Q8_0": Rate(1e30), "F16": Rate(1e3)})
    rates = Rates(host=DeviceRates(bandwidth_bytes_per_s=1e30, weights=weights))
    assert decode(spec, USE, rates).tokens_per_s == pytest.approx(1e3 / (spec.output_bytes / 2))


def test_neither_term_hides_wholly_behind_an_equal_one(small_spec):
    spec = small_spec()
    memory = decode(spec, USE, Rates(host=device())).tokens_per_s
    rate = 1e9 / (sum(spec.layer_bytes) + spec.output_bytes + KV_BYTES)
    assert memory == pytest.approx(rate)
    elements = sum(spec.layer_bytes) / (34 / 32) + spec.output_bytes / 2
    both = decode(spec, USE, Rates(host=device(vector=rate * elements))).tokens_per_s
    assert both == pytest.approx(rate / math.sqrt(2))


def test_a_layer_a_step_and_a_choice_of_token_cost_what_the_rates_say(small_spec):
    spec = small_spec()
    rates = Rates(
        host=device(bandwidth=1e30, layer_s=0.01), step_s=0.1, candidate_s=1 / spec.vocabulary_size
    )
    found = decode(spec, USE, rates)
    assert found.tokens_per_s == pytest.approx(1 / (0.04 + 0.1 + 1))
    assert found.binds == "overhead"


def test_every_row_of_weights_takes_what_starting_a_dot_product_takes(small_spec):
    spec = small_spec()
    weights = Arithmetic(vector={"*": Rate(1e30, 1e-6)})
    rates = Rates(host=DeviceRates(bandwidth_bytes_per_s=1e30, weights=weights))
    numbers = sum(spec.layer_bytes) / (34 / 32) + spec.output_bytes / 2
    rows = numbers / spec.embedding_length
    assert decode(spec, USE, rates).tokens_per_s == pytest.approx(1e6 / rows)


def test_attention_takes_its_head_sizes_and_a_start_for_each_head_and_position(small_spec):
    attention = Arithmetic(vector={"F16": Rate(1e6, 50e-6)})
    rates = Rates(host=device(bandwidth=1e30, attention=attention))
    heads = 4 * 4
    found = decode(small_spec(), USE, rates, depth_tokens=99)
    assert found.tokens_per_s == pytest.approx(1e6 / (heads * 100 * (64 + 64 + 50)))


def test_of_experts_those_are_read_that_some_sequence_is_sent_to(small_spec):
    spec = small_spec(experts=8)
    rates = Rates(host=device())
    dense = sum(spec.layer_bytes) - sum(spec.expert_bytes) + spec.output_bytes
    one = decode(spec, USE, rates).tokens_per_s
    assert one == pytest.approx(1e9 / (dense + sum(spec.expert_bytes) / 4 + KV_BYTES))
    four = decode(spec, USE, rates, sequences=4).tokens_per_s
    touched = 1 - (1 - 2 / 8) ** 4
    read = dense + sum(spec.expert_bytes) * touched + 4 * KV_BYTES
    assert four == pytest.approx(4e9 / read)


def test_a_window_is_all_of_the_cache_that_a_sliding_layer_reads(small_spec):
    spec = small_spec(sliding_window=128, sliding_layers=(True,) * 4)
    rates = Rates(host=device())
    depths = [decode(spec, USE, rates, depth_tokens=depth).tokens_per_s for depth in (128, 4000)]
    assert depths[0] == depths[1]


def test_a_layer_without_a_cache_of_its_own_reads_that_of_the_last_one_like_it(small_spec):
    slides = (True, False, True, False)
    spec = small_spec(sliding_window=128, sliding_layers=slides, kv_heads=(2, 4, 0, 0))
    read = sum(spec.layer_bytes) + spec.output_bytes + 2 * (128 * 2 + 1000 * 4) * 2 * 64 * 2
    found = decode(spec, USE, Rates(host=device()), depth_tokens=999)
    assert found.tokens_per_s == pytest.approx(1e9 / read)
    without = evolve(spec, kv_heads=(0,) * 4)
    found = decode(without, USE, Rates(host=device()), depth_tokens=999)
    assert found.tokens_per_s == pytest.approx(1e9 / (sum(spec.layer_bytes) + spec.output_bytes))


def test_the_devices_of_a_split_work_one_after_the_other(small_spec):
    spec = small_spec()
    rates = Rates(host=device(), gpus=(device(1e12),), link_bytes_per_s=1e30)
    seconds = [
        1 / decode(spec, USE, rates, Placement(gpu_layers=layers)).tokens_per_s
        for layers in (0, 3, 5)
    ]
    on_host = 2 * (spec.layer_bytes[0] + KV_BYTES / 4) / 1e9
    on_gpu = (2 * (spec.layer_bytes[0] + KV_BYTES / 4) + spec.output_bytes) / 1e12
    assert seconds[1] == pytest.approx(on_host + on_gpu)
    assert seconds[0] > seconds[1] > seconds[2]


def test_experts_in_main_memory_are_read_there(small_spec):
    spec = small_spec(experts=8)
    rates = Rates(host=device(), gpus=(device(1e30),), link_bytes_per_s=1e30)
    placement = Placement(gpu_layers=5, cpu_expert_layers=3)
    found = decode(spec, USE, rates, placement)
    assert found.tokens_per_s == pytest.approx(1e9 / (3 * spec.expert_bytes[0] / 4))


def test_nothing_is_predicted_where_a_device_that_works_is_not_known(small_spec):
    spec = small_spec()
    host_only = Rates(host=device(), gpus=(None,), link_bytes_per_s=1e9)
    assert decode(spec, USE, host_only, ALL_ON_GPU) is None
    assert decode(spec, USE, host_only, Placement(gpu_layers=2)) is None
    assert decode(spec, USE, host_only) is not None
    gpu_only = Rates(gpus=(device(),), link_bytes_per_s=1e9)
    assert decode(spec, USE, gpu_only, ALL_ON_GPU) is not None
    assert decode(spec, USE, gpu_only) is None
    no_matrix = DeviceRates(bandwidth_bytes_per_s=1e9, weights=Arithmetic(vector={"*": Rate(1e9)}))
    assert prefill(spec, USE, Rates(host=no_matrix)) is None
    assert decode(small_spec(type_bytes={"type 99": 1 << 20}), USE, Rates(host=device())) is None


def test_a_cache_type_that_does_not_exist_is_named(small_spec):
    with pytest.raises(UsageError, match="'q9_9'"):
        decode(small_spec(), evolve(USE, type_k="q9_9"), Rates(host=device()))


def test_a_prompt_is_read_in_physical_batches_and_only_its_last_token_is_answered(small_spec):
    spec = small_spec()
    use = evolve(USE, ubatch_tokens=100)
    read = 3 * sum(spec.layer_bytes) + spec.output_bytes + (100 + 200 + 250) * KV_BYTES
    found = prefill(spec, use, Rates(host=device()), prompt_tokens=250)
    assert found.tokens_per_s == pytest.approx(250e9 / read)


def test_attention_of_a_prompt_grows_with_its_square_and_within_a_window_does_not(small_spec):
    attention = Arithmetic(matrix={"F16": Rate(1e6)})
    rates = Rates(host=device(bandwidth=1e30, attention=attention))
    pairs = 300 * 301 / 2
    found = prefill(small_spec(), USE, rates, prompt_tokens=300)
    assert found.tokens_per_s == pytest.approx(300e6 / (16 * pairs * 128))
    sliding = small_spec(sliding_window=100, sliding_layers=(True,) * 4)
    pairs = 100 * 101 / 2 + 200 * 100
    found = prefill(sliding, USE, rates, prompt_tokens=300)
    assert found.tokens_per_s == pytest.approx(300e6 / (16 * pairs * 128))


def test_for_a_long_prompt_weights_are_brought_to_the_gpu_where_that_is_faster(small_spec):
    spec = small_spec()
    slow_host = Rates(host=device(matrix=1e9), gpus=(device(),), link_bytes_per_s=1e8)
    found = prefill(spec, USE, slow_host, prompt_tokens=512)
    assert found.binds == "link"
    assert found.tokens_per_s < 512e8 / sum(spec.layer_bytes)
    alone = prefill(spec, USE, Rates(host=device(matrix=1e9)), prompt_tokens=512)
    assert found.tokens_per_s > alone.tokens_per_s
    short = prefill(spec, USE, slow_host, prompt_tokens=31)
    assert short == prefill(spec, USE, Rates(host=device(matrix=1e9)), prompt_tokens=31)


rate = st.floats(1e6, 1e12)


@settings(max_examples=40, deadline=None)
@given(
    bandwidth=rate,
    vector=rate,
    faster=st.floats(1.0, 100.0),
    depth=st.integers(0, 8192),
    deeper=st.integers(0, 8192),
    experts=st.sampled_from([0, 4, 8]),
    gpu_layers=st.integers(0, 5),
    sequences=st.integers(1, 8),
)
def test_faster_parts_are_never_slower_and_deeper_contexts_never_faster(
    *, small_spec, bandwidth, vector, faster, depth, deeper, experts, gpu_layers, sequences
):
    spec = small_spec(experts=experts)
    placement = Placement(gpu_layers=gpu_layers)

    def speed(bandwidth=bandwidth, vector=vector, depth=depth):
        one = device(bandwidth, vector, vector, attention=SLOW)
        rates = Rates(host=one, gpus=(one,), link_bytes_per_s=1e9)
        return decode(
            spec, USE, rates, placement, depth_tokens=depth, sequences=sequences
        ).tokens_per_s

    least = speed() * (1 - 1e-12)
    assert speed(bandwidth=bandwidth * faster) >= least
    assert speed(vector=vector * faster) >= least
    assert speed(depth=depth + deeper) <= speed() * (1 + 1e-12)
