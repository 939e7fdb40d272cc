"""Ollama's variables mean what Ollama makes of them, not what they look like."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from velollm_ollama.entries import ENTRIES
from velollm_ollama.knobs import BY_NAME
from velollm_ollama.values import cleaned, duration_s, read, written

from velollm_core.config import Choices


def test_spaces_and_then_quotes_around_a_value_do_not_count():
    assert cleaned("  \"'10m'\"\n") == "10m"
    assert read(BY_NAME["num_parallel"], ' "4" ').value == 4


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600),
        ("1h30m", 5400),
        ("24h", 86400),
        ("1.5h", 5400),
        (".5s", Decimal("0.5")),
        ("300ms", Decimal("0.3")),
        ("1h0.5s", Decimal("3600.5")),
        ("-1m", -60),
        ("+2s", 2),
        ("0", 0),
        ("3600", 3600),
        ("-1", -1),
        ("10", 10),
    ],
)
def test_durations_are_gos(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5 m", "m", "1.5", "1d", "1h 30m", "five", "--1s", "9e9h", "٣s"]
)
def test_what_is_no_duration_to_go_is_none(text):
    assert duration_s(text) is None


def test_a_duration_beyond_what_go_holds_is_none():
    assert duration_s("9999999999h") is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("-1", -1), ("-30m", -1), ("0", 0), ("0.2s", 1), ("90", 90)],
)
def test_a_model_is_kept_for_whole_seconds_or_for_ever(text, seconds):
    assert read(BY_NAME["keep_alive"], text).value == seconds


def test_what_is_longer_than_anybody_waits_is_the_longest():
    assert read(BY_NAME["keep_alive"], "876000h").value == 2**31
    assert read(BY_NAME["keep_alive"], "876000h").remark == ""


def test_what_ollama_takes_and_is_no_value_of_the_knob_is_not_taken_for_the_default():
    reading = read(BY_NAME["num_parallel"], "300")
    assert (reading.value, reading.foreign) == (None, True)
    assert read(BY_NAME["num_parallel"], "18446744073709551616").foreign is False


def test_a_load_may_take_for_ever():
    assert read(BY_NAME["load_timeout"], "-1").value == 0


@pytest.mark.parametrize("text", ["four", "4.0", "-1", "+4", "0x4", "4k", "1_000", "\uff19"])
def test_a_bad_number_is_the_default_and_that_is_said(text):
    reading = read(BY_NAME["num_parallel"], text)
    assert reading.value is None
    assert reading.remark == f"{text!r} is no number: the default 1 is taken"


def test_a_bad_duration_is_the_default_and_that_is_said():
    assert "is no duration: the default 300 is taken" in read(BY_NAME["keep_alive"], "1d").remark


def test_nothing_is_the_default_in_silence():
    assert read(BY_NAME["num_parallel"], " '' ") == read(BY_NAME["num_parallel"], "")
    assert read(BY_NAME["num_parallel"], "").remark == ""


def test_no_requests_at_a_time_are_one():
    assert read(BY_NAME["num_parallel"], "0").value == 1


@pytest.mark.parametrize(
    ("text", "value"), [("1", "on"), ("TRUE", "on"), ("t", "on"), ("0", "off"), ("False", "off")]
)
def test_booleans_are_gos(text, value):
    assert read(BY_NAME["flash_attention"], text).value == value
    assert read(BY_NAME["flash_attention"], text).remark == ""


@pytest.mark.parametrize("text", ["off", "no", "disabled", "fAlse"])
def test_what_is_no_boolean_to_go_turns_a_thing_on(text):
    reading = read(BY_NAME["flash_attention"], text)
    assert reading.value == "on"
    assert reading.remark == f"{text!r} is no boolean: it counts as true"
    assert read(BY_NAME["sched_spread"], text).value is True


def test_types_of_the_kv_cache_are_read_in_any_case():
    assert read(BY_NAME["kv_cache_type"], "Q8_0").value == "q8_0"
    assert "f16|q8_0|q4_0" in read(BY_NAME["kv_cache_type"], "q3").remark


def values_of(entry):
    domain = entry.knob.domain
    if isinstance(domain, Choices):
        return st.sampled_from(domain.values)
    return st.integers(domain.low, domain.high)


@given(st.data())
def test_what_is_written_is_read_back(data):
    for entry in ENTRIES:
        if entry.variable is None:
            continue
        value = data.draw(values_of(entry))
        told = read(entry, written(entry, value)).value
        assert told == value or (told is None and value == entry.knob.own_choice)
