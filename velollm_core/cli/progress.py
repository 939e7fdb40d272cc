"""Progress of long work, on standard error: bars on a terminal, a line a step elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from velollm_core.cli.output import Output

if TYPE_CHECKING:
    from velollm_core.experiment.runner import Progress
    from velollm_core.experiment.spec import Experiment, Sample, Trial

Download = Callable[[int, int | None, str], None]
_REFRESHES_PER_S = 4
"""A display that redraws more often takes processor time from what is being measured."""


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
            bar.update(task, description=f"{where}: loading the model")
        else:
            phase = experiment.phases[progress.phase]
            clients = f" x{phase.concurrency}" if phase.concurrency > 1 else ""
            before = sum(entry.requests for entry in experiment.phases[: progress.phase])
            done = min(progress.requests_done, phase.requests)
            warm = progress.event == "warming"
            suffix = " (warm-up)" if warm else ""
            bar.update(
                task,
                description=f"{where}: {phase.workload.name}{clients}{suffix}",
                completed=finished + before + (0 if warm else done),
                rate=_rate(progress.sample),
            )

    with bar:
        yield show


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
    ending = "done" if trial.failure is None else f"{trial.failure.kind}: {trial.failure.message}"
    so_far = f"; so far {ratio}" if ratio else ""
    where = _where(experiment, progress)
    output.remark(f"{where}: {ending} ({trial.duration_ms / 1000:.1f} s){so_far}")


def _rate(sample: Sample | None) -> str:
    if sample is None or sample.timings is None or not sample.output_tokens:
        return ""
    if sample.output_tokens < 2 or not sample.timings.predicted_ms:
        return ""
    return f"{(sample.output_tokens - 1) / sample.timings.predicted_ms * 1000:.0f} tok/s"
