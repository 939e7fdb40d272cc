"""``velollm tune`` on an engine that is planted: what it says, writes and ends with."""

from __future__ import annotations

import json
import os
import re
import signal
import time

import pytest
from attrs import evolve

from velollm_core.cli.bench import command as bench
from velollm_core.cli.optimize import command as optimize
from velollm_core.cli.results import command as results
from velollm_core.cli.tune import command
from velollm_core.config import Config
from velollm_core.documents import loads, read
from velollm_core.errors import FailureKind
from velollm_core.experiment.journal import Journal
from velollm_core.testing.fakes import Script
from velollm_core.tune.profile import write
from velollm_core.tune.spec import (
    KIND,
    MAJOR,
    PROFILE_KIND,
    PROFILE_MAJOR,
    Conclusion,
    Profile,
    TuneResult,
)

SHORT = ("--workload", "short", "--requests", "1", "--max-tokens", "4", "--warmup", "0")
QUICK = (*SHORT, "--launches", "6")
WORDS = ("--force", "--only", "threads", *QUICK)
FEW_ARE_FAST = Script(token_ms=lambda config: 2.0 * config["threads"], launch_noise=0.01)
NOTHING_MATTERS = Script(token_ms=lambda _: 8.0, launch_noise=0.01)


@pytest.fixture
def tune(planted_command):
    """Runs the command in this process: ``tune(*words, **planted)``."""

    def run(*words, script=FEW_ARE_FAST, **planted):
        done = planted_command(command, *words, script=script, **planted)
        run.backend = planted_command.backend
        return done

    return run


@pytest.fixture
def profile_at(tmp_path):
    """Reads a profile that was written."""

    def load(name):
        path = tmp_path / "DATA" / "profiles" / f"{name}.json"
        return read(path, PROFILE_KIND, PROFILE_MAJOR, Profile)

    return load


def document(text: str) -> TuneResult:
    return loads(text, KIND, MAJOR, TuneResult, "standard output")


def journal(tmp_path):
    return Journal(tmp_path / "DATA" / "journal.sqlite3")


def words_of(text: str) -> str:
    return " ".join(text.split())


def test_what_is_proven_is_written_as_a_profile_and_nothing_else(tune, profile_at, tmp_path):
    done = tune(*WORDS)
    assert done.code == 0, done.err
    assert "faster" in done.out
    assert "velollm run --profile fake-model-throughput" in done.out
    assert "velollm run --profile fake-model-throughput" in tune("--show").out
    profile = profile_at("fake-model-throughput")
    assert profile.config == Config({"threads": 1})
    assert profile.base == Config({"threads": 8, "cache": True})
    assert profile.evidence[0].overall.low > 1
    assert "profile fake-model-throughput written: " in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["DATA"]
    written = {path.name for path in (tmp_path / "DATA").rglob("*") if path.is_file()}
    assert {name for name in written if "journal" not in name} == {"fake-model-throughput.json"}


def test_where_nothing_is_faster_what_there_is_is_kept_and_that_is_an_answer(tune, tmp_path):
    done = tune(*WORDS, "--json", script=NOTHING_MATTERS)
    assert done.code == 0, done.err
    assert document(done.out).conclusion is Conclusion.KEEP
    assert not (tmp_path / "DATA" / "profiles").exists()


def test_progress_tells_stage_candidates_best_and_time_left(tune):
    told = tune(*WORDS, "--budget", "20m").err
    assert "in this block" in told
    assert "best so far" in told
    assert re.search(r"\b(19|20):\d\d left", told)
    assert tune(*WORDS, "--quiet", "--seed", "1").err.count("left") == 0


def test_a_document_is_all_that_standard_output_holds(tune, tmp_path):
    done = tune(*WORDS, "--json", "--name", "mine")
    result = document(done.out)
    assert result.changes == Config({"threads": 1})
    assert result.complete
    (info,) = journal(tmp_path).runs()
    assert (info.id, info.kind, info.complete) == (result.run, "tune", True)
    assert result.trials == info.trials


