"""What of a budget was spent on what, one bar below the other, in the order of time."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from velollm_core.report.html.markup import tag
from velollm_core.report.html.scales import Scale, nice_ticks
from velollm_core.report.html.svg import area, axis_x, drawing, label, line

_LEFT, _RIGHT = 16.0, 344.0
_HEIGHT = 20.0
_BAR = (4.0, 16.0)
_THINNEST = 1.0
_UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
_LEAST_UNITS = 2.0  # of a unit that the axis has to show


def bars(rows: Sequence[tuple[str, float, str]], budget_s: float) -> tuple[list[Element], Element]:
    """A strip for each of ``rows`` and the axis below them, which reaches to the budget at least.

    Args:
        rows: name, seconds, and the same in words; each bar begins where the one before it ends.
        budget_s: what might be spent, marked by a line.
    """
    total = max(budget_s, sum(seconds for _, seconds, _ in rows))
    unit, name = next(
        entry for entry in _UNITS if total >= entry[0] * _LEAST_UNITS or entry[0] == 1
    )
    scale = Scale(
        low=0,
        high=total / unit,
        start=_LEFT,
        end=_RIGHT,
        ticks=nice_ticks(0, total / unit, 5),
    )
    strips = []
    began = 0.0
    for _, seconds, words in rows:
        start, end = scale(began / unit), scale((began + seconds) / unit)
        bar = area(start, _BAR[0], max(end, start + _THINNEST), _BAR[1], "bar")
        bar.append(tag("title", words))
        limit = line(scale(budget_s / unit), 0, scale(budget_s / unit), _HEIGHT, "one")
        strips.append(drawing(_HEIGHT, words, [bar, limit]))
        began += seconds
    marks = [(scale(tick), text) for tick, text in zip(scale.ticks, scale.labels(), strict=True)]
    told = f"{name} since the start; the line is the budget"
    axis = drawing(
        34, told, [*axis_x(marks, 1, _LEFT, _RIGHT), label((_LEFT + _RIGHT) / 2, 31, told)]
    )
    return strips, axis
