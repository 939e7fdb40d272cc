"""Two results recorded apart: told apart or not, never faster."""

from __future__ import annotations

import pytest
from attrs import evolve

from velollm_core.documents import dumps
from velollm_core.errors import UsageError
from velollm_core.experiment.apart import (
    ApartResult,
    compare_apart,
    differences,
    refuse_unlike,
    side,
)
from velollm_core.experiment.spec import EngineRecord
from velollm_core.testing.fakes import Script

RATE = "client_decode_tok_s"


def engine(token_ms=8.0, seed=0):
    return Script(token_ms=lambda _: token_ms, launch_noise=0.01, seed=seed)


def record(duel, token_ms=8.0, seed=0, blocks=6, **more):
    return side(duel({"current": engine(token_ms, seed)}, blocks=blocks, **more), "here", None)


def test_the_drift_of_an_hour_makes_two_files_distinguishable_and_never_faster(duel):
    morning = record(duel, seed=1)
    noon = record(duel, token_ms=8.0 * 1.06, seed=2)
    (row,) = compare_apart(morning, noon, RATE)
    assert row.answer == "distinguishable"
    assert row.speed_ratio == pytest.approx(1 / 1.06, rel=0.02)
    answer = ApartResult(first="a", second="b", rows=(row,), differences=(), decider="")
    text = dumps("apart", 1, answer)
    assert "faster" not in text
    assert "slower" not in text
    assert "by the change or by the hour" in row.why


def test_two_files_alike_are_not_distinguishable(duel):
    (row,) = compare_apart(record(duel, seed=1), record(duel, seed=2), RATE)
    assert row.answer == "not distinguishable"
    assert row.low < 1 < row.high
    assert (row.first_n, row.second_n) == (6, 6)


def test_one_launch_is_never_told_apart(duel):
    (row,) = compare_apart(record(duel, blocks=1), record(duel, token_ms=4.0), RATE)
    assert row.answer == "not distinguishable"
    assert row.speed_ratio is None
    assert "one launch has no interval" in row.why


def test_another_model_or_other_work_is_refused(duel):
    one, two = record(duel), record(duel)
    refuse_unlike(one, two)
    model = evolve(two.arm.model, fingerprint="ff", name="other")
    with pytest.raises(UsageError, match="different models: fake-model and other"):
        refuse_unlike(one, evolve(two, arm=evolve(two.arm, model=model)))
    work = tuple(evolve(entry, max_tokens=9) for entry in two.result.workloads)
    with pytest.raises(UsageError, match="different work"):
        refuse_unlike(one, evolve(two, result=evolve(two.result, workloads=work)))


def test_what_else_differs_is_said(duel):
    one = record(duel)
    two = record(duel, machine="there", seed=1)
    two = evolve(
        two,
        arm=evolve(two.arm, engine=EngineRecord(backend="fake", kind="binary", version="2")),
        result=evolve(two.result, seed=7, runner_version=99),
    )
    said = differences(one, two)
    assert len(said) == 4
    for word in ("machines: here and there", "fake binary 1 and fake binary 2", "seed 7"):
        assert word in " ".join(said)
    assert differences(one, one) == ()


def test_of_several_arms_one_has_to_be_named(duel):
    result = duel({"current": engine(), "changed": engine()}, blocks=1)
    with pytest.raises(UsageError, match="several arms: current, changed"):
        side(result, "a.json", None)
    with pytest.raises(UsageError, match="no arm 'best'"):
        side(result, "a.json", "best")
    assert side(result, "a.json", "changed").arm.name == "changed"


def test_results_that_share_no_work_have_nothing_to_compare(duel):
    one, two = record(duel), record(duel)
    other = tuple(evolve(entry, name="other") for entry in two.result.workloads)
    with pytest.raises(UsageError, match="share no workload"):
        compare_apart(one, evolve(two, result=evolve(two.result, workloads=other)), RATE)
