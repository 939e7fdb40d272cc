"""What a server tells of itself is read by its own names, and only what is about inference."""

from __future__ import annotations

import math
import time

import pytest
from velollm_openai.metrics import read_metrics

VLLM = """\
# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 11.0
process_resident_memory_bytes 1.2e+09
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="/models/a b"} 2.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop"} 3.0
vllm:request_success_total{engine="0",finished_reason="length"} 4.0
# TYPE vllm:request_success_created gauge
vllm:request_success_created{engine="0",finished_reason="stop"} 1.79e+09
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",engine="0"} 1.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{le="0.001"} 0.0
vllm:time_to_first_token_seconds_sum 1.5
vllm:time_to_first_token_seconds_count 7.0
"""


def test_counters_are_summed_and_gauges_are_told_apart():
    assert read_metrics(VLLM) == {
        "vllm:num_requests_running": 2.0,
        'vllm:kv_cache_usage_perc{engine="0"}': 0.25,
        'vllm:kv_cache_usage_perc{engine="1"}': 0.5,
        "vllm:request_success_total": 7.0,
    }


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("llamacpp:requests_processing 1", {"llamacpp:requests_processing": 1.0}),
        ("llamacpp:n_tokens_max 512 1700000000000", {"llamacpp:n_tokens_max": 512.0}),
        ('sglang:token_usage{model_name="a \\"b\\" }"} 0.28', {"sglang:token_usage": 0.28}),
        ('localai_agent_runs_total{outcome="error"} 2', {"localai_agent_runs_total": 2.0}),
        ("vllm:x NaN", {}),
        ("vllm:x +Inf", {}),
        ("vllm:x one", {}),
        ("<html><body>not here</body></html>", {}),
        ("", {}),
    ],
)
def test_each_form_of_line_is_read_or_passed_over(line, found):
    assert read_metrics(line) == found


def test_a_flood_of_names_is_bounded():
    text = "\n".join(f"vllm:x_{number} {number}" for number in range(100_000))
    found = read_metrics(text)
    assert len(found) == 500
    assert all(map(math.isfinite, found.values()))


def test_counters_whose_sum_is_no_number_are_left_out():
    text = '# TYPE a_total counter\na_total{x="1"} 1e308\na_total{x="2"} 1.7e308\nvllm:x 1'
    assert read_metrics(text) == {"vllm:x": 1.0}


@pytest.mark.parametrize("labels", ["a" * 200_000, "a " * 100_000, ',a="' * 50_000])
def test_labels_without_an_end_take_little_time(labels):
    started = time.monotonic()
    assert len(read_metrics(f"m{{{labels}}} 1")) == 1
    assert time.monotonic() - started < 5


def test_a_session_counts_only_where_the_server_does(serve, connect):
    assert connect(serve().url).counters() is None
    told = connect(serve(routes={"/metrics": VLLM.encode()}).url)
    assert told.counters()["vllm:num_requests_running"] == 2.0
    assert "counters" in told.capabilities
