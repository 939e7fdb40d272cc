"""``velollm compare`` on files: what it says, and what it ends with."""

from __future__ import annotations

import csv
import io
import json
import random

import pytest
from attrs import evolve

from velollm_core.config import Config
from velollm_core.documents import write
from velollm_core.errors import FailureKind
from velollm_core.experiment.comparison import comparisons
from velollm_core.experiment.spec import Because, EngineRecord, Failure, Question


@pytest.fixture
def file(build, tmp_path):
    """Writes a result: of one arm, or of two where the second is ``times`` as fast."""

    def make(name, *, times=None, noise=0.01, launches=8, base_ms=10.0, seed=0, **changes):
        draw = random.Random(seed)

        def launch(arm, block, gap_ms):
            gap_ms *= 1 + draw.gauss(0, noise)
            samples = [
                build.sample(index, gap_ms=gap_ms, first_ms=5 * gap_ms) for index in range(3)
            ]
            return build.trial([build.phase(samples)], block, arm)

        arms = {"current": base_ms} | ({} if times is None else {"changed": base_ms / times})
        trials = [
            launch(arm, block, gap_ms) for block in range(launches) for arm, gap_ms in arms.items()
        ]
        question = None
        if times is not None:
            question = Question(baseline="current", metric="output_tok_s")
        result = build.result(trials, question=question, run=f"run-{name}", **changes)
        write(tmp_path / name, "benchmark", 1, evolve(result, comparisons=comparisons(result)))
        return result

    return make


def test_a_file_with_both_arms_gives_the_verdict_and_what_it_stands_on(velollm, file):
    file("ab.json", times=1.2)
    done = velollm("compare", "ab.json")
    assert done.returncode == 0, done.stderr
    for words in ("Changed against current", "faster", "1.2", "output_tok_s", "pairs"):
        assert words in done.stdout
    document = json.loads(velollm("compare", "ab.json", "--json").stdout)
    assert document["schema"] == "velollm.comparison/1"
    assert document["question"]["metric"] == "output_tok_s"
    (row,) = document["comparisons"]
    assert row["verdict"] == "faster"
    assert len(row["pairs"]) == 8
    assert "| short | 1 | faster |" in velollm("compare", "ab.json", "--format", "markdown").stdout
    lines = list(
        csv.DictReader(io.StringIO(velollm("compare", "ab.json", "--format", "csv").stdout))
    )
    assert [line["pair_block"] for line in lines] == [str(block) for block in range(8)]
    assert {line["verdict"] for line in lines} == {"faster"}


@pytest.mark.parametrize(
    ("times", "noise", "code"), [(1.0, 0.002, 0), (1.2, 0.01, 0), (0.9, 0.01, 1), (0.95, 0.05, 4)]
)
def test_fail_if_slower_ends_with_no_or_open(velollm, file, times, noise, code):
    file("ab.json", times=times, noise=noise)
    done = velollm("compare", "ab.json", "--fail-if-slower", "5%", "--quiet")
    assert done.returncode == code, done.stderr
    if code == 1:
        assert "slower by more than 5 %: short x1 0.9" in done.stderr


def test_an_arm_that_crashed_is_not_found_fast_enough(velollm, file, tmp_path):
    """Where it answers, the interval holds no change, and rules out that it is slower by 5 %."""
    whole = file("ab.json", times=1.02, noise=0.02)
    assert velollm("compare", "ab.json", "--fail-if-slower", "5%").returncode == 0
    crash = Failure(kind=FailureKind.CRASH, message="it went out")
    trials = tuple(
        evolve(trial, failure=crash, phases=())
        if (trial.arm, trial.block) == ("changed", 3)
        else trial
        for trial in whole.trials
    )
    crashed = evolve(whole, trials=trials)
    (row,) = comparisons(crashed)
    assert row.because is Because.INTERVAL
    write(tmp_path / "crashed.json", "benchmark", 1, evolve(crashed, comparisons=(row,)))
    done = velollm("compare", "crashed.json", "--fail-if-slower", "5%")
    assert done.returncode == 4
    assert "changed failed in 1 of 8: it went out" in done.stderr


def test_an_open_answer_ends_with_4_and_says_what_would_settle_it(velollm, file):
    file("ab.json", times=1.03, noise=0.06)
    done = velollm("compare", "ab.json")
    assert done.returncode == 4
    assert "inconclusive" in done.stdout
    assert "Measure anew with --launches" in done.stderr


