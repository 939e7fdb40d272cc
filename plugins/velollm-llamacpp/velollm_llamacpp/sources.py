"""Where a user's own settings of llama.cpp stand: configuration files, the environment, arguments.

What is found is kept as it is written; :mod:`velollm_llamacpp.settings` makes sense of it. In
rising precedence, as measured with build 11434: the system's file, the user's file, the
environment, the arguments; inside a file the section ``*``, then ``default`` or none at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from velollm_core.backends import ini
from velollm_core.errors import UsageError
from velollm_llamacpp.flags import FALSE, Flag, Flags, spelled

STRAYS = ("LLAMA_", "GGML_", "MTMD_", "HF_", "AIP_")
"""How the names begin of the variables that llama.cpp reads; ``AIP_`` are those of Google Cloud,
which change the port."""

OWN_SECTIONS = ("*", "default")
"""The sections of a configuration file that count for a server, in rising precedence."""

_VERSION = "version"  # of the file, which llama.cpp passes over
_NO_FILE = "it is no such file"


@frozen
class Found:
    """One setting: its name as written, the flag that it means if any, its text, and its origin."""

    name: str
    flag: Flag | None
    text: str
    origin: str


def environment(flags: Flags, environ: Mapping[str, str]) -> Iterator[Found]:
    """What flags variables in ``environ`` set; ``LLAMA_ARG_NO_X`` comes last and wins."""
    own = [name for name in environ if name.startswith(STRAYS)]
    for variable in sorted(own, key=lambda name: (name.startswith("LLAMA_ARG_NO_"), name)):
        known = flags.by_environ(variable)
        if known is not None:
            flag, negative = known
            text = "off" if negative else environ[variable]
            yield Found(variable, flag, text, f"environment {variable}")
        elif variable.startswith("LLAMA_ARG_"):
            yield Found(variable, None, environ[variable], f"environment {variable}")


def variables_without_flag(flags: Flags, environ: Mapping[str, str]) -> list[str]:
    """Names of the variables that llama.cpp reads beside those of :func:`environment`."""
    return sorted(
        name
        for name in environ
        if name.startswith(STRAYS)
        and not name.startswith("LLAMA_ARG_")
        and flags.by_environ(name) is None
    )


def system_file(environ: Mapping[str, str], root: Path = Path("/")) -> Path:
    """The configuration file of the whole machine."""
    if os.name == "nt":
        return Path(environ.get("PROGRAMDATA", "C:/ProgramData"), "llama.cpp", "config.ini")
    return root / "etc" / "llama.cpp" / "config.ini"


def user_file(environ: Mapping[str, str]) -> tuple[Path, str] | None:
    """The user's configuration file and how it is shown, without the name of a home."""
    for variable in ("APPDATA",) if os.name == "nt" else ("XDG_CONFIG_HOME",):
        if environ.get(variable):
            shown = f"${variable}/llama.cpp/config.ini"
            return Path(environ[variable], "llama.cpp", "config.ini"), shown
    if environ.get("HOME"):
        path = Path(environ["HOME"], ".config", "llama.cpp", "config.ini")
        return path, "~/.config/llama.cpp/config.ini"
    return None


def configuration_files(
    flags: Flags, environ: Mapping[str, str], root: Path = Path("/")
) -> Iterator[Found]:
    """What llama.cpp's configuration files set, the system's first.

    Raises:
        UsageError: a file cannot be read or parsed; llama.cpp would refuse it too.
    """
    system = system_file(environ, root)
    yield from configuration_file(flags, system, str(system))
    own = user_file(environ)
    if own is not None:
        yield from configuration_file(flags, *own)


def configuration_file(flags: Flags, path: Path, shown: str) -> Iterator[Found]:
    """What one file sets, in rising precedence; nothing where it is not there, or not read."""
    if not flags.reads_files:
        return
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(shown, error.strerror or _NO_FILE) from error
    except UnicodeDecodeError as error:
        raise _unreadable(shown, _NO_FILE) from error
    yield from configuration_text(flags, text, shown)


def configuration_text(flags: Flags, text: str, shown: str) -> Iterator[Found]:
    """What the text of one file sets, in rising precedence.

    Raises:
        UsageError: it cannot be parsed.
    """
    try:
        sections = ini.held(text)
    except ValueError as error:
        raise _unreadable(shown, str(error)) from error
    for section in OWN_SECTIONS:
        for key, value in sorted(sections.get(section, {}).items()):
            if key == _VERSION:
                continue
            known = flags.by_key(key)
            if known is None:
                yield Found(key, None, value, shown)
            else:
                flag, negative = known
                yield Found(key, flag, _inverted(value) if negative else value, shown)


def _unreadable(shown: str, reason: str) -> UsageError:
    return UsageError(
        f"{shown} cannot be read: {reason}.", "llama-server would not start with it either."
    )


def _inverted(text: str) -> str:
    return "on" if text in FALSE else "off"


def arguments(flags: Flags, argv: Sequence[str], origin: str) -> Iterator[Found]:
    """What a command line sets; words that are no flag of this build are passed over."""
    words = iter(argv)
    for word in words:
        flag = flags.get(word)
        if flag is None:
            continue
        negative = spelled(word) in flag.negatives
        text = next(words, "") if flag.takes_value else "off" if negative else "on"
        yield Found(word, flag, text, f"argument {word} {origin}")
