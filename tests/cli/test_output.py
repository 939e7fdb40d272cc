"""What reaches standard output, whatever a model, an engine or a file is called."""

from __future__ import annotations

import io
import json
import math
import sys

import pytest
from attrs import evolve

from velollm_core.cli.measure import report
from velollm_core.cli.output import Output
from velollm_core.cli.printing import FORMATS
from velollm_core.cli.state import State
from velollm_core.documents import read
from velollm_core.errors import UsageError
from velollm_core.experiment.benchmark import Outcome
from velollm_core.experiment.spec import BenchmarkResult
from velollm_core.report.terminal import to_terminal

NAME = "caf\xe9 \u6a21 \U0001f600 a\ud800b"


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def stdout(monkeypatch):
    """``stdout(encoding, kind)`` is standard output from then on."""

    def make(encoding="utf-8", kind=io.TextIOWrapper):
        stream = kind(io.BytesIO(), encoding=encoding, newline="")
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return make


@pytest.fixture
def named(build):
    """A result whose model has a name."""

    def make(name):
        arm = build.arm()
        arm = evolve(arm, model=evolve(arm.model, name=name))
        trial = build.trial([build.phase([build.sample(), build.sample(1)], name)])
        return build.result([trial], arms=(arm,))

    return make


def output():
    return Output(json=False, quiet=False, verbose=0)


def written(stream):
    stream.flush()
    return stream.buffer.getvalue().decode(stream.encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "latin-1", "ascii", "utf-16"])
def test_a_document_stays_one_in_any_encoding(stdout, encoding):
    stream = stdout(encoding)
    output().document({"name": NAME})
    assert json.loads(written(stream)) == {"name": NAME}


def test_utf_8_has_every_character_as_it_is_but_half_a_pair(stdout):
    stream = stdout()
    output().text(NAME)
    assert written(stream) == "caf\xe9 \u6a21 \U0001f600 a\\ud800b\n"


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
@pytest.mark.parametrize("form", FORMATS)
def test_a_name_that_cannot_be_printed_costs_neither_report_nor_file(
    stdout, named, tmp_path, encoding, form
):
    stream = stdout(encoding)
    target = tmp_path / "o.json"
    report(State(), Outcome(result=named(NAME), interrupted=False), form, target, None)
    assert "caf" in written(stream)
    assert read(target, "benchmark", 1, BenchmarkResult) == named(NAME)


def test_the_file_is_written_even_if_standard_output_is_closed(stdout, named, tmp_path):
    target = tmp_path / "o.json"
    state = State()
    assert state.output
    stdout().close()
    with pytest.raises(UsageError, match=r"cannot be printed as csv: .*closed file"):
        report(state, Outcome(result=named("demo"), interrupted=False), "csv", target, None)
    assert read(target, "benchmark", 1, BenchmarkResult) == named("demo")


def test_no_standard_output_at_all_is_no_fault(monkeypatch, capsys):
    with monkeypatch.context() as without:
        without.setattr(sys, "stdout", None)
        output().text("a")
    assert capsys.readouterr() == ("", "")


def test_what_a_program_reads_is_exact_and_a_terminal_never_gets_control_characters(
    stdout, named, capsys
):
    stream = stdout()
    output().text("a\x1b[2Jb\n")
    assert written(stream) == "a\x1b[2Jb\n"
    stream = stdout(kind=Terminal)
    shown = output()
    shown.text("a\x1b[2Jb\tc\n")
    shown.rows([("model", "\x9b31m")])
    assert written(stream) == "a\\x1b[2Jb\tc\nmodel  \\x9b31m\n"
    shown.remark("\x1b]0;title\x07")
    shown.warn("\x1b]0;title\x07")
    assert capsys.readouterr().err == "\\x1b]0;title\\x07\nwarning: \\x1b]0;title\\x07\n"
    stream = stdout(kind=Terminal)
    output().show(to_terminal(named("\x1b]0;title\x07\x9b31m")))
    assert "\\x1b]0;title\\x07\\x9b31m: SmolLM2" in written(stream)
    assert "\x1b]" not in written(stream)


def test_a_number_that_no_document_can_hold_is_named_and_the_table_is_printed(
    stdout, named, tmp_path
):
    stream = stdout()
    (trial,) = named("demo").trials
    result = evolve(named("demo"), trials=(evolve(trial, load_ms=math.nan),))
    outcome = Outcome(result=result, interrupted=False)
    for form in ("table", "json"):
        with pytest.raises(UsageError, match=r"^this benchmark .*: nan @ \$.trials\[0\].load_ms"):
            report(State(), outcome, form, tmp_path / "o.json", None)
    assert "Latency, ms" in written(stream)
    assert list(tmp_path.iterdir()) == []
