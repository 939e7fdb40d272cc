"""``bench --ab`` on a real engine and model."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
EMBEDDED = ("--backend", "llamacpp", "-X", "engine=embedded", "--model", "demo")
SHORT = ("--force", "--workload", "short", "--requests", "1", "--max-tokens", "12")


def test_two_configurations_take_turns_and_the_file_holds_the_answer(velollm, tmp_path):
    done = velollm(
        *EMBEDDED, "bench", "--ab", "threads=1", "--launches", "6", *SHORT, "-o", "ab.json",
        timeout=280,
    )  # fmt: skip
    assert done.returncode in {0, 4}, done.stderr
    for words in ("Changed against current", "settings of changed", "threads=1 (--ab)"):
        assert words in done.stdout
    assert "so far short x1" in done.stderr
    result = json.loads((tmp_path / "ab.json").read_text())
    assert result["question"] == {
        "baseline": "current", "metric": "output_tok_s", "margin": 0.02, "confidence": 0.95,
    }  # fmt: skip
    orders = [
        [trial["arm"] for trial in result["trials"] if trial["block"] == block]
        for block in range(6)
    ]
    assert all(sorted(order) == ["changed", "current"] for order in orders)
    assert len({tuple(order) for order in orders}) == 2
    assert {trial["effective"]["threads"] for trial in result["trials"]} == {1, 2}
    prompts = [
        {sample["prompt_sha256"] for phase in trial["phases"] for sample in phase["samples"]}
        for trial in result["trials"]
    ]
    assert prompts[0] == prompts[1]
    (row,) = result["comparisons"]
    assert [pair["block"] for pair in row["pairs"]] == list(range(6))
    assert row["low"] < row["speed_ratio"] < row["high"]
    assert row["agreement"] == 1.0
    again = velollm("compare", "ab.json")
    assert again.returncode == done.returncode
    assert row["verdict"] in again.stdout
    longer = velollm(
        *EMBEDDED, "bench", "--ab", "threads=1", "--launches", "7", *SHORT,
        "--resume", result["run"],
    )  # fmt: skip
    assert longer.returncode == 2
    assert "number of launches" in longer.stderr


def test_nothing_changed_is_named_as_such(velollm):
    done = velollm(
        *EMBEDDED, "bench", "--ab", "same", "--launches", "1", *SHORT, "--json", timeout=280
    )
    assert done.returncode == 4, done.stderr
    assert "A/A" in done.stderr
    (row,) = json.loads(done.stdout)["comparisons"]
    assert (row["changed"], row["verdict"]) == ("again", "inconclusive")
    assert row["because"] == "too few pairs"


def test_own_settings_are_held_against_the_engines_defaults(velollm):
    done = velollm(
        *EMBEDDED, "bench", "--baseline", "--ab", "current", "--launches", "1", *SHORT, "--json",
        env={"LLAMA_ARG_THREADS": "1"}, timeout=280,
    )  # fmt: skip
    arms = {arm["name"]: arm for arm in json.loads(done.stdout)["arms"]}
    assert arms["current"]["config"]["threads"] == 1
    assert arms["defaults"]["config"]["threads"] != 1
    assert "LLAMA_ARG_THREADS" in str(arms["defaults"]["left_out"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("speed=11", "no knob 'speed'"),
        ("threads", "--ab 'threads' is not of the form KNOB=VALUE"),
        ("threads=many", "threads cannot be 'many'"),
        ("current", "Add --baseline"),
        ("flash_attention=off,cache_type_v=q8_0", "needs flash_attention"),
    ],
)
def test_a_change_that_cannot_be_is_refused_before_anything_starts(velollm, change, told):
    done = velollm(*EMBEDDED, "bench", "--ab", change, *SHORT)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_knob_without_effect_is_warned_of(velollm):
    done = velollm(
        *EMBEDDED, "bench", "--ab", "ngram_mod_n_max=70", "--launches", "1", *SHORT, timeout=280
    )
    assert "ngram_mod_n_max has no effect unless" in done.stderr
