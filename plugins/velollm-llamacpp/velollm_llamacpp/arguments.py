"""Knob values as a build of llama.cpp takes them: flags for a server, fields for the wheel."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from velollm_core.config import Choices, Knob, Range, Value, show
from velollm_core.errors import UsageError
from velollm_llamacpp.flags import FALSE, TRUE, Flag, Flags
from velollm_llamacpp.knobs import BY_NAME, ENTRIES, Entry

AUTO = "auto"
"""The word with which builds that know one say that a choice is theirs."""


def settable(flags: Flags, *, gpus: bool) -> tuple[Knob, ...]:
    """The knobs that a build with ``flags`` has, each with the values that it takes.

    Args:
        flags: what the build can be told.
        gpus: whether it has a GPU to use; without one there is nothing to place.
    """
    found = []
    for entry in ENTRIES:
        domain = _domain(entry, flags)
        if domain is not None and (gpus or entry.knob.name != "gpu_layers"):
            found.append(evolve(entry.knob, domain=domain))
    return tuple(found)


def _domain(entry: Entry, flags: Flags) -> Choices | Range | None:
    domain = entry.knob.domain
    flag = flags.first(entry.names)
    if flag is None:
        known = {name for words in entry.older.values() for name in words}
        usable = bool(known) and all(flags.get(name) for name in known)
        return Choices(tuple(entry.older)) if usable else None
    if isinstance(domain, Range) or True in domain.values:
        return domain
    if not flag.takes_value:
        return Choices(("on", "off"))
    if flag.values:
        return Choices(tuple(value for value in domain.values if value in flag.values))
    return domain


def arguments(flags: Flags, config: Mapping[str, Value]) -> tuple[str, ...]:
    """The arguments with which a ``llama-server`` with ``flags`` takes ``config``.

    Raises:
        UsageError: this build has no flag for a knob, or none for its value.
    """
    return tuple(
        word for name, value in config.items() for word in _spelled(BY_NAME[name], value, flags)
    )


def _spelled(entry: Entry, value: Value, flags: Flags) -> tuple[str, ...]:
    # Not every choice of the engine's own has a word: -t -1 is another than no -t.
    said = texts(entry, value, flags)
    return tuple(word for flag, text in said if text is not None for word in words(flag, text))


def texts(entry: Entry, value: Value, flags: Flags) -> tuple[tuple[Flag, str | None], ...]:
    """What says that a knob has ``value``, in an environment or in a file of llama.cpp.

    Returns:
        Flags, each with its text, or with ``None`` where it must not be given at all.

    Raises:
        UsageError: this build has no flag for the knob, or none for its value.
    """
    flag = flags.first(entry.names)
    if flag is None:
        return _texts_of_older(entry, value, flags)
    if value == entry.own_choice:
        return ((flag, AUTO if flag.default == AUTO else None),)
    if flag.takes_value:
        return ((flag, show(value)),)
    if value in {True, "on"}:
        return ((flag, "1"),)
    if flag.negatives:
        return ((flag, "0"),)
    if flag.default in {None, *FALSE}:
        return ((flag, None),)
    raise UsageError(
        f"this llama-server cannot set {entry.knob.name} to {show(value)}.",
        f"Its {flag.name} can only be turned on.",
    )


def _texts_of_older(
    entry: Entry, value: Value, flags: Flags
) -> tuple[tuple[Flag, str | None], ...]:
    if value not in entry.older:
        raise UsageError(
            f"this llama-server cannot set {entry.knob.name} to {show(value)}: "
            f"it has no flag {' or '.join(entry.names)}.",
            "Leave the knob out, or use a newer build.",
        )
    given = entry.older[value]
    said = {}
    for word in dict.fromkeys(word for spelled in entry.older.values() for word in spelled):
        flag = flags.get(word)
        if flag is not None:
            said[flag] = None if word not in given else "0" if word in flag.negatives else "1"
    return tuple(said.items())


def fields(config: Mapping[str, Value]) -> dict[str, Value]:
    """``config`` as values of the wheel's ``CommonParams``, by attribute; see ``embedded.py``.

    A number of threads that is left to the engine is not set at all.
    """
    given: dict[str, Value] = {}
    for name, value in config.items():
        entry = BY_NAME[name]
        if entry.members is not None:
            given[entry.attribute] = entry.members[value]
        elif value != entry.own_choice:
            given[entry.attribute] = value
    return given


def read(entry: Entry, text: str) -> Value | None:
    """The value that ``text``, from a help, an environment or a file of llama.cpp, has for a knob.

    ``None`` where it is none of the knob's values.
    """
    if text in entry.said:
        return entry.said[text]
    domain = entry.knob.domain
    if isinstance(domain, Choices):
        return _read_choice(domain, text)
    try:
        value = int(text) if domain.integral else float(text)
    except ValueError:
        return None
    return value if domain.accepts(value) else None


def _read_choice(domain: Choices, text: str) -> Value | None:
    word = "on" if text in TRUE else "off" if text in FALSE else text
    for value in domain.values:
        if show(value) == word:
            return value
    return None


def entry_of(flag: Flag) -> Entry | None:
    """The knob that ``flag`` sets, if there is one."""
    for entry in ENTRIES:
        if not set(entry.names).isdisjoint(flag.names):
            return entry
    return None


def words(flag: Flag, text: str) -> tuple[str, ...]:
    """``flag`` on a command line, given its ``text`` from an environment or a file of llama.cpp.

    Raises:
        UsageError: it is a switch, and ``text`` is neither on nor off.
    """
    if flag.takes_value:
        return flag.name, text
    if text in TRUE:
        return (flag.name,)
    if text in FALSE:
        return (flag.negatives[-1],) if flag.negatives else ()
    raise UsageError(
        f"{flag.name} cannot be {text!r}.",
        "llama-server takes on or off for it; it would not start.",
    )
