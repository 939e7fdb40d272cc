"""One plan out of many suggestions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import evolve

from velollm_core import documents
from velollm_core.backends.advice import AdviceContext
from velollm_core.backends.contract import Footprint, Installation
from velollm_core.config import (
    Choices,
    Condition,
    Config,
    Kept,
    Knob,
    Problem,
    Range,
    Role,
    Settings,
    Suggestion,
    problems,
)
from velollm_core.errors import DocumentError
from velollm_core.models.spec import Model
from velollm_core.optimize.outcome import File, Outcome
from velollm_core.optimize.plan import plan
from velollm_core.optimize.spec import KIND, MAJOR, Plan, settings_of

KNOBS = (
    Knob(name="a", role=Role.OTHER, domain=Range(0, 9), summary="", source="", unit="tokens"),
    Knob(name="b", role=Role.OTHER, domain=Range(0, 9), summary="", source=""),
    Knob(name="mode", role=Role.OTHER, domain=Choices(("off", "on")), summary="", source=""),
    Knob(
        name="length",
        role=Role.OTHER,
        domain=Range(0, 9),
        summary="",
        source="",
        active_when=Condition("mode", ("on",)),
    ),
)
NOW = Config({"a": 1, "b": 1, "mode": "off", "length": 1})


def suggestion(reason="Because.", **assignments):
    more = {key: assignments.pop(key) for key in ("experimental",) if key in assignments}
    return Suggestion(
        assignments=Config(assignments), reason=reason, effect="Better.", source="test", **more
    )


@pytest.fixture
def context(profiles):
    return AdviceContext(
        hardware=profiles.machines["laptop-8gb"],
        backend="made-up",
        installation=Installation(backend="made-up", kind="binary", location="x", version="2"),
        model=Model(reference="/home/somebody/model.gguf", served_name="model"),
        knobs=KNOBS,
        defaults=Settings(config=NOW),
        current=Settings(config=NOW, origins={"a": "environment A"}),
    )


def made(context, *offered, check=None):
    return plan(context, offered, check=check or (lambda config: problems(context.knobs, config)))


def test_a_proposal_says_what_is_where_it_comes_from_and_what_is_proposed(context):
    (entry,) = made(context, suggestion(a=2)).proposals
    (move,) = entry.moves
    assert (move.knob, move.current, move.proposed) == ("a", 1, 2)
    assert (move.origin, move.unit) == ("environment A", "tokens")
    assert (entry.reason, entry.effect, entry.source) == ("Because.", "Better.", "test")
    assert entry.confidence == "medium"


def test_who_speaks_first_of_a_knob_is_heard_and_the_other_is_noted(context):
    found = made(context, suggestion(a=2), suggestion("Else.", a=3, b=3), suggestion(b=4))
    assert dict(found.changes) == {"a": 2, "b": 4}
    (dropped,) = found.withdrawn
    assert dict(dropped.assignments) == {"a": 3, "b": 3}
    assert "a is to be 2" in dropped.reason


def test_the_same_proposal_twice_is_made_once(context):
    found = made(context, suggestion(a=2), suggestion(a=2), suggestion(a=2, b=2))
    assert dict(found.changes) == {"a": 2, "b": 2}
    assert found.withdrawn == ()
    assert [len(entry.moves) for entry in found.proposals] == [1, 1]


def test_what_is_in_force_already_is_not_proposed(context):
    found = made(context, suggestion(a=1))
    assert found.proposals == ()
    assert [(entry.knobs, entry.reason) for entry in found.kept] == [(("a",), "It is 1 already.")]


def test_what_is_in_force_is_still_relied_on(context):
    found = made(context, suggestion(a=1), suggestion(a=5))
    assert found.proposals == ()
    assert dict(found.withdrawn[0].assignments) == {"a": 5}


def test_what_belongs_together_is_set_together_though_a_part_of_it_is_so_already(context):
    found = made(context, suggestion(a=2, b=1))
    assert dict(settings_of(found).config) == {"a": 2, "b": 1}


def test_an_unknown_knob_and_a_value_out_of_its_domain_are_noted_and_left_out(context):
    found = made(context, suggestion(c=2), suggestion(a=70), suggestion(b=2))
    assert dict(found.changes) == {"b": 2}
    assert [entry.reason for entry in found.withdrawn] == [
        "This engine has no knob c.",
        "A cannot be 70; it takes 0..9.",
    ]


def test_what_the_backend_refuses_together_is_not_proposed_together(context):
    def check(config):
        both = config["a"] == 2 and config["b"] == 2
        return (Problem("a", "a and b cannot both be 2"),) if both else ()

    found = made(context, suggestion(a=2), suggestion(b=2), check=check)
    assert dict(found.changes) == {"a": 2}
    assert found.withdrawn[0].reason == "A and b cannot both be 2."


def test_a_fault_that_is_there_already_is_no_reason_against_something_else(context):
    found = made(context, suggestion(b=2), check=lambda _: (Problem("a", "a is wrong"),))
    assert dict(found.changes) == {"b": 2}


def test_what_means_nothing_under_the_rest_of_the_plan_is_withdrawn(context):
    found = made(context, suggestion(length=4))
    assert found.proposals == ()
    assert "length has no effect" in found.withdrawn[0].reason
    assert dict(made(context, suggestion(mode="on"), suggestion(length=4)).changes) == {
        "length": 4,
        "mode": "on",
    }


def test_experimental_settings_are_for_who_asks_for_them(context):
    found = made(context, suggestion(a=2, experimental=True))
    assert found.proposals == ()
    assert "--experimental" in found.withdrawn[0].reason
    asked = made(evolve(context, experimental=True), suggestion(a=2, experimental=True))
    assert dict(asked.changes) == {"a": 2}
    assert asked.proposals[0].experimental


def test_what_is_left_alone_is_told_once_and_not_of_what_is_changed(context):
    found = made(
        context,
        Kept(knobs=("a", "b"), reason="Right."),
        Kept(knobs=("b", "mode", "strange"), reason="Later."),
        suggestion(a=2),
    )
    assert [(entry.knobs, entry.reason) for entry in found.kept] == [
        (("b",), "Right."),
        (("mode",), "Later."),
    ]


def test_the_settings_to_write_are_those_that_the_plan_changes_and_no_others(context):
    settings = settings_of(made(context, suggestion(a=2), suggestion(b=1)))
    assert dict(settings.config) == {"a": 2}
    assert settings.origins == {"a": "velollm optimize"}
    assert settings.extra_args == ()


def test_the_document_is_that_of_the_outcome_and_stays_readable(context):
    """As one was written: what reads and writes it elsewhere breaks where this does."""
    kept = Kept(knobs=("mode",), reason="Right.")
    found = made(context, suggestion(a=2, b=2), suggestion(c=1), kept)
    found = evolve(found, velollm_version="0.1.0")
    outcome = Outcome(plan=found, files=(File(path="~/x", summary="new", written=True),))
    written = (Path(__file__).parent / "optimize-1.json").read_text(encoding="utf-8")
    assert json.loads(written) == json.loads(documents.dumps(KIND, MAJOR, outcome))
    assert documents.loads(written, KIND, MAJOR, Outcome, "here") == outcome
    with pytest.raises(DocumentError):
        documents.loads(written, KIND, MAJOR, Plan, "here")
    assert "somebody" not in written


def test_a_setting_that_some_versions_alone_have_is_for_who_asks_for_it_and_marked(context):
    knobs = (evolve(KNOBS[0], experimental=True), *KNOBS[1:])
    found = made(evolve(context, knobs=knobs), suggestion(a=2))
    assert found.proposals == ()
    assert "--experimental" in found.withdrawn[0].reason
    asked = made(evolve(context, knobs=knobs, experimental=True), suggestion(a=2))
    assert asked.proposals[0].experimental


def heavy(profiles, machine, **gib):
    """A context in which the knobs a and b take so many GiB a step, by the backend's estimate."""
    case = profiles.advice(machine, "small")

    def footprint(config):
        return Footprint(host_bytes=sum(int(config.get(k, 0) * n * 2**30) for k, n in gib.items()))

    settings = Settings(config=case.context.current.config | {"a": 1, "b": 1})
    return evolve(
        case.context,
        knobs=(*case.context.knobs, *KNOBS[:2]),
        current=settings,
        defaults=settings,
        footprint=footprint,
    )


