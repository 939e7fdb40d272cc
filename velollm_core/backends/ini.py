"""A configuration file of llama.cpp: read as it is read, and edited in place, every byte kept that
is not meant.

Its grammar is in ``common/preset.cpp``: ``KEY = VALUE`` from the beginning of a line, no quotes, a
comment behind ``;`` or ``#`` wherever that stands, keys before any heading in section ``default``.
A section with a second heading begins anew there: only what stands under the last one counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping

from attrs import frozen

from velollm_core.backends import quoting

_LINES = re.compile(r"([^\r\n]*)(\r\n|\n|\r|\Z)")
_HEADING = re.compile(r"\[[ \t]*([^\]]+)\]")
_REMARK = re.compile(r"[ \t]*(?:[;#].*)?")
_SETTING = re.compile(
    r"([A-Za-z_][\w.-]*)([ \t]*=[ \t]*)((?:(?![ \t]*(?:[;#]|\Z)).)*)(.*)", re.ASCII
)
_FIRST = "default"
_NO = frozenset({"0", "false", "off", "disabled"})


@frozen
class Key:
    """What a key in a file means: a setting's name, and whether it says the opposite of it."""

    name: str
    negative: bool = False


def held(text: str) -> dict[str, dict[str, str]]:
    """What counts in ``text``: values by key, by section.

    Raises:
        ValueError: llama.cpp would refuse it; the message is the reason.
    """
    found: dict[str, dict[str, str]] = {_FIRST: {}}
    section = _FIRST
    for number, (line, _) in enumerate(_LINES.findall(text), 1):
        heading, setting = _HEADING.match(line), _SETTING.fullmatch(line)
        if setting:
            found[section][setting.group(1)] = setting.group(3)
        elif heading and _REMARK.fullmatch(line, heading.end()):
            section = heading.group(1)
            found[section] = {}
        elif not _REMARK.fullmatch(line):
            raise ValueError(f"line {number} is no KEY = VALUE")
    return found


def with_values(
    text: str,
    section: str,
    values: Mapping[str, str | None],
    *,
    means: Callable[[str], Key | None] = Key,
    others: Collection[str] = (),
) -> str:
    """``text`` with every one of ``values`` set.

    A key that is there already is replaced where it stands, in ``section`` and in ``others``; the
    rest goes to the end of ``section``, which is appended if it is not there.

    Args:
        text: what the file holds; empty where there is none.
        section: its name, without brackets.
        values: by key, as it is written where it is new; ``None`` removes it.
        means: what a key in the file means; ``None`` for a key that means none of ``values``.
        others: sections that count as well; ``default`` holds the keys before the first heading.

    Raises:
        UsageError: a value cannot be said there.
    """
    words = {name: None if value is None else quoting.ini(value) for name, value in values.items()}
    lines = list(_edited(text, words, means, {section, *others}))
    there = _in_force(lines)
    missing = [f"{name} = {word}" for name, word in words.items() if word and name not in there]
    ending = next((line.ending for line in lines if line.ending), "\n")
    if missing:
        _insert(lines, section, missing, ending)
    return "".join(line.text + line.ending for line in lines)


@frozen
class _Line:
    """One line; ``name`` is that of one of the values, where the line sets it."""

    text: str
    ending: str
    section: str
    name: str | None = None


def _edited(
    text: str,
    words: Mapping[str, str | None],
    means: Callable[[str], Key | None],
    sections: Collection[str],
) -> Iterator[_Line]:
    section = _FIRST
    for line, ending in _LINES.findall(text):
        if not line and not ending:
            continue  # the end of the text
        heading, setting = _HEADING.match(line), _SETTING.fullmatch(line)
        section = heading.group(1) if heading else section
        key = means(setting.group(1)) if setting and section in sections else None
        if setting is None or key is None or key.name not in words:
            yield _Line(line, ending, section)
            continue
        word = words[key.name]
        if word is not None:
            said = _opposite(word) if key.negative else word
            yield _Line(
                "".join((*setting.group(1, 2), said, setting.group(4))), ending, section, key.name
            )


def _opposite(word: str) -> str:
    return "1" if word in _NO else "0"


def _in_force(lines: list[_Line]) -> set[str]:
    """The names that are set where it counts."""
    begins = {line.section: n for n, line in enumerate(lines) if _HEADING.match(line.text)}
    return {
        line.name
        for number, line in enumerate(lines)
        if line.name is not None and number > begins.get(line.section, -1)
    }


def _insert(lines: list[_Line], section: str, settings: list[str], ending: str) -> None:
    """Behind the last key under the last heading of ``section``, or with a heading at the end."""
    held = [
        number
        for number, line in enumerate(lines)
        if line.section == section and (_HEADING.match(line.text) or _SETTING.fullmatch(line.text))
    ]
    position = held[-1] + 1 if held else len(lines)
    if not held:
        settings = [*([""] if lines else []), f"[{section}]", *settings]
    if position and not lines[position - 1].ending:
        lines[position - 1] = _Line(lines[position - 1].text, ending, section)
    lines[position:position] = [_Line(entry, ending, section) for entry in settings]
