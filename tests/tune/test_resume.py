"""A tune that was cut off goes on as if it had not been."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from velollm_core.errors import FailureKind
from velollm_core.experiment.journal import RunJournal

ONLY = ("threads", "attention", "poll")


def task(tuning):
    """An engine that answers alike in every process, with a gain and with a part that crashes."""
    script = tuning.script(
        repeatable=True,
        launch_noise=0.06,
        token_ms=lambda config: 100.0 / (1.1 if config["threads"] == 4 else 1.0),
        crashes=lambda config: FailureKind.CRASH if config["poll"] == 100 else None,
    )
    return tuning.task(script, only=ONLY, budget_s=200.0)


def decisions(found):
    """All that was decided, without the times of day."""
    return (
        found.conclusion,
        found.why,
        found.changes,
        found.best,
        found.answers,
        [
            (record.name, record.leader, [(t.changes, t.fate, t.blocks) for t in record.tried])
            for record in found.stages
        ],
        [(trial.arm, trial.block) for trial in found.trials],
    )


@pytest.fixture(scope="module")
def undisturbed(tuning):
    """A tune, and how many servers it started."""
    whole = task(tuning)
    return tuning.run(whole), len(whole.backend.sessions)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(share=st.floats(0, 1))
def test_from_any_prefix_of_its_trials_a_tune_decides_the_same(tuning, undisturbed, share):
    whole, started = undisturbed
    kept = whole.trials[: round(share * len(whole.trials))]
    journal = RunJournal("r", trials={(t.arm, t.key, t.block): t for t in kept})
    resumed = task(tuning)
    found = tuning.run(resumed, journal)
    assert decisions(found) == decisions(whole)
    assert started - len(resumed.backend.sessions) == len(kept)  # nothing was started again


def test_what_was_measured_more_than_an_hour_before_its_rivals_is_measured_again(
    tuning, undisturbed
):
    first, _ = undisturbed
    (torn, *_) = [trial for trial in first.trials if trial.arm.startswith("screen-1.")]
    kept = first.trials[: first.trials.index(torn) + 1]
    resumed = task(tuning)
    resumed.backend.script.clock.advance(2 * 3_600_000)
    tuning.run(resumed, RunJournal("r", trials={(t.arm, t.key, t.block): t for t in kept}))
    of_block = [t for t in kept if t.arm.startswith("screen-1.") and t.block == torn.block]
    assert len(resumed.backend.sessions) == len(first.trials) - len(kept) + len(of_block)