def without_prompts(context):
    """A prompt cache of that size is no part of what is tested."""
    return evolve(
        context,
        knobs=tuple(knob for knob in context.knobs if knob.role is not Role.PROMPT_CACHE),
    )


def test_of_what_does_not_fit_together_the_heaviest_is_withdrawn(profiles):
    context = without_prompts(heavy(profiles, "laptop-8gb", a=0.4, b=1.0))
    found = plan(context, (suggestion(a=2), suggestion(b=6)), check=lambda _: ())
    assert dict(found.changes) == {"a": 2}
    (dropped,) = found.withdrawn
    assert dict(dropped.assignments) == {"b": 6}
    assert "more than this process may use" in dropped.reason
    assert all(room.planned_bytes <= room.usable_bytes for room in found.rooms)


def test_where_nothing_that_is_proposed_makes_it_fit_the_plan_says_so(profiles):
    context = without_prompts(heavy(profiles, "laptop-8gb", a=9.0))
    found = plan(context, (suggestion(b=2),), check=lambda _: ())
    assert found.proposals == ()
    assert "GiB of main memory" in found.obstacle


def test_a_suggestion_that_frees_memory_is_kept_while_a_heavy_one_goes(profiles):
    context = without_prompts(heavy(profiles, "laptop-8gb", a=1.0, b=1.0))
    context = evolve(context, current=Settings(config=context.current.config | {"a": 3}))
    found = plan(context, (suggestion(a=1), suggestion(b=8)), check=lambda _: ())
    assert dict(found.changes) == {"a": 1}
