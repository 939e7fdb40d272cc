"""Commands of ``llama-server`` in a user's scripts, in units of systemd, and under way.

They are read as a shell would split them, and never run. What only a running shell knows
(variables, loops, quotes over several lines, what ``$(...)`` gives) is passed over.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import PurePosixPath

from attrs import frozen

from velollm_core.doctor.spec import Context
from velollm_core.experiment.servers import program_of, server_of

_SERVER = "llama-server"
_OPERATORS = frozenset("();<>|&")
_KEYWORDS = frozenset({"!", "{", "do", "elif", "else", "if", "then", "until", "while"})
_ASSIGNMENT = re.compile(r"(\w+)=(.*)", re.DOTALL)
_SHELLS = frozenset({"bash", "dash", "sh", "zsh"})
_WRAPPERS = {
    name: frozenset(options.split())
    for name, options in {
        "chrt": "-D -P -T --sched-deadline --sched-period --sched-runtime",
        "command": "-V -v",  # which ask what it is, and start nothing
        "env": "-C -S -u --chdir --split-string --unset",
        "exec": "-a",
        "ionice": "-P -c -n -p -u --class --classdata --pgid --pid --uid",
        "nice": "-n --adjustment",
        "nohup": "",
        "numactl": "-C -N -P -i -m -p -w --cpunodebind --interleave --membind --physcpubind "
        "--preferred --preferred-many --weighted-interleave",
        "setsid": "",
        "stdbuf": "-e -i -o --error --input --output",
        "sudo": "-C -D -R -T -U -g -h -p -r -t -u --chdir --chroot --close-from "
        "--command-timeout --group --host --other-user --prompt --role --type --user",
        "systemd-run": "-E -H -M -p -u --description --gid --host --machine --nice --on-active "
        "--property --setenv --slice --uid --unit --working-directory",
        "taskset": "",
        "time": "-f -o --format --output",
    }.items()
}
"""Programs that start another one, and their options whose value is the next word. Those of
containers are not here: what stands in a container is another build."""

_BEFORE_PROGRAM = {"chrt": 1, "taskset": 1}
"""How many words other than options stand before the program: a priority, a mask."""

_EXPORTS = frozenset({"declare", "export", "typeset"})
_LONGEST_LINE = 64 * 1024
_NESTED = 4  # substitutions in each other, the inner ones first
_SUBSTITUTION = re.compile(r"\$\(\([^()]*\)\)|\$\([^()]*\)|`[^`]*`")
_HERE = re.compile(r"""(?<!<)<<-?[ \t]*(?:'([^']+)'|"([^"]+)"|\\?([\w.-]+))""")
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
        found += of_unit(context.probe.read(path) or "", path)
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
        if server_of(process.argv) == _SERVER
    )


@lru_cache(maxsize=256)  # several checks ask for the same text
def of_script(text: str, where: str) -> tuple[Command | Assignment, ...]:
    """What a shell script starts and sets. Lines of more than 64 KiB are passed over."""
    return tuple(
        found
        for number, line in _logical_lines(_without_here_documents(text.splitlines()))
        for words in _simple_commands(line)
        for found in _of_words(words, f"{where}, line {number}")
    )


@lru_cache(maxsize=256)
def of_unit(text: str, where: str) -> tuple[Command | Assignment, ...]:
    """What a unit of systemd starts and sets."""
    return tuple(_of_unit(text, where))


def _of_unit(text: str, where: str) -> Iterator[Command | Assignment]:
    for number, line in _logical_lines(text.splitlines()):
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
    while True:
        start = next((i for i, word in enumerate(words) if not _ASSIGNMENT.fullmatch(word)), None)
        yield from _assignments(words if start is None else words[:start], where)
        if start is None:
            return
        program, rest = program_of(words[start]), words[start + 1 :]
        if program not in _WRAPPERS:
            break
        words = rest[_program_position(program, rest) :]
    if program == _SERVER:
        yield Command(where=where, program=words[start], arguments=tuple(rest))
    elif program in _EXPORTS:
        yield from _assignments(rest, where)
    elif program in _SHELLS and "-c" in rest[:-1]:
        for _, line in _logical_lines(rest[rest.index("-c") + 1].splitlines()):
            for inner in _simple_commands(line):
                yield from _of_words(inner, where)


def _program_position(wrapper: str, words: Sequence[str]) -> int:
    """Where in the ``words`` behind a wrapper what it starts begins, assignments included."""
    before = _BEFORE_PROGRAM.get(wrapper, 0)
    position = 0
    while position < len(words):
        word = words[position]
        if word == "--":
            return position + 1 + before
        if word.startswith("-"):
            position += _takes_next(word, _WRAPPERS[wrapper])
        elif not before:
            break
        else:
            before -= 1
        position += 1
    return position


def _takes_next(option: str, valued: Collection[str]) -> bool:
    """Whether the next word is the option's value: in ``-Eu``, ``u`` takes it; in ``-uE`` not."""
    if option.startswith("--"):
        return option in valued
    letters = option[1:]
    first = next((i for i, letter in enumerate(letters) if f"-{letter}" in valued), None)
    return first is not None and first == len(letters) - 1


def _assignments(words: Iterable[str], where: str) -> Iterator[Assignment]:
    for word in words:
        match = _ASSIGNMENT.fullmatch(word)
        if match:
            yield Assignment(where, match.group(1), match.group(2))


def _simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each simple command of a line, without its redirections' signs."""
    if len(line) > _LONGEST_LINE:
        return  # no person's, and shlex takes the square of a word's length
    if _SERVER not in line and "=" not in line:
        return  # nor anything to find: most lines, and shlex is slow
    for _ in range(_NESTED):
        line = _SUBSTITUTION.sub("$_", line)
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
        return shlex.split(text) if len(text) <= _LONGEST_LINE else []
    except ValueError:
        return []


def _logical_lines(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Lines with those that a backslash continues put together, each with its first number."""
    pending: list[str] = []
    first = 0
    for number, line in enumerate(lines, 1):
        first = first if pending else number
        if line.endswith("\\"):
            pending.append(line[:-1])
            continue
        yield first, " ".join((*pending, line))
        pending.clear()
    if pending:
        yield first, " ".join(pending)


def _without_here_documents(lines: Sequence[str]) -> Iterator[str]:
    """``lines`` with those of here-documents empty. What never ends is none, but ``<<`` in text."""
    last = {line.lstrip("\t"): number for number, line in enumerate(lines)}
    ends: list[str] = []
    for number, line in enumerate(lines):
        if ends:
            yield ""
            if line.lstrip("\t") == ends[0]:
                ends.pop(0)
            continue
        yield line
        if not line.lstrip().startswith("#"):
            marks = (match[1] or match[2] or match[3] for match in _HERE.finditer(line))
            ends = [mark for mark in marks if last.get(mark, 0) > number]


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
