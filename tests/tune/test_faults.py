"""What goes wrong by the way is held against what caused it, and against nothing else."""

from __future__ import annotations

import pytest
from attrs import evolve

from velollm_core.config import Config
from velollm_core.errors import FailureKind
from velollm_core.tune.spec import Conclusion, Fate


def test_an_objective_that_is_never_told_is_said_after_the_first_trial(tuning):
    """Of an answer of one token no engine tells how fast it decodes."""
    task = tuning.task(tuning.script(), only=("threads",), objectives=("ttft", "decode"))
    phases = tuple(evolve(phase, max_tokens=1) for phase in task.phases)
    found = tuning.run(evolve(task, phases=phases))
    assert found.conclusion is Conclusion.OPEN
    assert "does not tell what decode needs" in found.why
    assert len(found.trials) == 1


def test_defaults_that_take_for_ever_are_no_rival_and_cost_little(tuning):
    def token_ms(config):
        return 5000.0 if config["threads"] == 8 else tuning.tenth(config)

    script = tuning.script(token_ms=token_ms, current=Config({"threads": 2}))
    found = tuning.run(tuning.task(script, only=("threads",), budget_s=600.0))
    assert found.changes == Config({"threads": 4})
    assert [answer.baseline for answer in found.answers] == ["current"]
    (note,) = [note for note in found.notes if "defaults could not be measured" in note]
    assert "takes too long" in note
    assert found.spent_s <= 600.0


@pytest.mark.parametrize("launch", range(1, 12))
def test_one_start_of_what_there_is_that_fails_at_once_costs_no_answer(tuning, launch):
    script = tuning.script(
        token_ms=lambda config: 100.0 * (0.7 if config["threads"] == 4 else 1.0),
        fail_launch={launch: FailureKind.CRASH},
    )
    found = tuning.run(tuning.task(script, only=("threads",), budget_s=400.0))
    assert found.spent_s <= 1.1 * 400.0
    assert found.conclusion is Conclusion.FASTER or found.stages[-1].tried
    assert "budget was spent" not in found.why


def test_candidates_that_crash_or_hang_are_dropped_and_the_rest_goes_on(tuning):
    def crashes(config):
        return {2: FailureKind.CRASH, 7: FailureKind.OUT_OF_MEMORY}.get(config["threads"])

    def token_ms(config):
        return 5000.0 if config["threads"] == 1 else tuning.tenth(config)

    task = tuning.task(tuning.script(token_ms=token_ms, crashes=crashes), only=("threads",))
    found = tuning.run(task)
    assert found.changes == Config({"threads": 4})
    fates = {entry.changes["threads"]: entry for entry in tuning.tried(found, "screen")}
    assert (fates[2].fate, fates[2].failure) == (Fate.FAILED, FailureKind.CRASH)
    assert (fates[7].fate, fates[7].failure) == (Fate.FAILED, FailureKind.OUT_OF_MEMORY)
    assert (fates[1].fate, fates[1].failure) == (Fate.BEATEN, FailureKind.TIMEOUT)
    for threads in (1, 2, 7):
        assert sum(config["threads"] == threads for config in tuning.launched(task)) == 1


def test_a_candidate_that_fails_by_the_way_is_not_chosen(tuning):
    def crashes(config):
        if config["threads"] != 4:
            return None
        starts.append(config)
        return FailureKind.CRASH if len(starts) == 2 else None

    starts = []
    found = tuning.run(
        tuning.task(tuning.script(token_ms=tuning.tenth, crashes=crashes), only=("threads",))
    )
    assert found.conclusion is Conclusion.KEEP
    *_, entry = [e for e in tuning.tried(found) if e.changes == Config({"threads": 4})]
    assert entry.fate is Fate.FAILED


def test_what_cannot_be_measured_is_left_open(tuning):
    script = tuning.script(fail_launch={0: FailureKind.CRASH})
    found = tuning.run(tuning.task(script, only=tuning.few))
    assert found.conclusion is Conclusion.OPEN
    assert "could not be measured" in found.why


def test_defaults_that_do_not_start_are_no_rival(tuning):
    def crashes(config):
        return FailureKind.CRASH if config["threads"] == 8 else None

    script = tuning.script(token_ms=tuning.tenth, crashes=crashes, current=Config({"threads": 2}))
    found = tuning.run(tuning.task(script, only=("threads",)))
    assert found.changes == Config({"threads": 4})
    assert [answer.baseline for answer in found.answers] == ["current"]
    assert any("defaults could not be measured" in note for note in found.notes)


def test_a_knob_that_the_engine_ignores_is_not_chosen(tuning):
    script = tuning.script(
        token_ms=lambda config: 100.0 * (0.8 if config["poll"] == 100 else 1.0),
        ignores=frozenset({"poll"}),
    )
    found = tuning.run(tuning.task(script, only=("poll",)))
    assert found.conclusion is Conclusion.KEEP
    assert {entry.fate for entry in tuning.tried(found, "screen")} == {Fate.FAILED}
    assert all("ignored poll" in entry.why for entry in tuning.tried(found, "screen"))
