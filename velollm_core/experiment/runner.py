"""The one primitive that measures: blocks of trials, every arm once a block, in a shuffled
order.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from attrs import define, evolve, frozen

from velollm_core.backends.contract import Session, mismatches
from velollm_core.backends.processes import Place
from velollm_core.config import Config
from velollm_core.errors import FailureKind, LaunchError, RequestError, VeloError
from velollm_core.experiment.clock import Clock
from velollm_core.experiment.counters import counters, risen
from velollm_core.experiment.journal import RunJournal
from velollm_core.experiment.keys import trial_key
from velollm_core.experiment.monitor import Monitor, Observed
from velollm_core.experiment.phases import PhaseStopped, run_phase
from velollm_core.experiment.records import (
    anonymous_trial,
    anonymous_uuid,
    arm_record,
    workload_record,
)
from velollm_core.experiment.spec import (
    Arm,
    Experiment,
    ExperimentResult,
    Failure,
    PhaseRecord,
    Sample,
    Trial,
)

AfterBlock = Callable[[int, Sequence[Trial]], Iterable[str]]
"""Told of each block and of all trials until then; names the arms to drop."""


@frozen(kw_only=True)
class Progress:
    """Where a run stands, for whoever shows it.

    ``trial`` is set when one has just ended; ``kept`` says that it had ended in an earlier call.
    """

    event: Literal["launching", "warming", "measuring", "trial"]
    arm: str
    block: int
    phase: int = 0
    requests_done: int = 0
    requests_total: int = 0
    sample: Sample | None = None
    trial: Trial | None = None
    kept: bool = False


Observe = Callable[[Progress], None]


@frozen(kw_only=True)
class Surroundings:
    """What a run takes from the machine: the environment its servers get, memory, and the monitor.

    ``available_bytes`` says what this process may still take; ``hardware_fingerprint`` is part of
    each key.
    """

    environ: Mapping[str, str]
    available_bytes: Callable[[], int]
    monitor: Monitor
    hardware_fingerprint: str


def run(
    experiment: Experiment,
    *,
    journal: RunJournal,
    clock: Clock,
    surroundings: Surroundings,
    after_block: AfterBlock | None = None,
    observe: Observe = lambda _: None,
) -> ExperimentResult:
    """Run every block, writing each trial to ``journal`` as it ends.

    A trial that the journal holds already is not run again, unless another arm of its block is
    still to be compared with it: a pair is of one hour. A failed trial is an outcome: the run goes
    on. After Ctrl-C the trial under way is kept as far as it came and the result says so.

    Args:
        experiment: what to do.
        journal: where trials go, and where finished ones come from.
        clock: the time.
        surroundings: the machine.
        after_block: may drop arms after each block: that is racing.
        observe: told of progress, between requests, never inside one.

    Returns:
        every trial, in the order they ended.

    Raises:
        Unavailable: an attached server is not there at the start.
    """
    trials: list[Trial] = []
    dropped: list[str] = []
    interrupted = False
    try:
        with ExitStack() as stack:
            runner = _Runner(
                experiment,
                stack,
                journal=journal,
                clock=clock,
                surroundings=surroundings,
                observe=observe,
            )
            for block in range(experiment.blocks):
                alive = [arm for arm in experiment.arms if arm.name not in dropped]
                random.Random(f"{experiment.seed}/{block}").shuffle(alive)  # noqa: S311 - an order, no secret
                known = {arm.name: runner.finished(arm, block) for arm in alive}
                if experiment.question is not None and not all(known.values()):
                    known = {}
                for position, arm in enumerate(alive):
                    trial = known.get(arm.name) or runner.trial(arm, block, position)
                    trials.append(trial)
                    kept = known.get(arm.name) is not None
                    observe(
                        Progress(event="trial", arm=arm.name, block=block, trial=trial, kept=kept)
                    )
                    if runner.interrupted:
                        raise KeyboardInterrupt
                if after_block is not None:
                    dropped.extend(after_block(block, tuple(trials)))
                if len(dropped) >= len(experiment.arms):
                    break
    except KeyboardInterrupt:
        interrupted = True
    return ExperimentResult(
        run=journal.run, trials=tuple(trials), dropped=tuple(dropped), interrupted=interrupted
    )


class _Runner:
    """The parts of a run that every trial needs."""

    def __init__(
        self,
        experiment: Experiment,
        stack: ExitStack,
        *,
        journal: RunJournal,
        clock: Clock,
        surroundings: Surroundings,
        observe: Observe,
    ) -> None:
        self._experiment = experiment
        self._journal = journal
        self._clock = clock
        self._surroundings = surroundings
        self._observe = observe
        self._stack = stack
        self.interrupted = False
        self._sessions: dict[str, Session] = {}
        self._workloads = tuple(workload_record(phase) for phase in experiment.phases)
        locations = [arm.installation.location for arm in experiment.arms]
        self._shared = experiment.unit == "block" and len(set(locations)) < len(locations)

    def finished(self, arm: Arm, block: int) -> Trial | None:
        """What an earlier call left of this trial, if it ended by itself."""
        return self._journal.finished(arm.name, self._key(arm), block)

    def _key(self, arm: Arm) -> str:
        return trial_key(
            arm_record(arm),
            self._workloads,
            self._surroundings.hardware_fingerprint,
            self._experiment.seed,
        )

    def trial(self, arm: Arm, block: int, position: int) -> Trial:
        started_ms = self._clock.now_ms()
        draft = Trial(
            key=self._key(arm),
            arm=arm.name,
            block=block,
            position=position,
            started_at=self._clock.utc(),
            duration_ms=0.0,
        )
        trial = evolve(self._measure(arm, draft), duration_ms=self._clock.now_ms() - started_ms)
        return self._journal.add(anonymous_trial(trial, arm))

    def _measure(self, arm: Arm, draft: Trial) -> Trial:
        """The trial as far as it came, whatever ended it."""
        self._observe(Progress(event="launching", arm=arm.name, block=draft.block))
        under_way = _UnderWay(draft)
        try:
            with ExitStack() as own:
                stack = own if self._experiment.unit == "launch" else self._stack
                self._refuse_what_does_not_fit(arm)
                session = self._session(arm, draft.block, stack)
                self._with_session(arm, session, under_way)
        except KeyboardInterrupt:
            self.interrupted = True
            under_way.fail(Failure(kind=FailureKind.INTERRUPTED, message="stopped by the user."))
        except VeloError as error:
            under_way.fail(Failure(kind=_kind(error), message=str(error)))
        except Exception as error:  # noqa: BLE001 - an adapter's fault is an outcome of its trial
            words = f"backend {arm.backend.name} failed: {type(error).__name__}: {error}"
            under_way.fail(Failure(kind=FailureKind.CRASH, message=words))
        trial = under_way.trial
        if trial.failure is not None:
            if trial.failure.kind is FailureKind.INTERRUPTED:
                self.interrupted = True
            # It is closed, or no longer to be trusted: the next block opens a new one.
            left = self._sessions.pop(arm.name, None)
            if left is not None:
                left.close()
        return trial

    def _refuse_what_does_not_fit(self, arm: Arm) -> None:
        """Starting what is larger than the memory that is left would make the machine swap."""
        if arm.mode == "attach":
            return
        footprint = arm.backend.footprint(arm.installation, arm.model, arm.settings.config)
        available = self._surroundings.available_bytes()
        if footprint is not None and footprint.host_bytes > available:
            raise LaunchError(
                f"not started: it would take about {footprint.host_bytes / 2**30:.1f} GiB, "
                f"{available / 2**30:.1f} GiB are available.",
                "",
                FailureKind.OUT_OF_MEMORY,
            )

    def _session(self, arm: Arm, block: int, stack: ExitStack) -> Session:
        session = self._sessions.get(arm.name)
        if session is None:
            config = arm.settings.config
            if arm.mode == "attach":
                opened = arm.backend.attach(arm.installation, arm.model, config)
            else:
                directory = Path(stack.enter_context(_temporary_directory(f"{arm.name}-{block}")))
                place = Place(
                    directory=directory,
                    log_path=directory / "server.log",
                    environ=self._surroundings.environ,
                    deadline=time.monotonic() + self._experiment.launch_timeout_s,
                )
                opened = arm.backend.launch(arm.installation, arm.model, arm.settings, place)
            session = stack.enter_context(opened)
            if self._experiment.unit == "block":
                self._sessions[arm.name] = session
        if self._experiment.unit == "block":
            session.reconfigure(_changeable(arm))
        return session

    def _with_session(self, arm: Arm, session: Session, under_way: _UnderWay) -> None:
        effective = session.effective()
        expected = arm.backend.expected(arm.installation, arm.model, arm.settings.config)
        under_way.add(
            load_ms=session.load_ms,
            effective=effective,
            mismatches=mismatches(expected, effective),
            unverified=_unverified(arm),
        )
        danger: list[Failure] = []

        def end_it(reason: str) -> None:
            message = f"ended before it swapped: {reason}."
            danger.append(Failure(kind=FailureKind.OUT_OF_MEMORY, message=message))
            session.close()

        before = counters(session)
        watch = self._surroundings.monitor.start(session, end_it)
        try:
            for number, phase in enumerate(self._experiment.phases):
                record = self._phase(arm, session, under_way.trial.block, number, danger)
                under_way.add(phases=(*under_way.trial.phases, record))
                failure = _all_failed(record, phase.workload.name)
                if failure is not None:
                    under_way.fail(failure)
                    break
        except PhaseStopped as stopped:
            under_way.add(phases=(*under_way.trial.phases, stopped.record))
            under_way.fail(stopped.failure)
        finally:
            observed: Observed = watch.stop()
            under_way.add(
                peak_rss_bytes=observed.peak_rss_bytes,
                peak_gpu_bytes={
                    anonymous_uuid(uuid): used for uuid, used in observed.peak_gpu_bytes.items()
                },
                energy_j=observed.energy_j,
                counters=risen(before, counters(session)),
                load=observed.load,
            )
        under_way.measured = True

    def _phase(
        self, arm: Arm, session: Session, block: int, number: int, danger: list[Failure]
    ) -> PhaseRecord:
        def tell(event: Literal["warming", "measuring"], done: int, sample: Sample | None) -> None:
            self._observe(
                Progress(
                    event=event,
                    arm=arm.name,
                    block=block,
                    phase=number,
                    requests_done=done,
                    requests_total=self._experiment.phases[number].requests,
                    sample=sample,
                )
            )

        # A server that was there before, or that another arm uses, may know the prompts already.
        known = self._shared or arm.mode == "attach"
        nonce = f"{self._journal.run}/{arm.name}/{block}/{self._clock.utc()}" if known else None
        monitor = self._surroundings.monitor
        own_s, server_s = monitor.cpu_s(session)
        record = run_phase(
            session,
            self._experiment,
            number=number,
            block=block,
            nonce=nonce,
            clock=self._clock,
            tell=tell,
            danger=danger,
        )
        own_end_s, server_end_s = monitor.cpu_s(session)
        return evolve(
            record,
            client_cpu_s=own_end_s - own_s,
            server_cpu_s=None
            if server_s is None or server_end_s is None
            else server_end_s - server_s,
        )


@define
class _UnderWay:
    """A trial while it is measured. Once ``measured``, no failure of the closing takes it back."""

    trial: Trial
    measured: bool = False

    def add(self, **changes: Any) -> None:
        self.trial = evolve(self.trial, **changes)

    def fail(self, failure: Failure) -> None:
        if not self.measured and self.trial.failure is None:
            self.trial = evolve(self.trial, failure=failure)


def _temporary_directory(label: str) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=f"velollm-{label}-", ignore_cleanup_errors=True)


def _changeable(arm: Arm) -> Config:
    """What a running server of ``arm`` can be told: all of it when attached, its live knobs when
    launched.
    """
    if arm.mode == "attach":
        return arm.settings.config
    knobs = arm.backend.knobs(arm.installation, arm.model)
    live = {knob.name for knob in knobs if knob.change != "restart"}
    return Config({name: value for name, value in arm.settings.config.items() if name in live})


def _unverified(arm: Arm) -> tuple[str, ...]:
    """Knobs that the arm sets and that the engine cannot tell back."""
    knobs = arm.backend.knobs(arm.installation, arm.model)
    return tuple(
        knob.name for knob in knobs if knob.unreadable and knob.name in arm.settings.config
    )


def _kind(error: VeloError) -> FailureKind:
    if isinstance(error, (LaunchError, RequestError)):
        return error.kind
    return FailureKind.REFUSED


def _all_failed(record: PhaseRecord, workload: str) -> Failure | None:
    measured = [sample for sample in record.samples if not sample.warmup]
    if not measured or any(sample.error is None for sample in measured):
        return None
    return Failure(
        kind=measured[0].failure or FailureKind.REFUSED,
        message=f"every request of {workload} failed: {measured[0].error}",
    )
