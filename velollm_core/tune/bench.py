"""One block after another: candidates beside an anchor, and again where the machine has fallen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import define, field

from velollm_core.config import Config
from velollm_core.experiment.runner import Progress
from velollm_core.experiment.spec import Arm, Trial
from velollm_core.statistics import median
from velollm_core.tune.evidence import Entry, Evidence
from velollm_core.tune.lab import Lab, arm_name, fault_of, took_too_long
from velollm_core.tune.ledger import Ledger
from velollm_core.tune.objective import speed

MOST_BESIDE = 5
"""Candidates of a block, beside the anchor."""
MOST_PAUSES = 3
_PAUSE_S = 60.0
_FALL = -math.log(1 - 0.10)
"""The anchor's speed in a block may fall by so much below the median of its earlier ones."""
_SURE = 3.0
"""... or by so many standard deviations, where the noise alone is larger."""
_EARLIER = 5
_SLOW, _LEAST_SLOW = 4.0, 1.5
"""A trial that takes so many times as long as one of the anchor is ended; sooner, where several of
them would take all that is left, but never before the second."""
_LEAST_LONGEST_S = 5.0
"""A hiccup of the machine ends no trial that takes a moment."""


class Stopped(Exception):  # noqa: N818 - not an error of ours, an outcome
    """The user stopped the run."""


class Tell(Protocol):
    """Shows where a tune stands."""

    def __call__(self, progress: Progress | None = None, *, pause_s: float | None = None) -> None:
        """``progress`` is the runner's own; ``pause_s`` how long the machine is left alone."""


@define
class Stage:
    """A stage: its blocks, what took part, and what of the last block is still in it; at its end,
    what there was no time for, what leads, and what it took.
    """

    name: str
    began_s: float = 0.0
    blocks: int = 0
    wholes: dict[Config, None] = field(factory=dict)
    alive: tuple[Config, ...] = ()
    untried: tuple[Config, ...] = ()
    leader: Config = Config()
    spent_s: float = 0.0


