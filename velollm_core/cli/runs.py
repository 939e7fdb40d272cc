"""Runs of the journal by what they measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core.errors import UsageError

if TYPE_CHECKING:
    from velollm_core.cli.state import State
    from velollm_core.experiment.journal import RunInfo


def find_run(state: State, run: str, kind: str) -> RunInfo:
    """The run of that kind whose identifier starts with ``run``; ``last`` is the newest of them.

    Args:
        state: whose journal is meant.
        run: what the user typed.
        kind: ``benchmark`` or ``tune``.

    Raises:
        UsageError: there is none, or it is of another kind.
    """
    if run == "last":
        newest = next((info for info in state.journal.runs() if info.kind == kind), None)
        if newest is None:
            raise UsageError(f"the journal holds no {kind}.", "List what it holds: velollm results")
        return newest
    info = state.journal.find(run)
    if info.kind != kind:
        raise UsageError(
            f"run {info.id} is a {info.kind}, where a {kind} is needed.",
            f"See it: velollm results show {info.id}",
        )
    return info
