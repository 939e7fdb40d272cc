"""What ``velollm optimize`` came to: the document ``velollm.optimize/1``."""

from __future__ import annotations

from attrs import frozen

from velollm_core.experiment.spec import Comparison
from velollm_core.optimize.spec import Plan


@frozen(kw_only=True)
class Verification:
    """What was measured: the present settings against the proposed ones, in turns.

    ``run`` is its identifier in the journal. ``slower`` is ``None`` where it stays open whether the
    proposal is slower by more than the margin.
    """

    run: str
    comparisons: tuple[Comparison, ...]
    slower: bool | None


@frozen(kw_only=True)
class File:
    """A file that ``--apply`` writes; ``written`` says whether it has.

    A home is shown as ``~``. Where ``needs_root``, it is left to the user, and ``content`` is what
    the file is to hold. ``then`` are commands that the user has to run.
    """

    path: str
    summary: str
    written: bool
    needs_root: bool = False
    content: str | None = None
    then: tuple[str, ...] = ()


@frozen(kw_only=True)
class Outcome:
    """The plan, how it was verified, and where it was applied."""

    plan: Plan
    verification: Verification | None = None
    files: tuple[File, ...] = ()
