"""A plan in words: what is proposed and why, what was left alone and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.config import show
from velollm_core.optimize.spec import Move, Plan, Proposal, Room
from velollm_core.optimize.words import requirements, size
from velollm_core.report.drawing import GAP, labelled, plain
from velollm_core.report.markup import bullets, escape

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

_KEEP = "Keep what you have: nothing that was looked at is worth a change."


@frozen
class _Part:
    """A heading of any number of lines, and what stands below it."""

    heading: tuple[str, ...]
    lines: tuple[tuple[str, str], ...] = ()


def to_terminal(plan: Plan) -> RenderableType:
    """``plan`` for a terminal of any width. Nothing in it depends on colour."""
    return _Report(plan)


def to_markdown(plan: Plan) -> str:
    """``plan`` as Markdown."""
    blocks = []
    for part in _parts(plan):
        heading = [f"**{escape(', '.join(part.heading))}**"] if part.heading else []
        blocks += [*heading, *([bullets(part.lines)] if part.lines else [])]
    return "\n\n".join(blocks) + "\n"


@frozen
class _Report:
    plan: Plan

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterable[RenderableType]:
        del console, options
        from rich.padding import Padding

        for number, part in enumerate(_parts(self.plan)):
            if number:
                yield ""
            if part.heading:
                yield plain("\n".join(part.heading), "bold")
            if part.lines:
                yield Padding(labelled(part.lines), (0, 0, 0, GAP if part.heading else 0))


def _parts(plan: Plan) -> Iterator[_Part]:
    yield _Part((), tuple(_header(plan)))
    if plan.obstacle is not None:
        yield _Part((plan.obstacle,))
    elif not plan.proposals:
        yield _Part((_KEEP,))
    for proposal in plan.proposals:
        yield _Part(_title(proposal.moves), tuple(_grounds(proposal)))
    if plan.kept:
        lines = ((", ".join(entry.knobs), entry.reason) for entry in plan.kept)
        yield _Part(("Left alone",), tuple(lines))
    if plan.withdrawn:
        lines = ((str(entry.assignments), entry.reason) for entry in plan.withdrawn)
        yield _Part(("Not proposed",), tuple(lines))
    if plan.left_out:
        lines = ((entry.name, f"{entry.reason} ({entry.origin})") for entry in plan.left_out)
        yield _Part(("Without effect here",), tuple(lines))
    if plan.rooms:
        yield _Part(("Memory",), tuple((room.name, _room(room)) for room in plan.rooms))


def _header(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "engine", f"{plan.backend} {plan.engine_version or ''}".strip()
    yield "model", plan.model
    least = requirements(plan.requirements)
    yield "goal", f"{plan.goal}; at least {least}" if least else plan.goal.value


def _title(moves: Sequence[Move]) -> tuple[str, ...]:
    """What changes, and what is said along with it because the engine might change it else."""
    moving = [_move(move) for move in moves if move.current != move.proposed]
    staying = [
        f"{move.knob} stays {show(move.proposed)}"
        for move in moves
        if move.current == move.proposed
    ]
    return (*moving, *staying)


def _move(move: Move) -> str:
    """``threads: 1 (environment LLAMA_ARG_THREADS) -> 2``."""
    unit = f" {move.unit}" if move.unit else ""
    before = "not known" if move.current is None else f"{show(move.current)}{unit}"
    origin = f" ({move.origin})" if move.origin else ""
    return f"{move.knob}: {before}{origin} -> {show(move.proposed)}{unit}"


def _grounds(proposal: Proposal) -> Iterator[tuple[str, str]]:
    yield "why", proposal.reason
    yield "expect", f"{proposal.effect} ({proposal.confidence} confidence)"
    lossy = [move.knob for move in proposal.moves if move.numerics == "lossy"]
    if lossy:
        yield "beware", f"{', '.join(lossy)} can change what the model answers"
    if proposal.experimental:
        yield "beware", "experimental: verify its effect before you rely on it"
    yield "source", proposal.source


def _room(room: Room) -> str:
    now = "" if room.current_bytes is None else f"; now {size(room.current_bytes)}"
    return f"{size(room.planned_bytes)} of {size(room.usable_bytes)} that may be used{now}"
