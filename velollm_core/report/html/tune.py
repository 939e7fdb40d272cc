"""The page of a tune: the answer, before and after, the race, and what it took."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.etree.ElementTree import Element

from attrs import evolve

from velollm_core.experiment.measures import METRICS
from velollm_core.experiment.spec import Comparison, Pair
from velollm_core.report import tune_wording as words
from velollm_core.report.comparisons import interval_text, ratio_text
from velollm_core.report.html.budget import bars
from velollm_core.report.html.front import Place, front_chart
from velollm_core.report.html.intervals import Span, ratio_strips, span_of
from velollm_core.report.html.markup import tag
from velollm_core.report.html.page import framed, moment
from velollm_core.report.html.parts import (
    chart,
    definitions,
    forest,
    legend_of,
    section,
    table,
    word,
)
from velollm_core.report.html.svg import ArmStyle
from velollm_core.report.html.timeline import Quantity, pairs_timeline, quantity
from velollm_core.statistics import mean
from velollm_core.tune.spec import Conclusion, Fate, StageRecord, Tried, TuneResult
from velollm_core.tune.standing import CONFIDENCE

_GLYPHS = {
    Conclusion.FASTER: "\N{BLACK UP-POINTING TRIANGLE}",
    Conclusion.KEEP: "=",
    Conclusion.OPEN: "?",
}
_STYLES = {
    "current": ArmStyle(0, "now"),
    words.TUNED: ArmStyle(1, words.TUNED),
    "defaults": ArmStyle(2, "engine's defaults"),
}
_BEFORE_AFTER = (
    "Above, both configurations in each block: what moves them together is the machine, not the "
    "change. Below, the ratio of each pair, the interval of their mean, and around 1 the "
    "difference that does not matter."
)
_RACE = (
    "Each stage measures candidates in blocks, beside what the search began with. To the right is "
    "faster, by all trials of the search together. Who will hardly win is not measured further, "
    f"so the bounds ({CONFIDENCE * 100:g} % each) are as wide as was needed. A hollow mark was not "
    "decided. This chooses; it proves nothing: that is the confirmation's, on fresh servers."
)
_FRONT = (
    "No other configuration that was measured is faster in every objective. Up and to the right "
    "is faster; the lines are {beside}, the filled mark is what was chosen."
)


def to_html(result: TuneResult, profile: str = words.A_NAME) -> str:
    """All that ``result`` tells, as one page.

    Args:
        result: a tune.
        profile: what its profile is called.
    """
    objective = result.task.objectives[0].name
    return framed(
        f"{result.model.name} on {result.engine.backend}, tuned for {objective}",
        moment(result.created_at),
        _sections(result, profile),
        eyebrow="VeloLLM tune",
    )


def _sections(result: TuneResult, profile: str) -> Iterator[Element]:
    yield _verdict(result)
    yield section("What was tuned", definitions(words.header(result)))
    yield from _before_after(result)
    settings = words.settings_table(result)
    if settings is not None:
        yield section("Settings before and after", table(settings))
    yield from _race(result)
    yield from _front(result)
    if result.untouched:
        yield section("Left alone", _list(words.untouched_lines(result)))
    yield from _time(result)
    if result.notes:
        yield section("Notes", _list(result.notes))
    following = words.next_lines(result, profile)
    if following:
        yield section("Next", _list(following))


def _list(items: Iterable[str]) -> Element:
    return tag("ul", *(tag("li", text) for text in items))


def _verdict(result: TuneResult) -> Element:
    head = tag("strong", f"{_GLYPHS[result.conclusion]} {words.headline(result)}")
    parts = [tag("p", head, class_="headline"), tag("p", result.why)]
    rows = [answer.overall for answer in result.answers]
    drawn = ratio_strips(list(map(span_of, rows)), result.task.margin)
    if drawn is not None:
        names = [f"against {_STYLES[answer.baseline].name}" for answer in result.answers]
        texts = [f"{ratio_text(row)} \N{MIDDLE DOT} {word(row.verdict)}" for row in rows]
        parts.append(forest(list(zip(names, drawn[0], texts, strict=True)), drawn[1]))
    answers = words.answer_table(result)
    if answers is not None:
        why = [pair for pair in words.answer_lines(result) if not pair[0].startswith("pairs")]
        parts += [table(answers), definitions(why)]
    return section("Verdict", *parts)


def _before_after(result: TuneResult) -> Iterator[Element]:
    drawn = []
    shown = {words.TUNED}
    for answer in result.answers:
        row, what = _quantity(answer.overall)
        styles = _STYLES[answer.baseline], _STYLES[words.TUNED]
        one = chart(
            f"against {styles[0].name}",
            word(row.verdict),
            pairs_timeline(row, *styles, what),
        )
        if one is not None:
            drawn.append(one)
            shown.add(answer.baseline)
    if drawn:
        yield section(
            "Before and after, in the order of time",
            tag("p", _BEFORE_AFTER, class_="help"),
            legend_of(style for name, style in _STYLES.items() if name in shown),
            tag("div", *drawn, class_="gallery"),
        )


def _quantity(row: Comparison) -> tuple[Comparison, Quantity]:
    """What is drawn of ``row``. The values of a mix have no unit, so that the mean of what there
    was becomes 1.
    """
    metric = METRICS.get(row.metric)
    if metric is not None:
        return row, quantity(metric)
    whole = mean([pair.baseline for pair in row.pairs] or [1.0])
    pairs = [
        Pair(block=pair.block, baseline=pair.baseline / whole, changed=pair.changed / whole)
        for pair in row.pairs
    ]
    name = f"speed by {row.metric}"
    what = Quantity(name=name, unit="", summary=f"{name}, the mean of the former being 1")
    return evolve(row, pairs=tuple(pairs)), what


def _race(result: TuneResult) -> Iterator[Element]:
    if result.stages:
        yield section(
            "What was tried",
            tag("p", _RACE, class_="help"),
            tag("div", *map(_stage, result.stages), class_="groups"),
        )


def _stage(stage: StageRecord) -> Element:
    tried = words.tried(stage)
    drawn = ratio_strips(list(map(_span, tried)))
    shown: list[Element] = []
    if drawn is not None:
        rows = zip(tried, drawn[0], strict=True)
        shown.append(
            forest(
                [(words.candidate(entry, stage), svg, _said(entry, stage)) for entry, svg in rows],
                drawn[1],
            )
        )
        shown += [definitions(lines)] if (lines := words.untried_lines(stage)) else []
    elif stage.tried:
        shown.append(definitions(words.tried_lines(stage)))
    return tag(
        "div",
        tag("h3", words.stage_title(stage)),
        tag("p", words.stage_text(stage), class_="help"),
        *shown,
    )


def _span(entry: Tried) -> Span:
    return Span(
        ratio=entry.speed_ratio,
        low=entry.low,
        high=entry.high,
        text=interval_text(entry.speed_ratio, entry.low, entry.high),
        decided=entry.fate not in {Fate.UNDECIDED, Fate.UNTRIED},
    )


def _said(entry: Tried, stage: StageRecord) -> Element:
    return tag("span", words.tried_text(entry, stage), tag("small", entry.why))


def _front(result: TuneResult) -> Iterator[Element]:
    content = words.front_table(result)
    if content is None:
        return
    chosen = words.winner(result)
    places = [
        Place(
            short=short,
            name=words.name_of(point.changes),
            across=point.speed_ratios[0],
            up=point.speed_ratios[1],
            chosen=point.changes == chosen,
        )
        for short, point in zip(words.front_labels(result), result.front, strict=True)
    ]
    across, up = (entry.name for entry in result.task.objectives[:2])
    drawn = chart(f"{across} and {up}", "", front_chart(places, across, up))
    shown = [] if drawn is None else [drawn]
    text = _FRONT.format(beside=words.beside(result))
    yield section("Worth having", tag("p", text, class_="help"), *shown, table(content))


def _time(result: TuneResult) -> Iterator[Element]:
    rows = [(name, seconds, words.duration(seconds)) for name, seconds in words.spent(result)]
    if not rows:
        return
    strips, axis = bars(rows, result.task.budget_s)
    named = [(name, strip, said) for (name, _, said), strip in zip(rows, strips, strict=True)]
    yield section(
        "Time spent of the budget",
        tag("p", words.budget_text(result), class_="help"),
        forest(named, axis),
    )
