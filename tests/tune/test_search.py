"""Whole tunes: what a user is told, and what it cost."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from attrs import evolve

from velollm_core.backends.advice import Requirements
from velollm_core.config import Choices, Config, Range, Role, Settings
from velollm_core.errors import FailureKind, UsageError
from velollm_core.experiment.monitor import Observed
from velollm_core.statistics import LEAST_PAIRS, Verdict
from velollm_core.testing.fakes import NoMonitor
from velollm_core.testing.noise import linear_drift
from velollm_core.tune.constraints import parse_constraint
from velollm_core.tune.spec import Conclusion, Fate

FEW = ("threads", "attention", "poll")
BUDGET_S = 240.0


class Scales(NoMonitor):
    """Sees the memory that a fake says it takes."""

    def start(self, session, on_danger):
        del on_danger
        return Weighed(session.memory().rss_bytes)


class Weighed:
    def __init__(self, taken):
        self.taken = taken

    def stop(self):
        return Observed(peak_rss_bytes=self.taken)


def tenth(config):
    """A gain of 10 % for one value of one knob."""
    return 100.0 / (1.1 if config["threads"] == 4 else 1.0)


def tried(found, *stages):
    return [
        entry
        for record in found.stages
        if not stages or record.name in stages
        for entry in record.tried
    ]


def searched(found):
    """What ran in the search, without the engine's own settings of the baseline and the proof."""
    own = [t.effective for t in found.trials if not t.arm.endswith(".defaults")]
    return [config for config in own if config is not None]


def launched(task):
    return [session.config for session in task.backend.sessions]


def test_knobs_that_do_nothing_are_hardly_ever_said_to_bring_a_gain(tuning):
    claims = 0
    for seed in range(10):
        script = tuning.script(
            seed=seed,
            drift=linear_drift(0.06, 1000 * BUDGET_S),
            tails=4.0 if seed % 2 else None,
        )
        found = tuning.run(tuning.task(script, seed=seed, only=FEW, budget_s=BUDGET_S))
        claims += found.conclusion is Conclusion.FASTER
    assert claims <= 1  # a quarter of one is to be expected


def test_a_true_gain_of_a_tenth_is_found_and_proven(tuning):
    proven = 0
    for seed in range(8):
        script = tuning.script(token_ms=tenth, seed=seed, drift=linear_drift(0.06, 1000 * BUDGET_S))
        found = tuning.run(tuning.task(script, seed=seed, only=FEW, budget_s=BUDGET_S))
        proven += found.conclusion is Conclusion.FASTER and found.changes["threads"] == 4
    assert proven >= 6


def test_a_value_that_helps_only_in_the_company_of_another_is_found(tuning):
    def token_ms(config):
        fewer, on = config["threads"] == 4, config["attention"] == "on"
        return 100.0 * (0.7 if fewer and on else 0.9 if fewer else 1.05 if on else 1.0)

    task = tuning.task(tuning.script(token_ms=token_ms), only=FEW)
    found = tuning.run(task)
    assert (found.changes["threads"], found.changes["attention"]) == (4, "on")


def test_what_is_best_already_is_kept_and_the_reason_given(tuning):
    def token_ms(config):
        return 100.0 * (1.0 if config == tuning.defaults else 1.3)

    task = tuning.task(tuning.script(token_ms=token_ms), only=FEW)
    found = tuning.run(task)
    assert found.conclusion is Conclusion.KEEP
    assert not found.changes
    assert "none was faster than what you have; the closest" in found.why
    assert found.spent_s < task.budget_s / 2  # what cannot win is not measured for long


def test_a_leader_that_is_not_proven_is_not_proposed(tuning):
    script = tuning.script(launch_noise=0.2, seed=3)
    found = tuning.run(tuning.task(script, only=FEW, budget_s=BUDGET_S))
    assert found.best
    assert found.conclusion is Conclusion.KEEP
    assert not found.changes
    assert "is not proven faster than what you have" in found.why
    assert f"{found.answers[0].overall.low:.3f} to" in found.why


