"""What is proven, against what, and what a proposal has to show."""

from __future__ import annotations

import pytest
from attrs import evolve

from velollm_core.config import Config, Settings
from velollm_core.errors import FailureKind, UsageError
from velollm_core.statistics import Verdict
from velollm_core.tune.spec import Conclusion


def test_every_answer_rests_on_pairs_that_were_planned_before(tuning):
    task = tuning.task(
        tuning.script(token_ms=tuning.tenth), only=tuning.few, pairs=9, budget_s=400.0
    )
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


def test_a_leader_that_is_not_proven_is_not_proposed(tuning):
    script = tuning.script(launch_noise=0.2, seed=3)
    found = tuning.run(tuning.task(script, only=tuning.few, budget_s=tuning.budget_s))
    assert found.best
    assert found.conclusion is Conclusion.KEEP
    assert not found.changes
    assert "is not proven faster than what you have" in found.why
    assert f"{found.answers[0].overall.low:.3f} to" in found.why


def test_several_objectives_give_what_none_beats_in_all(tuning):
    script = tuning.script(
        token_ms=lambda config: 100.0 * {4: 0.7, 7: 0.8}.get(config["threads"], 1.0),
        launch_noise=0.01,
    )
    task = tuning.task(
        script, only=("threads",), objectives=("decode", "ttft"), budget_s=tuning.budget_s
    )
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


def test_a_proposed_configuration_is_only_confirmed(tuning):
    for token_ms, conclusion in (
        (tuning.tenth, Conclusion.FASTER),
        (lambda _: 100.0, Conclusion.KEEP),
    ):
        script = tuning.script(token_ms=token_ms, current=Config({"poll": 20}))
        found = tuning.run(tuning.task(script, proposed=Config({"threads": 4})))
        assert found.conclusion is conclusion
        assert found.best == Config({"threads": 4})
        assert {record.name for record in found.stages} == {"baseline"}
    with pytest.raises(UsageError, match="cannot be set here"):
        tuning.run(tuning.task(tuning.script(), proposed=Config({"threads": 64})))


def test_more_context_than_is_required_is_confirmed_like_anything_else(tuning):
    script = tuning.script(token_ms=lambda c: 100.0 * (0.8 if c["context"] == 8192 else 1.0))
    found = tuning.run(tuning.task(script, proposed=Config({"context": 8192})))
    assert found.conclusion is Conclusion.FASTER
    assert found.changes == Config({"context": 8192})


def test_a_proposal_that_does_not_start_is_told_with_the_reason(tuning):
    script = tuning.script(
        crashes=lambda config: FailureKind.CRASH if config["threads"] == 4 else None
    )
    found = tuning.run(tuning.task(script, proposed=Config({"threads": 4})))
    assert found.conclusion is Conclusion.OPEN
    assert found.why == ("threads=4 could not be measured: the fake does not start, as planted.")


def test_a_check_sends_other_prompts_than_the_proof_it_repeats(tuning):
    def prompts(**task):
        made = tuning.task(tuning.script(token_ms=tuning.tenth), **task)
        found = tuning.run(made)
        confirmed = [t for t in found.trials if t.arm.startswith("confirm.")]
        assert confirmed
        sessions = made.backend.sessions[-len(confirmed) :]
        return {prompt for session in sessions for prompt in session.prompts}

    proof = prompts(only=("threads",))
    check = prompts(proposed=Config({"threads": 4}))
    assert not proof & check


def test_a_backend_that_does_not_tell_what_is_set_by_default_has_no_third_rival(tuning):
    def token_ms(config):
        return 100.0 / (1.1 if config.get("threads") == 4 else 1.0)

    task = tuning.task(tuning.script(token_ms=token_ms), only=("threads",))
    found = tuning.run(evolve(task, current=Settings()))
    assert found.changes == Config({"threads": 4})
    assert [answer.baseline for answer in found.answers] == ["current"]
