"""Commands of ``llama-server`` in a user's scripts, in units of systemd, and under way.

They are read as a shell would split them, and never run. What only a running shell knows
(variables, loops, quotes over several lines) is passed over.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from attrs import frozen

from velollm_core.doctor.spec import Context
from velollm_core.experiment.servers import program_of

_SERVER = "llama-server"
_OPERATORS = frozenset("();<>|&")
_KEYWORDS = frozenset({"!", "{", "do", "elif", "else", "if", "then", "until", "while"})
_ASSIGNMENT = re.compile(r"(\w+)=(.*)", re.DOTALL)
_SHELLS = frozenset({"bash", "dash", "sh", "zsh"})
_WRAPPERS = frozenset(
    {
        "chrt",
        "command",
        "env",
        "exec",
        "ionice",
        "nice",
        "nohup",
        "numactl",
        "setsid",
        "stdbuf",
        "sudo",
        "systemd-run",
        "taskset",
        "time",
    }
)
"""Programs that start the one that is named among their arguments. Those of containers are not
here: what stands in a container is another build."""

_EXPORTS = frozenset({"declare", "export", "typeset"})
_UNIT_FOLDERS = ("/etc/systemd/system", "/usr/local/lib/systemd/system")
_USER_UNITS = ".config/systemd/user"


@frozen(kw_only=True)
class Command:
    """One start of a ``llama-server``: where it stands, the program as written, its arguments."""

    where: str
    program: str
    arguments: tuple[str, ...]


@frozen
class Assignment:
    """A variable of the environment that a script or a unit sets."""

    where: str
    name: str
    value: str


def written(context: Context) -> tuple[tuple[Command, ...], tuple[Assignment, ...]]:
    """Commands and assignments in the scripts that were named and in the system's units."""
    found: list[Command | Assignment] = []
    for script in context.scripts:
        found += of_script(script.text, script.shown)
    for path in _units(context):
        found += of_unit(context.probe.read(path) or "", context.shown(path))
    return (
        tuple(entry for entry in found if isinstance(entry, Command)),
        tuple(entry for entry in found if isinstance(entry, Assignment)),
    )


def running(context: Context) -> tuple[Command, ...]:
    """Those that run now."""
    return tuple(
        Command(
            where=f"running server (process {process.pid})",
            program=process.argv[0],
            arguments=process.argv[1:],
        )
        for process in context.activity.processes
        if process.argv and program_of(process.argv[0]) == _SERVER
    )


def of_script(text: str, where: str) -> Iterator[Command | Assignment]:
    """What a shell script starts and sets."""
    for number, line in _logical_lines(text):
        for words in _simple_commands(line):
            yield from _of_words(words, f"{where}, line {number}")


def of_unit(text: str, where: str) -> Iterator[Command | Assignment]:
    """What a unit of systemd starts and sets."""
    for number, line in _logical_lines(text):
        key, _, value = line.partition("=")
        place = f"{where}, line {number}"
        if key.strip() == "Environment":
            yield from _assignments(_split(value), place)
        elif key.strip().startswith("ExecStart"):
            # "@", "-", ":", "+" and "!" before the path say how it is started.
            yield from _of_words(_split(value.strip().lstrip("@-:+!")), place)


def _of_words(words: list[str], where: str) -> Iterator[Command | Assignment]:
    while words and words[0] in _KEYWORDS:
        words = words[1:]
    start = next((i for i, word in enumerate(words) if not _ASSIGNMENT.fullmatch(word)), None)
    yield from _assignments(words if start is None else words[:start], where)
    if start is None:
        return
    program, rest = program_of(words[start]), words[start + 1 :]
    if program == _SERVER:
        yield Command(where=where, program=words[start], arguments=tuple(rest))
    elif program in _EXPORTS:
        yield from _assignments(rest, where)
    elif program in _SHELLS and "-c" in rest[:-1]:
        for _, line in _logical_lines(rest[rest.index("-c") + 1]):
            for inner in _simple_commands(line):
                yield from _of_words(inner, where)
    elif program in _WRAPPERS:
        position = next((i for i, word in enumerate(rest) if program_of(word) == _SERVER), None)
        before = rest if position is None else rest[:position]
        yield from _assignments(before, where)
        if position is not None:
            yield Command(
                where=where, program=rest[position], arguments=tuple(rest[position + 1 :])
            )


def _assignments(words: Iterable[str], where: str) -> Iterator[Assignment]:
    for word in words:
        match = _ASSIGNMENT.fullmatch(word)
        if match:
            yield Assignment(where, match.group(1), match.group(2))


def _simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each simple command of a line, without its redirections' signs."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    try:
        for word in lexer:
            if _OPERATORS.issuperset(word):
                yield words
                words = []
            else:
                words.append(word)
    except ValueError:
        return  # a quote that ends on another line
    yield words


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with those that a backslash continues put together, each with its first number."""
    pending, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        first = first if pending else number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        yield first, pending + line
        pending = ""
    if pending:
        yield first, pending


def _units(context: Context) -> Iterator[str]:
    if context.probe.system != "Linux":
        return
    home = context.environ.get("HOME")
    own = (str(PurePosixPath(home) / _USER_UNITS),) if home else ()
    for folder in (*_UNIT_FOLDERS, *own):
        for name in context.probe.names(folder):
            if name.endswith(".service"):
                yield f"{folder}/{name}"
            elif name.endswith(".service.d"):
                inside = context.probe.names(f"{folder}/{name}")
                yield from (f"{folder}/{name}/{entry}" for entry in inside)
