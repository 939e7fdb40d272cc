"""The configuration that a running Ollama tells: its lists, its log, and its engine's arguments."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from velollm_core.config import Config, Knob, Value
from velollm_core.models.spec import Model
from velollm_ollama.knobs import parallel_in_force
from velollm_ollama.values import duration_s

_SERVER_CONFIG = re.compile(r'msg="server config" env="map\[(.*)\]"')
_VARIABLE = re.compile(r"(OLLAMA_[A-Z_]+):(\S*)")
_NO_LIMIT = "2562047h47m16.854775807s"
"""The longest duration that Go has."""
_SILENT = "of a server that is not seen on this machine Ollama tells only num_ctx"
_PER_REQUEST = "a field of each request, which the server does not tell back"
_UNHEARD = "Ollama tells it in its log alone, which is read of a private server only"
_UNTOLD = "Ollama does not tell it, and llama-server tells Ollama alone"

_OF_THE_LISTS = frozenset({"num_ctx"})
_OF_THE_ENGINE = frozenset(
    {
        "num_batch",
        "num_gpu",
        "main_gpu",
        "use_mmap",
        "num_thread",
        "draft_num_predict",
        "num_parallel",
        "kv_cache_type",
        "flash_attention",
    }
)
_FLAGS = (
    ("-np", "num_parallel", None),
    ("-b", "num_batch", None),
    ("-ngl", "num_gpu", -1),
    ("-t", "num_thread", 0),
    ("--main-gpu", "main_gpu", -1),
    ("--spec-draft-n-max", "draft_num_predict", -1),
)
"""Each with the knob that it tells, and that knob's value where it is not given."""
_LOAD_MODES = {"mmap": "on", "none": "off"}


def unreadable(name: str, *, seen: bool, private: bool) -> str | None:
    """Why the knob called ``name`` cannot be read back, or ``None`` where it can.

    Args:
        name: of the knob.
        seen: whether the arguments of the server's engine can be seen.
        private: whether the server is started here, so that its log is.
    """
    if name in _OF_THE_LISTS:
        return None
    if name in _OF_THE_ENGINE:
        return None if seen else _SILENT
    if name in _OF_THE_LOG:
        return None if private else _UNHEARD
    return _PER_REQUEST if name == "keep_alive" else _UNTOLD


def expected(knobs: Iterable[Knob], model: Model, config: Mapping[str, Value]) -> Config:
    """The part of ``config`` that can be read back, with the values that will be.

    What is left to Ollama's own choice is left out, and the length of a draft, which only a model
    with one has.

    Args:
        knobs: those of the installation.
        model: the model; only of one whose header is known the limits are.
        config: what is asked for.
    """
    values = dict(config)
    if model.spec is not None and "num_ctx" in values:
        values["num_ctx"] = min(int(values["num_ctx"]), model.spec.context_length)
    if "num_parallel" in values:
        values["num_parallel"] = parallel_in_force(model, int(values["num_parallel"]))
    return Config(
        {
            knob.name: values[knob.name]
            for knob in knobs
            if knob.name in values
            and knob.unreadable is None
            and values[knob.name] != knob.own_choice
            and knob.name != "draft_num_predict"
        }
    )


def read_arguments(argv: Sequence[str]) -> Config:
    """The knobs that the arguments of Ollama's ``llama-server`` tell.

    Ollama leaves a flag out where it leaves the choice to llama.cpp: then the knob has the value
    that means so.

    Args:
        argv: those arguments; without any nothing is told.
    """
    if not argv:
        return Config()
    given = dict(pairwise(argv))
    told = {
        knob: _number(given.get(flag)) if flag in given else absent for flag, knob, absent in _FLAGS
    }
    total, slots = _number(given.get("-c")), told["num_parallel"]
    if total is not None and slots:
        told["num_ctx"] = total // slots
    words = {
        "kv_cache_type": given.get("--cache-type-k", "f16"),
        "use_mmap": _LOAD_MODES.get(given.get("--load-mode", "mmap")),
        "flash_attention": given.get("--flash-attn"),
    }
    return Config({name: value for name, value in {**told, **words}.items() if value is not None})


def read_log(log: str) -> Config:
    """The knobs that a server tells in its log when it starts, as it has read them."""
    match = _SERVER_CONFIG.search(log)
    if match is None:
        return Config()
    values = dict(_VARIABLE.findall(match[1]))
    told = {
        knob: value
        for knob, (variable, read) in _OF_THE_LOG.items()
        if variable in values and (value := read(values[variable])) is not None
    }
    return Config(told)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else None


def _switch(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text)


def _seconds(text: str) -> int | None:
    if text == _NO_LIMIT:
        return 0
    seconds = duration_s(text)
    return None if seconds is None else math.ceil(seconds)


_OF_THE_LOG: Mapping[str, tuple[str, Callable[[str], Value | None]]] = {
    "max_loaded_models": ("OLLAMA_MAX_LOADED_MODELS", _number),
    "max_queue": ("OLLAMA_MAX_QUEUE", _number),
    "load_timeout": ("OLLAMA_LOAD_TIMEOUT", _seconds),
    "gpu_overhead": ("OLLAMA_GPU_OVERHEAD", _number),
    "sched_spread": ("OLLAMA_SCHED_SPREAD", _switch),
}
