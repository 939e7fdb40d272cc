"""A diagnosis for a terminal of any width. Nothing in it depends on colour."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.doctor.spec import Cost, Diagnosis, Examination, Finding

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

_GAP = 2


def to_terminal(diagnosis: Diagnosis, *, verbose: bool = False) -> RenderableType:
    """The findings, those that cost speed first, and what was looked at.

    Args:
        diagnosis: what came of the checks.
        verbose: list every check, and why one could not look.
    """
    return _Report(diagnosis, verbose)


def summary(diagnosis: Diagnosis) -> str:
    """The result in a sentence: ``14 checks, nothing found``."""
    checks = diagnosis.checks
    found = [finding for entry in checks for finding in entry.findings]
    speed = sum(finding.costs_speed for finding in found)
    unseen = sum(entry.unseen is not None for entry in checks)
    parts = [_count(len(checks) - unseen, "check")]
    if speed:
        parts.append(f"{_count(speed, 'finding')} that cost{'s' if speed == 1 else ''} speed")
    if len(found) > speed:
        parts.append(_count(len(found) - speed, "remark"))
    if not found:
        parts.append("nothing found")
    told = ", ".join(parts)
    if unseen:
        told += f"; {_count(unseen, 'more check')} could not look (-v says why)"
    return f"{told}."


@frozen
class _Report:
    diagnosis: Diagnosis
    verbose: bool

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterable[RenderableType]:
        del console, options
        found = [(entry, finding) for entry in self.diagnosis.checks for finding in entry.findings]
        for entry, finding in sorted(found, key=lambda pair: not pair[1].costs_speed):
            yield _finding(entry, finding)
            yield ""
        if self.verbose:
            yield _pairs((entry.code, _outcome(entry)) for entry in self.diagnosis.checks)
            yield ""
        if not found:
            yield "Nothing that was looked at holds this machine back."
        yield summary(self.diagnosis)


def _finding(entry: Examination, finding: Finding) -> RenderableType:
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    title = Text.assemble(
        ("costs speed: " if finding.costs_speed else "remark: ", "bold"),
        (finding.statement, "bold"),
        f" [{entry.code}]",
    )
    rows = _pairs(
        (
            ("seen", finding.evidence),
            ("cost", _cost(finding.cost)),
            ("do", finding.advice),
        )
    )
    return Group(title, Padding(rows, (0, 0, 0, _GAP)))


def _cost(cost: Cost) -> str:
    how = {
        "measured": f"measured here: {cost.source}",
        "cited": f"source: {cost.source}",
        "seen": "",
    }[cost.basis]
    return f"{cost.text} ({how})" if how else cost.text


def _outcome(entry: Examination) -> str:
    if entry.unseen is not None:
        return f"not looked at {entry.looks_at}: {entry.unseen}"
    return f"looked at {entry.looks_at}: {len(entry.findings) or 'nothing'} found"


def _pairs(pairs: Iterable[tuple[str, str]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, _GAP, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in pairs:
        grid.add_row(Text(label), Text(text))
    return grid


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
