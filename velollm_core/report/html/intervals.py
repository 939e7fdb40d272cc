"""Ratios and their intervals, one below the other on one logarithmic axis."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from attrs import frozen

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


@frozen(kw_only=True)
class Span:
    """A ratio and its interval: ``text`` says them in figures, ``decided`` fills the mark.

    Without ``low`` and ``high`` there is a mark alone, without ``ratio`` nothing.
    """

    ratio: float | None
    low: float | None
    high: float | None
    text: str
    decided: bool


def span_of(row: Comparison | Apart) -> Span:
    """The interval of ``row``, decided where it leaves out what would change the answer."""
    decided = (
        row.answer == "distinguishable"
        if isinstance(row, Apart)
        else row.verdict is not Verdict.INCONCLUSIVE
    )
    return Span(
        ratio=row.speed_ratio, low=row.low, high=row.high, text=ratio_text(row), decided=decided
    )


def ratio_strips(
    spans: Sequence[Span], margin: float | None = None
) -> tuple[list[Element], Element] | None:
    """A strip for each of ``spans`` and the axis below them, all on one scale.

    ``None`` where none has a ratio. ``margin`` is the difference that does not matter.
    """
    ends = [end for span in spans for end in (span.low, span.ratio, span.high) if end is not None]
    if not ends:
        return None
    band = None if margin is None else (1 / (1 + margin), 1 + margin)
    scale = ratios([*ends, *(band or ())], _LEFT, _RIGHT)
    return [_strip(span, scale, band) for span in spans], _axis(scale)


def _strip(span: Span, scale: Scale, band: tuple[float, float] | None) -> Element:
    middle = _HEIGHT / 2
    parts = [] if band is None else [area(scale(band[0]), 0, scale(band[1]), _HEIGHT, "margin")]
    parts.append(line(scale(1), 0, scale(1), _HEIGHT, "one"))
    if span.low is not None and span.high is not None:
        parts += whisker_x(scale(span.low), scale(span.high), middle, "whisker")
    if span.ratio is not None:
        at = scale(span.ratio)
        diamond = [
            (at - _DOT, middle),
            (at, middle - _DOT),
            (at + _DOT, middle),
            (at, middle + _DOT),
        ]
        parts.append(
            tag(
                "g",
                tag("title", span.text),
                tag("polygon", points=points(diamond)),
                class_=f"mark ratio{'' if span.decided else ' hollow'}",
            )
        )
    return drawing(_HEIGHT, f"speed ratio {span.text}", parts)


def _axis(scale: Scale) -> Element:
    marks = [(scale(tick), text) for tick, text in zip(scale.ticks, scale.labels(), strict=True)]
    told = "speed ratio (logarithmic), more speed to the right"
    return drawing(
        34,
        told,
        [*axis_x(marks, 1, _LEFT, _RIGHT), label((_LEFT + _RIGHT) / 2, 31, told)],
    )
