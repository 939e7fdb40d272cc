"""What the journal keeps, and what happens when it cannot."""

from __future__ import annotations

import subprocess
import sys

import pytest

from velollm_core.config import Config
from velollm_core.errors import FailureKind, UsageError
from velollm_core.experiment.journal import Journal, RunJournal, resume
from velollm_core.experiment.spec import Failure, PhaseRecord, Sample, Trial


def make(arm: str = "a", block: int = 0, key: str = "k", **changes) -> Trial:
    sample = Sample(index=0, started_ms=0.0, total_ms=5.5, event_ms=(1.0, 5.5), prompt_sha256="p")
    return Trial(
        key=key,
        arm=arm,
        block=block,
        position=0,
        started_at="2026-11-24T12:00:00+00:00",
        duration_ms=1.0,
        phases=(PhaseRecord(workload="w", concurrency=1, wall_ms=5.5, samples=(sample,)),),
        effective=Config({"threads": 2, "unified": True, "type": "f16", "share": 0.5}),
        **changes,
    )


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "deep" / "journal.sqlite3")
    journal.start("run-1", created_at="2026-11-24T12:00:00+00:00", kind="benchmark", head={"x": 1})
    return journal


def test_a_trial_comes_back_as_it_was(journal):
    trial = make(failure=Failure(kind=FailureKind.CRASH, message="died"))
    journal.add("run-1", trial)
    assert journal.trials("run-1") == (trial,)


def test_runs_are_listed_newest_first_and_found_by_a_prefix(journal):
    journal.start("run-2", created_at="later", kind="benchmark", head={})
    journal.finish("run-2", complete=True, summary="demo 127 tok/s", head={"y": 2})
    assert [run.id for run in journal.runs()] == ["run-2", "run-1"]
    assert journal.find("last").summary == "demo 127 tok/s"
    assert journal.find("run-1").head == {"x": 1}
    with pytest.raises(UsageError, match="2 runs"):
        journal.find("run-")
    with pytest.raises(UsageError, match="no run"):
        journal.find("nothing")


def test_a_removed_run_takes_its_trials_along(journal):
    journal.add("run-1", make())
    journal.remove("run-1")
    assert journal.runs() == ()
    assert journal.trials("run-1") == ()


def test_an_interrupted_trial_is_kept_but_measured_again(journal):
    side = RunJournal("run-1", journal)
    side.add(make(failure=Failure(kind=FailureKind.INTERRUPTED, message="stopped")))
    side.add(make(arm="b", failure=Failure(kind=FailureKind.CRASH, message="died")))
    again = resume(journal, "run-1")
    assert again.finished("a", "k", 0) is None
    assert again.finished("b", "k", 0) is not None
    again.add(make())
    assert {trial.arm: trial.failure is None for trial in journal.trials("run-1")} == {
        "a": True,
        "b": False,
    }


def test_two_arms_of_one_configuration_do_not_take_each_others_place(journal):
    side = RunJournal("run-1", journal)
    side.add(make(arm="a"))
    side.add(make(arm="b"))
    assert len(journal.trials("run-1")) == 2


def test_two_processes_write_at_once_and_nothing_is_lost(journal):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from velollm_core.experiment.journal import Journal\n"
        "from velollm_core.experiment.spec import Trial\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for block in range(40):\n"
        "    journal.add('run-1', Trial(key='k', arm=sys.argv[2], block=block, position=0,\n"
        "        started_at='t', duration_ms=1.0))\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(journal.path), arm]) for arm in "xyz"
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(journal.trials("run-1")) == 120


def test_a_file_that_is_no_journal_is_one_sentence_and_stays_as_it_is(tmp_path):
    path = tmp_path / "journal.sqlite3"
    path.write_text("these are notes of mine, not a database " * 100)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"journal\.sqlite3 cannot be used") as caught:
        Journal(path).runs()
    assert "VELOLLM_DATA_DIR" in caught.value.hint
    assert path.read_bytes() == before


def test_a_journal_of_a_newer_version_is_refused_by_name(journal):
    import sqlite3

    with sqlite3.connect(journal.path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(UsageError, match="newer VeloLLM"):
        journal.runs()


def test_a_trial_that_cannot_be_written_is_kept_in_memory_and_the_fault_is_told(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    side = RunJournal("r", Journal(blocked / "journal.sqlite3"))
    side.add(make())
    side.add(make(block=1))
    assert side.fault is not None
    assert side.finished("a", "k", 1) is not None
