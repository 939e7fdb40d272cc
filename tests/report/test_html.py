"""A benchmark as one HTML file: whole, self-contained, and saying what the other reports say."""

from __future__ import annotations

import re

import pytest
from attrs import evolve

from velollm_core.documents import dumps, loads
from velollm_core.experiment.apart import ApartResult, Side, compare_apart
from velollm_core.experiment.notes import notes
from velollm_core.experiment.spec import BenchmarkResult
from velollm_core.experiment.summary import summarize
from velollm_core.report.comparisons import apart_table, comparison_table, pair_ratio, ratio_text
from velollm_core.report.html.markup import document, tag
from velollm_core.report.html.page import apart_to_html, comparison_to_html, to_html
from velollm_core.report.html.scales import linear
from velollm_core.report.html.svg import grid_y
from velollm_core.report.tables import tables
from velollm_core.report.wording import header, legend, note_lines

EVERY = ["three_concurrencies", "one_launch", "with_failures", "silent_server", "two_arms"]
HOSTILE = "</script></title></style><img src=x onerror=alert(1)>&amp;\"'<!--"


@pytest.fixture(params=EVERY)
def each(request):
    return request.getfixturevalue(request.param)


def test_a_page_is_one_file_that_loads_and_runs_nothing(each, versus, pages):
    for result in (each, versus()):
        page = to_html(result)
        root = pages.read(page)
        assert page.startswith("<!doctype html>\n")
        assert not [one for one in root.iter() if one.tag in {"script", "img", "iframe", "object"}]
        links = [one.get(name) for one in root.iter() for name in ("src", "href") if one.get(name)]
        assert links == ["data:,"]
        assert not re.search(r"url\(|@import|https?:", page)
        assert not [name for one in root.iter() for name in one.attrib if name.startswith("on")]


def test_a_page_says_what_the_other_reports_say(each, pages):
    root, rows = pages.read(to_html(each)), summarize(each)
    text = pages.words(root)
    for line in (
        *(part for pair in header(each) for part in pair),
        *note_lines(each, rows, notes(each, rows)),
        legend(rows),
    ):
        assert line in text
    for table in tables(rows):
        shown = pages.cells(root, table.title)
        assert shown[0] == [heading.strip() for heading in table.headings]
        assert shown[1:] == [list(row) for row in table.rows]


def test_a_verdict_stands_first_with_its_ratio_drawn_and_in_figures(versus, pages):
    result = versus()
    (row,) = result.comparisons
    root = pages.read(to_html(result))
    assert pages.titles(root)[0] == "Verdict"
    verdict = pages.section(root, "Verdict")
    (headline,) = [one for one in verdict.iter("p") if "headline" in pages.classes(one)]
    assert "".join(headline.itertext()) == f"▲ faster{ratio_text(row)} times the speed"
    assert pages.marks(verdict) == [ratio_text(row)]
    assert [row.verdict.value, ratio_text(row)] == pages.cells(root, comparison_table([row]).title)[
        1
    ][2:4]
    assert row.why in pages.words(verdict)


def test_the_ratio_s_interval_the_margin_and_1_are_in_the_order_of_their_values(versus, pages):
    root = pages.read(to_html(versus()))
    strip = next(one for one in pages.section(root, "Verdict").iter("svg"))
    (one,) = [float(line.get("x1")) for line in strip.iter("line") if "one" in pages.classes(line)]
    (margin,) = [box for box in strip.iter("rect") if "margin" in pages.classes(box)]
    left = float(margin.get("x"))
    right = left + float(margin.get("width"))
    assert one == pytest.approx((left + right) / 2, abs=0.1)
    whiskers = [line for line in strip.iter("line") if "whisker" in pages.classes(line)]
    low = min(float(line.get("x1")) for line in whiskers)
    assert left < one < right < low


def test_many_verdicts_are_counted_and_each_has_its_line_and_its_pairs(versus, pages):
    result = versus(cells=[("short", 1), ("short", 4), ("code", 1)], factor=0.9)
    root = pages.read(to_html(result))
    (headline,) = [
        one for one in pages.section(root, "Verdicts").iter("p") if "headline" in pages.classes(one)
    ]
    assert "".join(headline.itertext()) == "▲ faster: 3"
    assert pages.marks(pages.section(root, "Verdicts")) == [
        ratio_text(row) for row in result.comparisons
    ]
    assert len(list(pages.section(root, "Pairs in the order of time").iter("figure"))) == 3


