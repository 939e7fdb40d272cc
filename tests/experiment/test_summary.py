"""The figures of a benchmark, computed from results built by hand."""

from __future__ import annotations

import random

import pytest
from attrs import evolve, fields
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.backends.contract import ServerTimings
from velollm_core.errors import FailureKind
from velollm_core.experiment.spec import Failure
from velollm_core.experiment.summary import Estimate, SummaryRow, replication, summarize

CRASH = Failure(kind=FailureKind.CRASH, message="signal SIGKILL")


@pytest.fixture
def one(build):
    """The row of a single launch of these samples."""

    def one(*samples, **changes):
        return summarize(build.result([build.trial([build.phase(samples, **changes)])]))[0]

    return one


@pytest.fixture
def launches(build):
    """The row of launches, each given by its samples."""

    def launches(*groups, **changes):
        trials = [build.trial([build.phase(group)], block) for block, group in enumerate(groups)]
        return summarize(build.result(trials, **changes))[0]

    return launches


def test_a_launch_is_reduced_to_its_median_before_anything_else(build, launches):
    row = launches(
        [
            build.sample(0, first_ms=10.0),
            build.sample(1, first_ms=20.0),
            build.sample(2, first_ms=99.0),
        ],
        [build.sample(0, first_ms=40.0)] * 50,
    )
    assert row.first_token_ms.value == 30.0
    assert row.first_token_ms.n == 2
    assert row.first_token_ms.over == "launch"


def test_the_interval_is_students_over_launches(build, launches):
    row = launches(*([build.sample(first_ms=first)] for first in (40.0, 50.0, 60.0)))
    assert row.first_token_ms.value == pytest.approx(50.0)
    # t(0.975, 2) = 4.302653, standard error 10 / sqrt(3)
    assert row.first_token_ms.high - 50.0 == pytest.approx(4.302653 * 10 / 3**0.5, rel=1e-6)
    assert 50.0 - row.first_token_ms.low == pytest.approx(4.302653 * 10 / 3**0.5, rel=1e-6)
    assert row.first_token_ms.spread == pytest.approx(0.2)


def test_an_interval_does_not_reach_below_what_is_possible(build, launches):
    row = launches([build.sample(first_ms=11.0)], [build.sample(first_ms=99.0)])
    assert row.first_token_ms.low == 0.0
    assert row.first_token_ms.high > 99.0
    slow, fast = (ServerTimings(prompt_ms=5.0, predicted_ms=ms) for ms in (204.0, 196.0))
    row = launches([build.sample(timings=slow)], [build.sample(timings=fast)])
    assert row.rate_disagreement.low < 0.0 < row.rate_disagreement.high


def test_one_launch_has_no_interval_however_many_requests(build, one):
    row = one(*(build.sample(index, first_ms=40.0 + index) for index in range(80)))
    assert (row.first_token_ms.low, row.first_token_ms.high) == (None, None)
    assert row.first_token_ms.spread is None


def test_an_attached_server_is_replicated_in_blocks(build):
    trials = [build.trial([build.phase([build.sample()])], block) for block in range(3)]
    attached = build.result(trials, arms=(build.arm(mode="attach"),), unit="block")
    assert replication(attached, attached.arms[0]) == "block"
    assert summarize(attached)[0].over == "block"
    assert summarize(attached)[0].first_token_ms.over == "block"


def test_tail_percentiles_are_over_requests(build, one):
    row = one(*(build.sample(index, first_ms=index + 20.0) for index in range(101)))
    assert row.first_token_p95_ms == Estimate(
        value=115.0, low=row.first_token_p95_ms.low, high=120.0, n=101, over="request"
    )
    assert row.first_token_p95_ms.low < 115.0
    assert row.first_token_p99_ms.value == 119.0


def test_the_99th_percentile_needs_100_requests(build, one):
    assert one(*(build.sample(index) for index in range(99))).first_token_p99_ms is None
    assert one(*(build.sample(index) for index in range(100))).first_token_p99_ms is not None
    assert one(*(build.sample(index) for index in range(99))).total_p95_ms is not None


def test_token_gaps_come_from_all_events_of_a_launch(build, one):
    row = one(build.sample(gap_ms=8.0), build.sample(1, gap_ms=12.0), build.sample(2, gap_ms=8.0))
    assert row.token_gap_ms.value == pytest.approx(8.0)
    assert row.token_gap_p95_ms.value == pytest.approx(12.0)
    assert row.token_gap_p99_ms is None
    assert row.tokens_per_event.value == 1


def test_a_burst_of_tokens_is_as_many_gaps(build, one):
    burst = build.sample(
        event_ms=(50.0, 90.0, 100.0), event_tokens=(1, 4, 1), output_tokens=6, tokens=3
    )
    row = one(burst)
    assert row.token_gap_ms.value == pytest.approx(10.0)
    assert row.tokens_per_event.value == 2.5
    assert row.client_decode_tok_s.value == pytest.approx(100.0)


