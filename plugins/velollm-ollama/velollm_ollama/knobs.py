"""Which knobs an installation has, and what of a configuration Ollama has to be told."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from velollm_core.backends.contract import Installation
from velollm_core.config import ENGINE_DEFAULT, Knob, Range, Value
from velollm_core.models.spec import Model
from velollm_ollama.entries import ENTRIES, Entry
from velollm_ollama.experimental import EXPERIMENTAL
from velollm_ollama.values import written

BY_NAME: Mapping[str, Entry] = {entry.knob.name: entry for entry in (*ENTRIES, *EXPERIMENTAL)}
BY_VARIABLE: Mapping[str, Entry] = {
    entry.variable: entry for entry in BY_NAME.values() if entry.variable
}

_ONE_REQUEST_AT_A_TIME = frozenset(
    {
        "lfm2",
        "lfm2moe",
        "mllama",
        "nemotron_h",
        "nemotron_h_moe",
        "nemotron_h_omni",
        "qwen35",
        "qwen35moe",
        "qwen3next",
        "qwen3vl",
        "qwen3vlmoe",
    }
)


def is_experimental(installation: Installation) -> bool:
    """Whether the user asked for the experimental group, and it was found to be possible."""
    return installation.options.get("experimental") == "on"


def entries(installation: Installation) -> tuple[Entry, ...]:
    """What can be set of ``installation``."""
    return (*ENTRIES, *EXPERIMENTAL) if is_experimental(installation) else ENTRIES


def knobs(installation: Installation, model: Model) -> tuple[Knob, ...]:
    """What Ollama can be told; of some models it answers one request at a time, come what may."""
    found = tuple(entry.knob for entry in entries(installation))
    if parallel_in_force(model, 2) == 2:
        return found
    one = Range(1, 1)
    return tuple(evolve(k, domain=one) if k.name == "num_parallel" else k for k in found)


def told(config: Mapping[str, Value], origins: Mapping[str, str] | None = None) -> dict[str, Value]:
    """The part of ``config`` that has to be said: not what nobody set, nor what is left to Ollama.

    Ollama does things by itself only while nothing is said: it lowers the context where memory is
    short, and raises the batch with the context.
    """
    origins = origins or {}
    return {
        name: value
        for name, value in config.items()
        if name in BY_NAME
        and origins.get(name) != ENGINE_DEFAULT
        and (value != BY_NAME[name].knob.own_choice or BY_NAME[name].own_choice_sayable)
    }


def variables(
    config: Mapping[str, Value], origins: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The variables of a server that is to run with ``config``, beside :func:`options`."""
    return {
        BY_NAME[name].variable or "": written(BY_NAME[name], value)
        for name, value in told(config, origins).items()
        if BY_NAME[name].variable and not BY_NAME[name].option
    }


def options(
    config: Mapping[str, Value], origins: Mapping[str, str] | None = None
) -> dict[str, Value]:
    """The ``options`` of a request that is to be answered with ``config``."""
    return {
        name: value == "on" if BY_NAME[name].form == "boolean" else value
        for name, value in told(config, origins).items()
        if BY_NAME[name].option
    }


def llama_config(
    config: Mapping[str, Value], origins: Mapping[str, str] | None = None
) -> str | None:
    """llama.cpp's configuration file for what it reads from nowhere else, if ``config`` has any."""
    lines = [
        f"{BY_NAME[name].key} = {value}"
        for name, value in told(config, origins).items()
        if BY_NAME[name].key
    ]
    return "\n".join(("[*]", *lines, "")) if lines else None


def parallel_in_force(model: Model, asked: int) -> int:
    """How many requests Ollama lets a model answer at a time, of ``asked``.

    One for families with which more is not safe (``Scheduler.load`` in ``server/sched.go``).
    """
    family = model.spec.architecture if model.spec else ""
    return 1 if family in _ONE_REQUEST_AT_A_TIME else asked
