"""Reading what tools print: numbers, sizes, lists of processors, JSON with noise around it.

Every function here takes anything and never raises: what cannot be read is ``None`` or empty.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from typing import Any

KIB = 1024
MIB = 1024**2
GIB = 1024**3
_UNKNOWN = {"", "n/a", "not supported", "unknown", "unknown error"}
_UNITS = {"": 1, "B": 1, "K": KIB, "M": MIB, "G": GIB, "T": 1024**4}
# Thousands may be set off by a (narrow, fixed) space or a comma, and the decimal sign be a comma:
# LC_ALL=C does not reach every tool.
_NUMBER = re.compile(
    r"\s*(?P<whole>[-+]?(?:\d{1,3}(?:[ \u00a0\u202f,]\d{3})+(?!\d)|\d{1,30}))"
    r"(?:[.,](?P<fraction>\d{1,30}))?\s*(?P<unit>[^\W\d]*)"
)
_MOST_JSON_STARTS = 100  # lines that may begin a document; bounds the work on garbage
_MOST_CPUS = 65536  # far above any kernel's NR_CPUS; keeps a garbled range from filling the memory


def number(value: Any) -> float | None:
    """The number in ``"250.00 W"``, ``250`` or ``{"value": 250, "unit": "W"}``."""
    read = _number_and_unit(value)
    return None if read is None else read[0]


def integer(value: Any) -> int | None:
    """The same as a whole number."""
    read = number(value)
    return None if read is None else int(read)


def size_bytes(value: Any, unit: str = "") -> int | None:
    """The bytes in ``"24560 MB"``, ``{"value": 24560, "unit": "MB"}``, ``"32768K"`` or a number.

    Units are powers of 1024 whatever they are called, as all the tools read here mean them, and
    only their first letter counts (``GB``, ``GiB`` and the French ``Go`` are one).

    Args:
        value: what the tool gave.
        unit: what a bare number is in.
    """
    read = _number_and_unit(value)
    if read is None or read[0] < 0:
        return None
    factor = _UNITS.get((read[1] or unit)[:1].upper())
    return None if factor is None else int(read[0] * factor)


def _number_and_unit(value: Any) -> tuple[float, str] | None:
    unit = ""
    if isinstance(value, dict):
        unit = str(value.get("unit", ""))
        value = value.get("value")
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        # A JSON number may be infinite, or an integer beyond every float.
        return (float(value), unit) if abs(value) < 1e30 and not math.isnan(value) else None
    match = _NUMBER.match(value) if isinstance(value, str) else None
    if match is None:
        return None
    whole = re.sub(r"[ \u00a0\u202f,]", "", match["whole"])
    return float(f"{whole}.{match['fraction'] or 0}"), unit or match["unit"]


def text(value: Any) -> str | None:
    """A text that says something: not empty and not one of the tools' ways to say "unknown"."""
    if not isinstance(value, str):
        return None
    stripped = value.strip()
    return None if stripped.strip("[]").lower() in _UNKNOWN else stripped


def json_inside(output: str) -> Any:
    """The JSON document in ``output``, whatever lines stand before it; else ``None``."""
    decoder = json.JSONDecoder()
    starts = re.finditer(r"^[ \t]*[\[{]", output, re.MULTILINE)
    for match in itertools.islice(starts, _MOST_JSON_STARTS):
        try:
            found, end = decoder.raw_decode(output, match.end() - 1)
        except (ValueError, RecursionError):
            continue
        # "[0] some warning" begins with a list, too, but with none of objects.
        if isinstance(found, dict) or records(found) or not output[end:].strip():
            return found
    return None


def records(value: Any) -> list[dict[str, Any]]:
    """The objects of a JSON list; empty for anything else."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def member(value: Any, *path: str) -> Any:
    """``value[path[0]][path[1]]...`` of nested JSON objects; ``None`` where one is missing."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def cpu_list(listed: str | None) -> tuple[int, ...]:
    """Processor numbers from the kernel's list format: ``"0-3,8"`` is ``(0, 1, 2, 3, 8)``."""
    cpus: set[int] = set()
    for part in (listed or "").split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part, re.ASCII)
        if match:
            last = int(match[2] or match[1])
            cpus.update(range(int(match[1]), min(last, _MOST_CPUS) + 1))
    return tuple(sorted(cpus))


def keyed(output: str | None, separator: str = ":") -> dict[str, str]:
    """``key: value`` lines as a dictionary; of a key that comes twice the first."""
    found: dict[str, str] = {}
    for line in (output or "").splitlines():
        key, sign, value = line.partition(separator)
        if sign:
            found.setdefault(key.strip(), value.strip())
    return found


def bus_id(value: Any) -> str | None:
    """A PCI address as ``0000:c3:00.0``, also of ``00000000:C3:00.0`` and ``C3:00.0``."""
    match = re.fullmatch(
        r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])",
        value.strip().lower() if isinstance(value, str) else "",
    )
    if match is None:
        return None
    return f"{int(match[1] or '0', 16):04x}:{match[2]}:{match[3]}.{match[4]}"