def test_every_answer_rests_on_pairs_that_were_planned_before(tuning):
    task = tuning.task(tuning.script(token_ms=tenth), only=FEW, pairs=9, budget_s=400.0)
    found = tuning.run(task)
    (answer,) = found.answers
    assert answer.baseline == "current"
    assert answer.overall.verdict is Verdict.FASTER
    assert len(answer.overall.pairs) == task.pairs
    of_proof = [trial for trial in found.trials if trial.arm.startswith("confirm.")]
    assert len(of_proof) == 2 * task.pairs
    keys = {trial.key for trial in found.trials if not trial.arm.startswith("confirm.")}
    assert not keys.intersection(trial.key for trial in of_proof)  # other prompts


def test_what_the_user_has_and_the_engines_own_are_both_held_against_the_winner(tuning):
    def token_ms(config):
        return 100.0 / {4: 1.3, 8: 1.15}.get(config["threads"], 1.0)

    script = tuning.script(token_ms=token_ms, current=Config({"threads": 2}))
    found = tuning.run(tuning.task(script, only=("threads",)))
    assert found.changes == Config({"threads": 4})
    assert [answer.baseline for answer in found.answers] == ["current", "defaults"]
    ratios = [answer.overall.speed_ratio for answer in found.answers]
    assert ratios == pytest.approx([1.3, 1.3 / 1.15], rel=0.03)
    assert {answer.overall.confidence for answer in found.answers} == {0.975}


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
    assert not any(config["threads"] == 0 for config in searched(tuning.run(fewer)))


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
    found = tuning.run(tuning.task(script, only=FEW, budget_s=120.0))
    assert found.answers or found.conclusion is Conclusion.KEEP


def test_a_budget_that_is_too_small_is_refused_with_what_it_takes(tuning):
    task = tuning.task(tuning.script(), only=FEW, budget_s=20.0)
    with pytest.raises(UsageError, match="takes at least") as refused:
        tuning.run(task)
    assert len(task.backend.sessions) == 2  # a single slow trial does not refuse it
    least_s = float(str(refused.value).rsplit("--budget ", 1)[1].partition("s)")[0])
    task = tuning.task(tuning.script(), only=FEW, budget_s=least_s)
    found = tuning.run(task)
    assert found.spent_s <= 1.1 * least_s
    with pytest.raises(UsageError, match="takes at least"):
        tuning.run(tuning.task(tuning.script(), only=FEW, budget_s=least_s - 2))


def test_a_tight_budget_still_leaves_enough_for_the_proof(tuning):
    found = tuning.run(tuning.task(tuning.script(token_ms=tenth), only=FEW, budget_s=90.0))
    assert len(found.answers[0].overall.pairs) >= LEAST_PAIRS


def test_requirements_hold_in_everything_that_is_started(tuning):
    def token_ms(config):
        return 100.0 * config["context"] / 4096 * config["slots"] / 4  # less would be faster

    for unified in (True, False):
        wanted = Requirements(context_tokens=2048, parallel=4)
        current = Config({"context": 8192, "unified": unified})
        task = tuning.task(
            tuning.script(token_ms=token_ms, current=current),
            clients=2,
            objectives=("throughput",),
            budget_s=300.0,
            requirements=wanted,
            only=("slots", "unified"),
        )
        found = tuning.run(task)
        own = [config for config in launched(task) if config != tuning.defaults]
        assert len({str(config) for config in own}) > 3
        for config in own:
            assert config["slots"] >= 4
            assert config["context"] >= 2048 * (1 if config["unified"] else config["slots"])
            assert config["context"] >= 2048 * 4
        assert found.conclusion is not Conclusion.FASTER


def test_what_does_not_hold_what_is_required_is_mended_first(tuning):
    task = tuning.task(
        tuning.script(), requirements=Requirements(context_tokens=4096, parallel=8), only=("poll",)
    )
    found = tuning.run(task)
    assert found.stages[0].leader == Config({"slots": 8, "context": 32768})
    assert any("does not hold what is required" in note for note in found.notes)
    searched = [config for config in launched(task) if config != tuning.defaults]
    assert {(config["slots"], config["context"]) for config in searched} == {(8, 32768)}


