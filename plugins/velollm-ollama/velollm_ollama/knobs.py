"""The knobs of Ollama: what each is for, where its value lives, and how Ollama is told it.

There are two kinds. What the server reads from its environment counts for every model and needs a
restart; what is an option of the model is kept with it (``PARAMETER`` in a Modelfile) or comes with
a request, and loads the model anew. A third kind, :data:`EXPERIMENTAL`, is llama.cpp's own: Ollama
does not offer it, but the ``llama-server`` that it starts reads it.

The context has one knob, ``num_ctx``, so that a tuner does not see it twice:
``OLLAMA_CONTEXT_LENGTH`` is the same setting for all models that have no ``num_ctx`` of their own,
weaker, and only to be changed with a restart.

Followed are Ollama's ``envconfig/config.go``, ``api/types.go``, ``llm/llama_server.go`` and
``server/sched.go`` of August 2026, and its ``docs/faq.mdx``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from attrs import evolve, frozen

from velollm_core.backends.contract import Installation
from velollm_core.config import ENGINE_DEFAULT, Choices, Condition, Knob, Range, Role, Value
from velollm_core.models.spec import Model
from velollm_ollama.values import written

_FAQ = "Ollama, docs/faq.mdx"
_ENVIRONMENT = "Ollama, envconfig/config.go"
_OPTIONS = "Ollama, api/types.go, type Runner"
_ENGINE = "Ollama, llm/llama_server.go"
_LLAMA_CPP = "llama.cpp, tools/server/README.md"
_SPECULATIVE = "llama.cpp, docs/speculative.md"

_THREE_WAY = Choices(("auto", "on", "off"))
_TOKENS = Range(0, 2**28)
_SECONDS = 2**31
_LOAD = "experimental, of llama.cpp itself: "


@frozen(kw_only=True)
class Entry:
    """A knob and how Ollama is told it.

    ``variable`` is read from the environment of the server. ``option`` says that it is an option of
    a request and a ``PARAMETER``, by the knob's name. ``key`` is that of llama.cpp's configuration
    file, for what it reads from nowhere else. ``default`` is what Ollama does when nothing is set.
    ``form`` is how a variable spells the value. ``own_choice_sayable``: an option can take back to
    Ollama's own choice what the model says.
    """

    knob: Knob
    default: Value
    variable: str | None = None
    option: bool = False
    key: str | None = None
    form: Literal["number", "duration", "boolean", "word"] = "number"
    own_choice_sayable: bool = False


def _entry(
    name: str,
    role: Role,
    domain: Choices | Range,
    summary: str,
    *,
    default: Value,
    source: str,
    **more: Any,
) -> Entry:
    forms = {
        key: more.pop(key)
        for key in ("variable", "option", "key", "form", "own_choice_sayable")
        if key in more
    }
    knob = Knob(name=name, role=role, domain=domain, summary=summary, source=source, **more)
    return Entry(knob=knob, default=default, **forms)


ENTRIES: tuple[Entry, ...] = (
    _entry(
        "num_ctx",
        Role.CONTEXT,
        _TOKENS,
        "tokens that one request may hold; 0: by the GPUs' memory",
        default=0,
        source=_OPTIONS,
        unit="tokens",
        change="reload",
        own_choice=0,
        per_slot=True,
        variable="OLLAMA_CONTEXT_LENGTH",
        option=True,
    ),
    _entry(
        "num_batch",
        Role.BATCH_PHYSICAL,
        Range(0, 2**20),
        "most tokens that are computed at once; 0: 512 to 2048, by context and memory",
        default=0,
        source=_OPTIONS,
        unit="tokens",
        numerics="rounding",
        change="reload",
        own_choice=0,
        option=True,
    ),
    _entry(
        "num_gpu",
        Role.PLACEMENT,
        Range(-1, 9999),
        "layers kept on GPUs; -1: as many as fit, 0: none",
        default=-1,
        source=_OPTIONS,
        numerics="rounding",
        change="reload",
        own_choice=-1,
        option=True,
        own_choice_sayable=True,
    ),
    _entry(
        "main_gpu",
        Role.OTHER,
        Range(-1, 255),
        "the one GPU that takes the whole model; -1: Ollama decides",
        default=-1,
        source=_ENGINE,
        change="reload",
        own_choice=-1,
        option=True,
    ),
    _entry(
        "use_mmap",
        Role.LOAD,
        _THREE_WAY,
        "whether the model's file is mapped into memory; auto: Ollama decides",
        default="auto",
        source=_OPTIONS,
        change="reload",
        own_choice="auto",
        option=True,
        form="boolean",
    ),
    _entry(
        "num_thread",
        Role.THREADS_DECODE,
        Range(0, 512),
        "processor threads that read the prompt and generate; 0: the engine's own choice",
        default=0,
        source=_OPTIONS,
        numerics="rounding",
        change="reload",
        own_choice=0,
        option=True,
        own_choice_sayable=True,
    ),
    _entry(
        "draft_num_predict",
        Role.SPECULATION_LENGTH,
        Range(-1, 256),
        "tokens drafted ahead by the model's draft; -1: 4 with a draft model, else none; without a "
        "draft in the model it does nothing",
        default=-1,
        source="Ollama, docs/modelfile.mdx",
        unit="tokens",
        numerics="rounding",
        change="reload",
        own_choice=-1,
        option=True,
    ),
    _entry(
        "num_parallel",
        Role.SLOTS,
        Range(1, 256),
        "requests that a model answers at the same time, each with its own context",
        default=1,
        source=_FAQ,
        numerics="rounding",
        variable="OLLAMA_NUM_PARALLEL",
    ),
    _entry(
        "kv_cache_type",
        Role.KV_TYPE_K,
        Choices(("f16", "q8_0", "q4_0")),
        "type of keys and values in the KV cache; a quantized one needs flash attention",
        default="f16",
        source=_FAQ,
        numerics="lossy",
        variable="OLLAMA_KV_CACHE_TYPE",
        form="word",
    ),
    _entry(
        "flash_attention",
        Role.ATTENTION,
        _THREE_WAY,
        "the fused attention kernel; auto: where all devices have it",
        default="auto",
        source=_FAQ,
        numerics="rounding",
        own_choice="auto",
        variable="OLLAMA_FLASH_ATTENTION",
        form="boolean",
    ),
    _entry(
        "keep_alive",
        Role.RESIDENCY,
        Range(-1, _SECONDS),
        "how long a model stays loaded after its last request; -1: for ever",
        default=300,
        source=_FAQ,
        unit="s",
        change="per_request",
        variable="OLLAMA_KEEP_ALIVE",
        form="duration",
    ),
    _entry(
        "max_loaded_models",
        Role.RESIDENCY,
        Range(0, 1024),
        "models that stay loaded at the same time; 0: three for each GPU, three without",
        default=0,
        source=_FAQ,
        own_choice=0,
        variable="OLLAMA_MAX_LOADED_MODELS",
    ),
    _entry(
        "max_queue",
        Role.OTHER,
        Range(0, 2**20),
        "requests that may wait before further ones are refused",
        default=512,
        source=_FAQ,
        variable="OLLAMA_MAX_QUEUE",
    ),
    _entry(
        "load_timeout",
        Role.OTHER,
        Range(0, _SECONDS),
        "how long loading a model may stand still; 0: no limit",
        default=300,
        source=_ENVIRONMENT,
        unit="s",
        variable="OLLAMA_LOAD_TIMEOUT",
        form="duration",
    ),
    _entry(
        "gpu_overhead",
        Role.OTHER,
        Range(0, 2**48),
        "memory that is left free on each GPU",
        default=0,
        source=_ENVIRONMENT,
        unit="bytes",
        variable="OLLAMA_GPU_OVERHEAD",
    ),
    _entry(
        "sched_spread",
        Role.OTHER,
        Choices((True, False)),
        "whether a model is spread over all GPUs although one would do",
        default=False,
        source=_ENVIRONMENT,
        numerics="rounding",
        variable="OLLAMA_SCHED_SPREAD",
        form="boolean",
    ),
)

EXPERIMENTAL: tuple[Entry, ...] = (
    _entry(
        "spec_type",
        Role.SPECULATION_TYPE,
        Choices(("none", "ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod")),
        f"{_LOAD}how tokens are drafted ahead of a model that has no draft",
        default="none",
        source=_SPECULATIVE,
        numerics="rounding",
        variable="LLAMA_ARG_SPEC_TYPE",
        form="word",
    ),
    *(
        _entry(
            f"ngram_mod_{part}",
            role,
            Range(1, 1024),
            f"{_LOAD}{summary}",
            default=default,
            source=_SPECULATIVE,
            unit="tokens",
            numerics="rounding",
            scope="user",
            active_when=Condition("spec_type", ("ngram-mod",)),
            key=f"spec-ngram-mod-{part.replace('_', '-')}",
        )
        for part, role, default, summary in (
            ("n_match", Role.SPECULATION_MATCH, 24, "length of the n-gram that is looked up"),
            ("n_min", Role.OTHER, 48, "shortest draft that is used"),
            ("n_max", Role.SPECULATION_LENGTH, 64, "longest draft"),
        )
    ),
    _entry(
        "threads_batch",
        Role.THREADS_PREFILL,
        Range(0, 512),
        f"{_LOAD}processor threads that read the prompt; 0: as many as generate",
        default=0,
        source=_LLAMA_CPP,
        numerics="rounding",
        scope="user",
        own_choice=0,
        key="threads-batch",
    ),
    _entry(
        "cache_ram",
        Role.PROMPT_CACHE,
        Range(-1, 2**24),
        f"{_LOAD}most main memory for the prompts of idle slots; -1: no limit, 0: none",
        default=8192,
        source=_LLAMA_CPP,
        unit="MiB",
        numerics="rounding",
        variable="LLAMA_ARG_CACHE_RAM",
    ),
)
"""What an Ollama that runs ``llama-server`` can be made to do beyond its own settings. Variables of
its environment reach all its models; llama.cpp's configuration file reaches every ``llama-server``
of that user, whoever starts it."""

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
