"""Progress on a terminal, whatever the things are called that it names."""

from __future__ import annotations

import io
import sys

import pytest

from velollm_core.cli.output import Output
from velollm_core.cli.progress import downloading, measuring, tuning
from velollm_core.config import Config
from velollm_core.experiment.runner import Progress
from velollm_core.experiment.spec import Experiment, Phase, Trial, Workload
from velollm_core.tune.found import TuneProgress

NAME = "[bold]odd[/x]"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    """``terminal()`` is standard error from then on."""

    def make():
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setenv("TERM", "xterm")
        return stream

    return make


def test_a_workload_is_called_what_its_file_is_called(terminal):
    workload = Workload(name=NAME, summary="", max_tokens=4, messages=lambda *_: (), digest="")
    experiment = Experiment(
        arms=(), phases=(Phase(workload=workload, requests=2),), blocks=1, seed=0
    )
    shown = terminal()
    with measuring(Output(json=False, quiet=False, verbose=0), experiment) as show:
        show(Progress(event="measuring", block=0, arm="current", phase=0, requests_done=1))
    assert NAME in shown.getvalue()


def test_a_download_is_called_what_it_is_called(terminal):
    shown = terminal()
    with downloading(Output(json=False, quiet=False, verbose=0)) as show:
        show(1, 2, NAME)
    assert NAME in shown.getvalue()


@pytest.fixture
def stage():
    """``stage(spent_s, ended, kept=False)`` is what a race tells after the trial ``ended``."""

    def make(spent_s, ended=None, *, kept=False):
        progress = None
        if ended is not None:
            arm, block = ended
            trial = Trial(
                key="k", arm=arm, block=block, position=0, started_at="", duration_ms=5000
            )
            progress = Progress(event="trial", arm=arm, block=block, trial=trial, kept=kept)
        return TuneProgress(
            stage="threads",
            summary="threads that generate",
            number=2,
            stages=5,
            alive=(Config({"threads": 1}),),
            of=2,
            best=Config({"threads": 1}),
            spent_s=spent_s,
            budget_s=100,
            ratio=1.1,
            low=1.0,
            high=1.2,
            progress=progress,
        )

    return make


def test_a_tune_tells_a_line_a_trial_with_the_time_that_is_left(stage, capsys):
    with tuning(Output(json=False, quiet=False, verbose=0), None) as show:
        show(stage(20))
        show(stage(20, ("threads.lead", 0), kept=True))
        show(stage(20, ("threads.lead", 0), kept=True))
        show(stage(20, ("threads.threads=1", 0)))
        show(stage(30))
        show(stage(30, ("threads.lead", 1)))
    where = "threads (2 of 5, 1 of 2 in this block)"
    best = "done (5.0 s); best so far threads=1 at 1.100 [1.000, 1.200]"
    assert capsys.readouterr().err.splitlines() == [
        f"{where}: threads that generate",
        f"{where}: threads=1, block 1: {best}; 1:10 left",
        f"{where}: lead, block 2: {best}; 1:05 left",
    ]
