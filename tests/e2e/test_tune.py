"""``velollm tune`` on a real engine and model, and what its profiles are good for."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import urllib.request
from pathlib import Path

import pytest
from attrs import evolve

from velollm_core.config import Config
from velollm_core.documents import loads, read
from velollm_core.experiment.spec import EngineRecord, ModelRecord, WorkloadRecord
from velollm_core.testing.processes import runs
from velollm_core.tune.profile import place, write
from velollm_core.tune.spec import (
    KIND,
    MAJOR,
    PROFILE_KIND,
    PROFILE_MAJOR,
    Conclusion,
    Objective,
    Profile,
    Term,
    TuneResult,
)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
ENGINE = ("--backend", "llamacpp", "-X", "engine=embedded", "--model", "demo")
SHORT = ("--workload", "short", "--requests", "1", "--warmup", "0", "--max-tokens", "8")
TUNE = ("tune", "--force", "--launches", "6", "--only", "threads", *SHORT)
POOR = {"LLAMA_ARG_THREADS": str((os.cpu_count() or 1) + 1)}
"""More threads than can run."""


def told(text: str) -> TuneResult:
    return loads(text, KIND, MAJOR, TuneResult, "standard output")


def trials(data: Path, run: str) -> dict[tuple[str, int], tuple[str, str | None]]:
    """When each trial that the journal holds began, and how it failed, by arm and block."""
    with sqlite3.connect(data / "journal.sqlite3") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = database.execute("SELECT trial FROM trials WHERE run = ?", (run,)).fetchall()
    found = [json.loads(row[0]) for row in rows]
    return {
        (trial["arm"], trial["block"]): (trial["started_at"], (trial["failure"] or {}).get("kind"))
        for trial in found
    }


@pytest.fixture
def data(environ: dict[str, str]) -> Path:
    return Path(environ["VELOLLM_DATA_DIR"])


@pytest.fixture
def one_thread(data: Path) -> Profile:
    """A profile of one thread, kept as ``one``."""
    profile = Profile(
        name="one",
        created_at="2026-11-25T07:00:00+00:00",
        velollm_version="0.1.0",
        run="20261125-070000-3fa9",
        backend="llamacpp",
        engine=EngineRecord(backend="llamacpp", kind="wheel", version="0"),
        model=ModelRecord(name="demo"),
        hardware_fingerprint="beef",
        config=Config({"threads": 1}),
        base=Config(),
        objective=Objective(
            name="throughput",
            terms=(Term(workload="short", concurrency=1, metric="output_tok_s"),),
        ),
        workloads=(
            WorkloadRecord(
                name="short", digest="d", requests=1, concurrency=1, warmup=0, max_tokens=8
            ),
        ),
    )
    write(place(data / "profiles", "one"), profile)
    return profile


def test_from_too_many_threads_by_ctrl_c_and_resume_to_an_answer(start, velollm, data, tmp_path):
    words = (*ENGINE, *TUNE, "--budget", "120s", "--json")
    running = start(*words, env=POOR)
    running.server_after(running.server_after(running.server()))
    running.process.send_signal(signal.SIGINT)
    code, out, err = running.end()
    assert code == 130, err
    running.nothing_left()
    stopped = told(out)
    assert f"--resume {stopped.run}" in err
    assert not stopped.complete
    before = trials(data, stopped.run)
    ended = {key: value for key, value in before.items() if value[1] != "interrupted"}
    assert ended

    done = velollm(*words, "--resume", stopped.run, "-o", "x.html", env=POOR, timeout=290)
    assert done.returncode in {0, 4}, done.stderr
    after = trials(data, stopped.run)
    assert {key: after[key] for key in ended} == ended  # no trial twice
    result = told(done.stdout)
    assert (result.run, result.complete) == (stopped.run, True)
    assert result.current["threads"] == int(POOR["LLAMA_ARG_THREADS"])
    assert result.spent_s <= 120 * 1.1
    assert set(result.changes) <= {"threads"}
    assert "best so far" in done.stderr
    assert (tmp_path / "x.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    assert result.run in velollm("results").stdout
    assert told(velollm("tune", "--export").stdout) == result
    assert result.conclusion in {Conclusion.FASTER, Conclusion.KEEP, Conclusion.OPEN}
    path = place(data / "profiles", "demo-throughput")
    assert path.exists() == (result.conclusion is Conclusion.FASTER)
    if path.exists():
        profile = read(path, PROFILE_KIND, PROFILE_MAJOR, Profile)
        assert profile.config == result.changes
        assert profile.evidence[0].overall.low > 1
        assert len(profile.evidence[0].overall.pairs) >= 6


def test_a_budget_that_cannot_hold_it_is_refused_with_the_least_that_it_takes(velollm, data):
    done = velollm(*ENGINE, *TUNE, "--budget", "2s")
    assert done.returncode == 2
    assert "--budget" in done.stderr
    assert "at least" in done.stderr
    assert not (data / "profiles").exists()


def test_a_server_runs_with_a_profile_until_ctrl_c(start, one_thread):
    running = start(*ENGINE, "run", "--profile", "one", "--json", env={"LLAMA_ARG_CTX_SIZE": "512"})
    server = running.server()
    document = ""
    while not document.endswith("}\n"):
        document += running.process.stdout.readline()
    told = json.loads(document)
    with urllib.request.urlopen(f"{told['url']}/props", timeout=30) as answer:
        properties = json.load(answer)
    assert properties["default_generation_settings"]["n_ctx"] == 512
    log = Path(told["log"]).read_text(encoding="utf-8", errors="replace")
    assert "n_threads = 1" in log
    running.process.send_signal(signal.SIGINT)
    code, out, err = running.end()
    assert (code, out) == (0, ""), err
    assert "it was measured with llamacpp 0 (wheel)" in err
    assert "it was measured on another machine" in err
    assert not runs(server)
    running.nothing_left()


def test_a_server_that_dies_under_run_is_told_with_its_last_words(start, one_thread):
    running = start(*ENGINE, "run", "--profile", "one")
    server = running.server()
    assert running.process.stdout.readline().startswith("listening at http://127.0.0.1:")
    server.kill()
    code, _, err = running.end()
    assert code == 3
    assert "the server ended" in err
    running.nothing_left()


def test_what_a_profile_sets_is_written_in_the_forms_that_the_engine_reads(velollm, one_thread):
    for form, line in (
        ("sh", "export LLAMA_ARG_THREADS=1"),
        ("argv", "--threads 1"),
        ("preset", "threads = 1"),
    ):
        done = velollm(*ENGINE, "optimize", "--profile", "one", "--form", form, env=POOR)
        assert done.returncode == 0, done.stderr
        assert line in done.stdout


def test_a_profile_with_something_else_in_it_reaches_no_engine(velollm, data, one_thread):
    evil = evolve(one_thread, name="evil", config=Config({"threads": 1, "tools": "all"}))
    write(place(data / "profiles", "evil"), evil)
    for words in (("run",), ("optimize",)):
        done = velollm(*ENGINE, *words, "--profile", "evil")
        assert done.returncode == 2
        assert "there is no knob 'tools'" in done.stderr
