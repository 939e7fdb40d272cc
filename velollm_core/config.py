"""Knobs and their values: the words that backends, ``optimize`` and ``tune`` share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Literal

from attrs import evolve, field, frozen

from velollm_core.errors import UsageError

Value = bool | int | float | str

ENGINE_DEFAULT = "engine default"
"""The origin of a value that nobody set."""


class Role(StrEnum):
    """What a knob is for. Roles let a tuner drive a backend that it has never seen."""

    THREADS_DECODE = "threads_decode"
    THREADS_PREFILL = "threads_prefill"
    BATCH_LOGICAL = "batch_logical"
    BATCH_PHYSICAL = "batch_physical"
    CONTEXT = "context"
    SLOTS = "slots"
    UNIFIED_KV = "unified_kv"
    KV_TYPE_K = "kv_type_k"
    KV_TYPE_V = "kv_type_v"
    ATTENTION = "attention"
    PLACEMENT = "placement"
    SPECULATION_TYPE = "speculation_type"
    SPECULATION_LENGTH = "speculation_length"
    SPECULATION_MATCH = "speculation_match"
    PROMPT_CACHE = "prompt_cache"
    LOAD = "load"
    RESIDENCY = "residency"
    OTHER = "other"


@frozen
class Choices:
    """A finite domain."""

    values: tuple[Value, ...]

    def accepts(self, value: Value) -> bool:
        """Whether ``value`` is one of the choices, of the same type (``True`` is not 1)."""
        return any(type(value) is type(choice) and value == choice for choice in self.values)

    def __str__(self) -> str:
        return "|".join(show(value) for value in self.values)


@frozen
class Range:
    """A numeric domain, both ends included; of integers where both ends are integers."""

    low: int | float
    high: int | float

    @property
    def integral(self) -> bool:
        """Whether only integers belong to it."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def accepts(self, value: Value) -> bool:
        """Whether ``value`` is a finite number of the right type within the ends."""
        if isinstance(value, float):
            return not self.integral and math.isfinite(value) and self.low <= value <= self.high
        return isinstance(value, int) and type(value) is not bool and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


@frozen
class Condition:
    """A knob means something only while another one has one of these values."""

    knob: str
    values: tuple[Value, ...]


@frozen(kw_only=True)
class Knob:
    """One thing that a backend lets you set.

    ``unreadable`` says why the engine cannot tell the value back, and is ``None`` for a knob whose
    value :meth:`~velollm_core.backends.contract.Session.effective` reports. ``own_choice`` is the
    value that leaves it to the engine, if there is one. ``per_slot``: the value counts for each
    slot, not for all of them together. ``experimental``: it works only in some versions of the
    engine, so it is proposed only to who asks for that.
    """

    name: str
    role: Role
    domain: Choices | Range
    summary: str
    source: str
    unit: str | None = None
    numerics: Literal["exact", "rounding", "lossy"] = "exact"
    change: Literal["per_request", "reload", "restart"] = "restart"
    scope: Literal["process", "user", "host"] = "process"
    active_when: Condition | None = None
    unreadable: str | None = None
    own_choice: Value | None = None
    per_slot: bool = False
    experimental: bool = False

    def parse(self, text: str) -> Value:
        """The value that ``text`` means for this knob.

        Raises:
            UsageError: ``text`` is not in the knob's domain; the message names the domain.
        """
        whole = isinstance(self.domain, Range) and self.domain.integral
        for reading in _readings(text):
            number = type(reading) is int and isinstance(self.domain, Range) and not whole
            value = float(text) if number else reading  # of the text: an int may be too large
            if self.domain.accepts(value):
                return value
        unit = f" {self.unit}" if self.unit else ""
        raise UsageError(
            f"knob {self.name} cannot be {text!r}.", f"It takes {self.domain}{unit}: {self.summary}"
        )


