"""A benchmark as terminal table, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter

import pytest
from attrs import evolve
from rich.console import Console

from velollm_core.backends.contract import Mismatch
from velollm_core.config import Config
from velollm_core.documents import dumps, loads
from velollm_core.experiment.spec import BenchmarkResult
from velollm_core.hardware.spec import ContainerInfo, GpuInfo
from velollm_core.report.csv_ import to_csv
from velollm_core.report.markdown import to_markdown
from velollm_core.report.terminal import one_line, to_terminal

EVERY = ["three_concurrencies", "one_launch", "with_failures", "silent_server", "two_arms"]


def printed(result, width=80):
    """What a terminal without colours shows, lines without trailing blanks."""
    console = Console(width=width, file=io.StringIO(), color_system=None, highlight=False)
    console.print(to_terminal(result))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def titles(lines):
    return [line for line in lines if line in {"Latency, ms", "Speed, tokens a second", "Runs"}]


def parsed(result):
    return list(csv.DictReader(io.StringIO(to_csv(result))))


@pytest.fixture(params=EVERY)
def each(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_no_character_is_lost(each, width):
    lines = printed(each, width)
    assert max(map(len, lines)) <= width
    shown = Counter("".join(lines))
    wide = Counter("".join(printed(each, 1000)))
    assert all(shown[character] >= count for character, count in wide.items() if character != " ")


def test_a_terminal_of_80_columns_shows_whole_rows(one_launch, three_concurrencies):
    lines = printed(one_launch)
    assert titles(lines) == ["Latency, ms", "Speed, tokens a second", "Runs"]
    assert (
        "short           1         50.0  50.0            10.0  10.0         251.0  251.0" in lines
    )
    lines = printed(three_concurrencies)
    assert set(titles(lines)) == {"Latency, ms", "Speed, tokens a second", "Runs"}
    assert "short            1  50.0 [50.0, 50.0]  50.0 [50.0, 50.0]  50.0" in lines
    assert "summarize        4  32.0 [31.0, 33.0]  32.0  32.0" in lines


def test_a_wide_terminal_needs_three_tables(three_concurrencies):
    lines = printed(three_concurrencies, 160)
    assert titles(lines) == ["Latency, ms", "Speed, tokens a second", "Runs"]


def test_a_long_name_is_folded_not_cut(build):
    name = "prompts-of-the-night-shift-in-november-2026.jsonl"
    lines = printed(build.result([build.trial([build.phase([build.sample()], name)])]))
    position = lines.index(name[:24])
    assert lines[position + 1] == name[24:48]
    assert lines[position + 2].split() == [name[48:], "1", "50.0", "50.0", "10.0", "10.0"]


def test_the_header_says_what_was_measured_where_and_how(one_launch):
    assert printed(one_launch)[:5] == [
        "engine    llamacpp 6721 (a1b2c3d), binary",
        "model     demo: SmolLM2 135M Instruct, Q4_1, 135 M parameters, 94 MiB",
        "machine   Example 9000, 2 of 8 threads, 16.0 GiB, Debian 13",
        "settings  threads=2 (--set)",
        "run       20261124-200000-3fa9: 1 launch, seed 0, VeloLLM 0.1.0",
    ]


def test_the_header_names_gpus_container_and_further_flags(one_launch, build):
    gpu = GpuInfo(uuid="u", vendor="nvidia", name="Example X1", memory_total_bytes=80 << 30)
    shared = GpuInfo(uuid="v", vendor="apple", name="Example M", unified_memory=True)
    hardware = evolve(
        one_launch.hardware,
        gpus=(gpu, shared),
        container=ContainerInfo(kind="docker", evidence="/.dockerenv"),
    )
    arm = build.arm(config=Config(), extra_flags=("--jinja",))
    text = "\n".join(printed(evolve(one_launch, hardware=hardware, arms=(arm,)), 200))
    assert "Example X1 with 80 GiB, Example M, Debian 13, in docker" in text
    assert "settings  --jinja" in text


def test_settings_that_nobody_changed_are_the_engine_s_defaults(two_arms):
    text = "\n".join(printed(two_arms, 200))
    assert re.search(r"settings of defaults +the engine's defaults", text)
    assert re.search(r"settings of current +threads=2 \(--set\)", text)
    assert re.search(r"left out of current +--tools \(environment LLAMA_ARG_TOOLS\): it runs", text)
    assert text.count("SmolLM2") == 1


def test_a_model_that_cannot_be_read_and_a_running_server_are_named(silent_server):
    lines = printed(silent_server)
    assert "engine    openai, server, already running" in lines
    assert "model     some-model" in lines


def test_failures_stand_in_the_table_and_in_the_notes(with_failures):
    for text in ("\n".join(printed(with_failures, 160)), to_markdown(with_failures)):
        assert "2 (1 unfinished)" in text
        assert "7 (1 failed)" in text
        assert "1 of 3 launches failed (1 out of memory): cannot allocate 9 GiB" in text
        assert "1 of 8 requests failed (1 refused): the server said no" in text


def test_one_launch_says_that_there_is_no_interval(one_launch):
    lines = printed(one_launch)
    assert "note  one launch: no interval" in lines
    assert not re.search(r"\d \[", "\n".join(lines))


def test_blocks_on_one_server_are_not_called_launches(silent_server):
    text = "\n".join(printed(silent_server))
    assert "mean over blocks of each block's median" in text
    assert "no interval spans launches" in text


def test_a_note_on_all_rows_is_said_once_and_on_some_with_their_places(build):
    def launch(block, code_gap):
        return build.trial(
            [
                build.phase([build.sample(i, prompt_sha256=f"{name}{n}{i}", **changes)
                             for i in range(4)], name, n)
                for name, n, changes in [
                    ("short", 1, {}), ("short", 4, {}), ("code", 1, {"gap_ms": code_gap}),
                ]
            ],
            block,
            mismatches=(Mismatch("threads", 4, 2),),
        )  # fmt: skip

    text = to_markdown(build.result([launch(0, 8.0), launch(1, 12.0)], notes=("on battery",)))
    remarks = text.partition("**Notes**\n\n")[2].splitlines()
    assert remarks[:2] == ["- on battery", "- the engine ignored threads: expected 4, found 2"]
    assert [line[:21] for line in remarks if "unstable" in line] == ["- code x1: unstable: "]
    assert [line for line in remarks if "95th" in line] == [
        "- the 95th percentile of 8 requests is little more than their maximum"
    ]


def test_notes_of_several_arms_name_the_arm(two_arms):
    trials = tuple(
        evolve(trial, unverified=("mlock",)) if trial.arm == "current" else trial
        for trial in two_arms.trials
    )
    text = to_markdown(evolve(two_arms, trials=trials))
    assert "- current: the engine does not tell whether it took mlock" in text


def test_markdown_tables_are_whole(three_concurrencies):
    lines = to_markdown(three_concurrencies).splitlines()
    heading = lines.index("**Latency, ms**") + 2
    assert lines[heading] == (
        "| workload | clients | first token median | p95 | p99 | between tokens median | p95 | p99 "
        "| whole answer median | p95 | p99 |"
    )
    widths = {line.count("|") for line in lines[heading : heading + 8]}
    assert widths == {12}
    assert lines[heading + 2].startswith("| short | 1 | 50.0 [50.0, 50.0] | 50.0")


def test_markdown_does_not_break_on_names_with_bars(build):
    trial = build.trial([build.phase([build.sample()], "a|b*.txt")])
    assert "| a\\|b\\*.txt | 1 |" in to_markdown(build.result([trial]))


def test_csv_has_a_row_for_each_cell_with_units_in_the_names(three_concurrencies):
    rows = parsed(three_concurrencies)
    assert len(rows) == 6
    row = rows[2]
    assert (row["run"], row["arm"], row["workload"]) == ("20261124-200000-3fa9", "current", "short")
    assert (row["concurrency"], row["trials"], row["requests_ok"]) == ("8", "3", "120")
    assert row["over"] == "launch"
    assert float(row["token_gap_ms"]) == pytest.approx(64.0)
    assert float(row["token_gap_ms_low"]) < 64.0 < float(row["token_gap_ms_high"])
    assert row["token_gap_ms_n"] == "3"
    assert row["first_token_p95_ms_n"] == "120"
    assert row["peak_rss_bytes"] == str(300 << 20)
    assert row["energy_j_per_token"] == ""


def test_csv_leaves_empty_what_is_not_told(silent_server, one_launch):
    (row,) = parsed(silent_server)
    for name in ("prefill_tok_s", "decode_tok_s", "output_tok_s", "output_tokens", "load_ms"):
        assert row[name] == row[f"{name}_low"] == row[f"{name}_n"] == ""
    assert row["first_token_ms"] == "50.0"
    (row,) = parsed(one_launch)
    assert (row["decode_tok_s"], row["decode_tok_s_low"]) == ("100.0", "")


def test_one_line_gives_model_engine_and_rates(three_concurrencies, silent_server, two_arms):
    assert one_line(three_concurrencies) == (
        "demo on llamacpp: short 125, short x4 240, short x8 339, summarize 125, "
        "summarize x4 240, summarize x8 339 tok/s"
    )
    assert one_line(silent_server) == "some-model on openai: no rates"
    assert one_line(two_arms) == "demo on llamacpp (and 1 more): short 100 tok/s"


def test_a_run_without_a_single_answer_can_be_reported(build):
    empty = build.result([], arms=(build.arm(),), complete=False)
    text = "\n".join(printed(empty))
    assert "cut short" in text
    assert "note  the run was cut short" in text
    assert len(to_csv(empty).splitlines()) == 1
    assert to_markdown(empty).startswith("- **engine**")
    assert one_line(empty) == "demo on llamacpp: no rates"


def test_a_report_is_the_same_from_a_document_as_from_the_run(each):
    again = loads(dumps("benchmark", 1, each), "benchmark", 1, BenchmarkResult, "a.json")
    assert printed(again) == printed(each)
    assert to_csv(again) == to_csv(each)
    assert to_markdown(again) == to_markdown(each)