def test_candidates_that_crash_or_hang_are_dropped_and_the_rest_goes_on(tuning):
    def crashes(config):
        return {2: FailureKind.CRASH, 7: FailureKind.OUT_OF_MEMORY}.get(config["threads"])

    def token_ms(config):
        return 5000.0 if config["threads"] == 1 else tenth(config)

    task = tuning.task(tuning.script(token_ms=token_ms, crashes=crashes), only=("threads",))
    found = tuning.run(task)
    assert found.changes == Config({"threads": 4})
    fates = {entry.changes["threads"]: entry for entry in tried(found, "screen")}
    assert (fates[2].fate, fates[2].failure) == (Fate.FAILED, FailureKind.CRASH)
    assert (fates[7].fate, fates[7].failure) == (Fate.FAILED, FailureKind.OUT_OF_MEMORY)
    assert (fates[1].fate, fates[1].failure) == (Fate.BEATEN, FailureKind.TIMEOUT)
    for threads in (1, 2, 7):
        assert sum(config["threads"] == threads for config in launched(task)) == 1


def test_a_candidate_that_fails_by_the_way_is_not_chosen(tuning):
    def crashes(config):
        if config["threads"] != 4:
            return None
        starts.append(config)
        return FailureKind.CRASH if len(starts) == 2 else None

    starts = []
    found = tuning.run(
        tuning.task(tuning.script(token_ms=tenth, crashes=crashes), only=("threads",))
    )
    assert found.conclusion is Conclusion.KEEP
    *_, entry = [e for e in tried(found) if e.changes == Config({"threads": 4})]
    assert entry.fate is Fate.FAILED


def test_what_cannot_be_measured_is_left_open(tuning):
    script = tuning.script(fail_launch={0: FailureKind.CRASH})
    found = tuning.run(tuning.task(script, only=FEW))
    assert found.conclusion is Conclusion.OPEN
    assert "could not be measured" in found.why


def test_defaults_that_do_not_start_are_no_rival(tuning):
    def crashes(config):
        return FailureKind.CRASH if config["threads"] == 8 else None

    script = tuning.script(token_ms=tenth, crashes=crashes, current=Config({"threads": 2}))
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
    assert {entry.fate for entry in tried(found, "screen")} == {Fate.FAILED}
    assert all("ignored poll" in entry.why for entry in tried(found, "screen"))


def test_a_limit_is_kept_however_fast_it_would_be_without(tuning):
    task = tuning.task(
        tuning.script(
            token_ms=lambda config: 100.0 * {4: 0.7, 7: 0.8}.get(config["threads"], 1.0),
            memory_bytes=lambda config: 2**30 * (3 if config["threads"] == 4 else 1),
        ),
        only=("threads",),
        constraints=(parse_constraint("memory<2GiB"),),
    )
    found = tuning.run(task, monitor=Scales())
    assert found.changes == Config({"threads": 7})
    fates = {entry.changes["threads"]: entry for entry in tried(found, "screen")}
    assert fates[4].fate is Fate.LIMIT
    assert "memory<2GiB" in fates[4].why


def test_what_would_not_fit_is_never_started(tuning):
    task = tuning.task(
        tuning.script(memory_bytes=lambda config: 2**40 if config["ubatch"] > 512 else 1),
        only=("ubatch",),
    )
    tuning.run(task)
    assert {config["ubatch"] for config in launched(task)} <= {128, 256, 512}


@pytest.mark.parametrize("begin_s", [12, 20, 28, 33, 36, 41, 45, 52])
def test_a_fall_of_the_machine_is_waited_out_wherever_in_a_block_it_begins(tuning, begin_s):
    def drift(now_ms):
        return 1.5 if 1000 * begin_s < now_ms and not pauses else 1.0

    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        script.clock.advance(1000 * seconds)

    script = tuning.script(token_ms=tenth, drift=drift, launch_noise=0.01)
    found = tuning.run(tuning.task(script, only=FEW, budget_s=400.0), pause=pause)
    assert pauses == [60.0]
    assert found.changes["threads"] == 4
    assert found.spent_s == pytest.approx(script.clock.now_ms() / 1000.0)
    # Nothing is told of what was measured meanwhile.
    assert all(entry.speed_ratio > 0.95 for entry in tried(found, "screen") if entry.blocks)


def test_a_machine_that_stays_slow_is_not_waited_for_for_ever(tuning):
    pauses = []
    script = tuning.script(drift=lambda now_ms: 1.6 if now_ms > 27_000 else 1.0)
    found = tuning.run(
        tuning.task(script, only=FEW, budget_s=900.0),
        pause=lambda seconds: (pauses.append(seconds), script.clock.advance(1000 * seconds)),
    )
    assert pauses
    assert all(after in {60.0, 2 * before} for before, after in pairwise(pauses))
    assert found.spent_s <= 1.1 * 900.0


