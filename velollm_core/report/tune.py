"""A tune in the terminal and as Markdown: the answer first, then how it was come by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.report import tune_wording as words
from velollm_core.report.drawing import GAP, drawn, labelled, plain
from velollm_core.report.markdown import table_text
from velollm_core.report.markup import bullets, escape
from velollm_core.report.tables import Table
from velollm_core.tune.spec import TuneResult
from velollm_core.tune.standing import CONFIDENCE

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

_RACE = (
    "A ratio is the speed against what took part in every block, above 1 being faster, by all "
    f"trials of the search together, with its bounds ({CONFIDENCE * 100:g} % each). It proves "
    "nothing: that is the confirmation's, on fresh servers."
)


@frozen
class _Part:
    """A heading, which may be empty, then whatever there is of text, lines and a table."""

    heading: str = ""
    text: str = ""
    lines: tuple[tuple[str, str], ...] = ()
    table: Table | None = None
    items: tuple[str, ...] = ()


def to_terminal(result: TuneResult, profile: str = words.A_NAME) -> RenderableType:
    """``result`` for a terminal of any width. Nothing in it depends on colour.

    Args:
        result: a tune.
        profile: what its profile is called.
    """
    return _Report(result, profile)


def to_markdown(result: TuneResult, profile: str = words.A_NAME) -> str:
    """``result`` as Markdown; the arguments are those of :func:`to_terminal`."""
    blocks = []
    for part in _parts(result, profile):
        blocks += [f"**{escape(part.heading)}**"] if part.heading else []
        blocks += [escape(part.text)] if part.text else []
        blocks += [table_text(part.table)] if part.table else []
        blocks += [bullets(part.lines)] if part.lines else []
        blocks += ["\n".join(f"- {escape(item)}" for item in part.items)] if part.items else []
    return "\n\n".join(blocks) + "\n"


@frozen
class _Report:
    result: TuneResult
    profile: str

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterable[RenderableType]:
        del console
        from rich.padding import Padding

        for number, part in enumerate(_parts(self.result, self.profile)):
            if number and not (part.table and not part.heading):
                yield ""
            if part.heading:
                yield plain(part.heading, "bold")
            if part.text:
                yield plain(part.text)
            if part.table:
                yield from drawn(part.table, options.max_width)
            if part.lines:
                yield Padding(labelled(part.lines), (0, 0, 0, GAP if part.heading else 0))
            for item in part.items:
                yield Padding(plain(item), (0, 0, 0, GAP))


def _parts(result: TuneResult, profile: str) -> Iterator[_Part]:
    yield _Part(lines=words.header(result))
    yield _Part(heading=words.headline(result), text=result.why)
    answers = words.answer_table(result)
    if answers is not None:
        yield _Part(table=answers)
        yield _Part(lines=words.answer_lines(result))
    settings = words.settings_table(result)
    if settings is not None:
        yield _Part(table=settings)
    yield from _race(result)
    front = words.front_table(result)
    if front is not None:
        yield _Part(table=front)
    if result.untouched:
        yield _Part("Left alone", items=words.untouched_lines(result))
    time = words.spent_table(result)
    if time is not None:
        yield _Part(table=time)
    if result.notes:
        yield _Part("Notes", items=result.notes)
    following = words.next_lines(result, profile)
    if following:
        yield _Part("Next", items=following)


def _race(result: TuneResult) -> Iterator[_Part]:
    if not result.stages:
        return
    yield _Part("What was tried", text=_RACE)
    for stage in result.stages:
        yield _Part(
            words.stage_title(stage), words.stage_text(stage), lines=words.tried_lines(stage)
        )
