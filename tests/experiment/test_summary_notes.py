"""What a benchmark remarks about its own figures."""

from __future__ import annotations

import pytest
from attrs import evolve

from velollm_core.backends.contract import Mismatch, ServerTimings
from velollm_core.errors import FailureKind
from velollm_core.experiment.notes import notes
from velollm_core.experiment.spec import Failure, MachineLoad
from velollm_core.experiment.summary import summarize


@pytest.fixture
def remarks(build):
    """The notes on ``trials``, by code."""

    def remarks(*trials, **changes):
        result = build.result(trials, **changes)
        return {note.code: note for note in notes(result, summarize(result))}

    return remarks


@pytest.fixture
def quiet(build):
    """A launch that gives no cause for a remark."""

    def quiet(block=0, **changes):
        samples = [build.sample(index, prompt_sha256=f"{block}/{index}") for index in range(20)]
        return build.trial([build.phase(samples)], block, **changes)

    return quiet


def test_a_clean_run_has_no_notes(remarks, quiet):
    assert remarks(quiet(0), quiet(1), quiet(2)) == {}


def test_one_launch_has_no_interval(remarks, quiet):
    found = remarks(quiet())
    assert list(found) == ["one_launch"]
    assert found["one_launch"].message == "one launch: no interval"
    assert (found["one_launch"].arm, found["one_launch"].workload) == ("current", None)


def test_a_running_server_is_one_launch_in_any_number_of_blocks(build, remarks, quiet):
    arms = (build.arm(mode="attach"),)
    found = remarks(quiet(0), quiet(1), unit="block", arms=arms)
    assert "no interval spans launches" in found["one_launch"].message


def test_a_run_that_was_cut_short_says_so(remarks, quiet):
    stopped = Failure(kind=FailureKind.INTERRUPTED, message="stopped")
    found = remarks(quiet(0), quiet(1), quiet(2, failure=stopped), complete=False)
    assert list(found) == ["incomplete"]
    found = remarks(quiet(0, failure=stopped), complete=False)
    assert set(found) == {"incomplete", "partial"}


def test_failed_launches_are_named_by_kind_with_the_engine_s_words(remarks, quiet):
    found = remarks(
        quiet(0),
        quiet(1),
        quiet(2, failure=Failure(kind=FailureKind.OUT_OF_MEMORY, message="cannot allocate\nmore")),
        quiet(3, failure=Failure(kind=FailureKind.CRASH, message="gone")),
    )
    assert found["failed"].message == (
        "2 of 4 launches failed (1 crash, 1 out of memory): cannot allocate"
    )


def test_failed_requests_are_counted_by_kind(build, remarks):
    samples = [build.sample(index) for index in range(3)]
    samples[1] = evolve(samples[1], error="silent for 120 s\nTry", failure=FailureKind.TIMEOUT)
    found = remarks(build.trial([build.phase(samples)]))
    assert found["failed_requests"].message == (
        "1 of 3 requests failed (1 timeout): silent for 120 s"
    )
    assert found["failed_requests"].workload == "short"


def test_a_knob_that_the_engine_ignored_is_named_once(remarks, quiet):
    ignored = (Mismatch("threads", 4, 2), Mismatch("mmap", True, None))
    found = remarks(quiet(0, mismatches=ignored[:1]), quiet(1, mismatches=ignored[:1]))
    assert found["ignored"].message == "the engine ignored threads: expected 4, found 2"
    found = remarks(quiet(0, mismatches=ignored[1:]), quiet(1))
    assert found["ignored"].message == "the engine ignored mmap: expected on, found nothing"


def test_knobs_that_cannot_be_read_back_are_listed(remarks, quiet):
    found = remarks(quiet(0, unverified=("mlock", "numa")), quiet(1, unverified=("mlock",)))
    assert found["unverified"].message.endswith("whether it took mlock, numa")


def test_knobs_left_at_their_defaults_need_no_verifying(remarks, quiet):
    # The arm of these tests sets threads; its slots are the engine's default.
    found = remarks(quiet(0, unverified=("slots", "threads")), quiet(1))
    assert found["unverified"].message.endswith("whether it took threads")
    assert remarks(quiet(0, unverified=("slots",)), quiet(1)) == {}


@pytest.mark.parametrize(
    ("load", "code", "words"),
    [
        (MachineLoad(foreign_cpus=0.7), "foreign_load", "0.7 of 2 processors"),
        (MachineLoad(swapped_bytes=64 << 20), "swap", "64 MiB"),
        (MachineLoad(on_battery=True), "battery", "battery"),
    ],
)
def test_what_the_machine_did_meanwhile_is_said(remarks, quiet, load, code, words):
    found = remarks(quiet(0), quiet(1, load=load))
    assert list(found) == [code]
    assert words in found[code].message


def test_little_load_and_no_battery_are_not_worth_a_note(remarks, quiet):
    calm = MachineLoad(foreign_cpus=0.1, swapped_bytes=4096, on_battery=False)
    assert remarks(quiet(0, load=calm), quiet(1, load=calm)) == {}


