"""The tables that all reports share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.experiment.summary import Estimate, summarize
from velollm_core.report.tables import EMPTY, Table, figure, split, tables


def cells(result, title):
    """The table of this title as one mapping from heading to cell for each row."""
    (table,) = [table for table in tables(summarize(result)) if table.title.startswith(title)]
    # The headings p95 and p99 come again for each metric; the first line of its own names them.
    names, metric = [], ""
    for heading in table.headings:
        metric = heading.split("\n")[0] if "\n" in heading else metric
        names.append(f"{metric} {heading}" if heading.startswith("p9") else heading.split("\n")[0])
    return [dict(zip(names, row, strict=True)) for row in table.rows]


def estimate(value, low=None, high=None):
    return Estimate(value=value, low=low, high=high, n=3, over="launch")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (estimate(127.34, 125.91, 128.77), "127.3 [125.9, 128.8]"),
        (estimate(1810.4, 1799.6, 1821.2), "1810 [1800, 1821]"),
        (estimate(7.904, 7.8, 8.006), "7.90 [7.80, 8.01]"),
        (estimate(0.0312, 0.03, 0.0324), "0.031 [0.030, 0.032]"),
        (estimate(127.34), "127.3"),
        (estimate(0.0), "0.000"),
        (None, EMPTY),
    ],
)
def test_a_figure_has_the_digits_that_its_size_makes_sense_of(value, text):
    assert figure(value) == text


def test_rows_name_workload_and_clients_and_give_median_interval_and_tail(three_concurrencies):
    rows = cells(three_concurrencies, "Latency")
    assert [(row["workload"], row["clients"]) for row in rows] == [
        (name, clients) for name in ("short", "summarize") for clients in "148"
    ]
    assert rows[0] == {
        "workload": "short",
        "clients": "1",
        "first token": "50.0 [50.0, 50.0]",
        "first token p95": "50.0 [50.0, 50.0]",
        "first token p99": "50.0",
        "between tokens": "8.00 [7.75, 8.25]",
        "between tokens p95": "8.0",
        "between tokens p99": "8.0",
        "whole answer": "523.0 [508.3, 537.7]",
        "whole answer p95": "528.9 [528.9, 528.9]",
        "whole answer p99": "528.9",
    }


def test_speeds_of_prefill_decode_and_all_clients_stand_apart(three_concurrencies):
    rows = cells(three_concurrencies, "Speed")
    assert rows[0]["prefill"] == "2500 [2500, 2500]"
    assert rows[0]["decode"] == "125.0 [121.1, 128.9]"
    assert [row["all clients"] for row in rows[:3]] == [
        "120.0 [120.0, 120.0]",
        "240.0 [240.0, 240.0]",
        "339.4 [339.4, 339.4]",
    ]


def test_runs_say_how_many_went_through_and_what_they_took(three_concurrencies, with_failures):
    assert cells(three_concurrencies, "Runs")[0] == {
        "workload": "short",
        "clients": "1",
        "launches": "3",
        "requests": "120",
        "prompt": "100",
        "answer": "60",
        "cached": "0",
        "load": "0.80",
        "memory": "300",
    }
    (row,) = cells(with_failures, "Runs")
    assert (row["launches"], row["requests"]) == ("2 (1 unfinished)", "7 (1 failed)")


def test_a_column_without_any_figure_is_left_out_and_a_missing_one_is_a_dash(silent_server, build):
    assert "prefill" not in str(tables(summarize(silent_server)))
    assert not [t for t in tables(summarize(silent_server)) if t.title.startswith("Speed")]
    phases = [
        build.phase([build.sample()]),
        build.phase([build.sample(timings=None)], "code"),
    ]
    rows = cells(build.result([build.trial(phases)]), "Speed")
    assert [row["prefill"] for row in rows] == ["2500", EMPTY]


def test_the_client_s_decode_rate_is_shown_where_it_adds_something(build, one_launch):
    assert "by the client" not in str(tables(summarize(one_launch)))
    phases = [build.phase([build.sample(timings=None)])]
    table = tables(summarize(build.result([build.trial(phases)])))[1]
    assert table.headings == ("workload", "clients", "decode\nby the client", "all clients")


def test_the_arm_is_named_where_there_are_several(two_arms, one_launch):
    assert tables(summarize(one_launch))[0].headings[0] == "workload"
    assert [row["arm"] for row in cells(two_arms, "Latency")] == ["defaults", "current"]


def test_a_result_without_trials_has_no_tables(build):
    assert tables(summarize(build.result([]))) == ()


@given(
    units=st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=3), min_size=1, max_size=8),
    width=st.integers(20, 120),
)
def test_a_split_table_fits_and_loses_nothing(units, width):
    sizes = [9, 7, *(size for unit in units for size in unit)]
    table = Table(
        title="t",
        headings=tuple(f"h{k}" for k in range(len(sizes))),
        rows=(tuple(chr(97 + k % 26) * size for k, size in enumerate(sizes)),),
        labels=2,
        units=tuple(map(len, units)),
    )
    parts = split(table, width, gap=2, label_width=24)
    assert [h for part in parts for h in part.headings[2:]] == list(table.headings[2:])
    assert [c for part in parts for c in part.rows[0][2:]] == list(table.rows[0][2:])
    assert [size for part in parts for size in part.units] == list(table.units)
    for part in parts:
        assert part.headings[:2] == table.headings[:2]
        line = "  ".join(
            "x" * max(len(h), len(c)) for h, c in zip(part.headings, part.rows[0], strict=True)
        )
        assert len(line) <= width or len(part.units) == 1
