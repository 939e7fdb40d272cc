"""A benchmark is kept as it was run, and resumed only where it goes on with the same."""

from __future__ import annotations

import pytest

from velollm_core.backends.contract import Message
from velollm_core.config import Config, Settings
from velollm_core.errors import UsageError
from velollm_core.experiment.benchmark import benchmark, stored
from velollm_core.experiment.clock import SystemClock
from velollm_core.experiment.journal import Journal
from velollm_core.experiment.runner import Surroundings
from velollm_core.experiment.spec import Arm, Experiment, Phase, Workload
from velollm_core.hardware.spec import CpuInfo, GpuInfo, HardwareSpec, MemoryInfo, OsInfo
from velollm_core.testing.fakes import FakeBackend, NoMonitor

WORKLOAD = Workload(
    name="w",
    summary="",
    max_tokens=4,
    messages=lambda seed, block, index: (Message(role="user", content=f"{block}/{index}"),),
    digest="d",
)
HARDWARE = HardwareSpec(
    cpu=CpuInfo(model="cpu", architecture="x86_64", logical=2, physical=2),
    memory=MemoryInfo(total_bytes=2**33, available_bytes=2**32),
    os=OsInfo(system="Linux", release="6"),
    gpus=(GpuInfo(uuid="GPU-1234-serial", vendor="nvidia", name="card"),),
)


@pytest.fixture
def execute(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite3")
    backend = FakeBackend()

    def run(resumed=None, threads=2, machine="here", **experiment):
        installation = backend.probe({}, {})[0]
        arm = Arm(
            name="current",
            backend=backend,
            installation=installation,
            model=backend.models(installation)[0],
            settings=Settings(config=Config({"threads": threads})),
        )
        plan = {"phases": (Phase(workload=WORKLOAD, requests=2),), "blocks": 2} | experiment
        return benchmark(
            Experiment(arms=(arm,), **plan),
            hardware=HARDWARE,
            journal=journal,
            clock=SystemClock(),
            surroundings=Surroundings(
                environ={},
                available_bytes=lambda: 2**30,
                monitor=NoMonitor(),
                hardware_fingerprint=machine,
            ),
            summarize=lambda result: f"{len(result.trials)} trials",
            resumed=resumed,
        ).result

    run.journal, run.backend = journal, backend
    return run


def test_the_journal_gives_back_what_was_returned(execute):
    result = execute()
    info = execute.journal.find("last")
    assert info.summary == "2 trials"
    assert stored(info, execute.journal.trials(info.id)) == result


def test_a_resumed_run_keeps_its_name_and_date_and_may_have_more_launches(execute):
    first = execute()
    again = execute(resumed=first.run, blocks=3)
    assert (again.run, again.created_at) == (first.run, first.created_at)
    assert again.trials[:2] == first.trials
    assert len(execute.backend.sessions) == 3
    assert len(execute.journal.trials(first.run)) == 3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"threads": 4}, "settings"),
        ({"seed": 9}, "seed"),
        ({"machine": "elsewhere"}, "machine"),
        ({"blocks": 1}, "number of launches"),
        ({"phases": (Phase(workload=WORKLOAD, requests=9),)}, "requests"),
    ],
)
def test_a_run_of_something_else_is_not_resumed(execute, change, told):
    first = execute()
    with pytest.raises(UsageError, match=told):
        execute(resumed=first.run, **change)
    assert len(execute.backend.sessions) == 2
    assert len(execute.journal.trials(first.run)) == 2


def test_a_result_bears_no_serial_number_of_a_card(execute):
    assert "GPU-1234-serial" not in str(execute().hardware)
