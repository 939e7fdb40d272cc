"""``velollm optimize`` on a real engine and model: the round trip, a verified proposal, undo."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from velollm_core.config import Value
from velollm_core.documents import loads, read
from velollm_core.experiment.spec import BenchmarkResult
from velollm_core.optimize.outcome import Outcome
from velollm_core.optimize.spec import KIND, MAJOR

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
ENGINE = ("--backend", "llamacpp", "-X", "engine=embedded", "--model", "demo")
SHORT = ("--force", "--workload", "short", "--requests", "1", "--warmup", "0", "--max-tokens", "8")
ONE_SLOT = {"LLAMA_ARG_N_PARALLEL": "1"}
POOR = ONE_SLOT | {"LLAMA_ARG_THREADS": str((os.cpu_count() or 1) + 1)}
"""More threads than can run, and one request at a time."""
WANTED = ("--parallel", "2")

ROUND_TRIP = """
set -eu
velollm() { "$PYTHON" -m velollm_core.cli $ENGINE "$@"; }
velollm bench $SHORT --launches 1 -o before.json
velollm optimize $WANTED -o velollm.sh
source velollm.sh
velollm bench $SHORT --launches 1 -o after.json
velollm compare before.json after.json
"""


def advice(velollm, *words: str, **more) -> tuple[Outcome, int]:
    done = velollm(*ENGINE, "optimize", *WANTED, *words, "--json", timeout=280, **more)
    assert done.stdout, done.stderr
    return loads(done.stdout, KIND, MAJOR, Outcome, "standard output"), done.returncode


def moving(told: Outcome) -> dict[str, Value]:
    """What is proposed without what only has to be said along with it."""
    moves = [move for proposal in told.plan.proposals for move in proposal.moves]
    return {move.knob: move.proposed for move in moves if move.current != move.proposed}


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_what_is_sourced_is_what_is_measured(velollm, environ, tmp_path):
    told, _ = advice(velollm, env=POOR)
    proposed = told.plan.changes
    assert proposed["slots"] == 2
    assert proposed["threads"] < int(POOR["LLAMA_ARG_THREADS"])
    words = {"ENGINE": " ".join(ENGINE), "SHORT": " ".join(SHORT), "WANTED": " ".join(WANTED)}
    done = subprocess.run(
        ["bash", "-c", ROUND_TRIP],
        cwd=tmp_path,
        env=environ | POOR | words | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    subprocess.run(["bash", "-n", "velollm.sh"], cwd=tmp_path, check=True)
    before, after = (
        read(tmp_path / name, "benchmark", 1, BenchmarkResult)
        for name in ("before.json", "after.json")
    )
    assert dict(after.arms[0].config) == {**before.arms[0].config, **proposed}
    for name in moving(told):
        assert after.arms[0].origins[name].startswith("environment LLAMA_ARG_")
        assert before.trials[0].effective[name] != proposed[name]
        assert after.trials[0].effective[name] == proposed[name]
    assert before.trials[0].mismatches == after.trials[0].mismatches == ()
    assert "distinguishable" in done.stdout


def test_from_the_machine_to_a_verified_proposal(velollm):
    assert json.loads(velollm("detect", "--json").stdout)["cpu"]["logical"]
    told, code = advice(velollm, "--verify", "--launches", "6", *SHORT, env=ONE_SLOT)
    verified = told.verification
    assert code == {False: 0, True: 1, None: 4}[verified.slower]
    (row,) = verified.comparisons
    assert [pair.block for pair in row.pairs] == list(range(6))
    run = json.loads(velollm("results", "show", verified.run, "--json").stdout)
    current, proposed = (arm["config"] for arm in run["arms"])
    assert {k: v for k, v in proposed.items() if current[k] != v} == moving(told)
    seen = {trial["effective"]["slots"] for trial in run["trials"] if trial["arm"] == "proposed"}
    assert seen == {2}


def test_what_is_applied_is_in_force_and_undo_takes_it_back(velollm, tmp_path):
    home = tmp_path / "home"
    file = home / ".config" / "llama.cpp" / "config.ini"
    file.parent.mkdir(parents=True)
    mine = f"; mine\r\n[*]\nthreads = {POOR['LLAMA_ARG_THREADS']}\nparallel = 1\n\n[x]\ny = 1"
    file.write_bytes(mine.encode())
    own = {"HOME": str(home), "XDG_CONFIG_HOME": "", "APPDATA": str(home / ".config")}
    shown, _ = advice(velollm, "--apply", "--dry-run", env=own)
    assert file.read_bytes() == mine.encode()
    assert shown.plan.changes["slots"] == 2
    done = velollm(*ENGINE, "optimize", *WANTED, "--apply", env=own)
    assert done.returncode == 0, done.stderr
    assert "counts for more" not in done.stderr
    assert file.read_bytes() != mine.encode()
    again, _ = advice(velollm, env=own)
    assert not set(again.plan.changes) & set(shown.plan.changes)
    undone = velollm("undo", env=own)
    assert undone.returncode == 0, undone.stderr
    assert file.read_bytes() == mine.encode()
    assert sorted(path.name for path in file.parent.iterdir()) == ["config.ini"]


def test_a_plan_takes_a_moment(velollm):
    velollm(*ENGINE, "optimize", "--dry-run")
    started = time.perf_counter()
    done = velollm(*ENGINE, "optimize", "--dry-run")
    assert time.perf_counter() - started < 4  # under one on a machine at rest
    assert done.returncode == 0, done.stderr
