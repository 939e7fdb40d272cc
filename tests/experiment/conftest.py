"""Whole benchmarks on planted engines, for tests of what follows from them."""

from __future__ import annotations

import pytest

from velollm_core.backends.contract import Message
from velollm_core.config import Config, Settings
from velollm_core.experiment.benchmark import benchmark
from velollm_core.experiment.clock import SystemClock
from velollm_core.experiment.journal import Journal
from velollm_core.experiment.runner import Surroundings
from velollm_core.experiment.spec import Arm, Experiment, Phase, Question, Workload
from velollm_core.hardware.spec import CpuInfo, HardwareSpec, MemoryInfo, OsInfo
from velollm_core.testing.fakes import FakeBackend, NoMonitor

WORKLOAD = Workload(
    name="w",
    summary="",
    max_tokens=8,
    messages=lambda seed, block, index: (Message(role="user", content=f"{seed}/{block}/{index}"),),
    digest="d",
)


@pytest.fixture
def duel(tmp_path):
    """``duel({"current": script, "changed": script}, blocks=12)``: its result, all arms planted."""
    journal = Journal(tmp_path / "journal.sqlite3")

    def run(
        scripts,
        *,
        blocks=12,
        metric="output_tok_s",
        resumed=None,
        machine="here",
        observe=lambda _: None,
        **plan,
    ):
        arms = []
        for name, script in scripts.items():
            backend = FakeBackend(script)
            installation = backend.probe({}, {})[0]
            arms.append(
                Arm(
                    name=name,
                    backend=backend,
                    installation=installation,
                    model=backend.models(installation)[0],
                    settings=Settings(config=Config({"threads": len(arms) + 1})),
                )
            )
        experiment = Experiment(
            arms=tuple(arms),
            blocks=blocks,
            question=Question(baseline=arms[0].name, metric=metric) if len(arms) > 1 else None,
            **{"phases": (Phase(workload=WORKLOAD, requests=2),)} | plan,
        )
        return benchmark(
            experiment,
            hardware=HardwareSpec(
                cpu=CpuInfo(model=machine, architecture="x86_64", logical=2, physical=2),
                memory=MemoryInfo(total_bytes=2**33, available_bytes=2**32),
                os=OsInfo(system="Linux", release="6"),
            ),
            journal=journal,
            clock=SystemClock(),
            surroundings=Surroundings(
                environ={},
                available_bytes=lambda: 2**30,
                monitor=NoMonitor(),
                hardware_fingerprint=machine,
            ),
            summarize=lambda result: f"{len(result.trials)} trials",
            observe=observe,
            resumed=resumed,
        ).result

    run.workload, run.journal = WORKLOAD, journal
    return run
