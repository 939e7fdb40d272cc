"""The sections of the page, each left out where there is nothing to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from xml.etree.ElementTree import Element

from velollm_core.experiment.apart import Apart, ApartResult
from velollm_core.experiment.notes import notes
from velollm_core.experiment.spec import BenchmarkResult, Comparison, Sample, WorkloadRecord
from velollm_core.experiment.summary import Estimate, SummaryRow
from velollm_core.report.comparisons import (
    apart_lines,
    apart_table,
    comparison_lines,
    comparison_table,
    ratio_text,
)
from velollm_core.report.html.curves import distribution, over_concurrency
from velollm_core.report.html.intervals import ratio_strips, span_of
from velollm_core.report.html.markup import tag
from velollm_core.report.html.parts import (
    chart,
    definitions,
    forest,
    gallery,
    section,
    table,
    tiles,
    word,
)
from velollm_core.report.html.svg import ArmStyle
from velollm_core.report.html.timeline import comparison_timeline, plain_timeline, shown_metric
from velollm_core.report.tables import figure, tables
from velollm_core.report.wording import header, legend, note_lines
from velollm_core.statistics import Verdict

Styles = Mapping[str, ArmStyle]

_TIMES: tuple[tuple[str, Callable[[Sample], float | None]], ...] = (
    ("Time to first token", lambda sample: sample.first_token_ms),
    ("Time to the end of the answer", lambda sample: sample.total_ms),
)
_BY_CLIENTS: tuple[tuple[str, str, Callable[[SummaryRow], Estimate | None]], ...] = (
    ("Speed of all clients together", "tok/s", lambda row: row.output_tok_s),
    ("Time to first token, median", "ms", lambda row: row.first_token_ms),
)


def verdicts(rows: Sequence[Comparison]) -> list[Element]:
    """The answers: at a glance, drawn on one axis, as a table, and why."""
    if not rows:
        return []
    several = len({row.changed for row in rows}) > 1
    names = [f"{row.changed}: {_where(row)}" if several else _where(row) for row in rows]
    # The pairs stand in charts of their own.
    details = [pair for pair in comparison_lines(rows) if not pair[0].startswith("pairs")]
    return [
        section(
            "Verdict" if len(rows) == 1 else "Verdicts",
            _headline(rows),
            *_forest(rows, names, [word(row.verdict) for row in rows], rows[0].margin),
            table(comparison_table(rows)),
            definitions(details),
        )
    ]


def apart(answer: ApartResult) -> list[Element]:
    """Two results recorded apart: told apart or not."""
    rows = answer.rows
    return [
        section(
            "Answer",
            *_forest(rows, list(map(_where, rows)), [row.answer for row in rows]),
            table(apart_table(rows)),
            definitions(apart_lines(answer)),
        )
    ]


def at_a_glance(result: BenchmarkResult, rows: Sequence[SummaryRow]) -> list[Element]:
    """Of the first arm the rate of one answer in each workload, with the fewest clients."""
    first: dict[str, SummaryRow] = {}
    for row in rows:
        if row.arm == result.arms[0].name:
            least = first.setdefault(row.workload, row)
            first[row.workload] = min(least, row, key=lambda entry: entry.concurrency)
    entries = [
        (_where(row), rate, "tok/s", f"first token {figure(row.first_token_ms)} ms")
        for row in first.values()
        if (rate := row.decode_tok_s or row.client_decode_tok_s) is not None
    ]
    return [section("Speed of one answer", tiles(entries))] if entries else []


def subject(result: BenchmarkResult) -> list[Element]:
    """What was measured, where, and how."""
    return [section("What was measured", definitions(header(result)))]


def timelines(result: BenchmarkResult, styles: Styles) -> list[Element]:
    """One chart a comparison, or without any, one a workload and concurrency."""
    if result.comparisons:
        several = len(result.arms) > 2
        return gallery(
            "Pairs in the order of time",
            "Above, both arms in each block: what moves them together is the machine, not the "
            "change. Below, the ratio of each pair, the interval of their mean, and around 1 the "
            "difference that does not matter. A cross is a block without a pair.",
            {
                "": [
                    chart(
                        f"{row.changed}: {_where(row)}" if several else _where(row),
                        word(row.verdict),
                        comparison_timeline(result, row, styles),
                    )
                    for row in result.comparisons
                ]
            },
            styles,
        )
    metric = shown_metric(result)
    if metric is None:
        return []
    return gallery(
        f"{result.unit.capitalize()} by {result.unit} in the order of time",
        f"{metric.summary.capitalize()}. A cross is a {result.unit} without a value.",
        {
            "": [
                chart(_where(workload), "", plain_timeline(result, workload, metric, styles))
                for workload in result.workloads
            ]
        },
        styles,
    )


def by_clients(
    result: BenchmarkResult, rows: Sequence[SummaryRow], styles: Styles
) -> list[Element]:
    """What more clients at once bring, and what they cost."""
    names = dict.fromkeys(workload.name for workload in result.workloads)
    return gallery(
        "More clients at once",
        "What they bring together, and how long each waits; with 95 % intervals.",
        {
            f"{what}, {unit}": [
                chart(
                    name,
                    "",
                    over_concurrency(
                        [row for row in rows if row.workload == name], styles, value, what, unit
                    ),
                )
                for name in names
            ]
            for what, unit, value in _BY_CLIENTS
        },
        styles,
    )


def distributions(result: BenchmarkResult, styles: Styles) -> list[Element]:
    """How long requests took, all of them."""
    return gallery(
        "Latency of all requests",
        "The share of requests that took at most so long; marks stand at the median and, of 20 "
        "requests or more, at 95 %.",
        {
            what: [
                chart(_where(workload), "", distribution(result, workload, styles, value, what))
                for workload in result.workloads
            ]
            for what, value in _TIMES
        },
        styles,
    )


def figures(rows: Sequence[SummaryRow]) -> list[Element]:
    """The tables that every report has."""
    if not rows:
        return []
    below = tag("p", legend(rows), class_="help")
    return [section("Figures", *map(table, tables(rows)), below)]


def remarks(result: BenchmarkResult, rows: Sequence[SummaryRow]) -> list[Element]:
    """What has to be known beside the figures."""
    lines = note_lines(result, rows, notes(result, rows))
    return [section("Notes", tag("ul", *(tag("li", text) for text in lines)))] if lines else []


def _headline(rows: Sequence[Comparison]) -> Element:
    """The only verdict with its ratio, or how many there are of each."""
    if len(rows) == 1:
        row = rows[0]
        ratio = row.why if row.speed_ratio is None else f"{ratio_text(row)} times the speed"
        return tag("p", tag("strong", word(row.verdict)), tag("span", ratio), class_="headline")
    counts = [(said, sum(row.verdict is said for row in rows)) for said in Verdict]
    told = [tag("strong", f"{word(said)}: {count}") for said, count in counts if count]
    return tag("p", *told, class_="headline")


def _forest(
    rows: Sequence[Comparison | Apart],
    names: Sequence[str],
    answers: Sequence[str],
    margin: float | None = None,
) -> list[Element]:
    drawn = ratio_strips(list(map(span_of, rows)), margin)
    if drawn is None:
        return []
    strips, axis = drawn
    texts = [
        f"{ratio_text(row)} \N{MIDDLE DOT} {answer}"
        for row, answer in zip(rows, answers, strict=True)
    ]
    return [forest(list(zip(names, strips, texts, strict=True)), axis)]


def _where(row: Comparison | Apart | SummaryRow | WorkloadRecord) -> str:
    name = row.name if isinstance(row, WorkloadRecord) else row.workload
    return f"{name}, {'1 client' if row.concurrency == 1 else f'{row.concurrency} clients'}"