def test_a_tune_is_shown_and_exported_again(tune, planted_command, tmp_path):
    first = tune(*WORDS)
    assert tune("--show").out == first.out
    exported = document(tune("--export").out)
    assert document(tune("--show", exported.run, "--format", "json").out) == exported
    target = tmp_path / "x.json"
    silent = tune("--export", exported.run[:8], "-o", str(target))
    assert silent.out == ""
    assert document(target.read_text()) == exported
    for name, begin in (("x.html", "<!doctype html>"), ("x.md", "")):
        tune("--show", "-o", str(tmp_path / name))
        assert (tmp_path / name).read_text().lower().startswith(begin)
    assert planted_command(results, "show", "last").out == first.out
    listed = planted_command(results, "list")
    assert exported.run in listed.out
    other = tmp_path / "y.json"
    assert planted_command(results, "export", "last", "-o", str(other)).code == 0
    assert document(other.read_text()) == exported


def test_the_last_tune_is_shown_although_something_else_was_measured_since(tune, planted_command):
    first = tune(*WORDS)
    assert planted_command(bench, "--force", *SHORT).code == 0
    assert tune("--show").out == first.out


def test_a_tune_and_a_benchmark_are_not_taken_for_one_another(tune, planted_command, tmp_path):
    assert "the journal holds no tune" in tune("--show").err
    planted_command(bench, "--force", *SHORT)
    benchmark = journal(tmp_path).runs()[0].id
    for words in (("--show", benchmark), (*WORDS, "--resume", benchmark)):
        done = tune(*words)
        assert done.code == 2
        assert "is a benchmark, where a tune is needed" in done.err
    tune(*WORDS)
    tuned = journal(tmp_path).runs()[0].id
    done = planted_command(bench, "--force", *SHORT, "--resume", tuned)
    assert done.code == 2
    assert "is a tune, where a benchmark is needed" in done.err


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_keeps_what_was_measured_and_the_rest_is_measured_later(tune, tmp_path):
    count = iter(range(10**6))

    def interrupts(_):
        if next(count) == 12:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)

    token_ms = FEW_ARE_FAST.token_ms
    stopped = tune(*WORDS, "--json", script=Script(token_ms=token_ms, on_request=interrupts))
    assert stopped.code == 130
    result = document(stopped.out)
    assert not result.complete
    assert f"Go on with the same options and --resume {result.run}" in stopped.err
    assert not (tmp_path / "DATA" / "profiles").exists()
    kept = journal(tmp_path).trials(result.run)
    finished = [trial for trial in kept if trial.failure is None]
    assert len(finished) >= 10
    done = tune(*WORDS, "--json", "--resume", result.run, script=Script(token_ms=token_ms))
    assert done.code == 0, done.err
    after = document(done.out)
    assert (after.run, after.complete) == (result.run, True)
    assert after.changes == Config({"threads": 1})
    assert set(map(str, finished)) <= set(map(str, journal(tmp_path).trials(result.run)))
    assert len(tune.backend.measured) == after.trials - len(finished)


def test_trials_of_another_build_are_stale_and_said_to_be(tune, tmp_path):
    first = document(tune(*WORDS, "--json").out)
    again = tune(*WORDS, "--json", "--resume", first.run, version="2")
    assert again.code == 0, again.err
    assert "it was measured with fake 1 (binary), and this is fake 2 (binary)" in again.err
    assert "stale" in again.err
    assert document(again.out).engine.version == "2"
    assert len(tune.backend.measured) == document(again.out).trials


def test_where_every_launch_fails_nothing_was_measured(tune):
    broken = Script(fail_launch=dict.fromkeys(range(1000), FailureKind.CRASH))
    done = tune(*WORDS, script=broken)
    assert done.code == 3
    assert "nothing could be measured" in done.err
    assert "the fake does not start, as planted" in done.err


def test_a_budget_that_cannot_hold_it_is_refused_with_what_it_takes(tune):
    slow = Script(on_request=lambda _: time.sleep(0.3))
    started = time.monotonic()
    done = tune(*WORDS, "--budget", "1s", script=slow)
    assert done.code == 2
    assert re.search(r"--budget \d+", done.err)
    assert time.monotonic() - started < 30


def test_a_server_that_runs_is_tuned_on_one_beside_it_where_that_can_be(tune):
    done = tune(*WORDS, kinds=("server", "binary"))
    assert done.code == 0, done.err
    assert "VeloLLM starts beside yours (/opt/fake)" in done.err
    assert {kind for kind, _ in tune.backend.measured} == {"binary"}


