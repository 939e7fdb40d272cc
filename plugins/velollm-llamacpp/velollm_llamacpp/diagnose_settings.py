"""Settings of llama.cpp that nothing reads, that are misread, or that others override."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from velollm_core.config import Range
from velollm_core.doctor.spec import Check, Context, Cost, Finding, Unseen
from velollm_core.errors import UsageError
from velollm_llamacpp import sources
from velollm_llamacpp.arguments import entry_of, read
from velollm_llamacpp.commands import written
from velollm_llamacpp.engines import build_of
from velollm_llamacpp.flags import FALSE, TRUE, Flags
from velollm_llamacpp.sources import Found

_PREFIX = "LLAMA_ARG_"
_NUMBER = re.compile(r"\s*[+-]?\d+")


def flags_in_use(context: Context) -> Flags:
    """What the llama.cpp that would be started here can be told.

    Raises:
        Unseen: there is none.
    """
    for engine in context.engines:
        if engine.backend.name == "llamacpp" and engine.installation.kind != "server":
            return build_of(engine.installation).flags
    raise Unseen("no llama.cpp would be started here")


def unread_variables(context: Context) -> Iterator[Finding]:
    """Variables ``LLAMA_ARG_*`` that no flag of this build reads."""
    flags = flags_in_use(context)
    places = [(f"environment {name}", name) for name in sorted(context.environ)]
    places += [(f"{entry.where}: {entry.name}", entry.name) for entry in written(context)[1]]
    known = [flag.environ.removeprefix(_PREFIX) for flag in flags.entries if flag.environ]
    for where, name in places:
        if not name.startswith(_PREFIX) or flags.by_environ(name) is not None:
            continue
        instead = flags.removed.get(name)
        close = difflib.get_close_matches(name.removeprefix(_PREFIX), known, n=1, cutoff=0.8)
        if instead is not None:
            text, advice = "llama-server does not start", f"Remove it; {instead}."
        else:
            text = "whatever it was meant to bring"
            advice = f"Did you mean {_PREFIX}{close[0]}?" if close else "Remove it."
        yield Finding(
            statement=f"The variable {name} means nothing to this llama.cpp.",
            evidence=f"{where} is set, and its help names no such variable"
            if instead is None
            else f"{where} is set; its help says that it has been removed",
            cost=Cost(text=text, basis="seen"),
            advice=advice,
            costs_speed=False,
        )


def malformed_values(context: Context) -> Iterator[Finding]:
    """Numbers that llama.cpp misreads: it takes the digits at the beginning, and no unit."""
    for found in _settings(context):
        entry = entry_of(found.flag) if found.flag else None
        if entry is None or not isinstance(entry.knob.domain, Range):
            continue
        digits = _NUMBER.match(found.text)
        if read(entry, found.text) is not None or not entry.knob.domain.integral:
            continue
        if digits is None:
            cost = "llama-server does not start"
        elif digits.group() == found.text.rstrip():
            continue  # a number beyond what the knob takes: llama.cpp's own affair
        else:
            cost = f"llama.cpp takes it for {int(digits.group())}"
        yield Finding(
            statement=f"{found.name} is no number.",
            evidence=f"{found.origin} is {found.text!r}",
            cost=Cost(text=cost, basis="seen"),
            advice="Write the number in full, without a unit.",
            costs_speed=False,
        )


def overridden(context: Context) -> Iterator[Finding]:
    """One setting with different values at several places, of which the last counts."""
    values: dict[str, list[Found]] = {}
    for found in _settings(context):
        if found.flag is not None:
            values.setdefault(found.flag.name, []).append(found)
    for name, entries in values.items():
        if len({_meaning(entry.text) for entry in entries}) > 1:
            last = entries[-1]
            if last.flag is not None and entry_of(last.flag) is not None:
                told = ", ".join(f"{entry.text} ({entry.origin})" for entry in entries)
                counts = f"{last.text} counts"
            else:  # a key, a token or a path, which is nobody else's business
                told = f"different values in {', '.join(entry.origin for entry in entries)}"
                counts = f"{last.origin} counts"
            yield Finding(
                statement=f"{name} of llama.cpp is set to different values at several places.",
                evidence=told,
                cost=Cost(text=f"{counts}, the others do nothing", basis="seen"),
                advice="Keep one of them.",
                costs_speed=False,
            )


def configuration_files(context: Context) -> Iterator[Finding]:
    """Files that change every ``llama-server`` of the user or of the machine."""
    flags = flags_in_use(context)
    for path, shown in _files(context):
        try:
            found = tuple(sources.configuration_file(flags, path, shown))
        except UsageError as error:
            yield Finding(
                statement=f"The configuration file {shown} cannot be read.",
                evidence=error.message,
                cost=Cost(text="llama-server does not start", basis="seen"),
                advice="Mend or remove it.",
                costs_speed=False,
            )
            continue
        unknown = [entry.name for entry in found if entry.flag is None]
        if unknown:
            yield Finding(
                statement=f"{shown} sets what this llama.cpp does not know: {', '.join(unknown)}.",
                evidence=f"{shown}; the help of this build names no such flag",
                cost=Cost(text="whatever it was meant to bring", basis="seen"),
                advice="Mend or remove it; the names are those of flags without their dashes.",
                costs_speed=False,
            )
        names = sorted({entry.name for entry in found if entry.flag is not None})
        if names:
            yield Finding(
                statement=f"{shown} changes every llama-server that reads it.",
                evidence=f"it sets {', '.join(names)}",
                cost=Cost(
                    text="what you take for llama.cpp's defaults is not; Ollama's servers read "
                    "it as well",
                    basis="cited",
                    source="llama.cpp, docs/preset.md",
                ),
                advice="Nothing, if it is meant so; velollm bench --baseline measures without it.",
                costs_speed=False,
            )


def _meaning(text: str) -> str:
    return "on" if text in TRUE else "off" if text in FALSE else text


def _settings(context: Context) -> Iterable[Found]:
    """What files and environment set, in rising precedence."""
    flags = flags_in_use(context)
    found: list[Found] = []
    for path, shown in _files(context):
        try:
            found += sources.configuration_file(flags, path, shown)
        except UsageError as error:
            raise Unseen(error.message) from error
    return (*found, *sources.environment(flags, context.environ))


def _files(context: Context) -> Iterator[tuple[Path, str]]:
    """The system's file and the user's, below the root that is looked at."""
    root = context.probe.root
    system = sources.system_file(context.environ, root)
    yield system, "/etc/llama.cpp/config.ini" if os.name != "nt" else str(system)
    own = sources.user_file(context.environ)
    if own is not None:
        path, shown = own
        yield root / path.relative_to(path.anchor) if os.name != "nt" else path, shown


SETTINGS_CHECKS = (
    Check(
        code="llamacpp-unread-variables",
        looks_at="variables LLAMA_ARG_*",
        explains="Variables LLAMA_ARG_* that this build does not read, or refuses, in the "
        "environment, in scripts and in units of systemd.",
        look=unread_variables,
    ),
    Check(
        code="llamacpp-malformed-values",
        looks_at="numbers among llama.cpp's settings",
        explains="Values such as 32k, which llama.cpp takes for 32.",
        look=malformed_values,
    ),
    Check(
        code="llamacpp-overridden-settings",
        looks_at="settings of llama.cpp that stand at several places",
        explains="One setting with different values in configuration files and in the environment.",
        look=overridden,
    ),
    Check(
        code="llamacpp-configuration-files",
        looks_at="llama.cpp's configuration files",
        explains="Files that change every llama-server, cannot be read, or set unknown things.",
        look=configuration_files,
    ),
)