def test_launches_that_differ_by_a_tenth_are_unstable(build, remarks):
    def launch(block, gap_ms):
        samples = [build.sample(i, gap_ms=gap_ms, prompt_sha256=f"{block}/{i}") for i in range(20)]
        return build.trial([build.phase(samples, wall_ms=5000.0)], block)

    found = remarks(launch(0, 8.0), launch(1, 10.0), launch(2, 12.0))
    assert list(found) == ["unstable"]
    assert found["unstable"].message == (
        "unstable: launches differ by 20 % in time between tokens, 20 % in decode rate"
    )
    assert remarks(launch(0, 9.6), launch(1, 10.0), launch(2, 10.4)) == {}


def test_a_slow_first_request_asks_for_more_warm_up(build, remarks):
    def launch(block, first_ms):
        samples = [build.sample(i, prompt_sha256=f"{block}/{i}") for i in range(1, 20)]
        slow = build.sample(0, first_ms=first_ms, prompt_sha256=f"{block}/0")
        return build.trial([build.phase([*samples, slow])], block)

    assert "longer warm-up" in remarks(launch(0, 200.0), launch(1, 180.0))["slow_first"].message
    assert remarks(launch(0, 60.0), launch(1, 60.0)) == {}


def test_prompts_from_the_cache_are_said_unless_the_workload_shares_prefixes(build, quiet, remarks):
    samples = [build.sample(index, prompt=200, cached=150) for index in range(20)]
    trial = build.trial([build.phase(samples)])
    found = remarks(trial)
    assert "20 of 20 prompts" in found["cache_hits"].message
    plan = build.result([trial]).workloads
    assert "cache_hits" not in remarks(trial, workloads=(evolve(plan[0], reuses_prefix=True),))


def test_a_cached_chat_template_is_no_surprise(build, remarks):
    samples = [build.sample(index, prompt=90, cached=40) for index in range(20)]
    assert "cache_hits" not in remarks(build.trial([build.phase(samples)]))


def test_a_prompt_that_one_server_saw_twice_is_said(build, quiet, remarks):
    def launch(block, hashes, **changes):
        samples = [
            build.sample(index, warmup=index == 0, prompt_sha256=name)
            for index, name in enumerate(hashes)
        ]
        return build.trial([build.phase(samples)], block, **changes)

    once = [f"p{index}" for index in range(21)]
    assert "repeated_prompts" not in remarks(launch(0, once), launch(1, once))
    again = remarks(launch(0, ["p1", *once[1:], "p2"]), launch(1, once))
    assert again["repeated_prompts"].message.startswith("2 of 41 requests")
    shared = remarks(
        launch(0, once), launch(1, once), unit="block", arms=(build.arm(mode="attach"),)
    )
    assert shared["repeated_prompts"].message.startswith("20 of 40 requests")


def test_a_client_that_disagrees_with_the_server_is_said(build, remarks):
    def run(predicted_ms):
        timings = ServerTimings(prompt_ms=40.0, predicted_ms=predicted_ms)
        samples = [build.sample(index, timings=timings) for index in range(20)]
        return remarks(build.trial([build.phase(samples)]))

    assert "+5.0 %" in run(210.0)["disagreement"].message
    assert "-4.8 %" in run(190.476)["disagreement"].message
    assert "disagreement" not in run(203.0)


def test_what_the_server_does_not_tell_is_said(build, remarks):
    silent = {"event_tokens": (0,) * 21, "timings": None, "cached_tokens": None}
    counted = [build.sample(index, **silent) for index in range(20)]
    assert set(remarks(build.trial([build.phase(counted)]))) == {
        "one_launch", "no_server_timings", "untold_events",
    }  # fmt: skip
    blind = [evolve(entry, prompt_tokens=None, output_tokens=None) for entry in counted]
    assert set(remarks(build.trial([build.phase(blind)]))) == {
        "one_launch", "no_token_counts", "untold_events",
    }  # fmt: skip


def test_bursts_of_tokens_are_said(build, remarks):
    samples = [
        build.sample(
            index, tokens=21, event_ms=tuple(50.0 + 40 * k for k in range(6)),
            event_tokens=(1, 4, 4, 4, 4, 4),
        )
        for index in range(20)
    ]  # fmt: skip
    found = remarks(build.trial([build.phase(samples)]))
    assert "4.0 at a time" in found["bursts"].message


def test_few_requests_make_no_percentile(build, remarks):
    def run(count):
        return remarks(build.trial([build.phase([build.sample(i) for i in range(count)])]))

    assert "of 19 requests" in run(19)["few_requests"].message
    assert "few_requests" not in run(20)


def test_answers_that_stopped_early_are_said(build, remarks):
    samples = [build.sample(index, tokens=5, finish_reason="stop") for index in range(20)]
    found = remarks(build.trial([build.phase(samples)]))
    assert found["short_answers"].message == "answers ended after 5 of 21 tokens"
