"""What a tune says of itself: where it stands, and what it came to."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from velollm_core.config import Config, LeftOut
from velollm_core.experiment.runner import Progress
from velollm_core.experiment.spec import Trial
from velollm_core.tune.spec import Answer, Conclusion, Point, StageRecord


@frozen(kw_only=True)
class TuneProgress:
    """Where a tune stands, for whoever shows it.

    ``stage`` is the name of the stage under way, ``number`` its place among the ``stages`` that are
    known by now. ``alive`` are the candidates of the block under way, as changes from
    ``current``, ``of`` how many the stage has had by now. ``best`` is the leader by now, as changes
    from ``current``; ``ratio`` with ``low`` and ``high`` its speed against what takes part in every
    block, ``None`` while that leads, and before the first block. ``pause_s`` is set while the
    machine is left to cool down. ``progress`` is the runner's own, ``None`` where a stage begins, a
    block ends or a pause begins.
    """

    stage: str
    summary: str
    number: int
    stages: int
    alive: tuple[Config, ...]
    of: int
    best: Config
    spent_s: float
    budget_s: float
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    pause_s: float | None = None
    progress: Progress | None = None


Observe = Callable[[TuneProgress], None]


@frozen(kw_only=True)
class Found:
    """What a search came to. ``trials`` are all, in the order they ended, those of blocks that were
    not used included; the other fields are as in ``TuneResult``.

    ``best`` is what the search chose, as changes from ``current``, confirmed or not.
    """

    conclusion: Conclusion
    why: str
    changes: Config = Config()
    best: Config = Config()
    stages: tuple[StageRecord, ...] = ()
    front: tuple[Point, ...] = ()
    answers: tuple[Answer, ...] = ()
    noise: float | None = None
    spent_s: float = 0.0
    trials: tuple[Trial, ...] = ()
    untouched: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    interrupted: bool = False
