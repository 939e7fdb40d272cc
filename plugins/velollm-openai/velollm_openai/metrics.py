"""What a server tells of itself at ``/metrics``, in Prometheus' text format.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

_TYPE = re.compile(r"# TYPE (\S+) (\S+)")
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?")
_LABEL = re.compile(r'(?:^|,)\s*([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
_RUNTIME = ("go_", "http_", "otel_", "process_", "promhttp_", "python_", "target_info")
"""About the program's language and its web framework, not about inference."""
_CONSTANT = ("_created", "_info")
_SPREAD = frozenset({"histogram", "summary"})
_MOST_NAMES = 500

Labels = tuple[tuple[str, str], ...]


def read_metrics(text: str) -> dict[str, float]:
    """Counters and gauges by their names.

    Counters are summed over their labels (engines, models, reasons). A gauge is plain where there
    is one of it; of several, each bears the labels that tell it from the others, because a sum of
    shares means nothing. Histograms, constants and the figures of the language's runtime are left
    out.
    """
    types: dict[str, str] = {}
    found: dict[str, dict[Labels, float]] = {}
    for line in text.splitlines():
        declared = _TYPE.match(line)
        if declared:
            types[declared[1]] = declared[2]
            continue
        sample = _SAMPLE.fullmatch(line.strip())
        if sample is None or sample[1].startswith(_RUNTIME) or sample[1].endswith(_CONSTANT):
            continue
        value = _number(sample[3])
        if value is not None and _family(sample[1], types) not in _SPREAD:
            series = found.setdefault(sample[1], {})
            series[tuple(_LABEL.findall(sample[2] or ""))] = value
    named: dict[str, float] = {}
    for name, series in found.items():
        counts = types.get(name, types.get(name.removesuffix("_total"))) == "counter"
        named |= {name: sum(series.values())} if counts else _apart(name, series)
    finite = [(name, value) for name, value in named.items() if math.isfinite(value)]
    return dict(finite[:_MOST_NAMES])


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _family(name: str, types: Mapping[str, str]) -> str | None:
    """The type of the family that ``name`` belongs to."""
    for suffix in ("_bucket", "_count", "_sum"):
        if name.endswith(suffix) and name.removesuffix(suffix) in types:
            return types[name.removesuffix(suffix)]
    return types.get(name)


def _apart(name: str, series: Mapping[Labels, float]) -> dict[str, float]:
    if len(series) == 1:
        return {name: next(iter(series.values()))}
    common = frozenset.intersection(*(frozenset(labels) for labels in series))
    return {name + _shown(set(labels) - common): value for labels, value in series.items()}


def _shown(labels: Iterable[tuple[str, str]]) -> str:
    inside = ",".join(f'{key}="{value}"' for key, value in sorted(labels))
    return f"{{{inside}}}" if inside else ""
