"""A plan as data: what would be changed, what was left alone, and why.

It is a part of the document ``velollm.optimize/1``, which
:class:`~velollm_core.optimize.outcome.Outcome` is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from attrs import frozen

from velollm_core.backends.advice import Goal, Requirements
from velollm_core.config import Config, Kept, LeftOut, Settings, Value

KIND = "optimize"
MAJOR = 1

ORIGIN = "velollm optimize"
"""Where the values of :func:`settings_of` come from."""


@frozen(kw_only=True)
class Move:
    """One knob from what it is to what is proposed.

    ``current`` is ``None`` where it is not known; ``origin`` says where it comes from
    (``engine default``, ``environment LLAMA_ARG_THREADS`` ...).
    """

    knob: str
    current: Value | None
    proposed: Value
    unit: str | None = None
    origin: str | None = None
    numerics: Literal["exact", "rounding", "lossy"] = "exact"
    change: Literal["per_request", "reload", "restart"] = "restart"


@frozen(kw_only=True)
class Proposal:
    """Knobs that move together; nothing of it is measured yet."""

    moves: tuple[Move, ...]
    reason: str
    effect: str
    source: str
    confidence: Literal["high", "medium", "low"]
    experimental: bool = False


def moved(proposals: Iterable[Proposal]) -> Config:
    """Every knob that ``proposals`` move, with its proposed value."""
    return Config({move.knob: move.proposed for entry in proposals for move in entry.moves})


@frozen(kw_only=True)
class Withdrawn:
    """A suggestion that is not part of the plan, and why, in one sentence."""

    assignments: Config
    reason: str


@frozen(kw_only=True)
class Room:
    """What the whole configuration takes of one memory, and what the process may use of it, bytes.

    ``device`` is ``host`` or the uuid of a GPU. ``current_bytes`` is what it would take without the
    plan, ``None`` where that cannot be told.
    """

    device: str
    name: str
    planned_bytes: int
    usable_bytes: int
    current_bytes: int | None = None


@frozen(kw_only=True)
class Plan:
    """What is proposed for one engine, one model and one machine.

    ``obstacle`` is a sentence with the figures where the model does not fit this machine, and what
    would; then nothing is proposed. ``rooms`` is empty where memory cannot be told. ``left_out``
    is what the user has set and the engine does not get, such as variables that nothing reads.
    """

    velollm_version: str
    backend: str
    engine_version: str | None
    model: str
    fingerprint: str | None
    goal: Goal
    requirements: Requirements
    proposals: tuple[Proposal, ...] = ()
    withdrawn: tuple[Withdrawn, ...] = ()
    kept: tuple[Kept, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    rooms: tuple[Room, ...] = ()
    obstacle: str | None = None

    @property
    def changes(self) -> Config:
        """Every knob that the plan moves, with its proposed value."""
        return moved(self.proposals)


def settings_of(plan: Plan) -> Settings:
    """The knobs that ``plan`` changes, and no others: what is rendered and applied."""
    return Settings(config=plan.changes, origins=dict.fromkeys(plan.changes, ORIGIN))
