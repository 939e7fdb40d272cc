"""``velollm undo``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from velollm_core.cli.options import global_options, option
from velollm_core.cli.state import State

if TYPE_CHECKING:
    from velollm_core.backends.changes import Undone
    from velollm_core.backends.undo_log import Outcome

DONE = {"restored": "restored", "removed": "removed", "unchanged": "as it was already"}
_TO_DO = {"restored": "to restore", "removed": "to remove", "unchanged": "as it was already"}


@click.command(name="undo", epilog="Example: velollm undo --dry-run")
@option("--list", "listing", is_flag=True, help="List what can be taken back, the newest first.")
@option("--dry-run", is_flag=True, help="Say what would be done, and touch nothing.")
@global_options
@click.pass_context
def command(ctx: click.Context, listing: bool, dry_run: bool) -> None:
    """Take back what was applied last, byte for byte.

    A file that was edited since is left alone and named; then the exit code is 1.
    """
    from velollm_core.backends.changes import history, undo

    state = ctx.ensure_object(State)
    if listing or dry_run:
        found = history(state.undo_folder)
        shown = found if listing else found[:1]
    else:
        undone = undo(state.undo_folder)
        shown = () if undone is None else (undone,)
    if state.json:
        from velollm_core.documents import to_plain

        state.output.document(to_plain(list(shown)))
    elif not shown:
        state.output.remark("there is nothing to take back: no change of velollm's is in force.")
    else:
        words = _TO_DO if listing or dry_run else DONE
        state.output.text("\n\n".join("\n".join(lines(entry, words)) for entry in shown))
    left = any(outcome.action == "edited" for entry in shown for outcome in entry.outcomes)
    ctx.exit(1 if left and not listing else 0)


def lines(undone: Undone, words: dict[str, str] = DONE) -> Iterator[str]:
    """What became, or would become, of each file, and the commands to run then."""
    cut_short = ", and cut short" if undone.cut_short else ""
    yield f"applied {undone.applied_at}{cut_short}:"
    for summary, outcome in zip(undone.summaries, undone.outcomes, strict=True):
        yield f"  {outcome.path} ({summary}): {_what(outcome, words)}"
    if any(outcome.action != "edited" for outcome in undone.outcomes):
        yield from _then(undone.then)


def _what(outcome: Outcome, words: dict[str, str]) -> str:
    if outcome.action != "edited":
        return words[outcome.action]
    if outcome.kept_as is None:
        return "edited since, left alone; it was not there before"
    return f"edited since, left alone; what it held before is kept in {outcome.kept_as}"


def _then(commands: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(commands):
        if number == 0:
            yield "It takes effect after:"
        yield f"  {line}"
