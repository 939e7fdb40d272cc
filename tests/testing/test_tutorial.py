"""The tutorial is executed as it is written, in an environment of its own, and says what happens.

Comments in the page mark what is what: ``file`` adds a block to a file, ``edit`` exchanges lines
of one, ``run`` runs commands one after the other in one shell. Of the outputs that are shown,
``...`` stands for anything; fractions and the width of gaps are not compared.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from attrs import frozen

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial" / "your-first-backend.md"
EXAMPLE = ROOT / "examples" / "velollm-echo"
STEP = re.compile(r"<!-- (file|edit|run)(?:: (\S+))? -->\n```\w+\n(.*?)\n```\n", re.DOTALL)
BLOCK = re.compile(r"^```\w", re.MULTILINE)
END = "the-end-of-a-command"


@frozen
class Step:
    kind: str
    path: str
    text: str


@frozen
class Command:
    words: str
    shown: tuple[str, ...]


def steps():
    return [Step(kind, path, text) for kind, path, text in STEP.findall(PAGE.read_text("utf-8"))]


def joined(before, piece):
    """A file with a further piece, and as many empty lines between as a formatter leaves."""
    gap = "\n\n" if piece.startswith(("class ", "def ", "@")) else "\n"
    return f"{before}{gap if before else ''}{piece}\n"


def files():
    """What the reader has typed in the end, by file."""
    found = {}
    for step in steps():
        if step.kind == "file":
            found[step.path] = joined(found.get(step.path, ""), step.text)
    return found


def commands(text):
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:], ()))
        else:
            found[-1] = Command(found[-1].words, (*found[-1].shown, line))
    return found


def stable(line):
    """A line without its figures, the width of its gaps, and what a slow or chatty run adds."""
    line = re.sub(r", \d+ warnings?(?= in )", "", line)
    line = re.sub(r"(?<= in )\d+\.\d+s \(\d+:\d\d:\d\d\)", "#s", line)
    return " ".join(re.sub(r"\d+\.\d+", "#", line).split())


def pattern(shown):
    """A regular expression for the stable parts of an output."""
    parts = []
    for line in map(stable, shown):
        if line == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(re.escape(line).replace(r"\.\.\.", ".*") + r"\n")
    return re.compile("".join(parts))


def edit(path, text):
    """Exchange the lines with a minus for those with a plus."""
    lines = text.splitlines()
    before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    after = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    content = path.read_text("utf-8")
    assert content.count(before) == 1, before
    path.write_text(content.replace(before, after), "utf-8")


def run(folder, step, environ):
    """Run a step's commands in one shell that stands where the last one stood."""
    listed = commands(step.text)
    lines = [f"{command.words}\necho {END} $?" for command in listed]
    keep = f"export -p > {folder}/variables; pwd > {folder}/where"
    script = "\n".join([". ./variables", 'cd "$(cat where)"', *lines, keep])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    outputs = re.split(rf"{END} (\d+)\n", done.stdout)
    for number, command in enumerate(listed):
        output, code = outputs[2 * number], int(outputs[2 * number + 1])
        told = "\n".join(stable(line) for line in output.splitlines())
        assert pattern(command.shown).fullmatch(f"{told}\n" if told else ""), (
            f"{command.words} said:\n{output}\n{done.stderr}"
        )
        assert (code == 0) != any("failed" in line for line in command.shown), done.stderr


@pytest.mark.skipif(os.name == "nt", reason="the page's commands are those of a POSIX shell")
@pytest.mark.timeout(600)
def test_the_tutorial_does_what_it_says(tmp_path):
    (tmp_path / "velollm").symlink_to(ROOT)
    (tmp_path / "variables").touch()
    (tmp_path / "where").write_text(str(tmp_path))
    known = ("VELOLLM_", "PYTEST_", "COV_", "CI")  # under CI pytest says more than to a person
    environ = {k: v for k, v in os.environ.items() if not k.startswith(known)}
    environ |= {"VELOLLM_DATA_DIR": str(tmp_path / "data"), "COLUMNS": "100"}
    project = tmp_path / "velollm-echo"
    for step in steps():
        if step.kind == "run":
            run(tmp_path, step, environ)
        elif step.kind == "edit":
            edit(project / step.path, step.text)
        else:
            path = project / step.path
            before = path.read_text("utf-8") if path.exists() else ""
            path.write_text(joined(before, step.text), "utf-8")
    module = Path("velollm_echo", "__init__.py")
    assert (project / module).read_text("utf-8") == (EXAMPLE / module).read_text("utf-8")


def test_a_slow_run_says_the_same():
    slow = "46 passed, 17 skipped, 1 warning in 65.10s (0:01:05)"
    assert stable(slow) == stable("46 passed, 17 skipped in 3.10s")


def test_every_block_of_the_tutorial_is_executed():
    assert len(BLOCK.findall(PAGE.read_text("utf-8"))) == len(steps())


def test_the_example_is_what_the_tutorial_builds():
    typed = files()
    assert set(typed) == {"pyproject.toml", "velollm_echo/__init__.py", "tests/test_conformance.py"}
    for path, text in typed.items():
        assert (EXAMPLE / path).read_text("utf-8") == text, path


def test_the_edits_take_each_other_back():
    there, back = (step.text.splitlines() for step in steps() if step.kind == "edit")
    assert [line[1:] for line in there] == [line[1:] for line in reversed(back)]