def test_of_a_server_that_runs_only_what_needs_no_restart_is_tuned(tune, profile_at):
    script = Script(token_ms=lambda c: 2.0 if c.get("cache") is False else 8.0, launch_noise=0.01)
    chat = ("--force", *QUICK, "--workload", "chat", "--name", "mine")
    done = tune(*chat, kinds=("server",), script=script)
    assert done.code == 0, done.err
    assert "only what needs no restart is tuned" in done.err
    assert profile_at("mine").config == Config({"cache": False})
    assert tune.backend.measured == []


def test_a_profile_is_checked_after_an_upgrade_and_renewed(tune, profile_at, tmp_path):
    assert tune(*WORDS, "--name", "mine").code == 0
    done = tune("--check", "mine", "--force", "--launches", "6", version="2")
    assert done.code == 0, done.err
    assert "renewed" in done.err
    renewed = profile_at("mine")
    assert renewed.engine.version == "2"
    assert renewed.config == Config({"threads": 1})
    assert renewed.run == journal(tmp_path).runs()[0].id
    settings = [config["threads"] for _, config in tune.backend.measured]
    assert set(settings) == {1, 8}
    assert settings.count(1) == settings.count(8) >= 6


def test_a_profile_that_is_no_longer_faster_fails_its_check(tune, profile_at):
    assert tune(*WORDS, "--name", "mine").code == 0
    before = profile_at("mine")
    check = ("--check", "mine", "--force", "--launches", "6")
    slower = Script(token_ms=lambda config: 16.0 / config["threads"], launch_noise=0.01)
    done = tune(*check, script=slower)
    assert done.code == 1
    assert "profile mine is not faster than what you run" in done.err
    assert tune(*check, script=Script(token_ms=lambda _: 8.0)).code == 1
    unclear = Script(token_ms=lambda _: 8.0, launch_noise=0.3)
    assert tune(*check, script=unclear).code == 4
    assert profile_at("mine") == before


def test_a_profile_that_is_in_force_has_nothing_to_be_compared_with(tune):
    assert tune(*WORDS, "--name", "mine").code == 0
    done = tune("--check", "mine", "--force", environ={"FAKE_THREADS": "1"})
    assert done.code == 2
    assert "there is nothing to compare" in done.err
    assert tune.backend.measured == []


def test_a_profile_of_what_the_engine_does_by_itself_is_in_force_where_nothing_is_set(
    tune, profile_at, tmp_path
):
    assert tune(*WORDS, "--name", "mine").code == 0
    own = evolve(profile_at("mine"), config=Config({"threads": 8}))
    write(tmp_path / "DATA" / "profiles" / "mine.json", own)
    done = tune("--check", "mine", "--force", sparse=True)
    assert done.code == 2
    assert "there is nothing to compare" in done.err
    assert tune.backend.measured == []


@pytest.mark.parametrize("token_ms", [FEW_ARE_FAST.token_ms, lambda _: 200.0])
def test_a_profile_that_breaks_a_limit_of_its_own_fails_its_check(tune, profile_at, token_ms):
    done = tune(*WORDS, "--name", "mine", "--constraint", "ttft<100ms", "--json")
    assert done.code == 0, done.err
    before = profile_at("mine")
    assert [limit.text for limit in before.constraints] == ["ttft<100ms"]
    check = ("--check", "mine", "--force", "--launches", "6", "--json")
    kept = tune(*check)
    assert kept.code == 0, kept.err
    assert document(kept.out).task.constraints == before.constraints
    before = profile_at("mine")
    late = Script(token_ms=token_ms, launch_noise=0.3, prompt_ms=200.0)
    broken = tune(*check, script=late)
    assert broken.code == 1, broken.err
    assert "profile mine breaks a limit that it was chosen under" in broken.err
    assert "does not keep ttft<100ms" in document(broken.out).why
    assert profile_at("mine") == before


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("objective", {"name": "x", "terms": []}, "objective.terms is empty"),
        ("workloads", [], "objective.terms[0] counts 'short' x1"),
    ],
)
def test_a_profile_of_a_stranger_that_cannot_be_measured_is_refused(
    tune, tmp_path, key, value, told
):
    assert tune(*WORDS, "--name", "mine").code == 0
    path = tmp_path / "DATA" / "profiles" / "mine.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    done = tune("--check", "mine", "--force")
    assert done.code == 2
    assert f"profile mine: {told}" in done.err
    assert tune.backend.measured == []


