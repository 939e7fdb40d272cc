"""Changes to the user's files, as data; applied all or not at all, and taken back byte for byte."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen


@frozen(kw_only=True)
class Change:
    """Make this file hold ``content``; ``None`` removes it.

    ``summary`` says in a few words what for. Where ``needs_root``, it is shown and never done.
    ``then`` are commands that the user has to run for it to take effect: shown, never run.
    """

    path: Path
    content: bytes | None
    summary: str
    needs_root: bool = False
    then: tuple[str, ...] = ()
