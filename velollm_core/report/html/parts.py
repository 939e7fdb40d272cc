"""Sections, tables and galleries of charts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from xml.etree.ElementTree import Element

from velollm_core.experiment.summary import Estimate
from velollm_core.report.html.markup import tag
from velollm_core.report.html.svg import ArmStyle, line, mark
from velollm_core.report.tables import Table, figure, plain_figure
from velollm_core.statistics import Verdict

_GLYPHS = {
    Verdict.FASTER: "\N{BLACK UP-POINTING TRIANGLE}",
    Verdict.SLOWER: "\N{BLACK DOWN-POINTING TRIANGLE}",
    Verdict.NO_DIFFERENCE: "=",
    Verdict.INCONCLUSIVE: "?",
}


def word(verdict: Verdict) -> str:
    """A verdict with a sign that is told apart without reading."""
    return f"{_GLYPHS[verdict]} {verdict}"


def section(title: str, *children: Element) -> Element:
    """A heading and what stands below it."""
    return tag("section", tag("h2", title), *children)


def definitions(pairs: Iterable[tuple[str, str]]) -> Element:
    """Labels and texts."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", text)) for name, text in pairs))


def chart(title: str, below: str, drawn: Element | None) -> Element | None:
    """A chart with its caption, if there is one."""
    if drawn is None:
        return None
    caption = [tag("strong", title), *([tag("span", below)] if below else [])]
    return tag("figure", tag("figcaption", *caption), drawn)


def gallery(
    title: str,
    help_: str,
    groups: Mapping[str, Iterable[Element | None]],
    styles: Mapping[str, ArmStyle],
) -> list[Element]:
    """A section of charts with one legend of arms, where there are any charts.

    ``groups`` are charts by their heading, which may be empty.
    """
    drawn = {name: [one for one in charts if one is not None] for name, charts in groups.items()}
    most = max(map(len, drawn.values()), default=0)
    if not most:
        return []
    parts = [
        tag(
            "div",
            *([tag("h3", name)] if name else []),
            tag("div", *charts, class_="gallery") if most > 1 else charts[0],
        )
        for name, charts in drawn.items()
        if charts
    ]
    return [
        section(
            title,
            tag("p", help_, class_="help"),
            *([legend_of(styles.values())] if len(styles) > 1 else []),
            # Groups of a single chart stand side by side.
            tag("div", *parts, class_="groups" if most > 1 else "gallery"),
        )
    ]


def legend_of(styles: Iterable[ArmStyle]) -> Element:
    """The arms by their line and mark."""
    return tag(
        "ul",
        *(
            tag(
                "li",
                tag(
                    "svg",
                    line(0, 7, 34, 7, f"curve {style.css}"),
                    mark(style, 17, 7, style.name),
                    viewBox="0 0 34 14",
                    width=34,
                    height=14,
                    aria_hidden="true",
                ),
                style.name,
            )
            for style in styles
        ),
        class_="legend",
    )


def forest(rows: Sequence[tuple[str, Element, Element | str]], axis: Element) -> Element:
    """A line for each interval: what it is of, the drawing, the figures; below them the axis."""
    return tag(
        "div",
        *(
            tag("div", tag("strong", name), drawn, tag("span", figures), class_="strip")
            for name, drawn, figures in rows
        ),
        tag("div", axis, class_="strip"),
        class_="forest",
    )


def table(content: Table) -> Element:
    """``content``, which scrolls by itself where it is wider than the page."""
    starts = {content.labels + sum(content.units[:k]) for k in range(len(content.units))}

    def css(column: int) -> str | None:
        # The last of the labels is a number of clients.
        names = max(1, content.labels - 1)
        return "name" if column < names else "unit" if column in starts else None

    head = (
        tag("th", heading.strip(), scope="col", class_=css(column))
        for column, heading in enumerate(content.headings)
    )
    body = (
        tag(
            "tr",
            *(
                tag("th", cell, scope="row", class_=css(column))
                if column < content.labels
                else tag("td", cell, class_=css(column))
                for column, cell in enumerate(row)
            ),
        )
        for row in content.rows
    )
    return tag(
        "div",
        tag(
            "table",
            tag("caption", tag("span", content.title)),
            tag("thead", tag("tr", *head)),
            tag("tbody", *body),
        ),
        class_="scroll",
        role="region",
        tabindex="0",
        aria_label=content.title,
    )


def tiles(entries: Iterable[tuple[str, Estimate, str, str]]) -> Element:
    """What to see first: of each its name, a large figure with its unit, and a line below."""
    return tag(
        "div",
        *(
            tag(
                "div",
                tag("p", name),
                tag("p", tag("strong", plain_figure(value.value)), f" {unit} {_interval(value)}"),
                tag("p", below),
                class_="tile",
            )
            for name, value, unit, below in entries
        ),
        class_="tiles",
    )


def _interval(value: Estimate) -> str:
    """The brackets of a figure, if it has any."""
    return figure(value).removeprefix(plain_figure(value.value)).strip()
