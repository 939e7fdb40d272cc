"""What a ``llama-server`` can be told: its flags, learnt from its own ``--help``.

Names, value forms, environment variables and defaults change between builds of llama.cpp, so none
of them is written down here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from attrs import field, frozen

_NAME = re.compile(r"--?[A-Za-z][\w.-]*")
_NAMES = re.compile(rf"{_NAME.pattern}(?:,\s+{_NAME.pattern})*")
_ENVIRON = re.compile(r"\(env: (\w+)\)")
_DEFAULT = re.compile(r"default: '?([^\s,;)'\[]+)")
_ALLOWED = re.compile(r"allowed values: ([\w.+-]+(?:, [\w.+-]+)*)")
_REMOVED = re.compile(r"argument has been removed\.?\s*(.*?)(?: \(env: \w+\))?$")
_BULLET = re.compile(r"^- ([\w+-]+)(?: \(default\))?:", re.MULTILINE)
_LISTED = re.compile(r"[a-z0-9-]+(?:[|,][a-z0-9-]+)+")

TRUE = frozenset({"1", "true", "on", "enabled"})
FALSE = frozenset({"0", "false", "off", "disabled"})
"""What llama.cpp takes for a boolean in its environment and in its configuration files."""


def spelled(word: str) -> str:
    """``word`` as llama.cpp reads it: behind two dashes ``_`` is ``-`` (``common/arg.cpp``)."""
    return word.replace("_", "-") if word.startswith("--") else word


@frozen(kw_only=True)
class Flag:
    """One entry of the help.

    ``names`` holds every positive spelling as it is printed, ``negatives`` those that turn it off.
    ``takes_value`` is false for a switch. ``values`` are those that the help lists, if it lists
    any. ``default`` is the first word behind ``default:``.
    """

    names: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    takes_value: bool = False
    environ: str | None = None
    default: str | None = None
    values: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The long spelling, which is the one to use."""
        return next((name for name in self.names if name.startswith("--")), self.names[0])


@frozen
class Flags:
    """All flags of one build."""

    entries: tuple[Flag, ...]
    traces: bool = False
    """Whether verbosity 4 means ``trace``, where this build tells how it set itself up."""
    removed: Mapping[str, str] = field(factory=dict)
    """Spellings and variables that this build refuses, and what its help says to use instead."""
    reads_files: bool = True
    """Whether this build reads configuration files of the system and the user."""
    _by_name: dict[str, Flag] = field(init=False, repr=False, eq=False)

    @_by_name.default
    def _index(self) -> dict[str, Flag]:
        return {
            spelled(name): flag for flag in self.entries for name in (*flag.names, *flag.negatives)
        }

    def get(self, name: str) -> Flag | None:
        """The flag spelled ``name``, with its dashes."""
        return self._by_name.get(spelled(name))

    def first(self, names: Iterable[str]) -> Flag | None:
        """The flag that the first known of ``names`` spells."""
        return next((flag for name in names if (flag := self.get(name)) is not None), None)

    def by_key(self, key: str) -> tuple[Flag, bool] | None:
        """The flag that a configuration file calls ``key``, and whether the key is a negative.

        A key is a spelling without its dashes, or the name of the environment variable.
        """
        for flag in self.entries:
            if key == flag.environ or key in {name.lstrip("-") for name in flag.names}:
                return flag, False
            if key in {name.lstrip("-") for name in flag.negatives}:
                return flag, True
        return None

    def by_environ(self, variable: str) -> tuple[Flag, bool] | None:
        """The flag that an environment variable sets, and whether it is ``LLAMA_ARG_NO_...``."""
        positive = variable.replace("LLAMA_ARG_NO_", "LLAMA_ARG_", 1)
        for flag in self.entries:
            if flag.environ == variable:
                return flag, False
            if flag.environ == positive and flag.negatives:
                return flag, True
        return None


def parse_help(text: str) -> Flags:
    """The flags in the output of ``llama-server --help``; none where it is something else.

    Flags that the help lists only to say that they have been removed are in ``removed`` alone.
    """
    entries: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("-") and not line.startswith("---"):
            entries.append((line, []))
        elif line.startswith("    ") and entries:
            entries[-1][1].append(line.strip())
    flags: list[Flag] = []
    removed: dict[str, str] = {}
    for line, rest in entries:
        flag = _flag(line, rest)
        gone = _REMOVED.search(" ".join((line, *rest)))
        if flag is None:
            continue
        if gone is None:
            flags.append(flag)
        else:
            instead = gone.group(1).strip(" .")
            removed |= dict.fromkeys(filter(None, (*flag.names, flag.environ)), instead)
    traces = bool(re.search(r"^\s*- 4: trace", text, re.MULTILINE))
    return Flags(tuple(flags), traces, removed)


def _flag(line: str, rest: list[str]) -> Flag | None:
    match = _NAMES.match(line)
    if match is None:
        return None
    placeholder, description = _placeholder(line[match.end() :])
    text = "\n".join((description, *rest))
    joined = " ".join(text.split())
    names, negatives = _split_negatives(_NAME.findall(match.group()))
    environ = _ENVIRON.search(joined)
    default = _DEFAULT.search(joined)
    return Flag(
        names=names,
        negatives=negatives,
        takes_value=bool(placeholder),
        environ=environ.group(1) if environ else None,
        default=default.group(1) if default else None,
        values=_values(placeholder, text, joined),
    )


def _placeholder(after_names: str) -> tuple[str, str]:
    """The value's name, one space behind the names, and the description, two or more."""
    if not after_names.startswith(" ") or after_names.startswith("  "):
        return "", after_names.strip()
    placeholder, _, description = after_names[1:].partition("  ")
    return placeholder.strip(), description.strip()


def _split_negatives(names: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The help prints positive spellings first, then the negative ones, short and long."""
    positives = [
        index
        for index, name in enumerate(names)
        if name.startswith("--") and not name.startswith("--no-")
    ]
    end = positives[-1] + 1 if positives else len(names)
    paired = any(f"--{name.removeprefix('--no-')}" in names[:end] for name in names[end:])
    return (tuple(names[:end]), tuple(names[end:])) if paired else (tuple(names), ())


def _values(placeholder: str, text: str, joined: str) -> tuple[str, ...]:
    listed = placeholder.strip("[]{}<>")
    if _LISTED.fullmatch(listed):
        return tuple(re.split("[|,]", listed))
    allowed = _ALLOWED.search(joined)
    if allowed:
        return tuple(allowed.group(1).split(", "))
    return tuple(_BULLET.findall(text))
