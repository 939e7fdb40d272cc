"""What the checks of tuning make of figures, without measuring any."""

from __future__ import annotations

import json
import math
import random
from importlib import import_module
from pathlib import Path

import pytest

from velollm_core.config import Config
from velollm_core.experiment.spec import Trial

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return import_module


def rows(machine, *, noise=0.0, configs=40, launches=3):
    """A grid of so many configurations, recorded in shuffled blocks on a machine whose speed is a
    function of the time.
    """
    draw = random.Random(0)
    found = [{"tok_s": [], "at_s": []} for _ in range(configs)]
    at_s = 0.0
    for _ in range(launches):
        for number in draw.sample(range(configs), configs):
            tok_s = (20 + number) * machine(at_s) * math.exp(draw.gauss(0, noise))
            found[number]["tok_s"].append(tok_s)
            found[number]["at_s"].append(at_s)
            at_s += 5.0
    return found


def spread(table, machine_logs):
    """By how much the launches of a configuration differ from each other at most."""
    widest = 0.0
    for row in table:
        logs = [
            math.log(tok_s) - machine_logs[at_s]
            for tok_s, at_s in zip(row["tok_s"], row["at_s"], strict=True)
        ]
        widest = max(widest, max(logs) - min(logs))
    return widest


def test_a_slow_wave_of_the_machine_is_taken_out_of_a_grid(script):
    table = rows(lambda at_s: 1 + 0.15 * math.sin(at_s / 60))
    told = script("tune_replay").machine_logs(table)
    assert spread(table, dict.fromkeys(told, 0.0)) > 0.2
    assert spread(table, told) < 0.1


def test_a_launch_that_failed_takes_no_part_in_what_is_the_machines(script):
    table = rows(lambda _: 1.0)
    table[3]["tok_s"][1] = None
    told = script("tune_replay").machine_logs(table)
    assert len(told) == 120
    assert max(map(abs, told.values())) < 1e-9


def test_every_search_meets_the_same_launches_of_a_configuration(script):
    replay = script("tune_replay")
    config = Config({"threads": 2})
    launches = tuple(replay.Launch(tok_s=float(n), seconds=1.0) for n in (1, 2, 3))
    here = replay.Ground({config: launches})
    one, other = (replay.Drawn(here, 7) for _ in range(2))
    drawn = [one.launch(config) for _ in range(20)]
    assert drawn == [other.launch(config) for _ in range(20)]
    assert set(drawn) == set(launches)


def test_launches_that_differ_in_an_idle_knob_are_of_one_configuration(
    script, monkeypatch, tmp_path
):
    replay = script("tune_replay")
    table = rows(lambda _: 1.0, noise=0.02)
    for number, row in enumerate(table):
        row["config"] = {"ubatch": number // 2, "poll": (0, 50)[number % 2]}
        row["seconds"] = [2.0, 2.0, 2.0]
        row["tok_s"] = [(20 + number // 2) / (20 + number) * tok_s for tok_s in row["tok_s"]]
    grid = tmp_path / "grid.json"
    grid.write_text(json.dumps({"figures": {"grid of demo": table}}), encoding="utf-8")
    monkeypatch.setattr(replay, "RECORD", grid)
    monkeypatch.setattr(replay, "ground", replay.ground.__wrapped__)
    launches = replay.ground("demo").launches
    assert [len(mine) for mine in launches.values()] == [6] * 20
    value, low, _, high = replay.effect_of_idle("demo").replace("(", "").replace(")", "").split()
    assert float(low) < 0 < float(high)
    assert abs(float(value)) < 1


@pytest.mark.parametrize(
    ("effective", "enough"),
    [
        ({"slots": 8, "context": 8192, "kv_unified": True}, True),
        ({"slots": 4, "context": 8192, "kv_unified": False}, True),
        ({"slots": 2, "context": 8192, "kv_unified": True}, False),
        ({"slots": 8, "context": 8192, "kv_unified": False}, False),
        ({"slots": 4, "context": 1024, "kv_unified": True}, False),
    ],
)
def test_a_server_that_has_less_than_is_required_is_named(script, effective, enough):
    real = script("tune_real")
    part = real.Part(words=(), budget_s=60, context_tokens=2048, parallel=4)
    trial = Trial(
        key="k",
        arm="slots.x",
        block=1,
        position=0,
        started_at="2026-11-25T07:00:00+00:00",
        duration_ms=1.0,
        effective=Config(effective),
    )
    assert bool(real.forbidden([trial], part)) != enough


def test_what_was_done_counts_only_for_the_same_code_and_circumstances(
    script, monkeypatch, tmp_path
):
    kept = script("kept")
    monkeypatch.setattr(kept, "PARTIAL", tmp_path)
    plan = [{"seed": seed} for seed in range(3)]
    kept.Kept("x", (), {"engine": "one"}).add([{"seed": 1, "speed": 2.0}])
    assert kept.Kept("x", (), {"engine": "one"}).left(plan) == [{"seed": 0}, {"seed": 2}]
    assert kept.Kept("x", (), {"engine": "other"}).left(plan) == plan