def test_every_pair_is_drawn_in_the_order_of_time_and_a_lost_block_is_seen(versus, pages):
    result = versus(lost=[4])
    (row,) = result.comparisons
    assert (len(row.pairs), row.dropped) == (11, 1)
    pairs = pages.section(pages.read(to_html(result)), "Pairs in the order of time")
    told = pages.marks(pairs)
    ratios = {f"block {pair.block + 1}: {pair_ratio(row, pair):.3f}" for pair in row.pairs}
    assert ratios <= set(told)
    assert "block 5, new: crash" in told
    assert len([one for one in told if ", now: " in one]) == 12
    assert len([one for one in told if one.startswith("block 5, now: ")]) == 1
    hollow = [group for group in pairs.iter("g") if "hollow" in pages.classes(group)]
    assert pages.marks(pairs).count(hollow[0].find("title").text) == len(hollow) == 1
    stems = [float(one.get("x1")) for one in pairs.iter("line") if "stem" in pages.classes(one)]
    assert len(stems) == 11
    assert stems == sorted(stems)


def test_blocks_without_any_pair_say_why(versus, pages):
    result = versus(pairs=3, lost=[0, 1, 2])
    root = pages.read(to_html(result))
    assert "? inconclusive" in pages.words(pages.section(root, "Verdict"))
    assert result.comparisons[0].why in pages.words(root)
    assert pages.marks(pages.section(root, "Verdict")) == []
    crosses = [
        one
        for one in pages.marks(pages.section(root, "Pairs in the order of time"))
        if "crash" in one
    ]
    assert len(crosses) == 3


def test_a_plain_result_begins_with_the_rate_of_one_answer(three_concurrencies, one_launch, pages):
    root = pages.read(to_html(three_concurrencies))
    assert pages.titles(root)[0] == "Speed of one answer"
    tiles = [one for one in root.iter("div") if "tile" in pages.classes(one)]
    assert ["".join(tile.find("p").itertext()) for tile in tiles] == [
        "short, 1 client",
        "summarize, 1 client",
    ]
    assert "125.0 tok/s [121.1, 128.9]" in pages.words(tiles[0])
    (tile,) = [
        one for one in pages.read(to_html(one_launch)).iter("div") if "tile" in pages.classes(one)
    ]
    assert "".join(tile.itertext()) == "short, 1 client100.0 tok/s first token 50.0 ms"


def test_several_concurrencies_have_a_chart_of_speed_with_intervals(three_concurrencies, pages):
    chart = pages.section(pages.read(to_html(three_concurrencies)), "More clients at once")
    assert [one.text for one in chart.iter("h3")] == [
        "Speed of all clients together, tok/s",
        "Time to first token, median, ms",
    ]
    row = summarize(three_concurrencies)[1]
    told = f"current, 4 clients: {row.output_tok_s.value:.1f} ["
    assert len([one for one in pages.marks(chart) if one.startswith(told)]) == 2  # of two workloads
    assert [one for one in chart.iter("line") if "whisker" in pages.classes(one)]


def test_one_concurrency_and_one_launch_have_no_chart_over_them(one_launch, pages):
    assert pages.titles(pages.read(to_html(one_launch))) == [
        "Speed of one answer",
        "What was measured",
        "Latency of all requests",
        "Figures",
        "Notes",
    ]


def test_the_distribution_is_of_all_requests_of_each_arm(versus, pages):
    chart = pages.section(pages.read(to_html(versus())), "Latency of all requests")
    labels = [one.get("aria-label") for one in chart.iter("svg") if one.get("aria-label")]
    assert len(labels) == 2
    assert all("now, 72 requests: 50 % within" in label for label in labels)
    curves = [one for one in chart.iter("polyline") if "curve" in pages.classes(one)]
    assert len(curves) == 4
    for curve in curves:
        ends = [tuple(map(float, point.split(","))) for point in curve.get("points").split()]
        assert ends == sorted(ends, key=lambda end: (end[0], -end[1]))


def test_what_a_server_does_not_tell_has_no_chart(silent_server, pages):
    root = pages.read(to_html(silent_server))
    assert "Speed of one answer" not in pages.titles(root)
    assert "Latency of all requests" in pages.titles(root)


