"""The engine's defaults, and the user's current settings: each value with where it comes from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from attrs import define, field

from velollm_core.config import ENGINE_DEFAULT, Config, Knob, LeftOut, Settings, Value
from velollm_core.errors import FailureKind, LaunchError
from velollm_llamacpp import sources
from velollm_llamacpp.arguments import AUTO, arguments, entry_of, read, settable, words
from velollm_llamacpp.engines import Engine
from velollm_llamacpp.flags import Flag, Flags
from velollm_llamacpp.knobs import BY_NAME, Entry
from velollm_llamacpp.record import recorded_flags
from velollm_llamacpp.sources import Found
from velollm_llamacpp.vetting import (
    OPENING,
    is_harmless,
    is_harmless_variable,
    open_door,
    reason_against,
)

ROOT = Path("/")
_NOT_EMBEDDED = "the embedded engine cannot be given it"
_UNKNOWN = "this build of llama.cpp does not know it"
_IN_FORCE = "llama-server reads this file whatever it is told: it stays in force"
_UNCERTAIN = "llama.cpp reads it, and it is not known to be harmless"


def default_config(engine: Engine) -> Config:
    """What ``engine`` does when nothing is set: one value for every knob it has.

    From its own help; where that is silent, from the recorded build's.
    """
    return Config(
        {
            knob.name: _default(BY_NAME[knob.name], engine.flags)
            for knob in settable(engine.flags, gpus=bool(engine.gpus))
        }
    )


def _default(entry: Entry, flags: Flags) -> Value:
    for known in (flags, recorded_flags()):
        flag = known.first(entry.names)
        value = read(entry, flag.default) if flag and flag.default else None
        if value is not None:
            return value
    raise AssertionError(entry.knob.name)  # a test reads every default from the record


def completed(engine: Engine, config: Mapping[str, Value]) -> Config:
    """``config`` with everything that it leaves open, as ``llama-server`` would decide it.

    A number of slots that is given turns the shared KV cache off, unless that is given too
    (``llama_server`` in ``tools/server/server.cpp``).
    """
    base = default_config(engine)
    if "slots" in config and _slots_are_auto(engine.flags):
        base |= {"kv_unified": False}
    return base | config


def _slots_are_auto(flags: Flags) -> bool:
    flag = flags.first(BY_NAME["slots"].names)
    return flag is not None and flag.default == "-1"


def defaults(
    engine: Engine, environ: Mapping[str, str], *, embedded: bool, root: Path = ROOT
) -> Settings:
    """The engine's own settings. ``left_out`` names what no argument can turn back."""
    config = default_config(engine)
    return Settings(
        config=config,
        origins=dict.fromkeys(config, ENGINE_DEFAULT),
        left_out=() if embedded else tuple(_not_overridden(engine, config, environ, root)),
    )


def _not_overridden(
    engine: Engine, config: Config, environ: Mapping[str, str], root: Path
) -> Iterable[LeftOut]:
    path = sources.system_file(environ, root)
    for found in sources.configuration_file(engine.flags, path, str(path)):
        entry = entry_of(found.flag) if found.flag else None
        if entry is None or _unsaid(engine.flags, entry.knob.name, config):
            yield LeftOut(found.name, found.origin, _IN_FORCE)


def _unsaid(flags: Flags, name: str, config: Config) -> bool:
    """Whether the knob's value is one that no argument says."""
    return name in config and not arguments(flags, {name: config[name]})


def refuse_open_doors(flags: Flags, environ: Mapping[str, str], root: Path = ROOT) -> None:
    """Make sure that the system's configuration file does not make a server run programs.

    Raises:
        LaunchError: it does, and ``llama-server`` cannot be told to ignore the file.
    """
    found = open_door(flags, environ, root)
    if found is not None:
        raise LaunchError(
            f"{found.origin} sets {found.name}, which {OPENING}; "
            "llama-server cannot be told to ignore that file.",
            "Remove it from there while you measure, or use -X engine=embedded.",
            FailureKind.REFUSED,
        )


