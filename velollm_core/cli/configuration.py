"""The user's own settings: ``config.toml``, whose keys are the options of the command line.

::

    backend = "llamacpp"
    model = "~/models/qwen.gguf"

    [X]
    server = "/opt/llama.cpp/llama-server"

    [bench]
    workload = ["short", "code"]

Precedence: command line, environment, this file, default.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from velollm_core.cli.state import State
from velollm_core.errors import UsageError

_GLOBAL = {"backend": str, "model": str, "quiet": bool}


def apply(ctx: click.Context, named: Path | None) -> None:
    """Read the file that was named, or the one in VeloLLM's own folder if it is there.

    Raises:
        UsageError: it cannot be read, is not TOML, or holds a key that nothing reads.
    """
    state = ctx.ensure_object(State)
    path = named or state.folder("config") / "config.toml"
    if named is None and not path.is_file():
        return
    settings = _read(path)
    commands = _command_names(ctx)
    for key, value in settings.items():
        if key in _GLOBAL:
            _apply_global(state, path, key, value)
        elif key == "X":
            for option, text in _table(path, key, value).items():
                state.engine_options.setdefault(option, str(text))
        elif key in commands:
            root = ctx.find_root()
            root.default_map = {
                **(root.default_map or {}),
                key: _defaults(root, path, key, _table(path, key, value)),
            }
            if ctx is not root and ctx.info_name == key:
                ctx.default_map = root.default_map[key]
        else:
            known = ", ".join([*_GLOBAL, "X", *commands])
            raise UsageError(f"{path}: unknown key {key!r}; known: {known}.", "Remove or mend it.")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}.", "Name another: --config FILE"
        ) from error
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: {error}.", "Mend that line.") from error


def _command_names(ctx: click.Context) -> list[str]:
    group = ctx.find_root().command
    return group.list_commands(ctx) if isinstance(group, click.Group) else []


def _apply_global(state: State, path: Path, key: str, value: Any) -> None:
    kind = _GLOBAL[key]
    if not isinstance(value, kind):
        raise UsageError(f"{path}: {key} must be {kind.__name__}, not {value!r}.", "Mend it.")
    if getattr(state, key) in {None, False}:
        setattr(state, key, value)


def _table(path: Path, key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{path}: {key} must be a table: [{key}].", "Mend it.")
    return value


def _defaults(
    root: click.Context, path: Path, name: str, table: Mapping[str, Any]
) -> Mapping[str, Any]:
    group = root.command
    command = group.get_command(root, name) if isinstance(group, click.Group) else None
    known = {
        parameter.opts[-1].lstrip("-"): parameter
        for parameter in (command.params if command else ())
        if parameter.name and isinstance(parameter, click.Option)
    }
    defaults = {}
    for key, value in table.items():
        if key not in known:
            raise UsageError(
                f"{path}: unknown key {key!r} in [{name}]; known: {', '.join(sorted(known))}.",
                "Remove or mend it.",
            )
        option = known[key]
        if option.multiple and isinstance(value, str):
            value = [value]  # noqa: PLW2901 - one word where several may stand is no mistake
        try:
            option.type_cast_value(root, value)
        except click.BadParameter as error:
            raise UsageError(
                f"{path}: {key} in [{name}] cannot be {value!r}: {error.message.rstrip('.')}.",
                f"It takes what --{key} takes.",
            ) from error
        defaults[option.name or key] = value
    return defaults