def test_charts_are_told_to_who_cannot_see_them(versus, three_concurrencies, pages):
    for result in (versus(), three_concurrencies):
        root = pages.read(to_html(result))
        charts = [one for one in root.iter("svg") if one.get("aria-hidden") != "true"]
        assert len(charts) > 3
        assert all(one.get("role") == "img" and len(one.get("aria-label")) > 10 for one in charts)
        assert all(one.find("caption") is not None for one in root.iter("table"))
        assert next(one.tag for one in root.iter() if one.tag in {"h1", "h2"}) == "h1"


def test_names_are_text_whatever_they_hold(versus, build, pages):
    result = versus(names=(HOSTILE, "\x1b[31mred\x00\u202e\u2028\x9b"), cells=[(HOSTILE, 1)])
    arms = tuple(evolve(arm, model=evolve(arm.model, name=HOSTILE)) for arm in result.arms)
    page = to_html(evolve(result, arms=arms, notes=(HOSTILE, "\ud800")))
    root = pages.read(page)
    assert not {"img", "script"} & {one.tag for one in root.iter()}
    assert HOSTILE in root.find("head/title").text
    assert pages.words(root).count(HOSTILE) > 10
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800]", page)
    assert r"\u202e" in page


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1_000_000.0, 1_500_000.0], ["1000k", "1200k", "1400k"]),
        ([0.0, 2_500_000.0], ["0", "1000k", "2000k"]),
        ([0.0, 80_000.0], ["0", "20000", "40000", "60000", "80000"]),
    ],
)
def test_no_label_beside_an_axis_runs_out_of_the_chart(values, labels):
    drawn = [one for one in grid_y(linear(values, 100, 0), 44, 346) if one.tag == "text"]
    assert [one.text for one in drawn] == labels


def test_a_label_that_cannot_be_shortened_is_squeezed():
    drawn = [one for one in grid_y(linear([12345.6, 12345.9], 100, 0), 44, 346) if one.text]
    assert all(float(one.get("textLength")) <= 38 for one in drawn)


def test_nothing_is_drawn_at_a_place_that_is_no_number():
    with pytest.raises(ValueError, match="nothing can be drawn at nan"):
        tag("circle", cx=float("nan"))
    assert document(tag("html", tag("p", "a", tag("b", "c"), "d"))) == (
        "<!doctype html>\n<html><p>a<b>c</b>d</p></html>\n"
    )


def test_forty_pairs_of_thirty_comparisons_stay_a_page_that_opens(versus):
    cells = [(f"w{k}", clients) for k in range(6) for clients in (1, 2, 4, 8, 16)]
    page = to_html(versus(pairs=40, cells=cells))
    assert page.count("<figure>") == 30 + 12 + 60
    assert len(page) < 3_000_000


def test_a_run_without_a_single_answer_is_a_page_too(build, pages):
    page = to_html(build.result([], arms=(build.arm(),), complete=False))
    assert "the run was cut short" in page
    assert pages.titles(pages.read(page)) == ["What was measured", "Notes"]


def test_a_comparison_alone_leaves_out_the_figures_of_each_arm(versus, pages):
    assert pages.titles(pages.read(comparison_to_html(versus()))) == [
        "Verdict",
        "What was measured",
        "Pairs in the order of time",
        "Notes",
    ]


def test_two_results_recorded_apart_are_told_apart_or_not_and_never_faster(
    three_concurrencies, pages
):
    other = evolve(three_concurrencies, run="other")
    sides = [Side(result, result.arms[0]) for result in (three_concurrencies, other)]
    rows = compare_apart(*sides, "output_tok_s")
    answer = ApartResult(
        first=three_concurrencies.run,
        second="other",
        rows=rows,
        differences=("they come from different machines: a and b",),
        decider="To decide: velollm bench --ab threads=2",
    )
    root = pages.read(apart_to_html(answer))
    text = pages.words(root)
    assert "To decide: velollm bench --ab threads=2" in text
    assert "they come from different machines" in text
    assert pages.cells(root, apart_table(rows).title)[1:] == [
        list(row) for row in apart_table(rows).rows
    ]
    assert "not distinguishable" in text
    assert "faster" not in text


def test_a_page_is_the_same_from_a_document_as_from_the_run(versus):
    result = versus()
    again = loads(dumps("benchmark", 1, result), "benchmark", 1, BenchmarkResult, "a.json")
    assert to_html(again) == to_html(result)


def test_a_written_result_is_shown_as_a_page_on_standard_output(versus, velollm, tmp_path):
    result = versus()
    (tmp_path / "ab.json").write_text(dumps("benchmark", 1, result), encoding="utf-8")
    done = velollm("compare", "ab.json", "--format", "html")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == comparison_to_html(result)
