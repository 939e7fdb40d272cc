"""Knobs: what a user types is read in the knob's own domain, or refused with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.config import Choices, Condition, Config, Knob, Range, Role, inactive, problems
from velollm_core.errors import UsageError


def knob(domain, name="k", **more) -> Knob:
    return Knob(name=name, role=Role.OTHER, domain=domain, summary="a knob", source="test", **more)


@pytest.mark.parametrize(
    ("domain", "text", "value"),
    [
        (Range(1, 64), "8", 8),
        (Range(0.0, 1.0), "0.5", 0.5),
        (Range(0.0, 1.0), "1", 1.0),
        (Choices((True, False)), "on", True),
        (Choices((True, False)), "False", False),
        (Choices(("on", "off", "auto")), "on", "on"),
        (Choices((1, 2)), "2", 2),
        (Choices(("f16", "q8_0")), "q8_0", "q8_0"),
    ],
)
def test_text_becomes_the_value_of_the_domains_own_type(domain, text, value):
    parsed = knob(domain).parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("domain", "text"),
    [
        (Range(1, 64), "0"),
        (Range(1, 64), "8.5"),
        (Range(1, 64), "true"),
        (Range(0.0, 1.0), "5"),
        (Range(0.0, 1.0), "true"),
        (Range(0.0, 1.0), "nan"),
        (Range(0.0, 1.0), "inf"),
        (Range(0.0, 1.0), "9" * 400),
        (Range(1, 64), "9" * 400),
        (Choices((True, False)), "1"),
        (Choices(("f16",)), "f17"),
    ],
)
def test_what_lies_outside_is_refused_with_the_domain(domain, text):
    with pytest.raises(UsageError, match="cannot be") as caught:
        knob(domain).parse(text)
    assert str(domain) in caught.value.hint


@given(st.dictionaries(st.text(min_size=1), st.integers() | st.booleans() | st.text()))
def test_a_config_is_a_mapping_that_knows_no_order(values):
    config = Config(values)
    assert dict(config) == values
    assert config == Config(dict(reversed(values.items())))
    assert hash(config) == hash(Config(dict(reversed(values.items()))))
    assert (config | {"more": 1})["more"] == 1


def test_problems_name_unknown_knobs_and_values_outside():
    knobs = (knob(Range(1, 4), "threads"),)
    found = problems(knobs, Config({"threads": 9, "wings": 2}))
    assert {problem.knob for problem in found} == {"threads", "wings"}
    assert problems(knobs, Config({"threads": 2})) == ()


def test_a_knob_without_its_condition_means_nothing():
    knobs = (
        knob(Choices(("none", "ngram")), "kind"),
        knob(Range(1, 9), "length", active_when=Condition("kind", ("ngram",))),
    )
    assert inactive(knobs, Config({"kind": "none", "length": 3})) == ("length",)
    assert inactive(knobs, Config({"kind": "ngram", "length": 3})) == ()
