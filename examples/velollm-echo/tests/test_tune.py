"""The echo is tuned by what its knobs say of themselves: VeloLLM does not know it.

Its time is a clock of the test's, which a pause moves on by a little more than it should.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from velollm_echo import EchoBackend

from velollm_core.backends.contract import Message
from velollm_core.config import Config, Settings
from velollm_core.experiment.journal import Journal
from velollm_core.experiment.runner import Surroundings
from velollm_core.experiment.spec import Phase, Workload
from velollm_core.hardware.spec import CpuInfo, HardwareSpec, MemoryInfo, OsInfo
from velollm_core.testing.clock import VirtualClock
from velollm_core.testing.fakes import NoMonitor
from velollm_core.tune.keep import Outcome, tuned
from velollm_core.tune.objective import parse_objective
from velollm_core.tune.spec import Conclusion, Task

SLOW = Config({"delay_ms": 5, "breath": 1, "vowels": True})
BEST = Config({"delay_ms": 1, "breath": 4})
WORDS = 8
WORKLOAD = Workload(
    name="words",
    summary="eight words",
    max_tokens=WORDS,
    messages=lambda seed, block, index: (
        Message(role="user", content=f"Is this request {index} of block {block}, seed {seed}?"),
    ),
    digest="d",
)
HARDWARE = HardwareSpec(
    cpu=CpuInfo(model="Example", architecture="x86_64", logical=2, physical=2),
    memory=MemoryInfo(total_bytes=2**34, available_bytes=2**33),
    os=OsInfo(system="Linux", release="6"),
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    """The echo's time, and VeloLLM's."""
    clock, draw = VirtualClock(), random.Random(0)

    def sleep(seconds: float) -> None:
        clock.advance(1000 * seconds * (1.05 + abs(draw.gauss(0, 0.02))))

    time = SimpleNamespace(sleep=sleep, perf_counter=lambda: clock.now_ms() / 1000)
    monkeypatch.setattr("velollm_echo.time", time)
    return clock


@pytest.fixture
def tune(clock: VirtualClock, tmp_path: Path) -> Callable[..., Outcome]:
    """Tunes what somebody runs: ``tune(Config(...), only=("breath",))``."""

    def run(own: Config, **asked: object) -> Outcome:
        backend = EchoBackend()
        (installation,) = backend.probe({}, {})
        (model,) = backend.models(installation)
        phases = (Phase(workload=WORKLOAD, requests=1, concurrency=1, warmup=0),)
        task = Task(
            backend=backend,
            installation=installation,
            model=model,
            knobs=backend.knobs(installation, model),
            current=Settings(config=own),
            defaults=backend.defaults(installation, model),
            hardware=HARDWARE,
            mode="launch",
            phases=phases,
            objectives=(parse_objective("throughput", phases),),
            budget_s=10.0,
            **asked,
        )
        return tuned(
            task,
            journal=Journal(tmp_path / "journal.sqlite3"),
            clock=clock,
            surroundings=Surroundings(
                environ={},
                available_bytes=lambda: 2**40,
                monitor=NoMonitor(),
                hardware_fingerprint="here",
            ),
            pause=lambda seconds: clock.advance(1000 * seconds),
        )

    return run


def test_the_best_of_its_own_knobs_is_found_and_proven(tune):
    result = tune(SLOW).result
    assert result.conclusion is Conclusion.FASTER
    assert result.changes == BEST
    assert result.answers[0].overall.low > 10
    assert result.failed == 0


def test_what_would_change_answers_is_left_alone_and_named(tune):
    outcome = tune(SLOW)
    (left,) = outcome.result.untouched
    assert left.name == "vowels"
    assert "changes answers" in left.reason
    assert {trial.effective["vowels"] for trial in outcome.trials} == {True}


def test_only_what_is_named_is_changed(tune):
    outcome = tune(SLOW, only=("breath",))
    assert outcome.result.changes == Config({"breath": 4})
    searched = [trial for trial in outcome.trials if not trial.arm.endswith(".defaults")]
    assert {trial.effective["delay_ms"] for trial in searched} == {5}


def test_what_is_best_already_is_kept(tune):
    result = tune(SLOW | BEST).result
    assert result.conclusion is Conclusion.KEEP
    assert not result.changes
