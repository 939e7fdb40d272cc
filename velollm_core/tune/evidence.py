"""What was measured of each configuration, and which cannot be chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import define, field, frozen

from velollm_core.config import Config
from velollm_core.errors import FailureKind
from velollm_core.experiment.spec import Failure, Trial
from velollm_core.statistics import mean
from velollm_core.tune.blame import Part, blamed, parts, risk
from velollm_core.tune.constraints import broken
from velollm_core.tune.lab import fault_of, took_too_long
from velollm_core.tune.model import Model, Point, Seen, Spreads, fitted
from velollm_core.tune.objective import speed
from velollm_core.tune.space import Space
from velollm_core.tune.spec import Fate, Task
from velollm_core.tune.standing import Standing

_LOOK_AGAIN, _LOOKS = 1.25, 100
"""The spreads are looked for again after so many times as many trials, until there are so many."""
_RISKY = 0.5


@frozen(kw_only=True)
class Out:
    """Why a configuration cannot be chosen."""

    fate: Fate
    why: str
    failure: FailureKind | None = None


@frozen(kw_only=True)
class Entry:
    """A trial that tells the speed: ``logs`` are its logarithms, one for each objective, ``part``
    its duration as a part of the anchor's in the same block.
    """

    whole: Config
    block: int
    position: int
    logs: tuple[float | None, ...]
    part: float = 1.0


@define
class Evidence:
    """All that the trials of a search have told by now.

    ``anchor`` is what takes part in every block. Blocks are numbered through the whole search.
    """

    task: Task
    space: Space
    anchor: Config
    entries: list[Entry] = field(factory=list)
    out: dict[Config, Out] = field(factory=dict)
    _trials: dict[Config, list[Trial]] = field(factory=dict)
    _models: dict[int, Model] = field(factory=dict)
    _looked: dict[int, int] = field(factory=dict)
    _fresh: set[int] = field(factory=set)
    _blame: dict[Part, float] | None = None

    def enter(self, block: int | None, trials: Sequence[tuple[Config, Trial]]) -> None:
        """Note what a block came to; without a number it does not count, but for what failed in it
        by another reason than its time.
        """
        self._fresh.clear()
        self._blame = None
        anchors = [t for whole, t in trials if whole == self.anchor and fault_of(t) is None]
        anchor_ms = anchors[0].duration_ms if anchors else 0.0
        for whole, trial in trials:
            fault = fault_of(trial)
            if fault is not None and fault.kind is FailureKind.INTERRUPTED:
                continue
            if block is not None:
                self._trials.setdefault(whole, []).append(trial)
            values = [None if fault else speed(entry, trial) for entry in self.task.objectives]
            out = self._why_out(whole, trial, fault, told=values[0] is not None)
            slow = out is not None and FailureKind.TIMEOUT is out.failure
            # What there is may fail by the way; it is what all else is held against.
            spared = whole == self.anchor and out is not None and out.fate is not Fate.LIMIT
            if out is not None and not spared and not (slow and block is None):
                self.out[whole] = out
            told = values[0] is not None and self.space.point(whole) is not None
            if told and block is not None:
                self.entries.append(
                    Entry(
                        whole=whole,
                        block=block,
                        position=trial.position,
                        logs=tuple(value and math.log(value) for value in values),
                        part=trial.duration_ms / anchor_ms if anchor_ms else 1.0,
                    )
                )

    def grown(self) -> None:
        """The space has options that the model does not know yet."""
        self._fresh.clear()

    def forget(self, block: int, position: int) -> list[Config]:
        """Strike what came after ``position`` in a block; what that was."""
        self._fresh.clear()
        self._blame = None
        gone = [e for e in self.entries if e.block == block and e.position > position]
        self.entries = [entry for entry in self.entries if entry not in gone]
        return [entry.whole for entry in gone]

    def of(self, whole: Config) -> list[Entry]:
        """What was measured of a configuration."""
        return [entry for entry in self.entries if entry.whole == whole]

    def part(self, whole: Config) -> float:
        """What a trial of it takes, as a part of one of the anchor's."""
        mine = self.of(whole)
        return mean([entry.part for entry in mine]) if mine else 1.0

    @property
    def model(self) -> Model:
        """What all trials say of the first objective."""
        return self.fitted(0)

    def fitted(self, objective: int) -> Model:
        """What all trials say of one objective."""
        if objective not in self._fresh:
            seen = [
                Seen(self.place(entry.whole), entry.block, log)
                for entry in self.entries
                if (log := entry.logs[objective]) is not None
            ]
            before, looked = self._models.get(objective), self._looked.get(objective, 0)
            look = looked < _LOOKS and len(seen) >= _LOOK_AGAIN * looked
            self._models[objective] = fitted(
                self.space.alike(),
                seen,
                before.spreads if before else Spreads(),
                look=look,
                before=before,
            )
            self._looked[objective] = len(seen) if look else looked
            self._fresh.add(objective)
        return self._models[objective]

    def place(self, whole: Config) -> Point:
        """Where a configuration lies that can be measured."""
        found = self.space.point(whole)
        assert found is not None  # noqa: S101 - only what has a place is an entry or drawn
        return found

    def against(self, whole: Config, other: Config, model: Model | None = None) -> Standing:
        """The first against the second, by the first objective or by ``model``."""
        places = self.place(whole), self.place(other)
        return Standing(*(model or self.model).difference(*places))

    def choosable(self) -> list[Config]:
        """What was measured and may be chosen, in the order of its first trial."""
        wholes = dict.fromkeys(entry.whole for entry in self.entries)
        return [whole for whole in wholes if whole not in self.out]

    def ranked(self) -> list[Config]:
        """The same, what is expected to be the fastest first."""
        surface = self.model.expected()
        return sorted(self.choosable(), key=lambda whole: -surface(self.place(whole)))

    def free(self, point: Point) -> bool:
        """Whether ``point`` may be started, and is not likely to fail."""
        return self.risk(point) < _RISKY

    def risk(self, point: Point) -> float:
        """How likely ``point`` is to fail by what it shares with those that did; 1 where it may not
        be started.
        """
        whole = self.space.whole(point)
        if whole is None or whole in self.out:
            return 1.0
        if self._blame is None:
            self._blame = self._blamed()
        return risk(self._blame, point)

    def never_together(self, point: Point) -> bool:
        """Whether ``point`` may be started, and each of its options ran, but not all in pairs."""
        ran = self._ran()
        new = [part for part in parts(point) if part not in ran]
        return bool(new) and all(len(part) > 1 for part in new) and self.free(point)

    def _ran(self) -> set[Part]:
        return {part for whole in self.choosable() for part in parts(self.place(whole))}

    def _blamed(self) -> dict[Part, float]:
        failed = (self.space.point(whole) for whole in self.out)
        return blamed(self._ran(), [point for point in failed if point is not None])

    def _why_out(
        self, whole: Config, trial: Trial, fault: Failure | None, *, told: bool
    ) -> Out | None:
        if fault is not None and took_too_long(trial):
            why = f"a trial of it takes too long: {fault.message.partition(': ')[2]}"
            return Out(fate=Fate.BEATEN, why=why, failure=FailureKind.TIMEOUT)
        if fault is not None:
            return Out(fate=Fate.FAILED, why=fault.message, failure=fault.kind)
        moved = {n for n in {*whole, *self.anchor} if whole.get(n) != self.anchor.get(n)}
        ignored = sorted(moved & {mismatch.knob for mismatch in trial.mismatches})
        if ignored:
            return Out(fate=Fate.FAILED, why=f"the engine ignored {', '.join(ignored)}")
        limits = broken(self.task.constraints, self._trials.get(whole, ()))
        if limits:
            return Out(fate=Fate.LIMIT, why="; ".join(limits))
        if not told:
            why = f"it does not tell {self.task.objectives[0].name}"
            return Out(fate=Fate.FAILED, why=why)
        return None
