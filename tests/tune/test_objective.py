"""What counts: the words for it, and the one number that a trial comes to."""

from __future__ import annotations

import math

import pytest
from attrs import evolve

from velollm_core.errors import FailureKind, UsageError
from velollm_core.experiment.spec import Failure, Phase
from velollm_core.tune.objective import BUILT_IN, parse_objective, speed


def phases(tuning):
    other = evolve(tuning.workload, name="code")
    return tuple(
        Phase(workload=workload, requests=8, concurrency=clients)
        for workload in (tuning.workload, other)
        for clients in (1, 8)
    )


def test_one_word_counts_all_workloads_alike_at_its_number_of_clients(tuning):
    decode = parse_objective("decode", phases(tuning))
    assert {(t.workload, t.concurrency, t.metric) for t in decode.terms} == {
        ("w", 1, "decode_tok_s"),
        ("code", 1, "decode_tok_s"),
    }
    throughput = parse_objective("throughput", phases(tuning))
    assert {t.concurrency for t in throughput.terms} == {8}


def test_a_mix_weighs_its_parts_and_a_part_may_be_of_one_workload(tuning):
    mix = parse_objective("decode@code=2, ttft=1", phases(tuning))
    weights = {(t.workload, t.metric): t.weight for t in mix.terms}
    assert weights == {
        ("code", "decode_tok_s"): 2.0,
        ("w", "first_token_ms"): 0.5,
        ("code", "first_token_ms"): 0.5,
    }
    assert mix.name == "decode@code=2,ttft=1"


@pytest.mark.parametrize(
    "text",
    ["", "speed", "decode,", "decode=0", "decode=x", "decode=inf", "decode,decode", "ttft@x"],
)
def test_what_is_no_objective_is_refused_with_what_is_one(tuning, text):
    with pytest.raises(UsageError) as refused:
        parse_objective(text, phases(tuning))
    assert all(name in refused.value.hint for name in BUILT_IN)


def test_a_speed_is_the_weighted_geometric_mean_and_a_time_counts_by_its_inverse(tuning, build):
    phase = build.phase([build.sample(first_ms=50.0, gap_ms=10.0, tokens=21)], workload="w")
    trial = build.trial([phase])
    words = parse_objective("decode=3,ttft=1", [Phase(workload=tuning.workload, requests=1)])
    expected = (3 * math.log(100.0) - math.log(50.0)) / 4
    assert speed(words, trial) == pytest.approx(math.exp(expected))


def test_a_failed_trial_and_one_that_does_not_tell_have_no_speed(tuning, build):
    words = parse_objective("decode", [Phase(workload=tuning.workload, requests=1)])
    phase = build.phase([build.sample()], workload="w")
    failure = Failure(kind=FailureKind.CRASH, message="gone")
    assert speed(words, build.trial([phase], failure=failure)) is None
    silent = build.phase([build.sample(timings=None)], workload="w")
    assert speed(words, build.trial([silent])) is None
    assert speed(words, build.trial([build.phase([build.sample()], workload="other")])) is None