def test_a_file_that_no_profile_can_be_called_by_is_not_checked_first(tune, tmp_path):
    assert tune(*WORDS, "--name", "mine").code == 0
    odd = tmp_path / "my profile.json"
    (tmp_path / "DATA" / "profiles" / "mine.json").rename(odd)
    done = tune("--check", str(odd), "--force", "--launches", "6")
    assert done.code == 2
    assert "a profile cannot be called 'my profile'" in done.err
    assert tune.backend.measured == []


def test_a_profile_of_own_prompts_is_checked_with_them(tune, tmp_path):
    prompts = tmp_path / "mine.txt"
    prompts.write_text("Say something.\nSay more.\n")
    own = ("--prompts", str(prompts))
    words = ("--force", "--only", "threads", *own, *QUICK[2:], "--name", "mine")
    assert tune(*words).code == 0
    check = ("--check", "mine", "--force", "--launches", "6")
    done = tune(*check)
    assert done.code == 2
    assert "name it: --prompts FILE" in done.err
    assert tune(*check, *own).code == 0
    prompts.write_text("Say something else.\n")
    changed = tune(*check, *own)
    assert changed.code == 0
    assert "the prompts of mine.txt are others than at that time" in changed.err


def test_optimize_proposes_and_applies_what_a_profile_sets(tune, planted_command, tmp_path):
    assert tune(*WORDS, "--name", "mine").code == 0
    shown = planted_command(optimize, "--profile", "mine")
    assert shown.code == 0, shown.err
    said = words_of(shown.out)
    assert "threads: 8 (engine default) -> 1" in said
    assert re.search(r"expect throughput: .* times as fast as current", said)
    assert "profile mine" in said
    assert not (tmp_path / "fake.conf").exists()
    assert planted_command(optimize, "--profile", "mine", "--form", "sh").out == (
        "export FAKE_THREADS=1\n"
    )
    assert planted_command(optimize, "--profile", "mine", "--apply").code == 0
    assert (tmp_path / "fake.conf").read_text() == "# mine\nthreads = 1"
    again = planted_command(optimize, "--profile", "mine")
    assert "Keep what you have" in again.out


def test_optimize_tells_where_a_profile_was_measured_with_something_else(tune, planted_command):
    assert tune(*WORDS, "--name", "mine").code == 0
    done = planted_command(optimize, "--profile", "mine", version="2")
    assert "it was measured with fake 1 (binary), and this is fake 2 (binary)" in done.err
    assert "velollm tune --check measures it" in done.err
    refused = planted_command(optimize, "--profile", "mine", "--goal", "latency")
    assert refused.code == 2
    assert "--goal would have no effect" in refused.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--show", "--budget", "5m"], "--budget would have no effect with --show"),
        (["--check", "x", "--objective", "decode"], "--objective would have no effect"),
        (["--check", "x"], "there is no profile 'x'"),
        (["--launches", "5"], "--launches 5 cannot prove anything"),
        (["--budget", "600"], "90s, 10m or 1h30m"),
        (["--budget", "0s"], "90s, 10m or 1h30m"),
        (["--objective", "beauty"], "beauty"),
        (["--constraint", "nice"], "nice"),
        (["--workload", "nothing"], "there is no workload 'nothing'"),
        (["--only", "speed"], "no knob 'speed'"),
        (["--name", "../x"], "a profile cannot be called '../x'"),
        (["--name", "my profile.json"], "a profile cannot be called 'my profile'"),
        (["--name", "here/.json"], "a profile cannot be called '.json'"),
        (["--resume", "nothing"], "no run in the journal matches 'nothing'"),
        (["-o", "-"], "-o takes a file"),
        (["-o", "nowhere/x.json"], "there is no folder"),
        (["--show", "20990101"], "no run in the journal matches"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence_before_anything_starts(
    tune, tmp_path, words, told
):
    done = tune(*words)
    assert done.code == 2
    assert told in done.err
    assert tune.backend.measured == []
    assert not (tmp_path / "DATA").exists()


def test_help_shows_an_example_and_imports_no_engine(help_of):
    heavy = {"rich", "xllamacpp", "velollm_llamacpp", "velollm_core.tune.search"}
    text, loaded = help_of("tune", heavy)
    assert "Example: velollm --backend llamacpp tune" in text
    assert not loaded
