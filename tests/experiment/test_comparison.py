"""What a run with two arms answers: on engines whose speed and faults are planted."""

from __future__ import annotations

import pytest
from attrs import evolve

from velollm_core.documents import dumps, loads
from velollm_core.errors import DocumentError, FailureKind, UsageError
from velollm_core.experiment.comparison import comparisons, slower_than
from velollm_core.experiment.measures import METRICS
from velollm_core.experiment.spec import Because, BenchmarkResult, Phase, Question
from velollm_core.statistics import Verdict
from velollm_core.testing.fakes import Script

# The decode rate is what these engines differ in: the wall clock of the planted ones stands still.
DECODE = {"metric": "client_decode_tok_s"}


def engine(token_ms=8.0, seed=0, **faults):
    return Script(token_ms=lambda _: token_ms, launch_noise=0.02, seed=seed, **faults)


def asked(result, **question):
    plain = {"baseline": "current", "metric": "output_tok_s"}
    return evolve(result, question=Question(**plain | question))


def test_a_faster_engine_is_called_faster_with_the_ratio_and_every_pair(duel):
    result = duel({"current": engine(), "changed": engine(6.4, seed=1)}, **DECODE)
    (row,) = result.comparisons
    assert row.verdict is Verdict.FASTER
    assert row.low < 1.25 < row.high
    assert row.low < row.speed_ratio < row.high
    assert (row.baseline, row.changed, row.workload) == ("current", "changed", "w")
    assert [pair.block for pair in row.pairs] == list(range(12))
    assert all(pair.changed > pair.baseline for pair in row.pairs)
    assert row.dropped == 0
    assert row.pairs_to_decide is None


def test_the_same_engine_twice_is_no_difference(duel):
    (row,) = duel({"current": engine(), "again": engine()}, **DECODE).comparisons
    assert row.verdict is Verdict.NO_DIFFERENCE
    assert row.agreement == 1.0


def test_where_less_is_better_the_ratio_is_still_one_of_speeds(duel):
    scripts = {"current": engine(), "changed": engine(6.4, seed=1)}
    rate, gap = (
        duel(scripts, metric=metric).comparisons[0]
        for metric in ("client_decode_tok_s", "token_gap_ms")
    )
    assert gap.verdict is Verdict.FASTER
    assert gap.speed_ratio == pytest.approx(rate.speed_ratio, rel=0.02)
    assert all(pair.changed < pair.baseline for pair in gap.pairs)


def test_a_block_in_which_an_arm_fails_is_dropped_and_counted(duel):
    slow = engine(16.0, seed=1, fail_launch={3: FailureKind.CRASH})
    (row,) = duel({"current": engine(), "changed": slow}, **DECODE).comparisons
    assert (len(row.pairs), row.dropped) == (11, 1)
    assert 3 not in [pair.block for pair in row.pairs]
    assert row.verdict is Verdict.SLOWER


@pytest.mark.parametrize("broken", ["current", "changed"])
def test_an_arm_that_fails_is_never_the_faster_one(duel, broken):
    scripts = {"current": engine(), "changed": engine()}
    fast = engine(4.0, seed=1, fail_launch={0: FailureKind.OUT_OF_MEMORY})
    (row,) = duel(scripts | {broken: fast}, **DECODE).comparisons
    assert row.verdict is Verdict.INCONCLUSIVE
    assert row.because is Because.FAULTS
    assert row.why.startswith(f"{broken} failed in 1 of 12: ")
    assert row.pairs_to_decide is None
    assert slower_than(row, 0.05) is None


@pytest.mark.parametrize(("tokens", "verdict"), [(4.0, "inconclusive"), (16.0, "slower")])
def test_an_arm_whose_requests_fail_is_not_the_faster_one_either(duel, tokens, verdict):
    poor = engine(tokens, seed=1, fail_request={1: FailureKind.REFUSED})
    (row,) = duel({"current": engine(), "changed": poor}, **DECODE).comparisons
    assert len(row.pairs) == 12
    assert row.verdict == verdict
    if verdict == "inconclusive":
        assert row.because is Because.FAULTS
        assert "changed failed in 12 of 12: " in row.why


