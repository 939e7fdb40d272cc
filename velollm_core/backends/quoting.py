"""A text as one word of a shell, a unit, a configuration file: it means itself there and no more.

Every function returns the whole word with its quotes, so that nothing has to be put around it:
``f"export {name}={sh(value)}"``. What a form has no way to say is refused, never bent.
"""

from __future__ import annotations

import re
import reprlib
import unicodedata
from collections.abc import Callable

from velollm_core.errors import UsageError

_PLAIN = re.compile(r"[A-Za-z0-9_./:,+-]+")
"""What no shell here reads as anything but itself. Without ``=``: zsh replaces ``=ls`` by the path
of that program, at the start of an assigned value and behind its colons too."""

_FOREIGN = re.compile(r"[^ -~]+")


def sh(text: str) -> str:
    """A word for sh, bash and zsh.

    Raises:
        UsageError: it holds a NUL, or half of a surrogate pair.
    """
    _refuse(text, "a shell script", _is_nul)
    return text if _PLAIN.fullmatch(text) else "'" + text.replace("'", "'\"'\"'") + "'"


def fish(text: str) -> str:
    r"""A word for fish, where ``\`` keeps its meaning inside single quotes.

    Raises:
        UsageError: it holds a NUL, or half of a surrogate pair.
    """
    _refuse(text, "a fish script", _is_nul)
    if _PLAIN.fullmatch(text):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def powershell(text: str) -> str:
    """An expression of PowerShell whose value is the text, in ASCII.

    PowerShell takes typographic quotes for its own, and Windows PowerShell reads a script without
    a byte order mark in the system's code page, where a part of any other character may become
    one: what is not printable ASCII is given by number.

    Raises:
        UsageError: it holds a NUL, or half of a surrogate pair.
    """
    _refuse(text, "a PowerShell script", _is_nul)
    if not _FOREIGN.search(text):
        return _powershell_literal(text)
    parts = ["''"]  # a text first, or the sum of two characters would be a number
    position = 0
    for match in _FOREIGN.finditer(text):
        if match.start() > position:
            parts.append(_powershell_literal(text[position : match.start()]))
        units = match.group().encode("utf-16-le")
        parts += (
            f"[char]{int.from_bytes(units[i : i + 2], 'little')}" for i in range(0, len(units), 2)
        )
        position = match.end()
    if position < len(text):
        parts.append(_powershell_literal(text[position:]))
    return f"({' + '.join(parts)})"


def _powershell_literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def systemd(text: str) -> str:
    """A word of ``Environment=``, such as ``NAME=value`` (``man systemd.syntax``).

    Raises:
        UsageError: it holds a control character or one that systemd takes for no character at
            all; it would ignore the line.
    """
    _refuse(text, "a unit of systemd", _is_unusual)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def ini(text: str) -> str:
    """A value in llama.cpp's ``config.ini`` and presets, which know no quotes.

    Its grammar is in ``common/preset.cpp``.

    Raises:
        UsageError: it is empty, begins or ends with a space, or holds ``;``, ``#``, a line break
            or another control character.
    """
    _refuse(
        text, "a configuration file of llama.cpp", lambda char: char in ";#" or _is_control(char)
    )
    if text != text.strip(" ") or not text:
        raise UsageError(
            f"{reprlib.repr(text)} cannot be written in a configuration file of llama.cpp: "
            "there, a value has no quotes and is neither empty nor bordered by spaces.",
            "Use another form.",
        )
    return text


def yaml(text: str) -> str:
    """A double-quoted scalar of YAML. Compose replaces ``$NAME`` inside one: see :func:`compose`.

    Raises:
        UsageError: it holds a NUL, or half of a surrogate pair.
    """
    _refuse(text, "a YAML file", _is_nul)
    return '"' + "".join(_yaml_character(char) for char in text) + '"'


def _yaml_character(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else f"\\U{ord(char):08X}"


def compose(text: str) -> str:
    """A double-quoted scalar of a Compose file, in which no variable is replaced.

    Raises:
        UsageError: see :func:`yaml`.
    """
    return yaml(text.replace("$", "$$"))


def modelfile(text: str) -> str:
    """A value in a Modelfile of Ollama, which has quotes but no escapes (``parser/parser.go``).

    Raises:
        UsageError: it holds a line break or anything else that does not print: Ollama drops those.
    """
    _refuse(text, "a Modelfile", lambda char: not char.isprintable())
    if _PLAIN.fullmatch(text):
        return text
    quotes = '"""' if text.startswith('"') else '"'
    return quotes + text + quotes


def _refuse(text: str, form: str, forbidden: Callable[[str], bool]) -> None:
    for char in text:
        if forbidden(char) or unicodedata.category(char) == "Cs":
            raise UsageError(
                f"{reprlib.repr(text)} cannot be written in {form}: it holds {char!r}.",
                "Take it out of the value, or use another form.",
            )


def _is_nul(char: str) -> bool:
    return char == "\0"


def _is_control(char: str) -> bool:
    return unicodedata.category(char) == "Cc"


def _is_unusual(char: str) -> bool:
    code = ord(char)
    return _is_control(char) or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
