"""Commands of ``llama-server`` that this build no longer takes, or that ask for too much."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from velollm_core.config import Role
from velollm_core.doctor.spec import Check, Context, Cost, Finding, Unseen
from velollm_llamacpp import sources
from velollm_llamacpp.arguments import entry_of
from velollm_llamacpp.commands import running, written
from velollm_llamacpp.engines import build_of
from velollm_llamacpp.flags import Flags, spelled
from velollm_llamacpp.record import recorded_flags

_FLAG = re.compile(r"--?[A-Za-z]")


def stale_flags(context: Context) -> Iterator[Finding]:
    """Flags in scripts and units that the ``llama-server`` here does not take."""
    commands = written(context)[0]
    if not commands:
        return
    flags, location = _binary(context)
    foreign = 0
    for command in commands:
        if not _same_program(command.program, location):
            foreign += 1
            continue
        for fault, advice in faults(command.arguments, flags):
            yield Finding(
                statement=f"llama-server does not take {fault}.",
                evidence=f"{command.where}; the help of {context.shown(location)}",
                cost=Cost(text="it does not start", basis="seen"),
                advice=advice,
                costs_speed=False,
            )
    if foreign == len(commands):
        raise Unseen(f"{foreign} commands name another llama-server than {context.shown(location)}")


def faults(arguments: Sequence[str], flags: Flags) -> Iterator[tuple[str, str]]:
    """What a build with ``flags`` does not take of ``arguments``, and what to do about it."""
    spellings = [name for flag in flags.entries for name in (*flag.names, *flag.negatives)]
    position = 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        if not _FLAG.match(word):
            continue
        name, sign, _ = word.partition("=")  # the value may be a key: it is never told
        name = spelled(name)
        flag = flags.get(name)
        if name in flags.removed:
            yield f"{name}: it has been removed", f"{flags.removed[name].capitalize()}."
        elif flag is None:
            close = difflib.get_close_matches(name, spellings, n=1, cutoff=0.8)
            hint = f" Its spelling may be {close[0]} now." if close else ""
            yield name, f"Look for its new name in llama-server --help, or leave it out.{hint}"
        elif sign:
            yield f"{name}=...: a value stands behind a space", f"Write {name} VALUE."
        elif flag.takes_value:
            value = arguments[position] if position < len(arguments) else None
            if value is None or flags.get(value) or (flag.values and _FLAG.match(value)):
                values = f", one of {', '.join(flag.values)}" if flag.values else ""
                yield f"{name} without a value", f"Give it one{values}."
            else:
                position += 1


def all_threads(context: Context) -> Iterator[Finding]:
    """Commands that ask for more threads than there are physical cores.

    ``-t 0`` and ``-t -1`` on a command line are every hardware thread (``common/arg.cpp``); without
    ``-t`` there is one a core.
    """
    cpu = context.hardware.cpu
    for command in (*written(context)[0], *running(context)):
        for found in sources.arguments(recorded_flags(), command.arguments, ""):
            entry = entry_of(found.flag) if found.flag else None
            if entry is None or entry.knob.role is not Role.THREADS_DECODE:
                continue
            try:
                asked = int(found.text)
            except ValueError:
                continue  # a shell's variable
            threads = asked if asked > 0 else cpu.logical
            if threads > cpu.physical:
                yield Finding(
                    statement="A llama-server is given more threads than there are physical cores.",
                    evidence=f"{command.where}: {found.name} {found.text}"
                    + ("" if asked > 0 else ", which means every hardware thread")
                    + f"; {cpu.physical} cores, {cpu.logical} hardware threads",
                    cost=Cost(
                        text="2.5 tok/s instead of 9 in one report",
                        basis="cited",
                        source="llama.cpp issue 20020",
                    ),
                    advice=f"Leave {found.name} out, or set it to {cpu.physical} or less. "
                    f"To see what it brings: velollm bench --ab threads={cpu.physical}",
                    costs_speed=True,
                )


def _binary(context: Context) -> tuple[Flags, str]:
    for engine in context.engines:
        for installation in (engine.installation, *engine.others):
            if installation.backend == "llamacpp" and installation.kind == "binary":
                return build_of(installation).flags, installation.location
    raise Unseen("there is no llama-server here whose help could be asked")


def _same_program(written_as: str, location: str) -> bool:
    """Whether a command starts the program at ``location``: by its bare name, or by its path."""
    if "/" not in written_as and "\\" not in written_as:
        return True
    try:
        return Path(written_as).samefile(location)
    except OSError:
        return False


COMMAND_CHECKS = (
    Check(
        code="llamacpp-stale-flags",
        looks_at="flags in scripts and units of systemd",
        explains="Flags in the scripts that --script names and in units of systemd that the "
        "llama-server here does not take.",
        look=stale_flags,
    ),
    Check(
        code="llamacpp-command-threads",
        looks_at="threads in commands of llama-server",
        explains="Scripts, units and running servers with more threads than physical cores; -t -1 "
        "means every hardware thread.",
        look=all_threads,
    ),
)
