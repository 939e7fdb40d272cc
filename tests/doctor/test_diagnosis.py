"""Checks run each under its own guard; their outcome is one strict document, readable anywhere."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from rich.console import Console

from velollm_core import hookimpl
from velollm_core.doctor.diagnosis import diagnose
from velollm_core.doctor.spec import (
    KIND,
    MAJOR,
    Check,
    Cost,
    Diagnosis,
    Finding,
    Unseen,
)
from velollm_core.doctor.terminal import summary, to_terminal
from velollm_core.documents import dumps, loads
from velollm_core.errors import DocumentError, Interrupted
from velollm_core.plugins import Plugins

FINDING = Finding(
    statement="The fan stands still.",
    evidence="[red]fan1_input[/red] is 0",
    cost=Cost(text="half the clock", basis="cited", source="the fan's manual"),
    advice="Plug it in.",
    costs_speed=True,
)


def check(look, code="fan"):
    return Check(code=code, looks_at="the fan", explains="A fan that stands still.", look=look)


def raising(error):
    def look(context):
        yield FINDING
        raise error

    return look


def test_a_check_that_raises_costs_its_own_findings_and_one_line(machine):
    told, failures = diagnose(
        {"a": [check(raising(ZeroDivisionError("boom")), "a-x"), check(lambda _: [FINDING])]},
        machine.context(),
    )
    assert failures == ("check a-x of plugin a: the check failed: ZeroDivisionError: boom",)
    assert [(entry.code, len(entry.findings)) for entry in told.checks] == [("a-x", 0), ("fan", 1)]
    assert told.costs_speed


def test_a_check_that_cannot_look_says_why_and_is_no_failure(machine):
    told, failures = diagnose(
        {"a": [check(raising(Unseen("no fan is to be seen")))]}, machine.context()
    )
    assert failures == ()
    assert told.checks[0].unseen == "no fan is to be seen"
    assert not told.costs_speed


def test_ctrl_c_in_a_measurement_ends_everything(machine):
    with pytest.raises(Interrupted):
        diagnose({"a": [check(raising(Interrupted("stopped.")))]}, machine.context())


def test_a_remark_alone_costs_no_speed(machine):
    told, _ = diagnose(
        {"a": [check(lambda _: [evolve(FINDING, costs_speed=False)])]}, machine.context()
    )
    assert not told.costs_speed
    assert summary(told) == "1 check, 1 remark."


def test_no_text_of_any_check_names_the_home(machine):
    for home in ("/home/somebody", "/home/somebody/"):
        machine.environ["HOME"] = home
        place = "/home/somebody/x"
        leaking = Finding(
            statement=f"{place} is old.",
            evidence="in '/home/somebody', --model=/home/somebody/m.gguf",
            cost=Cost(text=place, basis="cited", source=place),
            advice=f"Update {place}, not /home/somebody-else/x.",
            costs_speed=False,
        )
        told, failures = diagnose(
            {
                "a": [
                    check(lambda _, leaking=leaking: [leaking], "a-x"),
                    check(raising(Unseen(f"no {place}")), "a-y"),
                    check(raising(OSError(f"cannot read {place}")), "a-z"),
                ]
            },
            machine.context(),
        )
        text = dumps(KIND, MAJOR, told) + "".join(failures)
        assert text.replace("/home/somebody-else/x", "").count("/home/somebody") == 0
        assert told.checks[0].findings[0].evidence == "in '~', --model=~/m.gguf"
        assert "/home/somebody-else/x" in told.checks[0].findings[0].advice
        assert told.checks[1].unseen == "no ~/x"


class Good:
    @hookimpl
    def velollm_diagnose(self, context):
        return [check(lambda _: [FINDING])]


class Bad:
    @hookimpl
    def velollm_diagnose(self):
        yield check(lambda _: [FINDING], "bad-first")
        raise OSError("no such sensor")


class Silent:
    @hookimpl
    def velollm_diagnose(self):
        return None


def test_a_plugin_whose_hook_raises_costs_only_its_own_checks(machine):
    plugins = Plugins()
    for name, kind in (("bad", Bad), ("good", Good), ("silent", Silent)):
        plugins.add(kind, name, f"velollm-{name}", "1")
    offered = plugins.diagnose(machine.context())
    assert {name: [entry.code for entry in checks] for name, checks in offered.items()} == {
        "good": ["fan"],
        "silent": [],
    }
    assert [str(entry) for entry in plugins.broken] == [
        "plugin bad (velollm-bad 1) failed in velollm_diagnose: OSError: no such sensor"
    ]


def test_the_document_is_read_back_whole_or_refused(machine):
    told = machine.diagnosis()
    text = dumps(KIND, MAJOR, told)
    assert loads(text, KIND, MAJOR, Diagnosis, "x") == told
    found, _ = diagnose({"a": [check(lambda _: [FINDING])]}, machine.context())
    text = dumps(KIND, MAJOR, found)
    assert loads(text, KIND, MAJOR, Diagnosis, "x") == found
    guessed = text.replace('"cited"', '"guessed"')
    with pytest.raises(DocumentError, match="basis"):
        loads(guessed, KIND, MAJOR, Diagnosis, "x")


def printed(told, width=80, *, verbose=False):
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    console.print(to_terminal(told, verbose=verbose))
    return console.file.getvalue()


def test_what_is_found_is_shown_with_how_it_was_seen_what_it_costs_and_what_to_do(machine):
    remark = evolve(FINDING, statement="The fan is dusty.", costs_speed=False)
    told, _ = diagnose(
        {"a": [check(lambda _: [remark], "dust"), check(lambda _: [FINDING])]}, machine.context()
    )
    text = printed(told)
    assert text.index("costs speed: The fan stands still. [fan]") < text.index("remark: The fan")
    assert "[red]fan1_input[/red] is 0" in text  # no markup is made of what was read
    assert "half the clock (source: the fan's manual)" in text
    assert "Plug it in." in text
    assert "2 checks, 1 finding that costs speed, 1 remark." in text


def test_a_clean_machine_is_told_so(machine):
    told = machine.diagnosis()
    text = printed(told)
    assert "Nothing that was looked at holds this machine back." in text
    assert f"{len(told.checks)} checks, nothing found." in text


def test_what_was_not_looked_at_is_told_on_request(machine):
    told, _ = diagnose({"a": [check(raising(Unseen("no fan is to be seen")))]}, machine.context())
    assert "0 checks, nothing found; 1 more check could not look (-v says why)." in printed(told)
    assert "not looked at the fan: no fan is to be seen" in printed(told, verbose=True)


def test_a_narrow_terminal_shows_all_of_it(machine):
    told, _ = diagnose({"a": [check(lambda _: [FINDING])]}, machine.context())
    text = printed(told, width=24)
    assert max(map(len, text.splitlines())) <= 24
    assert "thefan'smanual" in "".join(text.split())


def test_the_example_of_the_documentation_works(machine):
    page = Path(__file__).parents[2] / "docs" / "how-to" / "doctor.md"
    code = page.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    example: dict[str, Any] = {}
    exec(compile(code, str(page), "exec"), example)
    checks = {"fan": example["velollm_diagnose"](None)}
    told, _ = diagnose(checks, machine.context())
    assert told.checks[0].unseen == "no fan is to be seen"
    machine.plant("/sys/class/hwmon/hwmon0/fan1_input", "0")
    told, _ = diagnose(checks, machine.context())
    assert told.checks[0].findings[0].statement == "The fan stands still."
