"""A tune in the terminal, as Markdown and as a page."""

from __future__ import annotations

import io
import re

import pytest
from attrs import evolve
from rich.console import Console

from velollm_core.config import Config
from velollm_core.documents import dumps, loads
from velollm_core.report.html.tune import to_html
from velollm_core.report.tune import to_markdown, to_terminal
from velollm_core.report.tune_wording import next_lines, spent, tried_lines
from velollm_core.tune.spec import KIND, MAJOR, Conclusion, Point, TuneResult

HOSTILE = "</script><img src=x onerror=alert(1)>|*_[bold]"


def printed(result, width=100, profile="mine"):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(to_terminal(result, profile))
    return console.export_text()


def flat(text):
    return " ".join(text.split())


@pytest.fixture(params=["tuned", "kept", "two_objectives", "stopped"])
def each(request):
    found = request.getfixturevalue(request.param)
    return found() if callable(found) else found


def test_every_form_tells_the_answer_the_race_and_what_was_left_alone(each, pages):
    said = flat(printed(each, 200))
    page = flat(pages.words(pages.read(to_html(each, "mine"))))
    for text in (said, page):
        assert each.why in text
        assert each.run in text
        for stage in each.stages:
            assert f"{stage.name}: {stage.summary}" in text
        for entry in each.untouched:
            assert entry.reason in text
        for note in each.notes:
            assert note in text
        for line in next_lines(each, "mine"):
            assert line in text


def test_what_is_faster_is_told_with_its_ratio_interval_and_pairs(tuned):
    result = tuned()
    row = result.answers[0].overall
    said = flat(printed(result))
    assert "Faster: threads=1,ubatch=256" in said
    interval = re.escape(f"{row.speed_ratio:.3f} [{row.low:.3f}, {row.high:.3f}]")
    assert re.search(rf"current faster {interval} 95.0 12", said)
    assert "Settings that differ (1 other is the same)" in said


def test_what_to_do_next_names_the_profile_and_never_one_that_is_not_there(tuned, kept):
    assert "velollm run --profile mine" in printed(tuned())
    assert "--profile" not in printed(kept)
    assert "Nothing has to be done. A longer --budget tries more." in flat(printed(kept))
    assert "longer" not in printed(evolve(kept, stages=kept.stages[:2]))


def test_defaults_that_are_faster_still_are_not_passed_over(tuned):
    assert "The engine's defaults are faster still" in printed(tuned(defaults_factor=1.2))
    assert "faster still" not in printed(tuned())


def test_a_tune_that_was_stopped_tells_how_to_go_on(tuned):
    result = tuned(complete=False, conclusion=Conclusion.OPEN, answers=(), changes=Config())
    assert f"--resume {result.run}" in printed(result)
    assert "cut short" in printed(result)


def test_candidates_are_told_with_their_fate_and_the_untried_together(tuned):
    lines = dict(tried_lines(evolve(tuned().stages[-1], incumbent=Config({"threads": 1}))))
    assert lines["ubatch=256"].startswith("leads, 1.020 [0.995, 1.045] over 6 blocks: ")
    assert lines["ubatch=2048"] == "failed (out of memory): cannot allocate 9 GiB"
    assert lines["ubatch=1024, threads as before"].startswith("undecided, 1.001 over 1 block: ")
    assert lines["not tried"] == "there was no time for it: ubatch=128"


def test_time_is_told_by_stage_and_adds_up_to_what_was_spent(tuned):
    result = tuned()
    assert sum(seconds for _, seconds in spent(result)) == pytest.approx(result.spent_s)
    assert spent(result)[-1][0] == "confirmation"


def test_only_a_confirmation_is_called_one(tuned, stopped):
    assert [name for name, _ in spent(stopped)] == ["baseline"]
    early = evolve(stopped, stages=())
    assert spent(early) == (("in no stage", 60.0),)
    in_proof = evolve(tuned(), complete=False, answers=(), changes=Config())
    assert spent(in_proof)[-1][0] == "confirmation"
    hopeless = evolve(early, complete=True)
    assert spent(hopeless) == (("in no stage", 60.0),)


@pytest.mark.parametrize("width", [40, 80, 160])
def test_no_line_is_wider_than_the_terminal(each, width):
    assert max(map(len, printed(each, width).splitlines())) <= width


def test_a_page_is_one_file_that_loads_and_runs_nothing(each, pages):
    hostile = evolve(
        each,
        why=HOSTILE,
        notes=(HOSTILE,),
        stages=tuple(evolve(stage, summary=HOSTILE) for stage in each.stages),
    )
    page = to_html(hostile, HOSTILE)
    root = pages.read(page)
    assert page.startswith("<!doctype html>\n")
    assert not [one for one in root.iter() if one.tag in {"script", "img", "iframe", "object"}]
    assert not re.search(r"url\(|@import|https?:", page)
    assert not [name for one in root.iter() for name in one.attrib if name.startswith("on")]
    assert not re.search(r"(?<!\\)<", to_markdown(hostile, HOSTILE))


def test_the_front_is_drawn_where_there_are_two_objectives(two_objectives, tuned, pages):
    titles = pages.titles(pages.read(to_html(two_objectives)))
    assert "Worth having" in titles
    assert "(chosen)" in printed(two_objectives)
    assert "Worth having" not in pages.titles(pages.read(to_html(tuned())))


def test_the_front_is_held_against_what_took_part_in_every_block(two_objectives, pages):
    slots = Config({"slots": 8})
    stages = tuple(evolve(stage, incumbent=slots) for stage in two_objectives.stages)
    required = evolve(two_objectives, stages=stages)
    for result, name in ((two_objectives, "what you have"), (required, "slots=8")):
        assert f"speed ratios against {name}, by what" in flat(printed(result, 200))
        page = flat(pages.words(pages.read(to_html(result))))
        assert f"speed ratios against {name}, by what" in page
        assert f"the lines are {name}, the filled mark" in page


def test_a_front_of_one_point_can_be_drawn(two_objectives):
    alone = evolve(
        two_objectives,
        front=(Point(changes=Config(), speed_ratios=(1.0, 1.0), blocks=3),),
    )
    assert "Worth having" in to_html(alone)


def test_a_document_comes_back_as_it_was_and_prints_the_same(each):
    again = loads(dumps(KIND, MAJOR, each), KIND, MAJOR, TuneResult, "here")
    assert again == each
    assert to_html(again) == to_html(each)
    assert to_markdown(again) == to_markdown(each)
