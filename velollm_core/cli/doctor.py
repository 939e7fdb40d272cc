"""``velollm doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from velollm_core.cli.options import global_options, option
from velollm_core.cli.state import State
from velollm_core.errors import Interrupted

if TYPE_CHECKING:
    from velollm_core.doctor.spec import Compare, Context, Folder, Script

_ROOM_BYTES = 64 * 1024**2
"""A run's journal entry and its logs take a tenth of this."""
_FETCH_BYTES = 256 * 1024**2
"""The demo model and the wheel that it comes in."""
_MOST_SCRIPT_BYTES = 1024**2
_PAIRS = 6
_WORKLOADS = {"short": 1, "summarize": 0}
"""What ``--measure`` sends, with the warm-up requests of each: short answers, and long prompts."""


@click.command(
    name="doctor",
    epilog="Example: velollm doctor --script run.sh -v",
)
@option(
    "--script",
    "scripts",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    metavar="FILE",
    help="Look at the server commands in this script too; it is read, never run.",
)
@option(
    "--measure",
    is_flag=True,
    help="Measure what can be measured, such as one build against another: starts engines, "
    "takes minutes.",
)
@global_options
@click.pass_context
def command(ctx: click.Context, scripts: tuple[Path, ...], measure: bool) -> None:
    """Say what holds this machine or this installation back, and what to do.

    Each finding says how it was seen and what it costs: measured here, or cited. Exit code 1 if
    something costs speed, 0 otherwise. Nothing is changed or fetched, and no server is started
    without --measure.
    """
    from velollm_core.doctor.diagnosis import diagnose
    from velollm_core.doctor.spec import KIND, MAJOR
    from velollm_core.doctor.terminal import to_terminal
    from velollm_core.documents import dumps

    state = ctx.ensure_object(State)
    context = _context(state, scripts, measure=measure)
    broken_before = len(state.plugins.broken)
    diagnosis, failures = diagnose(state.plugins.diagnose(context), context)
    failed = map(str, state.plugins.broken[broken_before:])
    for line in (*failed, *failures):
        state.output.warn(f"{line}; going on without it.")
    for note in context.probe.notes:
        state.output.warn(note)
    if state.json:
        state.output.text(dumps(KIND, MAJOR, diagnosis))
    else:
        state.output.show(to_terminal(diagnosis, verbose=state.verbose > 0))
    if diagnosis.costs_speed:
        ctx.exit(1)


def _context(state: State, scripts: tuple[Path, ...], *, measure: bool) -> Context:
    from velollm_core.cli.choose import backends
    from velollm_core.doctor.gather import engines, model_at_hand
    from velollm_core.doctor.spec import Context
    from velollm_core.experiment.activity import observe
    from velollm_core.hardware.detect import detect
    from velollm_core.hardware.probe import Probe

    probe = Probe(environ=state.environ)
    # Watched first: what follows starts programs of its own.
    activity = observe(probe)
    hardware = detect(probe, gpus=state.plugins.detect_gpus)
    sources = state.plugins.model_sources()
    found, faults = engines(
        backends(state),
        state.engine_options,
        lambda: model_at_hand(state.model, sources, state.environ),
        state.environ,
    )
    for fault in faults:
        state.output.warn(f"{fault}; going on without it.")
    state.plugins.workloads()  # asked for, so that a failure in that hook is seen as well
    return Context(
        hardware=hardware,
        probe=probe,
        activity=activity,
        folders=_folders(state),
        engines=found,
        broken_plugins=state.plugins.broken,
        scripts=tuple(_script(state, path) for path in scripts),
        compare=_comparing(state) if measure else None,
    )


def _folders(state: State) -> tuple[Folder, ...]:
    import tempfile

    from velollm_core.doctor.gather import folder, needs_demo

    return (
        folder(
            state.folder("data"),
            purpose="the journal",
            variable="VELOLLM_DATA_DIR",
            file="journal.sqlite3",
            needed_bytes=_ROOM_BYTES,
        ),
        folder(
            state.folder("cache"),
            purpose="fetched models",
            variable="VELOLLM_CACHE_DIR",
            needed_bytes=_FETCH_BYTES if needs_demo(state.model, state.environ) else 0,
        ),
        folder(state.folder("config"), purpose="settings", variable="VELOLLM_CONFIG_DIR"),
        folder(
            Path(tempfile.gettempdir()),
            purpose="temporary files",
            variable="TMPDIR",
            needed_bytes=_ROOM_BYTES,
        ),
    )


def _script(state: State, path: Path) -> Script:
    from velollm_core.doctor.spec import Script

    with path.open("rb") as file:
        content = file.read(_MOST_SCRIPT_BYTES + 1)
    if b"\0" in content:
        state.output.warn(f"{path} is a program, not a script: it is not looked at.")
        content = b""
    elif len(content) > _MOST_SCRIPT_BYTES:
        state.output.warn(f"{path} is long: only its first MiB is looked at.")
    return Script(shown=str(path), text=content[:_MOST_SCRIPT_BYTES].decode("utf-8", "replace"))


def _comparing(state: State) -> Compare:
    """Two arms measured in one interleaved run, kept in the journal as any other."""
    from velollm_core.cli.measure import measure
    from velollm_core.experiment.spec import Arm, Comparison, Experiment, Phase, Question

    def compare(baseline: Arm, changed: Arm) -> tuple[Comparison, ...]:
        workloads = state.plugins.workloads()
        experiment = Experiment(
            arms=(baseline, changed),
            phases=tuple(
                Phase(workload=workloads[name], requests=1, warmup=warmup)
                for name, warmup in _WORKLOADS.items()
            ),
            blocks=_PAIRS,
            question=Question(baseline=baseline.name, metric="total_ms"),
        )
        outcome = measure(state, experiment, None)
        if outcome.interrupted:
            raise Interrupted("stopped.")
        return outcome.result.comparisons

    return compare
