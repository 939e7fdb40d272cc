"""Options that every command takes, before or after its name, and the state that they fill."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from velollm_core.errors import UsageError

if TYPE_CHECKING:
    from velollm_core.cli.output import Output
    from velollm_core.plugins import Plugins

F = TypeVar("F", bound=Callable[..., Any])

EPILOG = """Global options may stand before or after the command. Example: velollm --backend
llamacpp bench --workload short"""


class State:
    """What the global options said, and what follows from them. One for each run of the command."""

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

    def folder(self, kind: str) -> Path:
        """VeloLLM's own ``data``, ``cache`` or ``config`` folder; ``VELOLLM_DATA_DIR`` and so on
        name another.
        """
        from platformdirs import PlatformDirs

        override = self.environ.get(f"VELOLLM_{kind.upper()}_DIR")
        if override:
            return Path(override)
        return Path(getattr(PlatformDirs("velollm", appauthor=False), f"user_{kind}_dir"))

    def warn_of_broken_plugins(self) -> None:
        """One clear line for each plugin that does not work; the command goes on without it."""
        for entry in self.plugins.broken:
            self.output.warn(f"{entry}; going on without it.")


def _remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep a global option, wherever it stood: one that was not given changes nothing."""
    source = ctx.get_parameter_source(parameter.name or "")
    if source is None or source is click.core.ParameterSource.DEFAULT:
        return
    state = ctx.ensure_object(State)
    if parameter.name == "engine_option":
        state.engine_options.update(_pairs(value))
    elif parameter.name == "verbose":
        state.verbose = max(state.verbose, value)
    else:
        setattr(state, parameter.name or "", value)


def _pairs(words: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for word in words:
        key, found, value = word.partition("=")
        if not found or not key:
            raise UsageError(
                f"-X {word!r} is not of the form key=value.", "Example: -X server=PATH"
            )
        pairs[key.strip()] = value
    return pairs


def _read_config(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    del parameter
    if value is not None or ctx.parent is None:
        from velollm_core.cli.configuration import apply

        apply(ctx, value)


def global_options(function: F) -> F:
    """Add the global options to a command."""
    # The configuration comes first, so that its values are in place when the others are looked at.
    decorators = (
        click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            is_eager=True,
            expose_value=False,
            callback=_read_config,
            metavar="FILE",
            envvar="VELOLLM_CONFIG",
            show_envvar=True,
            help="Settings of your own, TOML.",
        ),
        click.option(
            "--backend",
            metavar="NAME",
            expose_value=False,
            callback=_remember,
            envvar="VELOLLM_BACKEND",
            show_envvar=True,
            help="Inference engine, for example llamacpp.",
        ),
        click.option(
            "--model",
            metavar="REF",
            expose_value=False,
            callback=_remember,
            envvar="VELOLLM_MODEL",
            show_envvar=True,
            help="A path, 'demo', or hf:owner/repo/file.gguf.",
        ),
        click.option(
            "-X",
            "engine_option",
            metavar="KEY=VALUE",
            multiple=True,
            expose_value=False,
            callback=_remember,
            envvar="VELOLLM_X",
            show_envvar=True,
            help="Option of the backend; may be repeated.",
        ),
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            callback=_remember,
            envvar="VELOLLM_JSON",
            show_envvar=True,
            help="Print one JSON document and nothing else.",
        ),
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            expose_value=False,
            callback=_remember,
            envvar="VELOLLM_QUIET",
            show_envvar=True,
            help="No progress.",
        ),
        click.option(
            "-v",
            "--verbose",
            count=True,
            expose_value=False,
            callback=_remember,
            envvar="VELOLLM_VERBOSE",
            show_envvar=True,
            help="Say more.",
        ),
    )
    for decorator in reversed(decorators):
        function = decorator(function)
    return function