def current(
    engine: Engine, environ: Mapping[str, str], *, embedded: bool, root: Path = ROOT
) -> Settings:
    """What the user has set for ``llama-server``, on top of the defaults.

    Args:
        engine: the engine that is to run with it.
        environ: the user's environment.
        embedded: whether ``engine`` is the wheel, which reads none of this itself and has no
            arguments: what has no knob is left out and named.
        root: where the system's configuration is looked for.

    Raises:
        UsageError: a configuration file cannot be read.
    """
    found = (
        *sources.configuration_files(engine.flags, environ, root),
        *sources.environment(engine.flags, environ),
    )
    knobs = {knob.name: knob for knob in settable(engine.flags, gpus=bool(engine.gpus))}
    sorting = _Sorting(knobs, embedded, str(sources.system_file(environ, root)))
    sorting.take(found)
    sorting.take_variables(environ, sources.variables_without_flag(engine.flags, environ))
    config = completed(engine, sorting.config)
    return Settings(
        config=config,
        extra_args=tuple(sorting.extra_args),
        extra_env=sorting.extra_env,
        origins={**dict.fromkeys(config, ENGINE_DEFAULT), **sorting.origins},
        left_out=tuple(sorting.left_out),
    )


@define
class _Sorting:
    """Puts each thing that was found where it belongs."""

    knobs: Mapping[str, Knob]
    embedded: bool
    system: str
    config: dict[str, Value] = field(factory=dict)
    extra_args: list[str] = field(factory=list)
    extra_env: dict[str, str] = field(factory=dict)
    origins: dict[str, str] = field(factory=dict)
    left_out: list[LeftOut] = field(factory=list)

    def take(self, found: Iterable[Found]) -> None:
        """Sort ``found``, whose later entries win over earlier ones for the same flag."""
        winners: dict[str, tuple[Flag, Found]] = {}
        for entry in found:
            if entry.flag is None:
                self.left_out.append(LeftOut(entry.name, entry.origin, _UNKNOWN))
            else:
                winners[entry.flag.name] = (entry.flag, entry)
        for flag, winner in winners.values():
            self._take_one(flag, winner)

    def _take_one(self, flag: Flag, found: Found) -> None:
        entry = entry_of(flag)
        value = read(entry, found.text) if entry else None
        knob = self.knobs.get(entry.knob.name) if entry else None
        if entry is not None and value is not None and knob and knob.domain.accepts(value):
            if knob.name == "slots" and found.text in entry.said:
                return  # the engine's own choice in words, which is the default
            if value != entry.own_choice or found.text == AUTO or self.embedded:
                self.config[knob.name] = _translated(entry, value, embedded=self.embedded)
                self.origins[knob.name] = found.origin
                return
        if not is_harmless(flag):
            reason = _IN_FORCE if found.origin == self.system else reason_against(flag)
            self.left_out.append(LeftOut(found.name, found.origin, reason))
        elif self.embedded:
            self.left_out.append(LeftOut(found.name, found.origin, _NOT_EMBEDDED))
        else:
            self.extra_args += words(flag, found.text)
            self.origins[flag.name] = found.origin

    def take_variables(self, environ: Mapping[str, str], names: Iterable[str]) -> None:
        """Pass on those of ``names`` that only tune the engine."""
        for name in names:
            origin = f"environment {name}"
            if is_harmless_variable(name):
                self.extra_env[name] = environ[name]
                self.origins[name] = origin
            else:
                self.left_out.append(LeftOut(name, origin, _UNCERTAIN))


def _translated(entry: Entry, value: Value, *, embedded: bool) -> Value:
    """Given in words, 0 and -1 threads are every logical processor (``common/arg.cpp``)."""
    if embedded and entry.knob.name in {"threads", "threads_batch"} and value == 0:
        return os.cpu_count() or 1
    return value
