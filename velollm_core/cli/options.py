"""Options that every command takes, before or after its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from velollm_core.cli.state import State
from velollm_core.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

EPILOG = """Global options may stand before or after the command. Example: velollm --backend
llamacpp bench --workload short"""


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


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """``click.option`` whose help names its environment variable and its default."""
    settings.setdefault("show_default", "default" in settings)
    return click.option(*names, show_envvar=True, **settings)


def _global(*names: str, variable: str, **settings: Any) -> Callable[[F], F]:
    """An option that goes into the state, and bears one variable wherever it stands."""
    settings.setdefault("callback", _remember)
    return option(*names, expose_value=False, envvar=variable, **settings)


_GLOBAL_OPTIONS = (
    # The configuration comes first, so that its values are in place when the others are looked at.
    _global(
        "--config",
        variable="VELOLLM_CONFIG",
        type=click.Path(path_type=Path, dir_okay=False),
        is_eager=True,
        callback=_read_config,
        metavar="FILE",
        help="Settings of your own, TOML.",
    ),
    _global(
        "--backend",
        variable="VELOLLM_BACKEND",
        metavar="NAME",
        help="Inference engine, for example llamacpp.",
    ),
    _global(
        "--model",
        variable="VELOLLM_MODEL",
        metavar="REF",
        help="A path, 'demo', or hf:owner/repo/file.gguf.",
    ),
    _global(
        "-X",
        "engine_option",
        variable="VELOLLM_X",
        metavar="KEY=VALUE",
        multiple=True,
        help="Option of the backend; may be repeated.",
    ),
    _global(
        "--json",
        variable="VELOLLM_JSON",
        is_flag=True,
        help="Print one JSON document and nothing else.",
    ),
    _global("-q", "--quiet", variable="VELOLLM_QUIET", is_flag=True, help="No progress."),
    _global("-v", "--verbose", variable="VELOLLM_VERBOSE", count=True, help="Say more."),
)


def global_options(function: F) -> F:
    """Add the global options to a command."""
    for decorator in reversed(_GLOBAL_OPTIONS):
        function = decorator(function)
    return function


def typed(ctx: click.Context) -> tuple[click.Parameter, ...]:
    """The options of the command itself that stand on its command line."""
    return tuple(
        parameter
        for parameter in ctx.command.params
        if parameter.expose_value
        and ctx.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
    )
