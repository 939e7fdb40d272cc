"""Progress on a terminal, whatever the things are called that it names."""

from __future__ import annotations

import io
import sys

import pytest

from velollm_core.cli.output import Output
from velollm_core.cli.progress import downloading, measuring
from velollm_core.experiment.runner import Progress
from velollm_core.experiment.spec import Experiment, Phase, Workload

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
