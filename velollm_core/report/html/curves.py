"""How times are distributed over requests, and what more clients at once bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from xml.etree.ElementTree import Element

from velollm_core.experiment.measures import measured
from velollm_core.experiment.spec import BenchmarkResult, Sample, WorkloadRecord
from velollm_core.experiment.summary import Estimate, SummaryRow, attempts, used
from velollm_core.report.html.scales import Scale, linear, logarithmic
from velollm_core.report.html.svg import (
    ArmStyle,
    axis_x,
    drawing,
    grid_y,
    line,
    mark,
    panel,
    path,
    whisker_y,
)
from velollm_core.report.tables import figure, plain_figure
from velollm_core.statistics import percentile

_LEFT, _RIGHT = 44.0, 346.0
_TOP, _FOOT = 22.0, 142.0
_SHARES = (0.0, 25.0, 50.0, 75.0, 95.0)
_MANY = 20  # requests below which a 95th percentile is hardly more than the longest of them
_MOST_STEPS = 100  # of a curve; more would be finer than what is seen
_LOG_FROM = 10.0  # longest over shortest time from which the axis is logarithmic
_BESIDE = 5.0  # between the marks of two arms at the same number of clients


def distribution(
    result: BenchmarkResult,
    workload: WorkloadRecord,
    styles: Mapping[str, ArmStyle],
    value: Callable[[Sample], float | None],
    what: str,
) -> Element | None:
    """The share of requests that took at most so long, one curve an arm; ``None`` without any.

    Every measured request that a figure comes from is in it.
    """
    curves = {name: values for name in styles if (values := _values(result, name, workload, value))}
    if not curves:
        return None
    x = _times([v for values in curves.values() for v in values])
    y = Scale(low=0, high=100, start=_FOOT, end=_TOP, ticks=_SHARES)
    parts = [panel("% of requests"), *grid_y(y, _LEFT, _RIGHT), *_time_axis(x)]
    told = []
    for name, values in curves.items():
        style = styles[name]
        shares = (50, 95) if len(values) >= _MANY else (50,)
        marks = [(q, percentile(values, q)) for q in shares]
        parts.append(path(_steps(values, x, y), f"curve {style.css}"))
        parts += [
            mark(style, x(at), y(q), f"{name}: {q} % within {plain_figure(at)} ms")
            for q, at in marks
        ]
        quantiles = ", ".join(f"{q} % within {plain_figure(at)} ms" for q, at in marks)
        told.append(f"{name}, {len(values)} requests: {quantiles}")
    return drawing(160, f"Distribution of {what}. {'; '.join(told)}.", parts)


def over_concurrency(
    rows: Sequence[SummaryRow],
    styles: Mapping[str, ArmStyle],
    value: Callable[[SummaryRow], Estimate | None],
    what: str,
    unit: str,
) -> Element | None:
    """A figure with its interval over the number of clients, one line an arm.

    Args:
        rows: those of one workload.
        styles: of every arm.
        value: the figure.
        what: its name.
        unit: its unit.

    Returns:
        ``None`` where fewer than two numbers of clients have the figure.
    """
    known = [(row, found) for row in rows if (found := value(row)) is not None]
    clients = sorted({row.concurrency for row, _ in known})
    if len(clients) < 2:
        return None
    room = 1.25
    x = logarithmic(clients[0] / room, clients[-1] * room, _LEFT, _RIGHT)
    highest = [found.high if found.high is not None else found.value for _, found in known]
    y = linear(highest, _FOOT, _TOP, zero=True)
    parts = [panel(unit), *grid_y(y, _LEFT, _RIGHT)]
    parts += axis_x([(x(n), str(n)) for n in clients], _FOOT, _LEFT, _RIGHT, "clients")
    told = []
    for position, style in enumerate(styles.values()):
        own = sorted(
            ((row.concurrency, found) for row, found in known if row.arm == style.name),
            key=lambda entry: entry[0],
        )
        aside = (position - (len(styles) - 1) / 2) * _BESIDE
        places = [(x(n) + aside, found) for n, found in own]
        parts.append(path([(at, y(found.value)) for at, found in places], f"curve {style.css}"))
        for (n, found), (at, _) in zip(own, places, strict=True):
            if found.low is not None and found.high is not None:
                parts += whisker_y(at, y(found.low), y(found.high), f"whisker {style.css}")
            title = f"{style.name}, {n} clients: {figure(found)}"
            parts.append(mark(style, at, y(found.value), title))
        if own:
            figures = ", ".join(f"{figure(found)} at {n}" for n, found in own)
            told.append(f"{style.name}: {figures}")
    return drawing(160, f"{what}, {unit}, by clients at once. {'; '.join(told)}.", parts)


def _values(
    result: BenchmarkResult,
    arm: str,
    workload: WorkloadRecord,
    value: Callable[[Sample], float | None],
) -> list[float]:
    trials = [trial for trial in result.trials if trial.arm == arm]
    return [
        found
        for _, phase in used(attempts(trials, workload.name, workload.concurrency))
        for sample in measured(phase)
        if (found := value(sample)) is not None
    ]


def _times(values: Sequence[float]) -> Scale:
    low, high = min(values), max(values)
    if low > 0 and high / low > _LOG_FROM:
        return logarithmic(low / 1.1, high * 1.1, _LEFT, _RIGHT)
    return linear(values, _LEFT, _RIGHT)


def _time_axis(x: Scale) -> list[Element]:
    marks = [(x(tick), text) for tick, text in zip(x.ticks, x.labels(), strict=True)]
    return [
        *axis_x(marks, _FOOT, _LEFT, _RIGHT, "ms, log" if x.log else "ms"),
        *(line(at, _TOP, at, _FOOT, "grid") for at, _ in marks),
    ]


def _steps(values: Sequence[float], x: Scale, y: Scale) -> list[tuple[float, float]]:
    """The corners of the empirical distribution, at no more than :data:`_MOST_STEPS` values."""
    ordered = sorted(values)
    n = len(ordered)
    count = min(n, _MOST_STEPS)
    ranks = [round(k * (n - 1) / max(count - 1, 1)) for k in range(count)]
    corners = [(x(ordered[0]), y(0))]
    for rank in ranks:
        at = x(ordered[rank])
        corners += [(at, corners[-1][1]), (at, y(100 * (rank + 1) / n))]
    return corners
