"""The words of tuning: what is asked for, what was tried, and what came of it.

``Task`` holds live objects and describes what is to be done; everything else is plain data, written
as ``velollm.tune/1`` and ``velollm.profile/1`` documents.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from attrs import frozen

from velollm_core.backends.advice import Requirements
from velollm_core.backends.contract import Backend, Installation
from velollm_core.config import Config, Knob, LeftOut, Settings
from velollm_core.errors import FailureKind
from velollm_core.experiment.spec import (
    Comparison,
    EngineRecord,
    ModelRecord,
    Phase,
    WorkloadRecord,
)
from velollm_core.hardware.spec import HardwareSpec
from velollm_core.models.spec import Model
from velollm_core.statistics import MARGIN

KIND = "tune"
MAJOR = 1
PROFILE_KIND = "profile"
PROFILE_MAJOR = 1


@frozen(kw_only=True)
class Term:
    """One speed that counts: a metric of one phase, by ``weight`` in the geometric mean of all.

    ``workload`` and ``concurrency`` name the phase, ``metric`` one of
    ``experiment.measures.METRICS``.
    """

    workload: str
    concurrency: int
    metric: str
    weight: float = 1.0


@frozen(kw_only=True)
class Objective:
    """What is to be made faster: the weighted geometric mean of one speed or several."""

    name: str
    terms: tuple[Term, ...]


@frozen(kw_only=True)
class Constraint:
    """What a configuration must keep to be chosen, however fast it is.

    ``figure`` is what is limited: a time of a request or the memory of the server. ``percentile``
    is over the measured requests of all of a configuration's trials, ``None`` where there is no
    such choice. ``limit`` is in the figure's unit: ms, tok/s or bytes. ``text`` is as the user
    typed it.
    """

    text: str
    figure: str
    percentile: float | None
    at_most: bool
    limit: float


@frozen(kw_only=True)
class Task:
    """What a tune is to do.

    ``current`` is what the user runs today, ``defaults`` what the engine does when nothing is set.
    ``objectives`` has at least one; the first decides what is chosen, the others make the front.
    ``budget_s`` is for everything, the confirmation included. ``pairs`` is the number of pairs of
    the confirmation, fewer only where the budget holds no more, never fewer than
    ``statistics.LEAST_PAIRS``. ``only`` restricts the search to knobs of these names; empty: all.
    With ``proposed``, knobs with their values, nothing is searched: that is what is confirmed
    against ``current``.
    """

    backend: Backend
    installation: Installation
    model: Model
    knobs: tuple[Knob, ...]
    current: Settings
    defaults: Settings
    hardware: HardwareSpec
    mode: Literal["launch", "attach"]
    phases: tuple[Phase, ...]
    objectives: tuple[Objective, ...]
    budget_s: float
    constraints: tuple[Constraint, ...] = ()
    requirements: Requirements = Requirements()  # noqa: RUF009 - frozen
    pairs: int = 12
    margin: float = MARGIN
    confidence: float = 0.95
    seed: int = 0
    only: tuple[str, ...] = ()
    proposed: Config | None = None
    force: bool = False
    launch_timeout_s: float = 180.0
    request_timeout_s: float = 120.0


class Fate(StrEnum):
    """What became of a candidate."""

    LEADS = "leads"
    BEATEN = "beaten"
    UNDECIDED = "undecided"
    FAILED = "failed"
    LIMIT = "over a limit"
    UNTRIED = "not tried"


@frozen(kw_only=True)
class Tried:
    """One candidate of one stage.

    ``changes`` are the knobs in which it differs from ``current``. ``speed_ratio`` is against the
    stage's incumbent, above 1 being faster, by all trials of the search, of which ``blocks`` are
    its own; it is what a choice was made by and no proof: that is the confirmation's. ``why`` is
    one sentence.
    """

    changes: Config
    fate: Fate
    blocks: int
    why: str
    speed_ratio: float | None = None
    low: float | None = None
    high: float | None = None
    failure: FailureKind | None = None


@frozen(kw_only=True)
class StageRecord:
    """One stage of the search. ``incumbent`` is what took part in every block, ``leader`` what led
    after it, both as changes from ``current``. ``spent_s`` is the time of its trials and pauses.
    """

    name: str
    summary: str
    incumbent: Config
    leader: Config
    tried: tuple[Tried, ...]
    blocks: int
    spent_s: float


@frozen(kw_only=True)
class Point:
    """One configuration on the front: no other was better in every objective.

    ``speed_ratios`` are against what took part in every block, one for each objective.
    """

    changes: Config
    speed_ratios: tuple[float, ...]
    blocks: int


@frozen(kw_only=True)
class Answer:
    """How the confirmation judged the winner against ``baseline``: ``current`` or ``defaults``.

    ``overall`` is the verdict on the objective; ``terms`` show its parts, in the same order.
    """

    baseline: Literal["current", "defaults"]
    overall: Comparison
    terms: tuple[Comparison, ...] = ()


class Conclusion(StrEnum):
    """How a tune ended."""

    FASTER = "faster"
    KEEP = "keep what you have"
    OPEN = "not decided"


@frozen(kw_only=True)
class TaskRecord:
    """What was asked for, for a stranger: a ``Task`` without its live objects.

    ``settings_digest`` tells two tasks apart whose further arguments or variables of the user, or
    whose running servers, differ; it is empty where that was not recorded.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    requirements: Requirements
    workloads: tuple[WorkloadRecord, ...]
    budget_s: float
    pairs: int
    margin: float
    confidence: float
    seed: int
    mode: Literal["launch", "attach"]
    only: tuple[str, ...] = ()
    proposed: Config | None = None
    settings_digest: str = ""


@frozen(kw_only=True)
class Profile:
    """A configuration that was proven, and all that says where it holds (``velollm.profile/1``).

    ``config`` holds only knobs of the backend's own table, each with a value in its domain: no
    argument, variable, path, address or key. They are laid over what the user has set; ``base`` is
    what that was when they were measured. ``evidence`` is what the confirmation measured;
    ``objective``, ``workloads``, ``requirements`` and ``constraints`` are what it takes to measure
    it again.
    """

    name: str
    created_at: str
    velollm_version: str
    run: str
    backend: str
    engine: EngineRecord
    model: ModelRecord
    hardware_fingerprint: str
    config: Config
    base: Config
    objective: Objective
    workloads: tuple[WorkloadRecord, ...]
    requirements: Requirements = Requirements()  # noqa: RUF009 - frozen
    constraints: tuple[Constraint, ...] = ()
    evidence: tuple[Answer, ...] = ()


@frozen(kw_only=True)
class TuneResult:
    """A whole tune (``velollm.tune/1``); its trials are in the journal.

    ``current`` and ``defaults`` are complete configurations as far as the backend tells them.
    ``changes`` is what the conclusion proposes, empty for "keep what you have". ``noise`` is the
    standard deviation of the logarithm of a trial's speed. ``spent_s`` counts trials and pauses,
    not what was lost in trials that were killed. ``untouched`` names knobs that the search left
    alone, and why.
    """

    run: str
    created_at: str
    complete: bool
    velollm_version: str
    task: TaskRecord
    engine: EngineRecord
    model: ModelRecord
    hardware: HardwareSpec
    hardware_fingerprint: str
    current: Config
    defaults: Config
    conclusion: Conclusion
    why: str
    changes: Config = Config()
    stages: tuple[StageRecord, ...] = ()
    front: tuple[Point, ...] = ()
    answers: tuple[Answer, ...] = ()
    noise: float | None = None
    spent_s: float = 0.0
    trials: int = 0
    failed: int = 0
    untouched: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
