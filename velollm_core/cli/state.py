"""What the global options said, and what follows from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from velollm_core.folders import folder

if TYPE_CHECKING:
    from velollm_core.cli.output import Output
    from velollm_core.experiment.journal import Journal
    from velollm_core.plugins import Plugins


class State:
    """One for each run of the command."""

    def __init__(self) -> None:
        self.backend: str | None = None
        self.model: str | None = None
        self.engine_options: dict[str, str] = {}
        self.json = False
        self.quiet = False
        self.verbose = 0
        self.environ: Mapping[str, str] = dict(os.environ)

    @cached_property
    def output(self) -> Output:
        """Where results and messages go."""
        from velollm_core.cli.output import Output

        return Output(json=self.json, quiet=self.quiet, verbose=self.verbose)

    @cached_property
    def plugins(self) -> Plugins:
        """The installed plugins, loaded when first asked for."""
        from velollm_core.plugins import load

        return load(self.environ, trace=lambda line: click.echo(line, err=True))

    @property
    def journal(self) -> Journal:
        """The journal of every run, in the data folder."""
        from velollm_core.experiment.journal import Journal

        return Journal(self.folder("data") / "journal.sqlite3")

    @property
    def undo_folder(self) -> Path:
        """Where the records of what was applied are, in the data folder."""
        return self.folder("data") / "undo"

    def folder(self, kind: Literal["data", "cache", "config"]) -> Path:
        """VeloLLM's own folder of that kind; ``VELOLLM_DATA_DIR`` and so on name another."""
        return folder(kind, self.environ)

    def warn_of_broken_plugins(self) -> None:
        """One clear line for each plugin that does not work; the command goes on without it."""
        for entry in self.plugins.broken:
            self.output.warn(f"{entry}; going on without it.")