def test_an_event_without_new_tokens_is_no_end_of_a_gap(build, one):
    row = one(build.sample(event_ms=(50.0, 55.0, 60.0), event_tokens=(1, 0, 1), output_tokens=2))
    assert row.token_gap_ms.value == pytest.approx(10.0)
    assert row.tokens_per_event.value == 1


def test_events_that_do_not_tell_their_tokens_count_as_one_and_the_server_s_count_gives_the_rate(
    build, one
):
    row = one(
        build.sample(
            event_ms=(50.0, 70.0, 90.0), event_tokens=(0, 0, 0), output_tokens=6, total_ms=90.0
        )
    )
    assert row.token_gap_ms.value == pytest.approx(20.0)
    assert row.tokens_per_event is None
    assert row.client_decode_tok_s.value == pytest.approx(4 / 0.040)


def test_prefill_counts_only_tokens_that_were_processed(build, one):
    timings = ServerTimings(prompt_ms=50.0, predicted_ms=200.0)
    assert one(build.sample(prompt=100, cached=40, timings=timings)).prefill_tok_s.value == 1200.0
    unknown = build.sample(prompt=100, cached=None, timings=timings)
    assert one(unknown).prefill_tok_s is None
    told = ServerTimings(prompt_ms=50.0, predicted_ms=200.0, prompt_per_second=1234.0)
    assert one(build.sample(cached=None, timings=told)).prefill_tok_s.value == 1234.0
    assert one(build.sample(prompt=100, cached=100, timings=timings)).prefill_tok_s is None


def test_the_server_s_decode_rate_leaves_out_the_first_token(build, one):
    timings = ServerTimings(prompt_ms=5.0, predicted_ms=200.0)
    assert one(build.sample(tokens=21, timings=timings)).decode_tok_s.value == pytest.approx(100.0)
    told = evolve(timings, predicted_per_second=97.0)
    assert one(build.sample(timings=told)).decode_tok_s.value == 97.0
    assert one(build.sample(tokens=1, timings=told)).decode_tok_s is None


def test_client_and_server_rates_are_compared_request_by_request(build, one):
    slow = ServerTimings(prompt_ms=5.0, predicted_ms=210.0)
    row = one(build.sample(gap_ms=10.0, tokens=21, timings=slow))
    assert row.rate_disagreement.value == pytest.approx(0.05)


def test_the_total_rate_is_all_tokens_over_the_wall_time(build, one):
    samples = [build.sample(index, tokens=30) for index in range(8)]
    row = one(*samples, concurrency=4, wall_ms=2000.0)
    assert row.concurrency == 4
    assert row.output_tok_s.value == 120.0
    assert one(build.sample(output_tokens=None)).output_tok_s is None


def test_drafts_are_summed_over_a_launch(build, one):
    row = one(
        build.sample(0, tokens=20, drafted_tokens=10, accepted_tokens=9),
        build.sample(1, tokens=20, drafted_tokens=30, accepted_tokens=11),
        build.sample(2, tokens=20),
    )
    assert row.draft_acceptance.value == 0.5
    assert row.draft_share.value == 0.5
    assert one(build.sample()).draft_acceptance is None


def test_load_memory_and_energy_are_of_the_launch(build):
    phases = [build.phase([build.sample(tokens=50, warmup=True), build.sample(1, tokens=50)])]
    trials = [
        build.trial(phases, 0, load_ms=700.0, peak_rss_bytes=10, energy_j=200.0),
        build.trial(phases, 1, load_ms=900.0, peak_rss_bytes=30, peak_gpu_bytes={"a": 5, "b": 6}),
    ]
    (row,) = summarize(build.result(trials))
    assert row.load_ms.value == 800.0
    assert row.peak_rss_bytes == 30
    assert row.peak_gpu_bytes == 11
    assert (row.energy_j_per_token.value, row.energy_j_per_token.n) == (2.0, 1)


def test_energy_is_not_guessed_where_tokens_are_not_counted(build):
    phases = [build.phase([build.sample(), build.sample(1, output_tokens=None)])]
    (row,) = summarize(build.result([build.trial(phases, energy_j=100.0)]))
    assert row.energy_j_per_token is None


def test_a_failed_request_is_counted_and_never_a_zero(build, one):
    dead = build.sample(
        3, first_token_ms=None, total_ms=0.0, event_ms=(), event_tokens=(), output_tokens=None,
        timings=None, error="the server died", failure=FailureKind.CRASH,
    )  # fmt: skip
    clean = one(build.sample(0), build.sample(1), wall_ms=500.0)
    row = one(build.sample(0), build.sample(1), dead, wall_ms=500.0)
    assert (row.requests_ok, row.requests_failed) == (2, 1)
    assert evolve(row, requests_failed=0) == clean


