"""What a tune costs: the budget is kept, and a machine that falls is waited for."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from velollm_core.errors import FailureKind, UsageError
from velollm_core.statistics import LEAST_PAIRS
from velollm_core.testing.noise import linear_drift
from velollm_core.tune.constraints import parse_constraint
from velollm_core.tune.spec import Conclusion, Fate


@pytest.mark.parametrize("slower", [0.1, 0.6])
@pytest.mark.parametrize("budget_s", [150.0, 300.0])
@pytest.mark.parametrize("seed", range(2))
def test_the_budget_is_kept_also_by_a_machine_that_keeps_slowing_down(
    tuning, budget_s, seed, slower
):
    script = tuning.script(
        token_ms=lambda config: 100.0 * (1 + 0.1 * math.sin(config["threads"] + config["poll"])),
        launch_noise=0.05,
        drift=linear_drift(slower, 1000 * budget_s),
        seed=seed,
    )
    found = tuning.run(tuning.task(script, budget_s=budget_s, seed=seed))
    assert found.spent_s <= 1.1 * budget_s
    assert found.spent_s == pytest.approx(script.clock.now_ms() / 1000.0)
    assert found.conclusion is not Conclusion.OPEN


def test_one_slow_trial_does_not_make_a_budget_too_small(tuning):
    script = tuning.script(drift=lambda now_ms: 5.0 if now_ms < 10_000 else 1.0)
    found = tuning.run(tuning.task(script, only=tuning.few, budget_s=120.0))
    assert found.answers or found.conclusion is Conclusion.KEEP


def test_a_budget_that_is_too_small_is_refused_with_what_it_takes(tuning):
    task = tuning.task(tuning.script(), only=tuning.few, budget_s=20.0)
    with pytest.raises(UsageError, match="takes at least") as refused:
        tuning.run(task)
    assert len(task.backend.sessions) == 2  # a single slow trial does not refuse it
    least_s = float(str(refused.value).rsplit("--budget ", 1)[1].partition("s)")[0])
    task = tuning.task(tuning.script(), only=tuning.few, budget_s=least_s)
    found = tuning.run(task)
    assert found.spent_s <= 1.1 * least_s
    with pytest.raises(UsageError, match="takes at least"):
        tuning.run(tuning.task(tuning.script(), only=tuning.few, budget_s=least_s - 2))


def test_a_tight_budget_still_leaves_enough_for_the_proof(tuning):
    found = tuning.run(
        tuning.task(tuning.script(token_ms=tuning.tenth), only=tuning.few, budget_s=90.0)
    )
    assert len(found.answers[0].overall.pairs) >= LEAST_PAIRS


@pytest.mark.parametrize("begin_s", [12, 20, 28, 33, 36, 41, 45, 52])
def test_a_fall_of_the_machine_is_waited_out_wherever_in_a_block_it_begins(tuning, begin_s):
    def drift(now_ms):
        return 1.5 if 1000 * begin_s < now_ms and not pauses else 1.0

    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        script.clock.advance(1000 * seconds)

    script = tuning.script(token_ms=tuning.tenth, drift=drift, launch_noise=0.01)
    found = tuning.run(tuning.task(script, only=tuning.few, budget_s=400.0), pause=pause)
    assert pauses == [60.0]
    assert found.changes["threads"] == 4
    assert found.spent_s == pytest.approx(script.clock.now_ms() / 1000.0)
    # Nothing is told of what was measured meanwhile.
    assert all(entry.speed_ratio > 0.95 for entry in tuning.tried(found, "screen") if entry.blocks)


def test_a_machine_that_stays_slow_is_not_waited_for_for_ever(tuning):
    pauses = []
    script = tuning.script(drift=lambda now_ms: 1.6 if now_ms > 27_000 else 1.0)
    found = tuning.run(
        tuning.task(script, only=tuning.few, budget_s=900.0),
        pause=lambda seconds: (pauses.append(seconds), script.clock.advance(1000 * seconds)),
    )
    assert pauses
    assert all(after in {60.0, 2 * before} for before, after in pairwise(pauses))
    assert found.spent_s <= 1.1 * 900.0


def falls(tuning, times):
    """A machine that is slower by so many ``times`` from the ninth second until it is left alone
    for once; how it is left alone, and for how long each time.
    """
    pauses = []

    def drift(now_ms):
        return times if now_ms > 9_000 and not pauses else 1.0

    def pause(seconds):
        pauses.append(seconds)
        script.clock.advance(1000 * seconds)

    script = tuning.script(token_ms=tuning.tenth, drift=drift, launch_noise=0.01)
    return script, pause, pauses


def test_a_machine_that_falls_to_a_fifth_is_waited_for_too(tuning):
    script, pause, pauses = falls(tuning, 6.0)
    found = tuning.run(tuning.task(script, only=("threads",), budget_s=400.0), pause=pause)
    assert pauses == [60.0]
    assert found.changes["threads"] == 4
    assert not [entry for entry in tuning.tried(found) if entry.failure is FailureKind.TIMEOUT]


def test_a_limit_that_only_the_fallen_machine_broke_is_not_held_against_a_candidate(tuning):
    script, pause, pauses = falls(tuning, 1.6)
    task = tuning.task(
        script,
        only=("threads", "poll"),
        budget_s=400.0,
        constraints=(parse_constraint("decode>8tok/s"),),
    )
    found = tuning.run(task, pause=pause)
    assert pauses
    assert found.changes["threads"] == 4
    assert not [entry for entry in tuning.tried(found) if entry.fate is Fate.LIMIT]
