"""Progress of long work, on standard error: bars on a terminal, a line a step elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from velollm_core.cli.output import Output

if TYPE_CHECKING:
    from velollm_core.experiment.runner import Progress
    from velollm_core.experiment.spec import Experiment, Phase, Sample, Trial
    from velollm_core.tune.search import TuneProgress
    from velollm_core.tune.spec import Task

Download = Callable[[int, int | None, str], None]
_REFRESHES_PER_S = 4
"""A display that redraws more often takes processor time from what is being measured."""
_LOADING = "loading the model"


@contextmanager
def downloading(output: Output) -> Iterator[Download]:
    """A callable ``(done_bytes, total_bytes, what)`` that shows a download; silent until it is
    called.
    """
    if not output.shows_progress:
        told: set[str] = set()

        def once(done: int, total: int | None, what: str) -> None:
            del done, total
            if what not in told:
                told.add(what)
                output.remark(what)

        yield once
        return
    from rich import progress

    bar = progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TimeRemainingColumn(),
        console=output.err,
        transient=True,
    )
    tasks: dict[str, progress.TaskID] = {}

    def show(done: int, total: int | None, what: str) -> None:
        if not tasks:
            bar.start()
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done, total=total)

    try:
        yield show
    finally:
        bar.stop()


@contextmanager
def measuring(output: Output, experiment: Experiment) -> Iterator[Callable[[Progress], None]]:
    """An observer of a run: where it stands, and the last rate that was seen."""
    interim = _Interim(experiment)
    if not output.shows_progress:
        yield lambda progress: _tell(output, experiment, progress, interim)
        return
    from rich import progress as bars

    bar = bars.Progress(
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(bar_width=20),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("{task.fields[rate]}", markup=False),
        bars.TextColumn("{task.fields[ratio]}", markup=False),
        console=output.err,
        transient=True,
        refresh_per_second=_REFRESHES_PER_S,
    )
    each = sum(phase.requests for phase in experiment.phases)
    total = each * experiment.blocks * len(experiment.arms)
    task = bar.add_task("starting", total=total, rate="", ratio="")
    finished = 0

    def show(progress: Progress) -> None:
        nonlocal finished
        where = _where(experiment, progress)
        if progress.event == "trial":
            finished += each
            bar.update(task, completed=finished, ratio=interim.after(progress))
        elif progress.event == "launching":
            bar.update(task, description=f"{where}: {_LOADING}")
        else:
            phase = experiment.phases[progress.phase]
            before = sum(entry.requests for entry in experiment.phases[: progress.phase])
            done = min(progress.requests_done, phase.requests)
            warm = progress.event == "warming"
            bar.update(
                task,
                description=f"{where}: {_doing(progress, phase)}",
                completed=finished + before + (0 if warm else done),
                rate=_rate(progress.sample),
            )

    with bar:
        yield show


@contextmanager
def tuning(output: Output, task: Task) -> Iterator[Callable[[TuneProgress], None]]:
    """An observer of a tune: its stage, what its block holds, the best so far, the time left.

    Time counts as the budget does: trials and pauses.
    """
    if not output.shows_progress:
        yield _TuneLines(output).tell
        return
    from rich import progress as bars

    bar = bars.Progress(
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(bar_width=20),
        bars.TextColumn("{task.fields[left]}", markup=False),
        bars.TextColumn("{task.fields[best]}", markup=False),
        console=output.err,
        transient=True,
        refresh_per_second=_REFRESHES_PER_S,
    )
    shown = bar.add_task("starting", total=task.budget_s, left="", best="")
    account = _Account()

    def show(progress: TuneProgress) -> None:
        left_s = account.left_s(progress)
        bar.update(
            shown,
            description=f"{_stage(progress)}: {_activity(progress, task.phases)}",
            completed=task.budget_s - left_s,
            left=f"{_minutes(left_s)} left",
            best=_best(progress),
        )

    with bar:
        yield show


class _Account:
    """What is left of a budget. A tune enters its trials by blocks; those since then count, too."""

    def __init__(self) -> None:
        self._entered_s = 0.0
        self._since_s: dict[tuple[str, int], float] = {}

    def left_s(self, progress: TuneProgress) -> float:
        """Seconds, after what ``progress`` tells."""
        if progress.spent_s != self._entered_s:
            self._entered_s = progress.spent_s
            self._since_s = {}
        own = progress.progress
        if own is not None and own.trial is not None:
            self._since_s[own.arm, own.block] = own.trial.duration_ms / 1000
        return max(0.0, progress.budget_s - self._entered_s - sum(self._since_s.values()))


class _TuneLines:
    """A line for each stage, each pause and each trial."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._stage = ""
        self._account = _Account()

    def tell(self, progress: TuneProgress) -> None:
        own, stage, left_s = progress.progress, _stage(progress), self._account.left_s(progress)
        if progress.stage != self._stage:
            self._stage = progress.stage
            self._output.remark(f"{stage}: {progress.summary}")
        if progress.pause_s is not None:
            self._output.remark(f"{stage}: {_pausing(progress.pause_s)}")
        elif own is not None and own.trial is not None and not own.kept:
            self._output.remark(
                f"{stage}: {_arm(progress, own)}, block {own.block + 1}: {_ended(own.trial)}; "
                f"{_best(progress)}; {_minutes(left_s)} left"
            )


