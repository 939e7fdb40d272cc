"""The kit passes a right backend, and catches wrong ones by the test that is meant for their fault.

All of them drive a real server in a process of its own (``tiny/engine.py``).
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SUITE = Path(__file__).parent / "tiny"
AT_ONCE = 6

BEFORE = {
    "probe-hangs": "probing_is_over_in_bounded_time",
    "probe-writes": "probing_changes_nothing",
    "reads-undeclared-options": "every_option_that_probe_reads_is_declared",
    "passes-over-what-is-named": "what_is_named_and_not_there_is_said",
}
"""Faults that show before an engine is started."""

RUNNING = {
    "leaves-a-child": "closing_leaves_no_process",
    "starts-around-the-place": "engines_are_started_through_the_place",
    "ignores-a-knob": "changed_settings_are_in_force",
    "repeats-what-was-asked": "settings_are_read_back_and_not_repeated",
    "counts-words": "output_tokens_are_the_servers",
    "loses-the-last-event": "the_text_is_what_the_server_says_without_streaming",
    "finishes-twice": "an_answer_is_events_and_then_one_finish",
    "wraps-no-error": "the_death_of_the_server_is_a_request_error",
    "times-from-the-first-byte": "times_count_from_the_sending_of_the_request",
    "collects-first": "events_arrive_while_the_server_works",
    "shares-its-state": "several_answers_at_once_are_kept_apart",
    "reads-on": "an_abandoned_answer_leaves_no_connection",
    "blocks-on-close": "closing_ends_an_answer_under_way",
    "ends-what-it-attached-to": "an_attached_server_is_left_alone",
    "takes-any-knob": "knobs_of_the_start_are_refused_by_a_running_session",
}

PECULIAR = {
    "begins-slowly": "a_server_that_falls_silent_is_given_up",
    "connects-slowly": "times_count_from_the_sending_of_the_request",
    "begins-without-text": "an_answer_of_one_token_has_its_text",
    "keeps-its-connections": "an_abandoned_answer_leaves_no_connection",
    "names-an-ended-process": "the_death_of_the_server_is_a_request_error",
}
"""Right backends, and the test that would be wrong of them were it stricter."""

WHOLE = {"counts-words", "times-from-the-first-byte", "wraps-no-error"}
"""Faults that are held against the whole kit, of which the rest has to have nothing to say."""

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Path(shutil.copytree(SUITE, tmp_path_factory.mktemp("tiny") / "suite"))


@pytest.fixture(scope="module")
def reports(folder, run_suite):
    """What the kit says of each wrong backend. Its tests wait more than they work: several run at
    once."""

    def report(name):
        home = folder / f"home-{name}"
        home.mkdir()
        chosen = "TestEngine" if name in WHOLE else (RUNNING | BEFORE)[name]
        return name, run_suite(folder, "suite.py", "-k", chosen, TINY=name, HOME=str(home))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(pool.map(report, (*RUNNING, *BEFORE)))


def test_the_right_backend_passes_and_only_facts_skip_a_test(folder, run_suite):
    report = run_suite(folder, "suite.py", TINY="right")
    assert report.failed == set(), report.output
    assert len(report.passed) > 50
    assert report.skipped == {
        "test_velollm_finds_it_under_its_name",
        "test_an_attached_server_is_left_alone",
        "test_token_ids_come_with_the_text",
        "test_log_probabilities_come_when_asked_for",
    }
    reasons = [line for line in report.output.splitlines() if line.startswith("SKIPPED")]
    assert len(reasons) == len(report.skipped)
    assert all("facts." in line for line in reasons)


def test_a_right_backend_of_servers_that_run_already_passes(folder, run_suite):
    report = run_suite(folder, "suite.py", TINY="attached")
    assert report.failed == set(), report.output
    assert {
        "test_the_death_of_the_server_is_a_request_error",
        "test_a_server_that_falls_silent_is_given_up",
        "test_an_attached_server_is_left_alone",
        "test_velollm_measures_it",
    } <= report.passed


def test_a_right_backend_may_be_peculiar(folder, run_suite):
    chosen = " or ".join(f"({name} and {test})" for name, test in PECULIAR.items())
    report = run_suite(folder, "peculiar.py", "-k", chosen)
    assert report.failed == set(), report.output
    assert report.passed | report.skipped == {
        f"test_{test}[{name}]" for name, test in PECULIAR.items()
    }
    assert "the client keeps its connections" in report.output
    assert len(report.skipped) == 1, report.output


@pytest.mark.parametrize(("name", "test"), (RUNNING | BEFORE).items())
def test_a_wrong_backend_is_caught_by_the_test_that_is_meant_for_it(reports, name, test):
    report = reports[name]
    assert f"test_{test}" in report.failed, report.output
    if name in WHOLE:
        assert len(report.failed) <= 6, report.output
