"""The files that ``velollm optimize --apply`` is about: shown, written, looked at again."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import unified_diff
from typing import TYPE_CHECKING

from velollm_core.backends.changes import Change, apply
from velollm_core.config import Config, show
from velollm_core.experiment.records import without_home
from velollm_core.optimize.outcome import File

if TYPE_CHECKING:
    from velollm_core.cli.choose import Chosen
    from velollm_core.cli.state import State


def write_changes(state: State, changes: Sequence[Change], *, dry_run: bool) -> tuple[File, ...]:
    """Write ``changes``, save what needs root; with ``dry_run`` write nothing.

    Raises:
        UsageError: a file cannot be written; nothing is changed.
        Unavailable: another velollm is changing files.
    """
    if dry_run:
        return tuple(_file(change, written=False) for change in changes)
    applied = apply(changes, state.undo_folder)
    if applied.recovered is not None:
        from velollm_core.cli.undo import lines

        told = "\n".join(lines(applied.recovered))
        state.output.warn(
            f"an earlier change that was cut short has been taken back first.\n{told}"
        )
    for change in applied.written:
        state.output.remark(f"written: {change.path} ({change.summary})")
    for change in applied.unchanged:
        state.output.remark(f"unchanged: {change.path} holds it already")
    if applied.written:
        state.output.remark("take it back with: velollm undo")
    return tuple(_file(change, written=change in applied.written) for change in changes)


def show_changes(state: State, changes: Sequence[Change], form: str, *, dry_run: bool) -> None:
    """On standard output, what would be written, what is left to the user, and what to do then."""
    shown = [change for change in changes if dry_run or change.needs_root]
    for change in shown:
        who = "needs root, so it is left to you" if change.needs_root else "would be written"
        difference = _difference(change)
        state.output.text(f"\n{change.path} ({change.summary}) {who}:\n")
        state.output.text(f"```diff\n{difference}```\n" if form == "markdown" else difference)
    commands = dict.fromkeys(command for change in changes for command in change.then)
    if commands:
        state.output.text("\nIt takes effect after:\n")
        lines = "".join(f"{command}\n" for command in commands)
        state.output.text(f"```\n{lines}```\n" if form == "markdown" else lines)


def tell_not_in_force(
    state: State, chosen: Chosen, changes: Sequence[Change], wanted: Config
) -> None:
    """Look whether what was written is what the engine would now use, and name what is not.

    Where the user has something to run or to write first, there is nothing to be seen yet.
    """
    if any(change.then or change.needs_root for change in changes):
        return
    now = chosen.backend.current(chosen.installation, chosen.model, state.environ)
    for name, value in wanted.items():
        if now.config.get(name) != value:
            origin = now.origins.get(name, "not known")
            present = show(now.config[name]) if name in now.config else "not known"
            state.output.warn(
                f"{name} is {show(value)} in what was written, but stays {present}: {origin} "
                "counts for more."
            )


def _file(change: Change, *, written: bool) -> File:
    return File(
        path=without_home(str(change.path)),
        summary=change.summary,
        written=written,
        needs_root=change.needs_root,
        content=change.content.decode("utf-8", "replace")
        if change.needs_root and change.content is not None
        else None,
        then=tuple(map(without_home, change.then)),
    )


def _difference(change: Change) -> str:
    """The lines that change, and no others: the file may hold what is nobody's business."""
    try:
        before = change.path.read_bytes()
    except OSError:  # it is not there, or root's alone
        before = b""
    old, new = (
        text.decode("utf-8", "replace").splitlines() for text in (before, change.content or b"")
    )
    lines = unified_diff(old, new, "before", "after", lineterm="", n=0)
    return "".join(f"{line}\n" for line in lines)