def test_two_files_are_told_apart_never_faster_and_the_decider_is_named(velollm, file, build):
    file("a.json", launches=6)
    faster = build.arm(config=Config({"threads": 4, "slots": 4}), origins={"threads": "--set"})
    file("b.json", base_ms=9.4, launches=6, arms=(faster,))
    for words in (["compare"], ["bench", "--compare"]):
        done = velollm(*words, "a.json", "b.json")
        assert done.returncode == 0, done.stderr
        assert "distinguishable" in done.stdout
        assert "faster" not in done.stdout
        assert "slower" not in done.stdout
        said = " ".join(done.stdout.split())
        assert "velollm --backend llamacpp --model demo bench --set threads=2 --ab" in said
        assert "--ab threads=4 --workload short" in said
    document = json.loads(velollm("compare", "a.json", "b.json", "--json").stdout)
    assert document["schema"] == "velollm.apart/1"
    assert document["rows"][0]["answer"] == "distinguishable"
    table = velollm("compare", "a.json", "b.json", "--format", "csv").stdout
    (line,) = csv.DictReader(io.StringIO(table))
    assert line["answer"] == "distinguishable"
    text = velollm("compare", "a.json", "b.json", "--format", "markdown").stdout
    assert "| short | 1 | distinguishable |" in text


def test_fail_if_slower_does_not_take_two_files(velollm, file):
    file("a.json")
    file("b.json", base_ms=20.0)
    done = velollm("compare", "a.json", "b.json", "--fail-if-slower", "5%")
    assert done.returncode == 2
    assert "one file that holds both arms" in done.stderr
    assert "bench" in done.stderr
    assert "--ab" in done.stderr


def test_another_machine_or_build_is_a_warning(velollm, file, build):
    file("a.json")
    engine = EngineRecord(backend="llamacpp", kind="wheel", version="7000")
    file("b.json", hardware_fingerprint="feed", arms=(build.arm(engine=engine),))
    done = velollm("compare", "a.json", "b.json")
    assert done.returncode == 0
    assert "warning: they come from different machines" in done.stderr
    assert "warning: they come from different engines or builds" in done.stderr


def test_another_model_is_refused_unless_forced(velollm, file, build):
    file("a.json")
    arm = build.arm()
    file("b.json", arms=(evolve(arm, model=evolve(arm.model, fingerprint="ff", name="big")),))
    done = velollm("compare", "a.json", "b.json")
    assert done.returncode == 2
    assert "different models: demo and big" in done.stderr
    assert velollm("compare", "a.json", "b.json", "--force").returncode == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["compare", "a.json"], "answers no question"),
        (["compare", "none.json"], "none.json cannot be read"),
        (["compare", "a.json", "a.json", "a.json"], "one file or two"),
        (["compare", "ab.json", "--metric", "total_ms"], "to decide by output_tok_s"),
        (["compare", "a.json", "ab.json"], "several arms: current, changed"),
        (["compare", "nosuchrun"], "nosuchrun"),
        (["compare", "ab.json", "--fail-if-slower", "5"], "not of the form 5%"),
        (["bench", "--fail-if-slower", "5%"], "Add --ab"),
        (["bench", "--metric", "total_ms"], "Add --ab"),
    ],
)
def test_what_cannot_be_compared_is_said_in_a_sentence(velollm, file, words, told):
    file("a.json")
    file("ab.json", times=1.1)
    done = velollm(*words)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_bench_compare_does_not_swallow_what_belongs_to_measuring(velollm, file):
    file("a.json")
    file("b.json")
    for words in (["--ab", "threads=1"], ["-o", "x.json"], ["--launches", "3"]):
        done = velollm("bench", "--compare", "a.json", "b.json", *words)
        assert done.returncode == 2
        assert f"{words[0]} would have no effect" in done.stderr.replace("--output", "-o")
    limit = velollm("bench", "--compare", "a.json", "b.json", "--fail-if-slower", "5%")
    assert limit.returncode == 2
    assert "one file that holds both arms" in limit.stderr


def test_a_limit_within_the_margin_is_refused(velollm, file):
    file("ab.json", times=0.97)
    done = velollm("compare", "ab.json", "--fail-if-slower", "1%")
    assert done.returncode == 2
    assert "less than the margin of 2%" in done.stderr


def test_a_run_cut_short_or_ignored_by_the_engine_is_no_answer_in_any_form(velollm, file, tmp_path):
    whole = file("ab.json", times=1.3)
    cut = evolve(whole, complete=False, blocks=12)
    write(tmp_path / "cut.json", "benchmark", 1, cut)
    done = velollm("compare", "cut.json", "--json")
    assert done.returncode == 4
    document = json.loads(done.stdout)
    assert (document["complete"], document["blocks"]) == (False, 12)
    assert document["comparisons"][0]["because"] == "cut short"
    assert "cut short after 8 of 12 pairs" in velollm("compare", "cut.json").stdout


def test_a_file_that_asks_for_an_unknown_metric_is_refused_by_its_key(velollm, file, tmp_path):
    file("ab.json", times=1.1)
    text = (tmp_path / "ab.json").read_text().replace('"output_tok_s"', '"charm"')
    (tmp_path / "ab.json").write_text(text)
    done = velollm("compare", "ab.json")
    assert done.returncode == 2
    assert "question.metric is 'charm'" in done.stderr


def test_an_arm_of_a_file_that_holds_two_can_be_compared_with_another_file(velollm, file):
    file("a.json")
    file("ab.json", times=1.3)
    done = velollm("compare", "ab.json", "ab.json", "--arm", "changed")
    assert "not distinguishable" in done.stdout
