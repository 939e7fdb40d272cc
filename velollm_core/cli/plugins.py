"""``velollm plugins``."""

from __future__ import annotations

import click

from velollm_core.cli.options import global_options
from velollm_core.cli.state import State


@click.command(
    name="plugins",
    epilog="Example: velollm plugins --json",
)
@global_options
@click.pass_obj
def command(state: State) -> None:
    """List plugins: name, version, hooks, and what is broken and why."""
    plugins = state.plugins
    # Asked for what they register, so that a failure in a hook is seen here as well.
    plugins.backends()
    plugins.workloads()
    plugins.model_sources()
    listing = plugins.listing()
    if state.json:
        from velollm_core.documents import to_plain

        state.output.document(to_plain(list(listing)))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("plugin", "distribution", "hooks"):
        table.add_column(column, overflow="fold")
    for entry in listing:
        table.add_row(
            entry.name,
            f"{entry.distribution} {entry.version}",
            ", ".join(hook.removeprefix("velollm_") for hook in entry.hooks),
        )
    state.output.show(table)
    for broken in plugins.broken:
        state.output.show(f"broken: {broken}")
