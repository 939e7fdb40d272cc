"""What a rule looks at when it suggests a configuration: the machine, the model, and the knobs."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from attrs import field, frozen

from velollm_core.backends.contract import Footprint, Installation
from velollm_core.config import Config, Knob, Role, Settings, Value
from velollm_core.hardware.spec import HardwareSpec
from velollm_core.models.spec import Model


class Goal(StrEnum):
    """What the user wants more of."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"
    MEMORY = "memory"
    BALANCED = "balanced"


@frozen(kw_only=True)
class Requirements:
    """What may not be given up for speed. ``None``: as much as ``current`` has.

    ``context_tokens`` is what one request may hold, ``parallel`` how many run at once.
    """

    context_tokens: int | None = None
    parallel: int | None = None


def _untold(config: Config) -> None:
    del config


@frozen(kw_only=True, eq=False)
class AdviceContext:
    """Everything a rule may look at. Rules are functions of it alone: no file, no process.

    ``current`` holds a value for every knob where the backend knows it. ``footprint`` is the
    backend's own estimate for a whole configuration, ``None`` where it cannot be told. Contexts are
    compared by identity, so that what was worked out for one can be remembered.
    """

    hardware: HardwareSpec
    backend: str
    installation: Installation
    model: Model
    knobs: tuple[Knob, ...]
    defaults: Settings
    current: Settings
    goal: Goal = Goal.BALANCED
    requirements: Requirements = Requirements()
    experimental: bool = False
    footprint: Callable[[Config], Footprint | None] = field(default=_untold, repr=False)

    def knob(self, role: Role) -> Knob | None:
        """The backend's first knob of that role, if it has one."""
        return next((knob for knob in self.knobs if knob.role is role), None)

    def value(self, name: str) -> Value | None:
        """What the knob is set to now, else by default; ``None`` where that is not known."""
        now = self.current.config.get(name)
        return self.defaults.config.get(name) if now is None else now
