"""Settings in the forms that llama.cpp really reads: variables, a command line, its own files.

What a form has no word for is left out together with what belongs to it, and a comment says where
it can be said; a form in which nothing can be said is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from attrs import frozen

from velollm_core.backends import quoting
from velollm_core.backends.ini import Key, with_values
from velollm_core.config import Config, Settings, Value, show
from velollm_core.errors import UsageError
from velollm_core.models.spec import Model
from velollm_llamacpp.arguments import arguments, texts
from velollm_llamacpp.flags import Flag, Flags
from velollm_llamacpp.knobs import BY_NAME
from velollm_llamacpp.sources import OWN_SECTIONS

FORMS = ("sh", "argv", "ini", "preset", "fish", "powershell")

_LOG = logging.getLogger(__name__)
_EVERYONE = "*"

_HEAD_OF_FILE = """\
# For ~/.config/llama.cpp/config.ini, which all programs of llama.cpp read that you start, and
# Ollama's llama-server if it runs as you.
# velollm optimize --apply puts it there, and velollm undo takes it back.
"""

_HEAD_OF_PRESET = """\
# For a file of presets: llama-server --models-preset FILE
# Remove the section to take it back.
"""


@frozen
class _Shell:
    """How a shell sets a variable for what it starts, and how it takes one away."""

    export: Callable[[str, str], str]
    unset: Callable[[Iterable[str]], str]
    source: str


_SHELLS: Mapping[str, _Shell] = {
    "sh": _Shell(
        export=lambda name, text: f"export {name}={quoting.sh(text)}",
        unset=lambda names: f"unset {' '.join(names)}",
        source="source velollm.sh",
    ),
    "fish": _Shell(
        export=lambda name, text: f"set -gx {name} {quoting.fish(text)}",
        unset=lambda names: f"set -e {' '.join(names)}",
        source="source velollm.fish",
    ),
    "powershell": _Shell(
        export=lambda name, text: f"$env:{name} = {quoting.powershell(text)}",
        unset=lambda names: " = ".join((*(f"$env:{name}" for name in names), "$null")),
        source=". ./velollm.ps1",
    ),
}


def render(flags: Flags, program: str, model: Model, settings: Settings, form: str) -> str:
    """``settings`` in one form.

    Args:
        flags: what the build can be told.
        program: the ``llama-server`` of a command line.
        model: what it is to serve.
        settings: knobs alone.
        form: one of :data:`FORMS`.

    Raises:
        UsageError: there is no such form, or something cannot be said in it.
    """
    if settings.extra_args or settings.extra_env:
        raise UsageError("only knobs are written down, no arguments and no variables of others.")
    if form in _SHELLS:
        return _script(_SHELLS[form], form, flags, model, settings.config)
    if form == "argv":
        return _command(flags, program, model, settings.config)
    if form == "ini":
        refuse_unread(flags)
        text = with_texts("", flags, settings.config)
        return _HEAD_OF_FILE + _unsaid(flags, settings.config) + text
    if form == "preset":
        text = with_preset("", flags, model, settings.config)
        return _HEAD_OF_PRESET + _unsaid(flags, settings.config) + text
    raise UsageError(f"backend llamacpp has no form {form!r}.", f"It has: {', '.join(FORMS)}.")


def omitted(flags: Flags, config: Mapping[str, Value], form: str) -> tuple[str, ...]:
    """The knobs that ``form`` cannot say: :func:`render` leaves them out, or to llama.cpp."""
    if form in _SHELLS:
        return _without_variable(flags, config)
    return _without_word(flags, config)


def refuse_unread(flags: Flags) -> None:
    """Make sure that the build reads llama.cpp's configuration file.

    Raises:
        UsageError: it does not.
    """
    if not flags.reads_files:
        raise UsageError(
            "this llama-server is too old to read a configuration file of llama.cpp.",
            "Write the settings for a shell: -o velollm.sh",
        )


def _script(shell: _Shell, form: str, flags: Flags, model: Model, config: Config) -> str:
    unsayable = _without_variable(flags, config)
    kept = {name: value for name, value in config.items() if name not in unsayable}
    if unsayable and not kept:
        raise UsageError(
            f"llama-server has no variable for {', '.join(unsayable)}.",
            "Use the form argv or ini, or velollm optimize --apply.",
        )
    variables = _variables(flags, kept)
    ours = [name for name, text in variables.items() if text is not None]
    lines = [
        f"# llama.cpp's settings for {model.reference!a}. Use them: {shell.source}",
        "# Every llama-server started from that shell has them, and velollm measures with them.",
        *([f"# Take them back, or open a new shell: {shell.unset(ours)}"] if ours else []),
        *([_remark(form, flags, {n: config[n] for n in unsayable})] if unsayable else []),
        *(
            shell.unset([name]) if text is None else shell.export(name, text)
            for name, text in variables.items()
        ),
    ]
    return "".join(f"{line}\n" for line in lines)


def _without_variable(flags: Flags, config: Mapping[str, Value]) -> tuple[str, ...]:
    """The knobs that no variable sets, and those that would be another setting without them."""
    lacking = {
        name
        for name, value in config.items()
        if any(flag.environ is None for flag, _ in texts(BY_NAME[name], value, flags))
    }
    needs = {
        name: condition.knob
        for name in config
        if (condition := BY_NAME[name].knob.active_when) is not None
    }
    torn = {needs[name] for name in lacking if name in needs}
    return tuple(name for name in config if name in lacking | torn or needs.get(name) in torn)


def _variables(flags: Flags, config: Mapping[str, Value]) -> dict[str, str | None]:
    """Variables by name; ``None`` for those that must not be set.

    ``LLAMA_ARG_NO_X`` would count more than ``LLAMA_ARG_X``.
    """
    found: dict[str, str | None] = {}
    for name, value in config.items():
        for flag, text in texts(BY_NAME[name], value, flags):
            if flag.environ is None:
                continue
            found[flag.environ] = text
            if flag.negatives:
                found[flag.environ.replace("LLAMA_ARG_", "LLAMA_ARG_NO_", 1)] = None
    return found


def _remark(form: str, flags: Flags, config: Mapping[str, Value]) -> str:
    _LOG.warning(
        "the form %s leaves out %s: llama-server has no variables for all of it. The form argv and "
        "velollm optimize --apply have it.",
        form,
        ", ".join(f"{name}={show(value)}" for name, value in config.items()),
    )
    words = " ".join(map(quoting.sh, arguments(flags, config)))
    return f"# Left out, for want of variables for all of it: {words or ', '.join(config)}"


def _command(flags: Flags, program: str, model: Model, config: Config) -> str:
    unsayable = _without_word(flags, config)
    if unsayable:
        _LOG.warning(
            "the form argv leaves %s to llama.cpp by saying nothing: take out what sets it.",
            ", ".join(unsayable),
        )
    words = (program, "--model", str(_path(model)), *arguments(flags, config))
    return " ".join(map(quoting.sh, words)) + "\n"


def with_texts(text: str, flags: Flags, config: Mapping[str, Value]) -> str:
    """The text of llama.cpp's configuration file with ``config`` set in it for every server.

    Raises:
        UsageError: a value cannot be said there.
    """
    return with_values(
        text, _EVERYONE, _keys(flags, config), means=_meaning(flags), others=OWN_SECTIONS
    )


def with_preset(text: str, flags: Flags, model: Model, config: Mapping[str, Value]) -> str:
    """The text of a file of presets with ``config`` set in the section of ``model``.

    Raises:
        UsageError: a value cannot be said there.
    """
    values = {"model": str(_path(model)), **_keys(flags, config)}
    return with_values(text, section_of(model), values, means=_meaning(flags))


def section_of(model: Model) -> str:
    """The name of a model's section in a file of presets, which is its name at the server.

    Raises:
        UsageError: its name cannot be one.
    """
    name = model.served_name or _path(model).stem
    if "]" in name or name in {*OWN_SECTIONS, ""}:
        raise UsageError(f"a section of presets cannot be called {name!r}.", "Rename the file.")
    return quoting.ini(name)


def _unsaid(flags: Flags, config: Mapping[str, Value]) -> str:
    """Comments on what is left to llama.cpp by saying nothing."""
    return "".join(
        f"# {name} is left to llama.cpp: take out what sets it.\n"
        for name in _without_word(flags, config)
    )


def _without_word(flags: Flags, config: Mapping[str, Value]) -> tuple[str, ...]:
    """The knobs whose value is said by saying nothing."""
    return tuple(
        name
        for name, value in config.items()
        if all(text is None for _, text in texts(BY_NAME[name], value, flags))
    )


def _keys(flags: Flags, config: Mapping[str, Value]) -> dict[str, str | None]:
    return {
        _key(flag): text
        for name, value in config.items()
        for flag, text in texts(BY_NAME[name], value, flags)
    }


def _key(flag: Flag) -> str:
    return flag.name.lstrip("-")


def _meaning(flags: Flags) -> Callable[[str], Key | None]:
    """Keys by the flag that they mean, however it is spelled."""

    def means(key: str) -> Key | None:
        known = flags.by_key(key)
        return None if known is None else Key(_key(known[0]), negative=known[1])

    return means


def _path(model: Model) -> Path:
    if model.path is None:
        raise UsageError(f"{model.reference} is no file that a llama-server could be given.")
    return model.path.absolute()