def _stage(progress: TuneProgress) -> str:
    alive = f", {len(progress.alive)} of {progress.of} in this block" if progress.of else ""
    return f"{progress.stage} ({progress.number} of {progress.stages}{alive})"


def _activity(progress: TuneProgress, phases: Sequence[Phase]) -> str:
    own = progress.progress
    if progress.pause_s is not None:
        return _pausing(progress.pause_s)
    if own is None:
        return progress.summary
    if own.event == "trial":
        return f"{_arm(progress, own)} done"
    doing = _LOADING if own.event == "launching" else _doing(own, phases[own.phase])
    return f"{_arm(progress, own)}: {doing}"


def _arm(progress: TuneProgress, own: Progress) -> str:
    """What is measured, without the stage, which is named already."""
    return own.arm.removeprefix(f"{progress.stage}.")


def _pausing(seconds: float) -> str:
    return f"the machine has become slower, so it gets {seconds:.0f} s to cool down"


def _best(progress: TuneProgress) -> str:
    what = str(progress.best) or "what you have"
    if progress.ratio is None or progress.low is None or progress.high is None:
        return f"best so far {what}"
    return f"best so far {what} at {progress.ratio:.3f} [{progress.low:.3f}, {progress.high:.3f}]"


def _minutes(seconds: float) -> str:
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"


def _doing(progress: Progress, phase: Phase) -> str:
    clients = f" x{phase.concurrency}" if phase.concurrency > 1 else ""
    return f"{phase.workload.name}{clients}{' (warm-up)' if progress.event == 'warming' else ''}"


def _where(experiment: Experiment, progress: Progress) -> str:
    arm = f" {progress.arm}" if len(experiment.arms) > 1 else ""
    return f"{experiment.unit} {progress.block + 1} of {experiment.blocks}{arm}"


class _Interim:
    """The ratio so far, to be watched; how long a run goes on does not depend on it."""

    def __init__(self, experiment: Experiment) -> None:
        from velollm_core.experiment.records import arm_record, workload_record

        self._question = experiment.question
        self._planned = experiment.blocks
        self._arms = tuple(map(arm_record, experiment.arms))
        self._workloads = tuple(map(workload_record, experiment.phases))
        self._trials: list[Trial] = []

    def after(self, progress: Progress) -> str:
        """``short 1.031 [0.990, 1.073]`` for each row that two pairs bound already."""
        from velollm_core.experiment.comparison import compare
        from velollm_core.report.comparisons import ratio_text

        if self._question is None or progress.trial is None:
            return ""
        self._trials.append(progress.trial)
        rows = compare(self._question, self._arms, self._workloads, self._trials, self._planned)
        return ", ".join(
            f"{row.workload} x{row.concurrency} {ratio_text(row)}"
            for row in rows
            if row.speed_ratio is not None
        )


def _tell(output: Output, experiment: Experiment, progress: Progress, interim: _Interim) -> None:
    if progress.event != "trial" or progress.trial is None:
        return
    trial = progress.trial
    ratio = interim.after(progress)
    if progress.kept:
        return
    so_far = f"; so far {ratio}" if ratio else ""
    where = _where(experiment, progress)
    output.remark(f"{where}: {_ended(trial)}{so_far}")


def _ended(trial: Trial) -> str:
    ending = "done" if trial.failure is None else f"{trial.failure.kind}: {trial.failure.message}"
    return f"{ending} ({trial.duration_ms / 1000:.1f} s)"


def _rate(sample: Sample | None) -> str:
    if sample is None or sample.timings is None or not sample.output_tokens:
        return ""
    if sample.output_tokens < 2 or not sample.timings.predicted_ms:
        return ""
    return f"{(sample.output_tokens - 1) / sample.timings.predicted_ms * 1000:.0f} tok/s"