def test_several_objectives_give_what_none_beats_in_all(tuning):
    script = tuning.script(
        token_ms=lambda config: 100.0 * {4: 0.7, 7: 0.8}.get(config["threads"], 1.0)
    )
    task = tuning.task(script, only=("threads",), objectives=("decode", "ttft"), budget_s=BUDGET_S)
    found = tuning.run(task)
    first, *others = found.front
    assert found.changes == first.changes == Config({"threads": 4})
    assert first.speed_ratios == pytest.approx((1 / 0.7, 1.0), rel=0.05)
    for other in others:  # what is slower in the one is faster in the other
        assert other.speed_ratios[0] <= first.speed_ratios[0]
        assert other.speed_ratios[1] >= first.speed_ratios[1]


def test_a_mix_of_objectives_is_judged_as_one(tuning):
    task = tuning.task(
        tuning.script(token_ms=lambda c: 100.0 * (0.7 if c["threads"] == 4 else 1.0)),
        only=("threads",),
        objectives=("decode=2,ttft=1",),
    )
    found = tuning.run(task)
    assert found.conclusion is Conclusion.FASTER
    (answer,) = found.answers
    assert answer.overall.metric == "decode=2,ttft=1"
    assert answer.overall.speed_ratio == pytest.approx((1 / 0.7) ** (2 / 3), rel=0.05)
    decode, ttft = answer.terms
    assert decode.speed_ratio == pytest.approx(1 / 0.7, rel=0.05)
    assert ttft.verdict is not Verdict.FASTER


def test_a_server_that_runs_already_is_tuned_by_what_it_lets_change_and_set_back(tuning):
    knobs = (
        tuning.knob("threads", Role.THREADS_DECODE, Range(1, 64)),
        tuning.knob("poll", Role.OTHER, Range(1, 100), numerics="exact", change="per_request"),
        tuning.knob("mode", Role.OTHER, Choices(("a", "b")), numerics="exact", change="reload"),
    )
    script = tuning.script(
        knobs=knobs,
        defaults=Config({"threads": 8, "poll": 50, "mode": "a"}),
        token_ms=lambda config: 100.0 * (0.7 if config["mode"] == "b" else 1.0),
    )
    task = tuning.task(script, mode="attach")
    found = tuning.run(task)
    assert found.changes["mode"] == "b"
    assert [entry.name for entry in found.untouched] == ["threads"]
    assert "restart" in found.untouched[0].reason
    assert not any("threads" in config for config in launched(task))
    assert [answer.baseline for answer in found.answers] == ["current"]


def test_a_proposed_configuration_is_only_confirmed(tuning):
    for token_ms, conclusion in (
        (tenth, Conclusion.FASTER),
        (lambda _: 100.0, Conclusion.KEEP),
    ):
        script = tuning.script(token_ms=token_ms, current=Config({"poll": 20}))
        found = tuning.run(tuning.task(script, proposed=Config({"threads": 4})))
        assert found.conclusion is conclusion
        assert found.best == Config({"threads": 4})
        assert {record.name for record in found.stages} == {"baseline"}
    with pytest.raises(UsageError, match="cannot be set here"):
        tuning.run(tuning.task(tuning.script(), proposed=Config({"threads": 64})))


def test_where_there_is_nothing_to_try_nothing_is_started(tuning):
    task = tuning.task(tuning.script(), only=("kv_type",))
    found = tuning.run(task)
    assert found.conclusion is Conclusion.KEEP
    assert not task.backend.sessions


def test_ctrl_c_ends_it_with_what_there_is(tuning):
    def observe(progress):
        if progress.stage == "screen" and progress.progress is not None:
            raise KeyboardInterrupt

    found = tuning.run(tuning.task(tuning.script(), only=FEW), observe=observe)
    assert found.interrupted
    assert found.conclusion is Conclusion.OPEN
    assert "stopped before its end" in found.why
    assert [record.name for record in found.stages] == ["baseline", "screen"]


def test_progress_is_told_from_the_first_trial_to_the_last(tuning):
    seen = []
    task = tuning.task(tuning.script(token_ms=tenth), only=FEW, budget_s=300.0)
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
