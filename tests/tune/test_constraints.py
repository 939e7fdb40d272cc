"""Limits: the words for them, and whether trials kept them."""

from __future__ import annotations

import pytest

from velollm_core.errors import FailureKind, UsageError
from velollm_core.experiment.spec import Failure
from velollm_core.tune.constraints import FIGURES, broken, parse_constraint


@pytest.mark.parametrize(
    ("text", "figure", "percentile", "at_most", "limit"),
    [
        ("ttft_p95<500ms", "ttft", 95.0, True, 500.0),
        ("ttft < 1.5 s", "ttft", 50.0, True, 1500.0),
        ("memory<6GiB", "memory", None, True, 6 * 2**30),
        ("decode>20tok/s", "decode", 50.0, False, 20.0),
        ("gap_p99.9<=80", "gap", 99.9, True, 80.0),
        ("throughput>=100", "throughput", None, False, 100.0),
    ],
)
def test_a_constraint_is_read(text, figure, percentile, at_most, limit):
    read = parse_constraint(text)
    assert (read.figure, read.percentile, read.at_most, read.limit) == (
        figure,
        percentile,
        at_most,
        limit,
    )
    assert read.text == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ttft",
        "ttft<",
        "ttft<fast",
        "ttft_p0<5ms",
        "ttft_p100<5ms",
        "ttft<5GiB",
        "ttft<0ms",
        "memory<6",
        "memory_p95<6GiB",
        "speed>3",
        "decode>20ms",
        "ttft<1ms<2ms",
    ],
)
def test_what_is_no_constraint_is_refused_with_what_is_one(text):
    with pytest.raises(UsageError) as refused:
        parse_constraint(text)
    assert all(name in refused.value.hint for name in FIGURES)


def test_a_percentile_is_over_the_requests_of_all_trials_together(build):
    trials = [
        build.trial([build.phase([build.sample(first_ms=ms)])], block=block)
        for block, ms in enumerate((100.0, 100.0, 100.0, 600.0))
    ]
    assert broken((parse_constraint("ttft_p50<500ms"),), trials) == ()
    (said,) = broken((parse_constraint("ttft_p95<500ms"),), trials)
    assert "ttft_p95<500ms" in said
    assert "525 ms" in said


def test_every_number_of_clients_keeps_a_limit_by_itself(build):
    slow = build.phase([build.sample(first_ms=900.0)], concurrency=8)
    quick = build.phase([build.sample(k, first_ms=50.0) for k in range(9)])
    (said,) = broken((parse_constraint("ttft<500ms"),), [build.trial([quick, slow])])
    assert "8 clients" in said


def test_memory_is_the_most_that_any_trial_took(build):
    trials = [build.trial([], block=k, peak_rss_bytes=size << 30) for k, size in enumerate((5, 7))]
    (said,) = broken((parse_constraint("memory<6GiB"),), trials)
    assert "7.00 GiB" in said
    assert broken((parse_constraint("memory<8GiB"),), trials) == ()


def test_a_speed_has_to_be_above_its_limit(build):
    trial = build.trial([build.phase([build.sample(gap_ms=10.0)])])
    assert broken((parse_constraint("decode>90"),), [trial]) == ()
    assert broken((parse_constraint("decode>110"),), [trial])


def test_a_limit_that_cannot_be_checked_is_not_kept(build):
    trial = build.trial([build.phase([build.sample()])], peak_rss_bytes=None)
    (said,) = broken((parse_constraint("memory<6GiB"),), [trial])
    assert "does not tell" in said


def test_trials_that_failed_break_nothing(build):
    failure = Failure(kind=FailureKind.CRASH, message="gone")
    trial = build.trial([], failure=failure, peak_rss_bytes=2**40)
    assert broken((parse_constraint("memory<6GiB"),), [trial]) == ()
