"""The course of a search: its stages in order, and the proof at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import define, evolve, field

from velollm_core.config import Config, LeftOut
from velollm_core.errors import UsageError
from velollm_core.experiment.runner import Progress
from velollm_core.experiment.spec import Arm, Trial
from velollm_core.statistics import LEAST_PAIRS, mean
from velollm_core.tune.bench import MOST_BESIDE, Bench, Stage, Stopped
from velollm_core.tune.candidates import own_settings
from velollm_core.tune.choice import drawn, finalists, leader
from velollm_core.tune.confirm import STAGE as CONFIRM
from velollm_core.tune.confirm import answers, conclude
from velollm_core.tune.constraints import untold
from velollm_core.tune.evidence import Evidence
from velollm_core.tune.found import Found, Observe, TuneProgress
from velollm_core.tune.lab import (
    CURRENT,
    DEFAULTS,
    TUNED,
    Lab,
    arm_name,
    fault_of,
    shortened,
)
from velollm_core.tune.ledger import Ledger
from velollm_core.tune.objective import speed
from velollm_core.tune.records import front, nothing_faster, ratios, record
from velollm_core.tune.space import Space
from velollm_core.tune.spec import Answer, Conclusion, Fate, Task
from velollm_core.tune.standing import Standing

BASELINE, SCREEN, COMBINE, RACE = "baseline", "screen", "combine", "race"
_SUMMARIES = {
    BASELINE: "what there is",
    SCREEN: "one setting changed at a time",
    COMBINE: "several changed at once, where most is to be expected",
    RACE: "the best few again, until it is known which leads",
    CONFIRM: "the leader against what you have",
}
BASELINE_BLOCKS = 2
_REQUIRED = "required"
_SCREEN_PART = 0.6
"""Of what is left at first, for single steps at most."""
_RACE_PART = 0.1
"""Of what is left then, for the race at least."""
_MOST_RACE_BLOCKS = 6
_CHECK = 1000
"""The seed of a check lies so far from that of a tune; the blocks of a search lie between."""
_MOST_BLOCKS = 80
"""Of the search: what the model costs grows with the square of its trials."""


def _cannot_be_measured(task: Task, trial: Trial) -> str:
    """Why the first trial leaves no hope, without a full stop; nothing where it does."""
    fault = fault_of(trial)
    if fault is not None:
        return fault.message.rstrip(".")
    for objective in task.objectives:
        if speed(objective, trial) is None:
            return f"the server does not tell what {objective.name} needs"
    return "; ".join(untold(task.constraints, trial))


class _Undecidable(Exception):  # noqa: N818 - not an error of ours, an outcome
    """Nothing can be decided; the message says why."""


@define
class Course:
    """A search under way. ``start`` is where it begins, and what takes part in every block;
    ``lead`` is what leads, ``ahead`` how it stands against that; both are changes from the user's
    own settings.
    """

    lab: Lab
    observe: Observe
    space: Space
    untouched: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    lead: Config = field(init=False)
    ahead: Standing | None = field(default=None, init=False)
    ledger: Ledger = field(init=False)
    evidence: Evidence = field(init=False)
    bench: Bench = field(init=False)
    stage: Stage = field(init=False)
    stages: list[Stage] = field(factory=list, init=False)
    answered: tuple[Answer, ...] = field(default=(), init=False)

    def __attrs_post_init__(self) -> None:
        task = self.lab.task
        with_defaults = task.mode == "launch" and self.lab.differ(task.current, task.defaults)
        self.lead = self.start
        self.ledger = Ledger(
            budget_s=task.budget_s,
            pairs=task.pairs,
            rivals=(TUNED, CURRENT, DEFAULTS) if with_defaults else (TUNED, CURRENT),
        )
        self.evidence = Evidence(task, self.space, self.start)
        self.bench = Bench(self.lab, self.ledger, self.evidence, self._tell, self._learn)
        self.stage = Stage(BASELINE)

    @property
    def start(self) -> Config:
        return self.space.start

    def run(self) -> Found:
        """All stages, then the confirmation."""
        steps = self.space.singles()
        if not steps and not self.start:
            return self._found(Conclusion.KEEP, "There is no knob that could be tried.")
        try:
            self._baseline(len(steps))
            if steps:
                self._screen()
                self._combine()
                self._race()
            return self._judged()
        except Stopped:
            self._end_early()
            words = "It was stopped before its end."
            return evolve(self._found(Conclusion.OPEN, words), interrupted=True)
        except _Undecidable as fault:
            self._end_early()
            return self._found(Conclusion.OPEN, str(fault))

    def _baseline(self, steps: int) -> None:
        """How fast what there is runs, and whether the budget holds the rest."""
        task, seed = self.lab.task, self.lab.task.seed
        wholes = {arm_name(BASELINE, CURRENT): Config()}
        if self.start:
            wholes[arm_name(BASELINE, _REQUIRED)] = self.start
        arms = [self.lab.arm(name, whole) for name, whole in wholes.items()]
        if DEFAULTS in self.ledger.rivals:
            arms.append(self.lab.defaults(arm_name(BASELINE, DEFAULTS)))
            own = own_settings(task, self.space.axes)
            if not self.lab.differ(self.lab.arm("", own).settings, arms[-1].settings):
                wholes[arms[-1].name] = own
        usual_s = self._look_at_budget(arms, steps)
        trials = self.bench.run(arms, BASELINE_BLOCKS, seed, usual_s)
        for block in range(BASELINE_BLOCKS):
            mine = [t for t in trials if t.block == block]
            self.bench.enter([(wholes[t.arm], t) for t in mine if t.arm in wholes])
        self.stage.blocks = BASELINE_BLOCKS
        self.stage.wholes = dict.fromkeys(whole for whole in wholes.values() if whole)
        if not self.evidence.of(self.start):
            faults = [fault_of(trial) for trial in trials if wholes.get(trial.arm) == self.start]
            why = next((f": {fault.message.rstrip('.')}" for fault in faults if fault), "")
            which = ", which is required," if task.proposed is None else ""
            raise _Undecidable(f"{self.start}{which} could not be measured{why}.")
        self._learn_times(trials)
        self._end_stage()

    def _look_at_budget(self, arms: Sequence[Arm], steps: int) -> float:
        """Refuse what the budget cannot hold, or cannot be measured at all; what a trial takes."""
        task, seed = self.lab.task, self.lab.task.seed
        first = self.lab.run(arms[:1], 1, seed=seed, observe=self._tell)
        why = "" if first.interrupted else _cannot_be_measured(task, first.trials[0])
        if first.interrupted or why:
            self.bench.trials += first.trials
            self.ledger.add(first.trials)
            if first.interrupted:
                raise Stopped
            raise _Undecidable(f"What you have could not be measured: {why}.")
        screen = 1 + min(MOST_BESIDE, steps) if steps else 0
        least = BASELINE_BLOCKS * len(arms) + screen + LEAST_PAIRS * len(self.ledger.rivals)
        trial_s = first.trials[0].duration_ms / 1000.0
        if least * trial_s <= task.budget_s:
            return trial_s
        # One trial may be slow by chance.
        both = self.lab.run(arms[:1], 2, seed=seed, observe=self._tell)
        if both.interrupted:
            self.bench.trials += both.trials
            self.ledger.add(both.trials)
            raise Stopped
        trial_s = min(trial.duration_ms for trial in both.trials) / 1000.0
        least_s = math.ceil(least * trial_s)
        if least_s > task.budget_s:
            raise UsageError(
                f"a budget of {task.budget_s:.0f} s cannot hold this: at {trial_s:.1f} s a trial "
                f"it takes at least {least_s} s.",
                f"Give it that (--budget {least_s}s), or measure fewer or shorter requests.",
            )
        return trial_s

    def _learn_times(self, trials: Sequence[Trial]) -> None:
        """What trials of the rivals take; the engine's own settings are none if they do not run."""
        anchor = arm_name(BASELINE, _REQUIRED if self.start else CURRENT)
        took = {t.block: t.duration_ms for t in trials if t.arm == anchor and fault_of(t) is None}
        for name in (CURRENT, DEFAULTS):
            mine = [trial for trial in trials if trial.arm == arm_name(BASELINE, name)]
            ended = [t for t in mine if t.failure is None and t.block in took]
            parts = [t.duration_ms / took[t.block] for t in ended]
            if parts:
                self.ledger.parts[name] = mean(parts)
            faults = [fault for trial in mine if (fault := fault_of(trial)) is not None]
            if name == DEFAULTS and mine and len(faults) == len(mine):
                self.ledger.rivals = (TUNED, CURRENT)
                why = shortened(faults[0])
                self.notes += (f"the engine's defaults could not be measured: {why}",)
        out = self.evidence.out.get(Config())
        if out is not None and out.fate is Fate.LIMIT:
            self.notes += (f"what you have does not keep {out.why}",)

    def _screen(self) -> None:
        """The engine's own settings, and each single step."""
        self._begin(SCREEN)
        space, evidence = self.space, self.evidence
        own = own_settings(self.lab.task, space.axes)
        wholes = [own, *space.singles()]
        queue = [
            whole
            for whole in dict.fromkeys(wholes)
            if space.point(whole) is not None and not evidence.of(whole) and whole != self.start
        ]
        kept_s = self.ledger.left_s * (1 - _SCREEN_PART)
        while queue and (count := self._room(kept_s)):
            again = self.bench.block(self.stage, queue[:count])
            queue = [*again, *queue[count:]]
        self._end_stage([w for w in queue if w not in self.stage.wholes and not evidence.of(w)])

    def _combine(self) -> None:
        """What the model draws, block after block."""
        self._begin(COMBINE)
        seed, kept_s = self.lab.task.seed, max(0.0, self.ledger.left_s * _RACE_PART)
        while count := self._room(kept_s):
            found = drawn(self.evidence, self.lead, count, f"{seed}/{self.bench.rounds}")
            if not found:
                break
            self.bench.block(self.stage, found)
        self._end_stage()

    def _race(self) -> None:
        """The best few, as long as it is not known which is the best."""
        self._begin(RACE)
        while self.stage.blocks < _MOST_RACE_BLOCKS:
            count = self.bench.room(self.ledger.left_s)
            found = finalists(self.evidence, self.lab.task.margin)[:count]
            if not found:
                break
            self.bench.block(self.stage, found)
        self._end_stage()

    def _judged(self) -> Found:
        """The confirmation, and what it comes to."""
        if not self.lead:
            return self._found(Conclusion.KEEP, nothing_faster(self.evidence, self.stages))
        task = self.lab.task
        arms = [
            self.lab.arm(arm_name(CONFIRM, TUNED), self.lead),
            self.lab.arm(arm_name(CONFIRM, CURRENT), Config()),
        ]
        if DEFAULTS in self.ledger.rivals and self.lab.differ(arms[0].settings, task.defaults):
            arms.append(self.lab.defaults(arm_name(CONFIRM, DEFAULTS)))
        else:
            self.ledger.rivals = (TUNED, CURRENT)
        pairs = self.ledger.pairs_left()
        if not pairs:
            return self._found(
                Conclusion.OPEN,
                f"{self.lead} leads, but the budget was spent before it could be proven.",
            )
        self._begin(CONFIRM)
        # Other prompts than the search has seen: what was chosen on them would fit them too well.
        # A check has others than the proof that it is to repeat.
        seed = task.seed + (1 if task.proposed is None else _CHECK)
        usual_s = self.ledger.anchor_s * max([1.0, *self.ledger.parts.values()])
        trials = self.bench.run(arms, pairs, seed, usual_s)
        self.answered = answers(task, task.objectives[0], trials, pairs, arms)
        return self._found(*conclude(task, self.lead, self.answered, trials))

    def _room(self, kept_s: float) -> int:
        """How many candidates the next block may have, where so much time is kept."""
        if self.bench.rounds >= _MOST_BLOCKS:
            return 0
        return self.bench.room(self.ledger.left_s - kept_s)

    def _begin(self, name: str) -> None:
        self.stage = Stage(name, self.ledger.spent_s)

    def _learn(self) -> None:
        """Take note of what leads after a block."""
        self.lead = leader(self.evidence)
        self.ahead = None
        if self.lead != self.start:
            self.ahead = self.evidence.against(self.lead, self.start)
        self.ledger.parts[TUNED] = self.evidence.part(self.lead)

    def _end_stage(self, untried: Sequence[Config] = ()) -> None:
        stage = self.stage
        stage.untried, stage.leader = tuple(untried), self.lead
        stage.spent_s = self.ledger.spent_s - stage.began_s
        if stage.wholes or stage.spent_s or untried:
            self.stages.append(stage)

    def _end_early(self) -> None:
        """What was stopped is a stage, too, unless that is at its end; the proof is none."""
        if self.stage.name != CONFIRM and self.stage not in self.stages:
            self._end_stage()

    def _tell(self, progress: Progress | None = None, *, pause_s: float | None = None) -> None:
        stage = self.stage
        low, ratio, high = ratios(self.ahead) if self.ahead else (None, None, None)
        self.observe(
            TuneProgress(
                stage=stage.name,
                summary=_SUMMARIES[stage.name],
                number=list(_SUMMARIES).index(stage.name) + 1,
                stages=len(_SUMMARIES),
                alive=stage.alive,
                of=len(stage.wholes),
                best=self.lead,
                spent_s=self.ledger.spent_s,
                budget_s=self.ledger.budget_s,
                ratio=ratio,
                low=low,
                high=high,
                pause_s=pause_s,
                progress=progress,
            )
        )

    def _found(self, conclusion: Conclusion, why: str) -> Found:
        measured = bool(self.evidence.entries)
        several = len(self.lab.task.objectives) > 1
        return Found(
            conclusion=conclusion,
            why=why,
            changes=self.lead if conclusion is Conclusion.FASTER else Config(),
            best=self.lead,
            stages=tuple(
                record(stage, self.evidence, self.lead, _SUMMARIES[stage.name])
                for stage in self.stages
            ),
            front=front(self.evidence) if measured and several else (),
            answers=self.answered,
            noise=self.evidence.model.spreads.noise if measured else None,
            spent_s=self.ledger.spent_s,
            trials=tuple(self.bench.trials),
            untouched=self.untouched,
            notes=self.notes,
        )
