"""Files of Ollama's variables that VeloLLM has written and the user may have added lines to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from attrs import frozen

from velollm_ollama import forms, sources

HEAD = "# Written by velollm optimize; velollm undo takes it back."


@frozen(kw_only=True)
class Script:
    """A file of commands that set variables, one a line. ``command`` matches one as it is written
    here, with the variable's name; ``stop`` ends a server that runs, ``then`` makes the file count.
    """

    name: str
    command: re.Pattern[str]
    then: tuple[str, ...]
    stop: str = ""


_SH_WORD = r"(?:'[^'\n]*'|\"'\"|[\w./:,+-])*"
SCRIPTS: Mapping[str, Script] = {
    "sh": Script(
        name="ollama.sh",
        command=re.compile(rf"export (\w+)={_SH_WORD}", re.ASCII),
        then=(". {path}", "ollama serve"),
        stop="pkill -x ollama",
    ),
    "launchctl": Script(
        name="ollama-launchctl.sh",
        command=re.compile(rf"launchctl (?:un)?setenv (\w+)(?: {_SH_WORD})?", re.ASCII),
        then=("sh {path}", "killall Ollama; open -a Ollama"),
    ),
    "powershell": Script(
        name="ollama.ps1",
        command=re.compile(r"\$env:(\w+) = '(?:[^'\n]|'')*'", re.ASCII),
        then=(". {path}", "ollama serve"),
        stop="Stop-Process -Name ollama",
    ),
}


def script_with(text: str, form: str, pairs: Mapping[str, str]) -> str:
    """A file of commands with ``pairs`` set; every line that sets none of them stays."""
    command = SCRIPTS[form].command

    def sets(line: str) -> str | None:
        match = command.fullmatch(line)
        return match[1] if match else None

    rows = {
        name: forms.environment(form, [(name, said)]).removesuffix("\n")
        for name, said in pairs.items()
    }
    lines, added = _replaced(text, sets, rows)
    return _joined([*lines, *added])


def drop_in_with(text: str, pairs: Mapping[str, str]) -> str:
    """A drop-in of systemd with ``pairs`` set; every line that sets none of them alone stays."""

    def sets(line: str) -> str | None:
        key, mark, value = line.partition("=")
        words = sources.split(value.strip()) if mark and key.strip() == "Environment" else []
        return words[0].partition("=")[0] if len(words) == 1 else None

    heading, *_ = forms.environment("systemd", []).splitlines()
    rows = {
        name: forms.environment("systemd", [(name, said)]).splitlines()[1]
        for name, said in pairs.items()
    }
    lines, added = _replaced(text, sets, rows)
    if added and heading not in lines:
        added = [heading, *added]
    elif added:
        begins = len(lines) - lines[::-1].index(heading)
        ends = next((n for n in range(begins, len(lines)) if lines[n].startswith("[")), len(lines))
        lines, added = [*lines[:ends], *added, *lines[ends:]], []
    return _joined([*lines, *added])


def _replaced(
    text: str, sets: Callable[[str], str | None], rows: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Lines with the last that sets a variable replaced by its row, and the rows for which there
    was none.
    """
    left = dict(rows)
    kept: list[str] = []
    lines = text.removesuffix("\n").split("\n") if text else []
    for line in reversed(lines):
        name = sets(line)
        if name not in rows:
            kept.append(line)
        elif name in left:
            kept.append(left.pop(name))
    return kept[::-1], list(left.values())


def _joined(lines: list[str]) -> str:
    head = [] if HEAD in lines else [HEAD]
    return "".join(f"{line}\n" for line in (*head, *lines))
