"""The changes of files that make settings the user's own: llama.cpp's configuration, or presets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from velollm_core.backends import quoting
from velollm_core.backends.changes import Change
from velollm_core.config import Config
from velollm_core.errors import UsageError
from velollm_core.models.spec import Model
from velollm_llamacpp import forms
from velollm_llamacpp.flags import Flags
from velollm_llamacpp.sources import configuration_text, user_file

CONFIG = "config"
PRESET = "preset="


def plan(
    flags: Flags, model: Model, config: Config, target: str | None, environ: Mapping[str, str]
) -> tuple[Change, ...]:
    """The change that sets ``config`` at ``target``: ``config``, which is meant by ``None``, for
    every server of the user's, or ``preset=PATH`` for one model of a router.

    Raises:
        UsageError: there is no such target, its file cannot be read, or a value cannot be said
            there.
    """
    if target is None or target == CONFIG:
        return (_user_configuration(flags, config, environ),)
    if target.startswith(PRESET) and target != PRESET:
        # Path.expanduser raises for "~nobody".
        named = os.path.expanduser(target.removeprefix(PRESET))  # noqa: PTH111
        return (_preset(flags, model, config, Path(named).absolute()),)
    raise UsageError(
        f"backend llamacpp cannot write to {target!r}.", f"It takes: {CONFIG}, {PRESET}PATH."
    )


def _user_configuration(flags: Flags, config: Config, environ: Mapping[str, str]) -> Change:
    forms.refuse_unread(flags)
    found = user_file(environ)
    if found is None:
        raise UsageError("there is no home whose llama.cpp/config.ini could be written.")
    path, shown = found
    text = _read(path)
    list(configuration_text(flags, text, shown))  # one that llama.cpp refuses is not touched
    return Change(
        path=path,
        content=forms.with_texts(text, flags, config).encode(),
        summary="for all programs of llama.cpp that you start, and Ollama's if it runs as you",
    )


def _preset(flags: Flags, model: Model, config: Config, path: Path) -> Change:
    if flags.get("--models-preset") is None:
        raise UsageError(
            "this llama-server is too old to serve several models by a file of presets.",
            "Write the settings for a shell: -o velollm.sh",
        )
    return Change(
        path=path,
        content=forms.with_preset(_read(path), flags, model, config).encode(),
        summary=f"for {forms.section_of(model)} behind a router",
        then=(f"llama-server --models-preset {quoting.sh(str(path))}",),
    )


def _read(path: Path) -> str:
    """What the file holds, its line ends as they are; nothing where it is not there."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
