"""Ratios and their intervals, one below the other on one logarithmic axis."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from velollm_core.experiment.apart import Apart
from velollm_core.experiment.spec import Comparison
from velollm_core.report.comparisons import ratio_text
from velollm_core.report.html.markup import points, tag
from velollm_core.report.html.scales import Scale, ratios
from velollm_core.report.html.svg import area, axis_x, drawing, label, line, whisker_x
from velollm_core.statistics import Verdict

_LEFT, _RIGHT = 16.0, 344.0
_HEIGHT = 26.0
_DOT = 5.0


def ratio_strips(
    rows: Sequence[Comparison | Apart], margin: float | None = None
) -> tuple[list[Element], Element] | None:
    """A strip for each of ``rows`` and the axis below them, all on one scale.

    ``None`` where no row has a ratio. ``margin`` is the difference that does not matter.
    """
    ends = [end for row in rows for end in (row.low, row.speed_ratio, row.high) if end is not None]
    if not ends:
        return None
    band = None if margin is None else (1 / (1 + margin), 1 + margin)
    scale = ratios([*ends, *(band or ())], _LEFT, _RIGHT)
    return [_strip(row, scale, band) for row in rows], _axis(scale)


def _strip(row: Comparison | Apart, scale: Scale, band: tuple[float, float] | None) -> Element:
    middle = _HEIGHT / 2
    parts = [] if band is None else [area(scale(band[0]), 0, scale(band[1]), _HEIGHT, "margin")]
    parts.append(line(scale(1), 0, scale(1), _HEIGHT, "one"))
    if row.speed_ratio is not None and row.low is not None and row.high is not None:
        at = scale(row.speed_ratio)
        diamond = [
            (at - _DOT, middle),
            (at, middle - _DOT),
            (at + _DOT, middle),
            (at, middle + _DOT),
        ]
        parts += whisker_x(scale(row.low), scale(row.high), middle, "whisker")
        parts.append(
            tag(
                "g",
                tag("title", ratio_text(row)),
                tag("polygon", points=points(diamond)),
                class_=f"mark ratio{'' if _decided(row) else ' hollow'}",
            )
        )
    return drawing(_HEIGHT, f"speed ratio {ratio_text(row)}", parts)


def _axis(scale: Scale) -> Element:
    marks = [(scale(tick), text) for tick, text in zip(scale.ticks, scale.labels(), strict=True)]
    told = "speed ratio (logarithmic), more speed to the right"
    return drawing(
        34,
        told,
        [*axis_x(marks, 1, _LEFT, _RIGHT), label((_LEFT + _RIGHT) / 2, 31, told)],
    )


def _decided(row: Comparison | Apart) -> bool:
    """Whether the interval leaves out what would change the answer."""
    if isinstance(row, Apart):
        return row.answer == "distinguishable"
    return row.verdict is not Verdict.INCONCLUSIVE
