"""A measurement from the command line: conditions, progress, and the outcome kept and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from velollm_core.cli.printing import print_result
from velollm_core.cli.progress import measuring
from velollm_core.cli.runs import find_run
from velollm_core.cli.state import State
from velollm_core.cli.verdicts import doubted, judge
from velollm_core.documents import write
from velollm_core.errors import FailureKind, Interrupted, Unavailable, Unsettled, UsageError
from velollm_core.experiment.benchmark import KIND, MAJOR, Outcome, benchmark
from velollm_core.experiment.clock import SystemClock
from velollm_core.experiment.conditions import spoilers
from velollm_core.experiment.measures import measured
from velollm_core.experiment.monitor import SystemMonitor
from velollm_core.experiment.runner import Progress, Surroundings
from velollm_core.experiment.spec import Arm, Experiment, Failure
from velollm_core.hardware.detect import available_bytes, detect, fingerprint
from velollm_core.hardware.spec import HardwareSpec
from velollm_core.report.terminal import one_line


def measure(state: State, experiment: Experiment, resumed: str | None) -> Outcome:
    """Run ``experiment`` with progress, keep it in the journal, and tell the observers.

    Raises:
        Unsettled: something else is at work on this machine, and ``experiment`` is not forced.
        UsageError: ``resumed`` names no run.
    """
    if resumed is not None:
        resumed = find_run(state, resumed, KIND).id
    hardware = detect(gpus=state.plugins.detect_gpus)
    notes = conditions(
        state,
        hardware,
        [arm for arm in experiment.arms if arm.mode == "attach"],
        force=experiment.force,
    )
    with measuring(state.output, experiment) as show:

        def observe(progress: Progress) -> None:
            tell_of_trial(state, progress)
            show(progress)

        outcome = benchmark(
            experiment,
            hardware=hardware,
            journal=state.journal,
            clock=SystemClock(),
            surroundings=surroundings(state, hardware),
            summarize=one_line,
            observe=observe,
            resumed=resumed,
            notes=notes,
        )
    state.plugins.benchmark_finished(outcome.result)
    return outcome


def surroundings(state: State, hardware: HardwareSpec) -> Surroundings:
    """What a run takes from this machine."""
    return Surroundings(
        environ=engine_environ(state),
        available_bytes=available_bytes,
        monitor=SystemMonitor(available_bytes),
        hardware_fingerprint=fingerprint(hardware),
    )


def engine_environ(state: State) -> dict[str, str]:
    """The environment that an engine is started from."""
    return {k: v for k, v in state.environ.items() if not k.startswith("VELOLLM_")}


def tell_of_trial(state: State, progress: Progress) -> None:
    """Tell the plugins of a trial that has just ended."""
    if progress.trial is not None and not progress.kept:
        state.plugins.trial_finished(progress.trial)


def conditions(
    state: State, hardware: HardwareSpec, attached: Sequence[Arm], *, force: bool
) -> tuple[str, ...]:
    """What would spoil a measurement on this machine now, each told as a warning.

    Args:
        state: where to tell it.
        hardware: the machine.
        attached: what takes part and runs already.
        force: go on nevertheless.

    Raises:
        Unsettled: there is something, and ``force`` is not set.
    """
    found = spoilers(hardware.cpu.usable, _pids(attached))
    if found and not force:
        raise Unsettled(
            f"this machine is not at rest: {'; '.join(found)}.",
            "Stop that first, or measure nevertheless with --force; the result will say so.",
        )
    for sentence in found:
        state.output.warn(sentence)
    return found


def _pids(attached: Iterable[Arm]) -> tuple[int, ...]:
    pids: list[int] = []
    for arm in attached:
        with arm.backend.attach(arm.installation, arm.model, arm.settings.config) as session:
            pids.extend(session.pids)
    return tuple(pids)


def deliver(
    state: State,
    run: str,
    fault: UsageError | None,
    *,
    form: str,
    printing: Callable[[], None],
    writing: Iterable[Callable[[], None]],
) -> None:
    """Print first, then write: a full disk must not cost the table. Then say where it is kept.

    Args:
        state: where to print.
        run: what is kept in the journal.
        fault: why the journal does not hold it, where it does not.
        form: in which it is printed, for messages.
        printing: prints the result.
        writing: each writes a file and says so.

    Raises:
        UsageError: something of it failed; everything else was done.
    """
    faults = [] if fault is None else [fault]
    try:
        printing()
    except OSError as error:
        faults.append(UsageError(f"standard output cannot be written: {error.strerror}."))
    except UsageError as error:
        faults.append(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the files must not be lost for it
        faults.append(UsageError(f"the result cannot be printed as {form}: {error}."))
    for write_one in writing:
        try:
            write_one()
        except UsageError as error:
            faults.append(error)
    if fault is None:
        state.output.remark(f"kept as run {run}; see: velollm results show {run}")
    if faults:
        told = dict.fromkeys(entry.message for entry in faults)
        raise UsageError("\n".join(told), faults[0].hint)


def report(
    state: State, outcome: Outcome, form: str, target: Path | None, limit: float | None
) -> None:
    """Print and write the result, then judge it.

    Args:
        state: where to print.
        outcome: what was measured.
        form: one of the formats that results are printed in.
        target: where to write it, too.
        limit: the part by which a change may be slower, for ``--fail-if-slower``.
    """
    result = outcome.result

    def save() -> None:
        if target is not None:
            write(target, KIND, MAJOR, result)
            state.output.remark(f"written to {target}")

    deliver(
        state,
        result.run,
        outcome.fault,
        form=form,
        printing=lambda: print_result(state, result, form),
        writing=(save,),
    )
    _judge(outcome, limit)


def _judge(outcome: Outcome, limit: float | None) -> None:
    refuse_unmeasured(outcome)
    judge(doubted(outcome.result), limit)
    failures = _failures(outcome)
    if failures:
        raise Unsettled(
            f"{len(failures)} of {len(outcome.result.trials)} launches failed: "
            f"{failures[0].message}"
        )


def refuse_unmeasured(outcome: Outcome) -> None:
    """Make sure that a run came to its end and measured something.

    Raises:
        Interrupted: the user stopped it.
        Unavailable: every launch failed.
    """
    result = outcome.result
    if outcome.interrupted:
        kept = sum(len(measured(phase)) for trial in result.trials for phase in trial.phases)
        raise Interrupted(
            f"stopped; what was measured until then is kept, {kept} requests.",
            f"Go on with the same options and --resume {result.run}",
        )
    failures = _failures(outcome)
    if failures and len(failures) == len(result.trials):
        raise Unavailable(f"nothing could be measured: {failures[0].message}")


def _failures(outcome: Outcome) -> list[Failure]:
    failures = [trial.failure for trial in outcome.result.trials if trial.failure is not None]
    return [failure for failure in failures if failure.kind is not FailureKind.INTERRUPTED]