def test_arms_alike_of_which_one_fails_are_not_alike(duel):
    weak = engine(fail_launch={5: FailureKind.CRASH})
    (row,) = duel({"current": engine(), "again": weak}, **DECODE).comparisons
    assert (row.verdict, row.because) == (Verdict.INCONCLUSIVE, Because.FAULTS)


def test_a_change_that_the_engine_ignores_is_no_comparison(duel):
    deaf = engine(ignores=frozenset({"threads"}))
    (row,) = duel({"current": engine(), "changed": deaf}, **DECODE).comparisons
    assert (row.verdict, row.because) == (Verdict.INCONCLUSIVE, Because.IGNORED)
    assert "ignored threads" in row.why


def test_who_stops_when_the_interval_pleases_gets_no_verdict(duel):
    scripts = {"current": engine(), "changed": engine(4.0)}
    launches = []

    def stop(progress):
        if progress.event == "launching":
            launches.append(progress)
            if len(launches) == 18:  # the second arm of the ninth block
                raise KeyboardInterrupt

    cut = duel(scripts, observe=stop, **DECODE)
    assert not cut.complete
    (row,) = cut.comparisons
    assert len(row.pairs) >= 6
    assert (row.verdict, row.because) == (Verdict.INCONCLUSIVE, Because.CUT_SHORT)
    assert "of 12 pairs" in row.why
    assert slower_than(row, 0.05) is None
    launches.clear()
    kept = []

    def look(progress):
        if progress.event == "launching":
            launches.append((progress.block, progress.arm))
        if progress.kept:
            kept.append(progress.trial)

    whole = duel(scripts, resumed=cut.run, observe=look, **DECODE)
    assert whole.comparisons[0].verdict is Verdict.FASTER
    assert len(kept) == 16
    # Both arms of the block that was cut are measured anew: a pair is of one hour.
    assert [block for block, _ in launches] == [8, 8, 9, 9, 10, 10, 11, 11]


def test_an_arm_that_never_starts_has_no_ratio(duel):
    dead = engine(fail_launch=dict.fromkeys(range(12), FailureKind.CRASH))
    (row,) = duel({"current": engine(), "changed": dead}, **DECODE).comparisons
    assert row.verdict is Verdict.INCONCLUSIVE
    assert row.speed_ratio is None
    assert (len(row.pairs), row.dropped) == (0, 12)


def test_five_pairs_are_too_few_however_clear(duel):
    (row,) = duel({"current": engine(), "changed": engine(4.0)}, blocks=5, **DECODE).comparisons
    assert row.verdict is Verdict.INCONCLUSIVE
    assert row.because is Because.TOO_FEW_PAIRS
    assert "at least 6 are needed" in row.why


def test_noise_that_hides_a_difference_says_how_many_pairs_would_show_it(duel):
    noisy = {
        name: Script(token_ms=lambda _, ms=ms: ms, launch_noise=0.15, seed=seed)
        for name, ms, seed in (("current", 8.0, 1), ("changed", 7.8, 2))
    }
    (row,) = duel(noisy, blocks=6, **DECODE).comparisons
    assert row.verdict is Verdict.INCONCLUSIVE
    assert row.pairs_to_decide > 6


def test_several_workloads_share_the_chance_of_a_wrong_word(duel):
    phases = tuple(
        Phase(workload=evolve(duel.workload, name=name), requests=2) for name in ("a", "b", "c")
    )
    rows = duel({"current": engine(), "changed": engine()}, phases=phases, **DECODE).comparisons
    assert [row.workload for row in rows] == ["a", "b", "c"]
    assert all(1 - row.confidence == pytest.approx(0.05 / 3) for row in rows)


def test_a_metric_that_the_server_does_not_tell_is_named(build):
    def answered(index):
        return build.sample(index, output_tokens=None, event_tokens=(0,) * 21)

    trials = [
        build.trial([build.phase([answered(0)])], block, arm)
        for block in range(8)
        for arm in ("current", "changed")
    ]
    (row,) = comparisons(asked(build.result(trials)))
    assert row.verdict is Verdict.INCONCLUSIVE
    assert row.why == "the server does not tell what output_tok_s needs"


