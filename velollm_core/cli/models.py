"""``velollm models``."""

from __future__ import annotations

import click

from velollm_core.cli.fit import fit
from velollm_core.cli.options import global_options
from velollm_core.cli.state import State


@click.group(name="models", epilog="Example: velollm models show demo")
@global_options
def command() -> None:
    """Show what a model file says about itself, and where it fits."""


@command.command(name="show", epilog="Example: velollm models show ~/models/qwen.gguf --json")
@click.argument("reference", metavar="REF")
@global_options
@click.pass_obj
def show(state: State, reference: str) -> None:
    """Read the header of a model: REF is a path, 'demo', or hf:owner/repo/file.gguf."""
    from velollm_core.cli.reference import resolve_model
    from velollm_core.models.describe import describe

    model = resolve_model(state, reference)
    if state.json:
        from velollm_core.documents import to_plain

        state.output.document({"schema": "velollm.model/1", **to_plain(model)})
        return
    state.output.rows(describe(model))


command.add_command(fit)
