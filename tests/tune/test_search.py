"""Whole tunes: what a user is told of what was searched."""

from __future__ import annotations

from itertools import pairwise

from attrs import evolve

from velollm_core.config import Config, Settings
from velollm_core.statistics import Verdict
from velollm_core.testing.noise import linear_drift
from velollm_core.tune.spec import Conclusion


def test_knobs_that_do_nothing_are_hardly_ever_said_to_bring_a_gain(tuning):
    claims = 0
    for seed in range(10):
        script = tuning.script(
            seed=seed,
            drift=linear_drift(0.06, 1000 * tuning.budget_s),
            tails=4.0 if seed % 2 else None,
        )
        found = tuning.run(
            tuning.task(script, seed=seed, only=tuning.few, budget_s=tuning.budget_s)
        )
        claims += found.conclusion is Conclusion.FASTER
    assert claims <= 1  # a quarter of one is to be expected


def test_a_true_gain_of_a_tenth_is_found_and_proven(tuning):
    proven = 0
    for seed in range(8):
        script = tuning.script(
            token_ms=tuning.tenth, seed=seed, drift=linear_drift(0.06, 1000 * tuning.budget_s)
        )
        found = tuning.run(
            tuning.task(script, seed=seed, only=tuning.few, budget_s=tuning.budget_s)
        )
        proven += found.conclusion is Conclusion.FASTER and found.changes["threads"] == 4
    assert proven >= 6


def test_a_value_that_helps_only_in_the_company_of_another_is_found(tuning):
    def token_ms(config):
        fewer, on = config["threads"] == 4, config["attention"] == "on"
        return 100.0 * (0.7 if fewer and on else 0.9 if fewer else 1.05 if on else 1.0)

    task = tuning.task(tuning.script(token_ms=token_ms), only=tuning.few)
    found = tuning.run(task)
    assert (found.changes["threads"], found.changes["attention"]) == (4, "on")


def test_what_is_best_already_is_kept_and_the_reason_given(tuning):
    def token_ms(config):
        return 100.0 * (1.0 if config == tuning.defaults else 1.3)

    task = tuning.task(tuning.script(token_ms=token_ms), only=tuning.few)
    found = tuning.run(task)
    assert found.conclusion is Conclusion.KEEP
    assert not found.changes
    assert "none was faster than what you have; the closest" in found.why
    assert found.spent_s < task.budget_s / 2  # what cannot win is not measured for long


def test_what_the_engine_does_by_itself_is_raced_and_the_users_own_values_stay_in_it(tuning):
    def token_ms(config):
        threads = {0: 1.0, 2: 1.4}.get(config["threads"], 1.2)  # left alone, the engine is best
        return 100.0 * threads * (0.8 if config["poll"] == 20 else 1.0)  # the user is, here

    knobs = tuple(k for k in tuning.knobs if k.name in {"threads", "poll"})
    script = tuning.script(
        knobs=knobs,
        defaults=Config({"threads": 0, "poll": 50}),
        current=Config({"threads": 2, "poll": 20}),
        token_ms=token_ms,
    )
    found = tuning.run(tuning.task(script, usable=16, budget_s=400.0))
    assert found.changes == Config({"threads": 0})
    assert {answer.overall.verdict for answer in found.answers} == {Verdict.FASTER}
    fewer = tuning.task(script, usable=8)  # the engine would count all processors
    assert not any(config["threads"] == 0 for config in tuning.searched(tuning.run(fewer)))


def test_where_there_is_nothing_to_try_nothing_is_started(tuning):
    task = tuning.task(tuning.script(), only=("kv_type",))
    found = tuning.run(task)
    assert found.conclusion is Conclusion.KEEP
    assert not task.backend.sessions


def test_ctrl_c_ends_it_with_what_there_is(tuning):
    def observe(progress):
        if progress.stage == "screen" and progress.progress is not None:
            raise KeyboardInterrupt

    found = tuning.run(tuning.task(tuning.script(), only=tuning.few), observe=observe)
    assert found.interrupted
    assert found.conclusion is Conclusion.OPEN
    assert "stopped before its end" in found.why
    assert [record.name for record in found.stages] == ["baseline", "screen"]


def test_progress_is_told_from_the_first_trial_to_the_last(tuning):
    seen = []
    task = tuning.task(tuning.script(token_ms=tuning.tenth), only=tuning.few, budget_s=300.0)
    found = tuning.run(task, observe=seen.append)
    stages = list(dict.fromkeys(entry.stage for entry in seen))
    assert stages == [*(record.name for record in found.stages if record.blocks), "confirm"]
    assert all(one.spent_s <= other.spent_s for one, other in pairwise(seen))
    assert {entry.budget_s for entry in seen} == {task.budget_s}
    racing = [entry for entry in seen if entry.stage == "screen"]
    assert 0 < len(racing[-1].alive) <= racing[-1].of
    assert seen[-1].best == found.best
    assert seen[-1].low < seen[-1].ratio < seen[-1].high


def test_arguments_of_the_users_own_go_with_every_server(tuning):
    task = tuning.task(tuning.script(), only=("poll",), budget_s=200.0)
    settings = Settings(config=task.current.config, extra_args=("--own", "1"))
    task = evolve(task, current=settings)
    found = tuning.run(task)
    assert len(found.trials) == len(task.backend.sessions)


def test_no_other_knob_is_changed_than_those_that_were_named(tuning):
    script = tuning.script(token_ms=lambda c: 100.0 * (0.8 if c["ubatch"] > 512 else 1.0))
    task = tuning.task(script, only=("ubatch",))
    found = tuning.run(task)
    assert set(found.changes) <= {"ubatch"}
    assert all(set(entry.changes) <= {"ubatch"} for entry in tuning.tried(found))
