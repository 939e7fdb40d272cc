"""Values as Ollama reads them from its environment, and as they are written for it.

After ``Var``, ``Uint``, ``BoolWithDefault`` and ``KeepAlive`` in its ``envconfig/config.go``.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.config import Choices, Range, Value, show

if TYPE_CHECKING:
    from velollm_ollama.entries import Entry

_UNITS = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "μs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_DURATION = re.compile(rf"([-+]?)((?:{_NUMBER}(?:ns|us|µs|μs|ms|s|m|h))+)")
_PART = re.compile(rf"({_NUMBER})(ns|us|µs|μs|ms|s|m|h)")
_WHOLE = re.compile(r"[-+]?[0-9]+")
_UNSIGNED = re.compile(r"[0-9]+")
_MOST_SECONDS = (2**63 - 1) // 10**9  # Go keeps a duration in 64 bits of nanoseconds
_LONGEST_NUMBER, _MOST_NUMBER = 20, 2**64  # digits and values of 64 bits
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


@frozen
class Reading:
    """What Ollama makes of a variable: a value, ``None`` where it takes its default, and what is
    odd about it. ``foreign``: it takes something that is no value of the knob.
    """

    value: Value | None
    remark: str = ""
    foreign: bool = False


def cleaned(text: str) -> str:
    """``text`` without white space around it, and without any quotes around that."""
    return text.strip().strip("\"'")


def duration_s(text: str) -> Decimal | None:
    """A duration of Go (``1h30m``, ``-1m``) or a number of seconds; ``None`` for anything else."""
    if text in {"0", "+0", "-0"}:
        return Decimal(0)
    match = _DURATION.fullmatch(text)
    if match is not None:
        total = sum((Decimal(n) * _UNITS[unit] for n, unit in _PART.findall(match[2])), Decimal(0))
        if total > _MOST_SECONDS:
            return None
        return -total if match[1] == "-" else total
    return Decimal(text) if _WHOLE.fullmatch(text) and len(text) <= _LONGEST_NUMBER else None


def read(entry: Entry, text: str) -> Reading:
    """What ``text`` in the variable of ``entry`` means to who reads it."""
    own = (entry.variable or "").startswith("OLLAMA_")
    words = cleaned(text) if own else text
    if not words:
        return Reading(None)
    if entry.form == "boolean":
        return _boolean(entry, words)
    if entry.form == "word":
        value: Value | None = words.lower() if own else words
    elif entry.form == "duration":
        value = _seconds(entry, words)
    else:
        value = _number(words, signed=not own)
    if value is None:
        kind = "duration" if entry.form == "duration" else "number"
        return Reading(None, f"{words!r} is no {kind}: the default {show(entry.default)} is taken")
    if value == 0 and entry.knob.name == "num_parallel":
        value = 1  # Scheduler.load in server/sched.go
    if not entry.knob.domain.accepts(value):
        return Reading(None, f"{words!r} is not one of {entry.knob.domain}", foreign=True)
    return Reading(value)


def _boolean(entry: Entry, words: str) -> Reading:
    value = words not in _FALSE
    remark = "" if words in _TRUE | _FALSE else f"{words!r} is no boolean: it counts as true"
    domain = entry.knob.domain
    named = isinstance(domain, Choices) and "on" in domain.values
    return Reading(show(value) if named else value, remark)


def _number(words: str, *, signed: bool) -> int | None:
    pattern = _WHOLE if signed else _UNSIGNED
    if not pattern.fullmatch(words) or len(words) > _LONGEST_NUMBER:
        return None
    number = int(words)
    return number if number < _MOST_NUMBER else None


def _seconds(entry: Entry, words: str) -> int | None:
    """What is longer than the knob takes, 68 years, is as good as that."""
    seconds, domain = duration_s(words), entry.knob.domain
    if seconds is None or not isinstance(domain, Range):
        return None
    return int(domain.low) if seconds < 0 else min(math.ceil(seconds), int(domain.high))


def written(entry: Entry, value: Value) -> str:
    """``value`` as the variable of ``entry`` has to hold it; empty for Ollama's own choice."""
    if value == entry.knob.own_choice and entry.form == "boolean":
        return ""
    if entry.form == "boolean":
        return "1" if value in {True, "on"} else "0"
    if entry.form == "duration" and isinstance(value, int) and value > 0:
        return f"{value}s"
    return str(value)