def test_answers_are_held_against_each_other_word_for_word(build):
    trials = []
    for block in range(6):
        for arm in ("current", "changed"):
            differs = arm == "changed" and block == 0
            samples = [
                build.sample(0, output_sha256="other" if differs else "same"),
                build.sample(1, prompt_sha256=f"only {arm}"),
            ]
            trials.append(build.trial([build.phase(samples)], block, arm))
    (row,) = comparisons(asked(build.result(trials)))
    assert row.agreement == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ({"margin": -0.5}, "question.margin is -0.5"),
        ({"confidence": 1.5}, "question.confidence is 1.5"),
        ({"metric": "charm"}, "question.metric is 'charm'"),
        ({"baseline": "nobody"}, "question.baseline is 'nobody'"),
    ],
)
def test_a_result_that_asks_for_what_is_not_there_is_refused(build, question, told):
    trials = [build.trial([build.phase([build.sample()])], 0, arm) for arm in ("current", "b")]
    with pytest.raises(DocumentError, match=told):
        comparisons(asked(build.result(trials), **question))


@pytest.mark.parametrize("fault", ["one arm", "no workload", "trial twice", "arm twice"])
def test_a_result_that_cannot_be_an_answer_is_refused(build, fault):
    arms = ["current"] if fault == "one arm" else ["current", "changed"]
    trials = [build.trial([build.phase([build.sample()])], 0, arm) for arm in arms]
    if fault == "trial twice":
        trials.append(trials[0])
    result = asked(build.result(trials))
    if fault == "no workload":
        result = evolve(result, workloads=())
    if fault == "arm twice":
        result = evolve(result, arms=(*result.arms, result.arms[0]))
    with pytest.raises(DocumentError):
        comparisons(result)


@pytest.mark.parametrize("total_ms", [-5.0, 0.0, float("nan"), float("inf")])
def test_times_that_no_server_measures_make_no_pair(build, total_ms):
    trials = [
        build.trial([build.phase([build.sample(total_ms=total_ms)], wall_ms=1.0)], block, arm)
        for block in range(6)
        for arm in ("current", "changed")
    ]
    (row,) = comparisons(asked(build.result(trials), metric="total_ms"))
    assert (row.verdict, row.because) == (Verdict.INCONCLUSIVE, Because.NO_VALUES)


def test_every_metric_compares(duel):
    for metric in METRICS:
        (row,) = duel({"current": engine(), "changed": engine(4.0)}, metric=metric).comparisons
        assert row.verdict in set(Verdict)


def test_question_and_answer_survive_the_disk(duel):
    result = duel({"current": engine(), "changed": engine(4.0)}, **DECODE)
    text = dumps("benchmark", 1, result)
    again = loads(text, "benchmark", 1, BenchmarkResult, "here")
    assert again.comparisons == result.comparisons == comparisons(again)


def test_a_question_is_not_prolonged_until_the_answer_pleases(duel):
    scripts = {"current": engine(), "changed": engine()}
    first = duel(scripts, blocks=6, **DECODE)
    with pytest.raises(UsageError, match="number of launches"):
        duel(scripts, blocks=12, resumed=first.run, **DECODE)
    with pytest.raises(UsageError, match="question"):
        duel(scripts, blocks=6, resumed=first.run, metric="total_ms")
    assert duel(scripts, blocks=6, resumed=first.run, **DECODE).comparisons == first.comparisons


@pytest.mark.parametrize(
    ("token_ms", "answer"), [(8.0, False), (9.6, True), (8.45, None), (7.0, False)]
)
def test_slower_than_a_limit_is_yes_no_or_open(duel, token_ms, answer):
    noise = 0.004 if answer is not None else 0.03
    scripts = {
        name: Script(token_ms=lambda _, ms=ms: ms, launch_noise=noise, seed=seed)
        for name, ms, seed in (("current", 8.0, 1), ("changed", token_ms, 2))
    }
    (row,) = duel(scripts, **DECODE).comparisons
    assert slower_than(row, 0.05) is answer
