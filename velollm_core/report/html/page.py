"""The page: the answer, what was measured, the charts, the tables, the notes."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from xml.etree.ElementTree import Element

from velollm_core.experiment.apart import ApartResult
from velollm_core.experiment.spec import BenchmarkResult
from velollm_core.experiment.summary import summarize
from velollm_core.report.html import sections
from velollm_core.report.html.markup import document, tag
from velollm_core.report.html.svg import ArmStyle


def to_html(result: BenchmarkResult) -> str:
    """All that ``result`` tells, as one page."""
    rows = summarize(result)
    styles = _styles(result)
    return _of(
        result,
        [
            *(sections.verdicts(result.comparisons) or sections.at_a_glance(result, rows)),
            *sections.subject(result),
            *sections.timelines(result, styles),
            *sections.by_clients(result, rows, styles),
            *sections.distributions(result, styles),
            *sections.figures(rows),
            *sections.remarks(result, rows),
        ],
    )


def comparison_to_html(result: BenchmarkResult) -> str:
    """What ``result`` answers to its question, without the figures of each arm."""
    return _of(
        result,
        [
            *sections.verdicts(result.comparisons),
            *sections.subject(result),
            *sections.timelines(result, _styles(result)),
            *sections.remarks(result, summarize(result)),
        ],
    )


def apart_to_html(answer: ApartResult) -> str:
    """Two results recorded apart."""
    return framed(
        f"Run {answer.second} against run {answer.first}",
        "Recorded apart: what lies between them may be the hour, not the change",
        sections.apart(answer),
    )


def _of(result: BenchmarkResult, parts: Iterable[Element]) -> str:
    arm = result.arms[0]
    title = f"{arm.model.name} on {arm.engine.backend}"
    if result.question is not None:
        first = result.question.baseline
        others = ", ".join(arm.name for arm in result.arms if arm.name != first)
        title = f"{title}: {others} against {first}"
    return framed(title, moment(result.created_at), parts)


def _styles(result: BenchmarkResult) -> dict[str, ArmStyle]:
    return {arm.name: ArmStyle(index, arm.name) for index, arm in enumerate(result.arms)}


def moment(created_at: str) -> str:
    """When a result was made, as a person reads it."""
    return created_at.replace("T", " ").replace("+00:00", " UTC")


def framed(
    title: str, below: str, parts: Iterable[Element], *, eyebrow: str = "VeloLLM benchmark"
) -> str:
    """``parts`` as a whole page, below a title with a line above it and one below."""
    # A page that may load nothing cannot tell anybody that it was opened.
    policy = tag("meta", content="default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    policy.set("http-equiv", "Content-Security-Policy")
    style = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        policy,
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"{title} \N{MIDDLE DOT} VeloLLM"),
        tag("style", style),
    )
    top = tag(
        "header",
        tag("p", eyebrow, class_="eyebrow"),
        tag("h1", title),
        tag("p", below, class_="below"),
    )
    return document(tag("html", head, tag("body", top, tag("main", *parts)), lang="en"))
