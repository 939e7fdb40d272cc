"""Values block by block in the order of time, and the ratio of each pair: drift shows here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from xml.etree.ElementTree import Element

from attrs import frozen

from velollm_core.experiment.measures import METRICS, Metric
from velollm_core.experiment.spec import BenchmarkResult, Comparison, WorkloadRecord
from velollm_core.experiment.summary import attempts
from velollm_core.report.comparisons import pair_ratio, pair_text, ratio_text
from velollm_core.report.html.scales import linear, ratios, whole_ticks
from velollm_core.report.html.svg import (
    ArmStyle,
    area,
    axis_x,
    cross,
    drawing,
    grid_y,
    line,
    mark,
    panel,
    path,
)
from velollm_core.report.tables import plain_figure

_LEFT, _RIGHT = 44.0, 352.0
_VALUES = (22.0, 122.0)  # top and foot of the upper panel
_RATIOS = (156.0, 226.0)
_CROSSES = 14.0  # at the foot of the upper panel, where a block is left out
_FEWEST = 2  # blocks that make an order of time
_CROWDED = 16  # blocks from which marks are drawn smaller


@frozen(kw_only=True)
class Quantity:
    """What is drawn over time: its short name, its unit, which may be empty, and what it is."""

    name: str
    unit: str
    summary: str


def quantity(metric: Metric) -> Quantity:
    """What ``metric`` measures."""
    return Quantity(name=metric.name, unit=metric.unit, summary=metric.summary)


def _said(value: float, what: Quantity) -> str:
    return f"{plain_figure(value)} {what.unit}".rstrip()


def _with_unit(text: str, what: Quantity) -> str:
    return f"{text}, {what.unit}" if what.unit else text


@frozen(kw_only=True)
class _Course:
    """What one arm did: its value in each block, and what was wrong in others."""

    style: ArmStyle
    values: Mapping[int, float]
    faults: Mapping[int, str]


def comparison_timeline(
    result: BenchmarkResult, row: Comparison, styles: Mapping[str, ArmStyle]
) -> Element | None:
    """Both arms of ``row`` in each block, and below the ratio of each pair with its interval."""
    metric = METRICS[row.metric]
    courses = [
        _course(result, styles[name], row.workload, row.concurrency, metric)
        for name in (row.baseline, row.changed)
    ]
    return _pairs(row, courses, quantity(metric))


def pairs_timeline(
    row: Comparison, baseline: ArmStyle, changed: ArmStyle, what: Quantity
) -> Element | None:
    """The same of a comparison alone, whose trials are not at hand: blocks without a pair are not
    seen.
    """
    before = {pair.block: pair.baseline for pair in row.pairs}
    after = {pair.block: pair.changed for pair in row.pairs}
    courses = [
        _Course(style=style, values=values, faults={})
        for style, values in ((baseline, before), (changed, after))
    ]
    return _pairs(row, courses, what)


def _pairs(row: Comparison, courses: Sequence[_Course], what: Quantity) -> Element | None:
    blocks = _blocks(courses)
    if not blocks or not any(course.values for course in courses):
        return None
    x = _places(blocks)
    parts = [
        *_value_panel(what, courses, x, used={pair.block for pair in row.pairs}),
        *_ratio_panel(row, x, courses[1].style),
        *_block_axis(blocks, x, (_RATIOS if row.pairs else _VALUES)[1] + 4, "block"),
    ]
    first, second = (course.style.name for course in courses)
    told = (
        f"{_with_unit(what.summary, what)}, of {first} and {second} in {len(blocks)} blocks in the "
        "order of time. "
    )
    if row.pairs:
        told += f"Speed ratio {ratio_text(row)}, pair by pair: {pair_text(row)}."
    return drawing(250 if row.pairs else 146, told, parts)


def plain_timeline(
    result: BenchmarkResult,
    workload: WorkloadRecord,
    metric: Metric,
    styles: Mapping[str, ArmStyle],
) -> Element | None:
    """Every arm in each block; ``None`` for fewer than two blocks."""
    courses = [
        _course(result, style, workload.name, workload.concurrency, metric)
        for style in styles.values()
    ]
    blocks = _blocks(courses)
    if len(blocks) < _FEWEST or not any(course.values for course in courses):
        return None
    x = _places(blocks)
    told = "; ".join(
        f"{course.style.name}: {' '.join(map(plain_figure, course.values.values()))}"
        for course in courses
        if course.values
    )
    parts = [
        *_value_panel(quantity(metric), courses, x, used=set(blocks), unit=result.unit),
        *_block_axis(blocks, x, _VALUES[1] + 4, result.unit),
    ]
    return drawing(146, f"{metric.summary}, {metric.unit}, in the order of time. {told}.", parts)


def shown_metric(result: BenchmarkResult) -> Metric | None:
    """The first metric that the servers of ``result`` tell."""
    phases = [phase for trial in result.trials for phase in trial.phases]
    told = (metric for metric in METRICS.values() if any(map(metric.of, phases)))
    return next(told, None)


def _course(
    result: BenchmarkResult, style: ArmStyle, workload: str, concurrency: int, metric: Metric
) -> _Course:
    trials = sorted(
        (trial for trial in result.trials if trial.arm == style.name), key=lambda trial: trial.block
    )
    values = {
        trial.block: value
        for trial, phase in attempts(trials, workload, concurrency)
        if (value := metric.of(phase))
    }
    faults = {
        trial.block: trial.failure.kind.value if trial.failure else "no value"
        for trial in trials
        if trial.failure or trial.block not in values
    }
    return _Course(style=style, values=values, faults=faults)


def _blocks(courses: Iterable[_Course]) -> list[int]:
    return sorted({block for course in courses for block in (*course.values, *course.faults)})


def _places(blocks: Sequence[int]) -> dict[int, float]:
    step = (_RIGHT - _LEFT) / len(blocks)
    return {block: _LEFT + (position + 0.5) * step for position, block in enumerate(blocks)}


def _radius(blocks: int) -> float:
    return 2.6 if blocks > _CROWDED else 3.6


def _value_panel(
    what: Quantity,
    courses: Sequence[_Course],
    x: Mapping[int, float],
    *,
    used: set[int],
    unit: str = "block",
) -> list[Element]:
    top, foot = _VALUES
    whole = all(block in used for block in x) and not any(course.faults for course in courses)
    values = [value for course in courses for value in course.values.values()]
    scale = linear(values, foot if whole else foot - _CROSSES, top, ticks=4)
    radius = _radius(len(x))
    parts = [panel(_with_unit(what.name, what))]
    parts += grid_y(scale, _LEFT, _RIGHT)
    for block, at in x.items():
        ends = [scale(course.values[block]) for course in courses if block in course.values]
        if len(ends) > 1:
            parts.append(line(at, min(ends), at, max(ends), "stem"))
        faults = [
            f"{unit} {block + 1}, {course.style.name}: {course.faults[block]}"
            for course in courses
            if block in course.faults
        ]
        if faults or block not in used:
            parts.append(cross(at, foot - 4, "; ".join(faults) or f"{unit} {block + 1}: left out"))
    for course in courses:
        way = [(x[block], scale(value)) for block, value in course.values.items() if block in used]
        parts.append(path(way, f"course {course.style.css}"))
        parts += [
            mark(
                course.style,
                x[block],
                scale(value),
                f"{unit} {block + 1}, {course.style.name}: {_said(value, what)}",
                radius=radius,
                hollow=block not in used,
            )
            for block, value in course.values.items()
        ]
    return parts


def _ratio_panel(row: Comparison, x: Mapping[int, float], style: ArmStyle) -> list[Element]:
    if not row.pairs:
        return []
    top, foot = _RATIOS
    each = {pair.block: pair_ratio(row, pair) for pair in row.pairs}
    bounds = [bound for bound in (row.low, row.high) if bound is not None]
    margin = (1 / (1 + row.margin), 1 + row.margin)
    scale = ratios([*each.values(), *bounds, *margin], foot, top, ticks=4)
    parts = [
        panel("speed ratio of each pair", top - 22),
        area(_LEFT, scale(margin[0]), _RIGHT, scale(margin[1]), "margin"),
        *grid_y(scale, _LEFT, _RIGHT),
        line(_LEFT, scale(1), _RIGHT, scale(1), "one"),
    ]
    if row.speed_ratio is not None and row.low is not None and row.high is not None:
        parts += [
            area(_LEFT, scale(row.low), _RIGHT, scale(row.high), "interval"),
            line(_LEFT, scale(row.speed_ratio), _RIGHT, scale(row.speed_ratio), "estimate"),
        ]
    parts += [
        mark(
            style, x[block], scale(value), f"block {block + 1}: {value:.3f}", radius=_radius(len(x))
        )
        for block, value in each.items()
    ]
    return parts


def _block_axis(
    blocks: Sequence[int], x: Mapping[int, float], y: float, name: str
) -> list[Element]:
    places = {block + 1: x[block] for block in blocks}
    marks = [(places[k], str(k)) for k in whole_ticks(max(places), 8) if k in places]
    return axis_x(marks, y, _LEFT, _RIGHT, name)