@define
class Bench:
    """Where blocks are measured, and what all of them have told. ``trials`` are all that ended."""

    lab: Lab
    ledger: Ledger
    evidence: Evidence
    tell: Tell
    learned: Callable[[], None]
    trials: list[Trial] = field(factory=list, init=False)
    rounds: int = field(default=0, init=False)
    _blocks: int = field(default=0, init=False)
    _anchors: list[Entry] = field(factory=list, init=False)

    def room(self, share_s: float) -> int:
        """How many candidates a block may have that takes ``share_s`` at most."""
        return max(0, min(MOST_BESIDE, math.floor(share_s / self.ledger.anchor_s) - 1))

    def run(self, arms: Sequence[Arm], blocks: int, seed: int, usual_s: float) -> tuple[Trial, ...]:
        """Plain blocks of all ``arms``, a trial of which takes about ``usual_s``: one that takes a
        multiple of that is ended.

        Raises:
            Stopped: the user stopped it.
        """
        longest_s = max(_SLOW * usual_s, _LEAST_LONGEST_S)
        result = self.lab.run(
            arms,
            blocks,
            seed=seed,
            observe=self.tell,
            longest_s=longest_s,
        )
        self.trials += result.trials
        self.ledger.add(result.trials)
        if result.interrupted:
            raise Stopped
        return result.trials

    def enter(self, trials: Sequence[tuple[Config, Trial]]) -> None:
        """Note a block that counts."""
        evidence = self.evidence
        mine = [trial for whole, trial in trials if whole == evidence.anchor]
        # Where even the anchor was too slow, the others were so by the machine.
        evidence.enter(None if any(map(took_too_long, mine)) else self._blocks, trials)
        self._blocks += 1
        self.ledger.anchors_s += [
            trial.duration_ms / 1000.0
            for trial in mine
            if fault_of(trial) is None or took_too_long(trial)
        ]
        self._anchors += [e for e in evidence.of(evidence.anchor) if e.block == self._blocks - 1]

    def block(self, stage: Stage, wholes: Sequence[Config]) -> list[Config]:
        """Measure ``wholes`` once, beside the anchor; what is to be measured again, because the
        machine may have fallen before.

        Where the anchor fell, the machine is left alone for a while, and the block measured again.

        Raises:
            Stopped: the user stopped it.
        """
        name = f"{stage.name}-{stage.blocks + 1}"
        anchor = arm_name(name, "anchor")
        by_arm = {arm_name(name, str(whole) or "as it was"): whole for whole in wholes}
        by_arm[anchor] = self.evidence.anchor
        arms = [self.lab.arm(arm, whole) for arm, whole in by_arm.items()]
        stage.wholes.update(dict.fromkeys(wholes))
        stage.alive = tuple(wholes)
        self.rounds += 1
        # Every block has other prompts and another order, none those of the confirmation.
        seed = self.lab.task.seed + 1 + self.rounds
        struck: list[Config] = []
        seen = 0

        def after(block: int, trials: Sequence[Trial]) -> list[str]:
            nonlocal seen
            fresh, seen = trials[seen:], len(trials)
            self.trials += fresh
            self.ledger.add(fresh)
            stage.blocks += 1
            mine = [(by_arm[trial.arm], trial) for trial in fresh]
            pause_s = self._pause_s(mine, block)
            if pause_s:
                self.evidence.enter(None, mine)
                struck.extend(self._struck())
                self.ledger.pause(pause_s)
                # What was measured after the pause is there already where this is a replay.
                if not self.lab.holds(arms, block + 1, seed):
                    self.tell(pause_s=pause_s)
                    self.lab.pause(pause_s)
                out = self.evidence.out
                return [arm for arm, whole in by_arm.items() if arm != anchor and whole in out]
            self.enter(mine)
            self.learned()
            stage.alive = tuple(whole for whole in wholes if whole not in self.evidence.out)
            self.tell()
            return [arm.name for arm in arms]

        self.tell()
        anchor_s = self.ledger.anchor_s
        fair = self.ledger.left_s / (anchor_s * len(arms))
        longest_s = max(anchor_s * max(_LEAST_SLOW, min(_SLOW, fair)), _LEAST_LONGEST_S)
        result = self.lab.run(
            arms,
            1 + MOST_PAUSES,
            seed=seed,
            after_block=after,
            observe=self.tell,
            longest_s=longest_s,
        )
        if result.interrupted:
            self.trials += result.trials[seen:]
            self.ledger.add(result.trials[seen:])
            raise Stopped
        return struck

    def _pause_s(self, trials: Sequence[tuple[Config, Trial]], pauses: int) -> float:
        """How long to wait before a block is measured again in which the anchor fell; 0 where it
        did not, or there is no time.
        """
        (trial,) = [trial for whole, trial in trials if whole == self.evidence.anchor]
        value = speed(self.lab.task.objectives[0], trial)
        earlier = [log for e in self._anchors[-_EARLIER:] if (log := e.logs[0]) is not None]
        if not earlier or (value is None and not took_too_long(trial)):
            return 0.0
        spread = self.evidence.model.spreads.noise * math.sqrt(1 + 1 / len(earlier))
        fall = math.inf if value is None else median(earlier) - math.log(value)
        if fall <= max(_FALL, _SURE * spread):
            return 0.0
        pause_s = float(_PAUSE_S * 2**pauses)
        again_s = len(trials) * self.ledger.anchor_s
        if pauses >= MOST_PAUSES or self.ledger.left_s < pause_s + again_s:
            self._anchors.clear()  # so slow is what the machine is from here on
            return 0.0
        return pause_s

    def _struck(self) -> list[Config]:
        """Strike what came after the last anchor that had not fallen: nobody knows how far the
        machine had fallen by then.
        """
        if not self._anchors:
            return []
        last = self._anchors[-1]
        return self.evidence.forget(last.block, last.position)
