"""Where a tune measures: arms from changes, and experiments on one run's side of the journal."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from attrs import evolve, frozen

from velollm_core.config import Config, Settings, differ
from velollm_core.errors import FailureKind, VeloError
from velollm_core.experiment.clock import Clock
from velollm_core.experiment.journal import RunJournal
from velollm_core.experiment.keys import trial_key
from velollm_core.experiment.measures import failed
from velollm_core.experiment.records import arm_record, workload_record
from velollm_core.experiment.runner import AfterBlock, Progress, Surroundings, run
from velollm_core.experiment.spec import Arm, Experiment, ExperimentResult, Failure, Trial
from velollm_core.tune.requirements import in_force
from velollm_core.tune.spec import Task

ORIGIN = "velollm tune"
"""Where the values of a tuned configuration come from."""

TUNED = "tuned"
CURRENT = "current"
DEFAULTS = "defaults"

_TOO_FAR_APART = timedelta(hours=1)
_LONGEST_LABEL = 80
_LEAST_PATIENCE_S = 30.0
"""So long a server is waited for at least, however short a trial may be."""


class TakesTooLong(Exception):  # noqa: N818 - not an error of ours, an outcome
    """Ends a trial between two of its requests: it takes too long to win."""


@frozen(kw_only=True)
class Lab:
    """What all experiments of a tune share.

    ``moved`` names the knobs that the search may change: of an attached server every arm sets all
    of them, or one would run with what another has left behind. ``pause`` waits for so many
    seconds.
    """

    task: Task
    journal: RunJournal
    clock: Clock
    surroundings: Surroundings
    pause: Callable[[float], None] = time.sleep
    moved: frozenset[str] = frozenset()

    def arm(self, name: str, changes: Config) -> Arm:
        """The user's own settings with ``changes`` laid over them."""
        task, settings = self.task, self.task.current
        if task.mode == "attach":
            now = {name: in_force(task, name) for name in sorted(self.moved)}
            known = {name: value for name, value in now.items() if value is not None}
            settings = evolve(settings, config=Config(known))
        changed = evolve(
            settings,
            config=settings.config | changes,
            origins={**settings.origins, **dict.fromkeys(changes, ORIGIN)},
        )
        return arm_of(task, name, changed)

    def defaults(self, name: str) -> Arm:
        """The engine's own settings."""
        return arm_of(self.task, name, self.task.defaults)

    def differ(self, one: Settings, other: Settings) -> bool:
        """Whether two settings run differently; what one of them does not say is as the engine has
        it by itself.
        """
        own = self.task.defaults.config
        return differ(
            evolve(one, config=own | one.config), evolve(other, config=own | other.config)
        )

    def run(
        self,
        arms: Sequence[Arm],
        blocks: int,
        *,
        seed: int,
        after_block: AfterBlock = lambda _, __: (),
        observe: Callable[[Progress], None] = lambda _: None,
        longest_s: float | None = None,
    ) -> ExperimentResult:
        """Measure; what the journal holds is not measured again, unless its block was torn.

        Args:
            arms: what takes part.
            blocks: how many blocks at most.
            seed: decides the prompts and the order.
            after_block: may drop arms.
            observe: told of progress.
            longest_s: a trial that takes longer is ended after the request under way, and fails.
                Nor is a server waited for longer than that, or half a minute where that is more.
        """
        task = self.task
        dropped: set[str] = set()
        started_ms = [0.0]

        def after(block: int, trials: Sequence[Trial]) -> list[str]:
            out = [*after_block(block, trials)]
            dropped.update(out)
            self._mend([arm for arm in arms if arm.name not in dropped], block + 1, seed)
            return out

        def watch(progress: Progress) -> None:
            if progress.event == "launching":
                started_ms[0] = self.clock.now_ms()
            observe(progress)
            # Only between requests: there the runner takes it for the end of this trial.
            if longest_s is None or progress.sample is None:
                return
            if self.clock.now_ms() - started_ms[0] > longest_s * 1000.0:
                raise TakesTooLong(f"ended after {longest_s:.0f} s")

        def at_most(seconds: float) -> float:
            return seconds if longest_s is None else min(seconds, max(_LEAST_PATIENCE_S, longest_s))

        self._mend(arms, 0, seed)
        return run(
            Experiment(
                arms=tuple(arms),
                phases=task.phases,
                blocks=blocks,
                seed=seed,
                unit="block" if task.mode == "attach" else "launch",
                force=task.force,
                launch_timeout_s=at_most(task.launch_timeout_s),
                request_timeout_s=at_most(task.request_timeout_s),
            ),
            journal=self.journal,
            clock=self.clock,
            surroundings=self.surroundings,
            after_block=after,
            observe=watch,
        )

    def set_back(self) -> str:
        """Leave a server that runs already as it was; why that failed, else nothing."""
        if self.task.mode != "attach" or not self.moved:
            return ""
        arm = self.arm(CURRENT, Config())
        try:
            with arm.backend.attach(arm.installation, arm.model, arm.settings.config):
                return ""
        except VeloError as error:
            return f"the server could not be set back to what it was: {error}"

    def holds(self, arms: Sequence[Arm], block: int, seed: int) -> bool:
        """Whether a trial of that block has ended before."""
        return any(self._ended(arm, block, seed) for arm in arms)

    def _ended(self, arm: Arm, block: int, seed: int) -> Trial | None:
        return self.journal.finished(arm.name, self._key(arm, seed), block)

    def _key(self, arm: Arm, seed: int) -> str:
        workloads = tuple(workload_record(phase) for phase in self.task.phases)
        machine = self.surroundings.hardware_fingerprint
        return trial_key(arm_record(arm), workloads, machine, seed)

    def _mend(self, arms: Sequence[Arm], block: int, seed: int) -> None:
        """Forget the trials of a block that was torn too long ago: its arms are to share an
        hour.
        """
        ended = [(arm, self._ended(arm, block, seed)) for arm in arms]
        if all(trial is None for _, trial in ended) or all(trial for _, trial in ended):
            return
        now = datetime.fromisoformat(self.clock.utc())
        for arm, trial in ended:
            if trial and now - datetime.fromisoformat(trial.started_at) > _TOO_FAR_APART:
                self.journal.forget(arm.name, trial.key, block)


