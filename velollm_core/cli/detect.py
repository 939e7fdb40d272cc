"""``velollm detect``."""

from __future__ import annotations

import click

from velollm_core.cli.options import global_options, option
from velollm_core.cli.state import State


@click.command(name="detect", epilog="Example: velollm detect --json")
@option("--measure", is_flag=True, help="Measure how fast memory and processor are as well.")
@global_options
@click.pass_obj
def command(state: State, measure: bool) -> None:
    """Show what this machine offers for inference: what this process may really use."""
    from velollm_core.hardware.describe import describe
    from velollm_core.hardware.detect import detect

    spec = detect(gpus=state.plugins.detect_gpus, measure=measure)
    state.warn_of_broken_plugins()
    if state.json:
        from velollm_core.documents import to_plain

        state.output.document({"schema": "velollm.hardware/1", **to_plain(spec)})
        return
    state.output.rows(describe(spec))
    for note in spec.notes:
        state.output.warn(note)