def test_a_failed_launch_leaves_the_figures_to_the_others(build):
    good = [build.trial([build.phase([build.sample(first_ms=50.0)])], block) for block in (0, 1)]
    bad = build.trial([build.phase([build.sample(first_ms=900.0)])], 2, failure=CRASH)
    (row,) = summarize(build.result([*good, bad]))
    assert (row.trials, row.trials_failed) == (2, 1)
    assert (row.first_token_ms.value, row.first_token_ms.n) == (50.0, 2)
    assert row.requests_ok == 3


def test_what_a_stopped_run_answered_is_shown_where_nothing_else_is(build):
    stopped = Failure(kind=FailureKind.INTERRUPTED, message="stopped")
    (row,) = summarize(
        build.result(
            [build.trial([build.phase([build.sample()])], failure=stopped)], complete=False
        )
    )
    assert row.first_token_ms.value == 50.0
    assert (row.trials, row.trials_failed) == (0, 1)


def test_an_arm_that_never_answered_has_a_row_without_figures(build):
    (row,) = summarize(build.result([build.trial([], failure=CRASH)]))
    assert (row.workload, row.trials, row.trials_failed, row.requests_ok) == ("short", 0, 1, 0)
    figures = [getattr(row, field.name) for field in fields(SummaryRow)][8:]
    assert figures == [None] * len(figures)


def test_rows_follow_the_plan(build):
    phases = [
        build.phase([build.sample()], name, clients)
        for name in ("short", "code")
        for clients in (1, 4, 8)
    ]
    trials = [build.trial(phases, 0, "b"), build.trial(phases, 0, "a")]
    rows = summarize(build.result(trials))
    assert [(row.arm, row.workload, row.concurrency) for row in rows] == [
        (arm, name, clients) for arm in "ba" for name in ("short", "code") for clients in (1, 4, 8)
    ]


def test_a_server_that_tells_nothing_leaves_only_the_client_s_times(build, one):
    row = one(
        build.sample(
            event_tokens=(0,) * 21, prompt_tokens=None, cached_tokens=None, output_tokens=None,
            timings=None,
        )
    )  # fmt: skip
    told = {f.name for f in fields(SummaryRow) if isinstance(getattr(row, f.name), Estimate)}
    assert told == {
        "first_token_ms", "first_token_p95_ms", "token_gap_ms", "token_gap_p95_ms", "total_ms",
        "total_p95_ms", "load_ms",
    }  # fmt: skip


@st.composite
def lives(draw):
    """Launches of requests with arbitrary times, some of them warm-up, some failed."""
    return [
        [
            {
                "first_ms": draw(st.floats(11, 500)),
                "gap_ms": draw(st.floats(0.1, 100)),
                "tokens": draw(st.integers(1, 12)),
                "warmup": draw(st.booleans()),
                "error": draw(st.sampled_from([None, None, "broke off"])),
            }
            for _ in range(draw(st.integers(1, 6)))
        ]
        for _ in range(draw(st.integers(1, 4)))
    ]


def rows_of(build, groups):
    return summarize(
        build.result(
            [
                build.trial([build.phase(group, wall_ms=1000.0)], block)
                for block, group in enumerate(groups)
            ]
        )
    )


@given(groups=lives(), shuffle=st.randoms(use_true_random=False))
def test_the_order_of_samples_and_launches_does_not_matter(build, groups, shuffle):
    samples = [[build.sample(i, **life) for i, life in enumerate(group)] for group in groups]
    mixed = [random.Random(shuffle.random()).sample(group, len(group)) for group in samples]
    shuffle.shuffle(mixed)
    assert rows_of(build, samples) == rows_of(build, mixed)


@given(groups=lives(), slow=st.floats(1e3, 1e6))
def test_warm_up_and_failed_requests_are_in_no_figure(build, groups, slow):
    samples = [[build.sample(i, **life) for i, life in enumerate(group)] for group in groups]
    others = [
        [
            evolve(s, first_token_ms=slow, total_ms=slow, output_tokens=1)
            if s.warmup or s.error
            else s
            for s in group
        ]
        for group in samples
    ]
    assert rows_of(build, samples) == rows_of(build, others)


@given(groups=lives())
def test_every_interval_holds_its_figure(build, groups):
    samples = [[build.sample(i, **life) for i, life in enumerate(group)] for group in groups]
    (row,) = rows_of(build, samples)
    answered = sum(not life["warmup"] and not life["error"] for group in groups for life in group)
    assert row.requests_ok == answered
    for field in fields(SummaryRow):
        figure = getattr(row, field.name)
        if isinstance(figure, Estimate):
            assert (figure.low is None) == (figure.high is None)
            assert figure.low is None or figure.low <= figure.value <= figure.high
            assert figure.n >= 1
