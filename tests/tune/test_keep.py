"""A tune in the journal: entered, found again, resumed, or refused."""

from __future__ import annotations

import pytest
from attrs import evolve

from velollm_core.errors import UsageError
from velollm_core.experiment.journal import Journal
from velollm_core.tune.keep import in_short, stored, tuned
from velollm_core.tune.spec import KIND, Conclusion


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal.sqlite3")


def task(tuning, **changes):
    script = tuning.script(
        repeatable=True,
        token_ms=lambda config: 100.0 / (1.2 if config["threads"] == 4 else 1.0),
        **changes.pop("script", {}),
    )
    return tuning.task(script, only=("threads",), **{"budget_s": 150.0, **changes})


def keep(tuning, journal, what, machine="here", **more):
    return tuned(
        what,
        hardware=what.hardware,
        journal=journal,
        clock=what.backend.script.clock,
        surroundings=evolve(tuning.surroundings(), hardware_fingerprint=machine),
        pause=tuning.pause(what),
        **more,
    )


def test_a_tune_is_kept_with_all_its_trials_and_read_again(tuning, journal):
    outcome = keep(tuning, journal, task(tuning), notes=("a remark",))
    (info,) = journal.runs()
    assert (info.kind, info.complete) == (KIND, True)
    assert info.trials == outcome.result.trials == len(outcome.trials)
    assert info.summary == in_short(outcome.result)
    assert "threads=4" in info.summary
    assert stored(info) == outcome.result
    assert outcome.result.conclusion is Conclusion.FASTER
    assert outcome.result.notes[0] == "a remark"


def test_what_was_stopped_is_kept_and_goes_on(tuning, journal):
    def observe(progress):
        if progress.stage == "screen" and progress.progress is not None:
            raise KeyboardInterrupt

    cut = keep(tuning, journal, task(tuning), observe=observe)
    assert cut.interrupted
    assert not stored(journal.find("last")).complete
    going_on = task(tuning)
    whole = keep(tuning, journal, going_on, resumed=cut.result.run)
    assert whole.result.complete
    assert whole.result.run == cut.result.run
    assert len(journal.runs()) == 1
    ended = sum(trial.failure is None for trial in cut.trials)
    assert len(going_on.backend.sessions) == len(whole.trials) - ended
    assert whole.stale == 0


def test_another_task_is_not_resumed_as_this_one(tuning, journal):
    run = keep(tuning, journal, task(tuning)).result.run
    with pytest.raises(UsageError, match="other budget, other seed"):
        keep(tuning, journal, task(tuning, budget_s=900.0, seed=5), resumed=run)


def test_trials_of_another_machine_are_stale_and_not_used(tuning, journal):
    first = keep(tuning, journal, task(tuning))
    elsewhere = task(tuning)
    second = keep(tuning, journal, elsewhere, machine="there", resumed=first.result.run)
    assert second.stale == len(first.trials)
    assert len(elsewhere.backend.sessions) == len(second.trials)


def test_of_a_budget_that_is_too_small_nothing_is_kept(tuning, journal):
    with pytest.raises(UsageError, match="takes at least"):
        keep(tuning, journal, task(tuning, budget_s=10.0))
    assert journal.runs() == ()


def test_a_journal_that_cannot_be_written_does_not_cost_the_result(tuning, tmp_path):
    (tmp_path / "file").write_text("")
    outcome = keep(tuning, Journal(tmp_path / "file" / "journal.sqlite3"), task(tuning))
    assert outcome.result.complete
    assert "cannot be used" in str(outcome.fault)