def _readings(text: str) -> Iterator[Value]:
    if text.lower() in {"true", "on"}:
        yield True
    if text.lower() in {"false", "off"}:
        yield False
    for kind in (int, float):
        try:
            yield kind(text)
        except ValueError:
            continue
    yield text


def show(value: Value) -> str:
    """A value as a user types it: ``on`` and ``off`` for booleans."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _sorted_items(values: Mapping[str, Value]) -> tuple[tuple[str, Value], ...]:
    return tuple(sorted(values.items()))


_NOTHING: Mapping[str, Value] = {}


@frozen(eq=True, repr=False)
class Config(Mapping[str, Value]):
    """An immutable, sparse assignment of knobs: ``Config({"threads": 2})``, itself a mapping."""

    _pairs: tuple[tuple[str, Value], ...] = field(default=_NOTHING, converter=_sorted_items)

    def __getitem__(self, name: str) -> Value:
        for key, value in self._pairs:
            if key == name:
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return f"Config({self})"

    def __str__(self) -> str:
        return ",".join(f"{key}={show(value)}" for key, value in self._pairs)

    def __or__(self, other: Mapping[str, Value]) -> Config:
        """This assignment with ``other`` laid over it."""
        return Config({**self, **other})


@frozen
class LeftOut:
    """Something of the user's that is not passed on to an engine, and why."""

    name: str
    origin: str
    reason: str


@frozen(kw_only=True)
class Settings:
    """A configuration as it stands at the user's: knobs, and what there is no knob for.

    ``origins`` maps a knob's name to where its value comes from (``environment LLAMA_ARG_THREADS``,
    ``~/.config/llama.cpp/config.ini``, ``engine default``, ``--set``). ``left_out`` lists what was
    found and is deliberately not passed on.
    """

    config: Config = Config()
    extra_args: tuple[str, ...] = ()
    extra_env: Mapping[str, str] = field(factory=dict)
    origins: Mapping[str, str] = field(factory=dict)
    left_out: tuple[LeftOut, ...] = ()


def differ(one: Settings, other: Settings) -> bool:
    """Whether two settings run differently, wherever their values come from."""
    plain = [evolve(settings, origins={}, left_out=()) for settings in (one, other)]
    return plain[0] != plain[1]


@frozen(kw_only=True)
class Suggestion:
    """A proposal: knobs that belong together move together. Nothing of it is measured yet.

    ``reason`` and ``effect`` are one sentence each: why here, and what it should bring. ``source``
    is where a stranger can look the rule up. ``experimental`` suggestions are made only to who asks
    for them.
    """

    assignments: Config
    reason: str
    effect: str
    source: str
    confidence: Literal["high", "medium", "low"] = "medium"
    experimental: bool = False


@frozen(kw_only=True)
class Kept:
    """Knobs that a rule looked at and leaves as they are, and why, in one sentence."""

    knobs: tuple[str, ...]
    reason: str


@frozen
class Problem:
    """Why a configuration cannot be used, in one sentence, and the knob that is to blame."""

    knob: str
    message: str


def problems(knobs: tuple[Knob, ...], config: Mapping[str, Value]) -> tuple[Problem, ...]:
    """Every assignment in ``config`` that names no knob or lies outside its knob's domain."""
    known = {knob.name: knob for knob in knobs}
    found = []
    for name, value in config.items():
        knob = known.get(name)
        if knob is None:
            found.append(
                Problem(name, f"there is no knob {name!r}; known: {', '.join(sorted(known))}")
            )
        elif not knob.domain.accepts(value):
            found.append(Problem(name, f"{name} cannot be {show(value)}; it takes {knob.domain}"))
    return tuple(found)


def inactive(knobs: tuple[Knob, ...], config: Mapping[str, Value]) -> tuple[str, ...]:
    """Names assigned in ``config`` that mean nothing because of another knob's value in it."""
    return tuple(
        knob.name
        for knob in knobs
        if knob.name in config
        and knob.active_when is not None
        and config.get(knob.active_when.knob) not in knob.active_when.values
    )