def arm_of(task: Task, name: str, settings: Settings) -> Arm:
    """What ``task`` is about, with ``settings``."""
    return Arm(
        name=name,
        backend=task.backend,
        installation=task.installation,
        model=task.model,
        settings=settings,
        mode=task.mode,
    )


def arm_name(stage: str, label: str) -> str:
    """A name for an arm of ``stage`` that may be part of a folder's name on any system."""
    plain = re.sub(r"[^A-Za-z0-9_.=+,-]", "_", label)
    if plain != label or len(plain) > _LONGEST_LABEL:
        plain = f"{plain[:_LONGEST_LABEL]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    return f"{stage}.{plain}"


def fault_of(trial: Trial) -> Failure | None:
    """What went wrong in ``trial``: itself, or one of its measured requests."""
    if trial.failure is not None:
        return trial.failure
    for phase in trial.phases:
        for sample in phase.samples:
            if not sample.warmup and failed(sample):
                return Failure(
                    kind=sample.failure or FailureKind.REFUSED, message=sample.error or ""
                )
    return None


def shortened(failure: Failure) -> str:
    """The first line of what went wrong, in words for a user."""
    line = failure.message.splitlines()[0] if failure.message else failure.kind.value
    return line.replace(f"{TakesTooLong.__name__}: ", "a trial takes too long, ")


def took_too_long(trial: Trial) -> bool:
    """Whether ``trial`` was ended because it could not win any more."""
    failure = trial.failure
    return failure is not None and failure.message.startswith(f"{TakesTooLong.__name__}: ")
