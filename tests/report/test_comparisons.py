"""Comparisons in words, tables and CSV."""

from __future__ import annotations

import csv
import io
import re

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from velollm_core.experiment.apart import Apart, ApartResult
from velollm_core.experiment.spec import Pair
from velollm_core.report.comparisons import apart_lines, comparison_lines, ratio_text
from velollm_core.report.csv_ import comparison_to_csv, to_csv
from velollm_core.report.markdown import to_markdown
from velollm_core.report.terminal import to_terminal
from velollm_core.statistics import Verdict

CELLS = tuple((workload, clients) for workload in ("short", "code") for clients in (1, 4))
NUMBER = r"\d+\.\d+"


def parsed(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def ratio(versus):
    """A comparison, or two results apart where there is no margin, with this interval."""
    (row,) = versus().comparisons

    def make(low, high, margin):
        interval = {"speed_ratio": (low * high) ** 0.5, "low": low, "high": high}
        if margin is not None:
            return evolve(row, margin=margin, **interval)
        return Apart(
            workload="short",
            concurrency=1,
            metric="total_ms",
            answer="distinguishable",
            why="they differ",
            confidence=0.95,
            first_n=6,
            second_n=6,
            **interval,
        )

    return make


@pytest.mark.parametrize(
    ("low", "high", "margin", "text"),
    [
        (1.021, 1.084, 0.02, "1.052 [1.021, 1.084]"),
        (1.0003, 1.06, 0.02, "1.0297 [1.0003, 1.0600]"),
        (1.00004, 1.06, 0.02, "1.02958 [1.00004, 1.06000]"),
        (0.9, 0.99996, 0.02, "0.94866 [0.90000, 0.99996]"),
        (0.99, 1.0203, 0.02, "1.0050 [0.9900, 1.0203]"),
        (0.9803, 1.01, 0.02, "0.9950 [0.9803, 1.0100]"),
        (0.99, 1.0203, None, "1.005 [0.990, 1.020]"),
        (0.9997, 1.2, None, "1.0953 [0.9997, 1.2000]"),
        (1.0, 1.02, 0.02, "1.010 [1.000, 1.020]"),
        (1 / 1.02, 1.02, 0.02, "1.000 [0.980, 1.020]"),
        # Equal but for what floats add.
        (1 + 2e-16, 1 + 2e-16, 0.02, "1.000 [1.000, 1.000]"),
    ],
)
def test_an_interval_is_shown_with_the_digits_that_its_answer_needs(ratio, low, high, margin, text):
    assert ratio_text(ratio(low, high, margin)) == text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(low=st.floats(0.9, 1.1), width=st.floats(0, 0.2), margin=st.sampled_from([0.01, 0.02, None]))
def test_what_is_shown_lies_on_the_side_of_each_edge_that_the_verdict_saw(
    ratio, low, width, margin
):
    text = ratio_text(ratio(low, low + width, margin))
    shown = re.findall(NUMBER, text)
    assert len({len(number.partition(".")[2]) for number in shown}) == 1
    decimals = len(shown[0].partition(".")[2])
    assert 3 <= decimals <= 6
    for end, number in zip((low, low + width), shown[1:], strict=True):
        for edge in (1.0, *(() if margin is None else (1 / (1 + margin), 1 + margin))):
            if abs(end - edge) > 1e-6:
                assert (float(number) > round(edge, decimals)) == (end > edge)


def test_one_comparison_needs_no_place(versus):
    lines = comparison_lines(versus().comparisons)
    assert [label for label, _ in lines] == ["why", "pairs"]
    assert lines[0][1] == "faster: the whole interval is above 1"


def test_reasons_that_comparisons_share_are_said_once(versus):
    few = versus(pairs=3, cells=CELLS).comparisons
    lines = comparison_lines(few)
    assert [text for label, text in lines if label == "why"] == [f"inconclusive: {few[0].why}"]
    first, *others = versus(cells=CELLS).comparisons
    other = evolve(first, verdict=others[0].verdict, why="another reason")
    lines = comparison_lines([other, *others])
    assert [text for label, text in lines if label == "why"] == [
        "short x1: faster: another reason",
        "short x4, code x1, code x4: faster: the whole interval is above 1",
    ]
    assert [label for label, _ in lines if label.startswith("pairs")] == [
        "pairs short x1", "pairs short x4", "pairs code x1", "pairs code x4",
    ]  # fmt: skip


def test_what_would_settle_open_comparisons_is_said_once_for_each_number(versus):
    row, *_ = versus(pairs=6, factor=0.99).comparisons
    rows = [
        evolve(row, verdict=Verdict.INCONCLUSIVE, concurrency=clients, pairs_to_decide=pairs)
        for clients, pairs in ((1, 20), (2, 20), (4, 9), (8, None))
    ]
    assert [text for label, text in comparison_lines(rows) if label == "next"] == [
        "short x1, short x2: about 20 pairs would decide",
        "short x4: about 9 pairs would decide",
    ]


def test_reasons_of_several_arms_name_the_arm(versus):
    (row,) = versus().comparisons
    rows = [row, evolve(row, changed="third", why="another reason")]
    assert [text for label, text in comparison_lines(rows) if label == "why"] == [
        "new short x1: faster: the whole interval is above 1",
        "third short x1: faster: another reason",
    ]


def test_two_results_apart_say_a_shared_reason_once(ratio):
    rows = tuple(
        evolve(ratio(1.1, 1.2, None), workload=name, why=why)
        for name, why in (("short", "a"), ("code", "b"), ("chat", "a"))
    )
    answer = ApartResult(first="r1", second="r2", rows=rows, differences=("d",), decider="ab")
    assert apart_lines(answer) == (
        ("why", "short x1, chat x1: a"),
        ("why", "code x1: b"),
        ("differs", "d"),
        ("next", "ab"),
    )
    assert apart_lines(evolve(answer, rows=rows[:1]))[0] == ("why", "a")


def test_the_summary_as_csv_has_the_answer_in_the_rows_of_the_changed_arm(versus):
    result = versus(cells=CELLS, lost=(3,))
    rows = parsed(to_csv(result))
    assert len(rows) == 8
    for row in rows:
        answers = [
            answer
            for answer in result.comparisons
            if (answer.changed, answer.workload, str(answer.concurrency))
            == (row["arm"], row["workload"], row["concurrency"])
        ]
        names = ("verdict", "speed_ratio", "speed_ratio_low", "speed_ratio_high", "pairs")
        if row["arm"] == "now":
            assert [row[name] for name in names] == [""] * 5
            continue
        (answer,) = answers
        assert (row["verdict"], row["pairs"]) == (answer.verdict, "11")
        for name, value in zip(
            names[1:4], (answer.speed_ratio, answer.low, answer.high), strict=True
        ):
            assert float(row[name]) == pytest.approx(value, abs=1e-6)


def test_the_summary_as_csv_has_the_same_columns_without_a_question(one_launch):
    (row,) = parsed(to_csv(one_launch))
    assert row["verdict"] == row["speed_ratio"] == row["pairs"] == ""


def test_pairs_as_csv_are_rounded_as_all_figures_are(versus):
    result = versus()
    (answer,) = result.comparisons
    pairs = (Pair(block=0, baseline=1 / 3, changed=200 / 3),)
    (row,) = parsed(comparison_to_csv(evolve(result, comparisons=(evolve(answer, pairs=pairs),))))
    assert (row["pair_block"], row["pair_baseline"], row["pair_changed"]) == (
        "0", "0.333333", "66.666667",
    )  # fmt: skip


@pytest.fixture
def hostile(versus, build):
    """Control characters, markup and a line break in the name of all that has one."""
    name = "a\x1b]0;b\x07\x9b2Jc\r\u202e<img src=x>\ud800[d](e)\nf"
    result = versus(cells=((name, 1), ("code", 1)), names=("now", name))
    arms = tuple(evolve(arm, model=evolve(arm.model, name=name)) for arm in result.arms)
    return evolve(result, arms=arms, notes=(name,))


def test_no_control_character_reaches_a_terminal(hostile):
    console = Console(width=200, file=io.StringIO(), color_system=None)
    console.print(to_terminal(hostile))
    text = console.file.getvalue()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800]", text)
    assert r"a\x1b]0;b\x07\x9b2Jc\r\u202e<img src=x>\ud800[d](e)" in text


def test_markdown_shows_control_characters_and_has_no_markup_but_its_own(hostile):
    text = to_markdown(hostile)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800]", text)
    assert r"a\\x1b]0;b\\x07\\x9b2Jc\\r\\u202e\<img src=x>\\ud800[d]\(e) f" in text
    assert not re.search(r"(?<!\\)<", text)
    assert "](" not in text
    for line in text.splitlines():
        assert line == "" or re.match(r"\*\*|- |\|.*\|$|A figure is", line), line
