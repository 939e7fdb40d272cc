"""A tune in the journal: entered, found again, resumed, or refused."""

from __future__ import annotations

import pytest
from attrs import evolve

from velollm_core.documents import to_plain
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
        journal=journal,
        clock=what.backend.script.clock,
        surroundings=evolve(tuning.surroundings(), hardware_fingerprint=machine),
        pause=tuning.pause(what),
        **more,
    )


def stop(progress):
    """Stops a tune in its first stage after the baseline."""
    if progress.stage == "screen" and progress.progress is not None:
        raise KeyboardInterrupt


def free(what, available_bytes):
    """The same task on a machine with so much memory free."""
    memory = evolve(what.hardware.memory, available_bytes=available_bytes)
    return evolve(what, hardware=evolve(what.hardware, memory=memory))


def by_itself(what, **values):
    """The same task where the engine has other settings by itself, which the user leaves so."""

    def changed(settings):
        return evolve(settings, config=settings.config | values)

    return evolve(what, current=changed(what.current), defaults=changed(what.defaults))


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
    cut = keep(tuning, journal, task(tuning), observe=stop)
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


@pytest.mark.parametrize(
    "changes",
    [{"extra_args": ("--numa", "isolate")}, {"extra_env": {"GGML_X": "1"}}],
)
def test_other_settings_of_the_user_are_not_resumed_in_silence(tuning, journal, changes):
    first = task(tuning)
    run = keep(tuning, journal, first).result.run
    other = evolve(first, current=evolve(first.current, **changes))
    with pytest.raises(UsageError, match=r"tuned something else: other settings of yours\."):
        keep(tuning, journal, other, resumed=run)
    with pytest.raises(UsageError, match=r"tuned something else: other settings of yours\."):
        keep(tuning, journal, by_itself(first, poll=49), resumed=run)


def test_another_server_that_runs_is_not_resumed_in_silence(tuning, journal):
    knobs = tuple(evolve(knob, change="per_request") for knob in tuning.knobs)
    first = task(tuning, mode="attach", script={"knobs": knobs})
    run = keep(tuning, journal, first).result.run
    other = evolve(first, installation=evolve(first.installation, location="elsewhere"))
    with pytest.raises(UsageError, match="other server or settings of it"):
        keep(tuning, journal, other, resumed=run)


def test_a_run_that_did_not_record_further_settings_goes_on(tuning, journal):
    result = keep(tuning, journal, task(tuning)).result
    old = evolve(result, task=evolve(result.task, settings_digest=""))
    journal.finish(old.run, complete=True, summary="", head=to_plain(old))
    assert keep(tuning, journal, task(tuning), resumed=old.run).stale == 0


@pytest.mark.parametrize("part", ["model", "machine"])
def test_what_the_engine_does_by_itself_may_follow_the_model_and_the_machine(tuning, journal, part):
    first = keep(tuning, journal, task(tuning))
    other = by_itself(task(tuning), poll=40)
    if part == "model":
        other = evolve(other, model=evolve(other.model, fingerprint="ff"))
    machine = "there" if part == "machine" else "here"
    second = keep(tuning, journal, other, machine=machine, resumed=first.result.run)
    assert second.result.complete
    assert second.stale == len(first.trials)
    assert second.result.defaults["poll"] == 40


def test_however_often_a_tune_is_resumed_the_memory_is_that_of_its_beginning(tuning, journal):
    cut = keep(tuning, journal, free(task(tuning), 2**33), observe=stop)
    run = cut.result.run
    for available_bytes in (2**32, 2**31):
        again = keep(
            tuning, journal, free(task(tuning), available_bytes), observe=stop, resumed=run
        )
        assert again.interrupted
        assert again.stale == 0
        assert stored(journal.find(run)).hardware == cut.result.hardware
    assert cut.result.hardware.memory.available_bytes == 2**33


def test_where_all_is_measured_anew_the_memory_is_that_of_now(tuning, journal):
    first = keep(tuning, journal, free(task(tuning), 2**33))
    elsewhere = free(task(tuning), 2**32)
    second = keep(tuning, journal, elsewhere, machine="there", resumed=first.result.run)
    assert second.result.hardware.memory.available_bytes == 2**32


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
