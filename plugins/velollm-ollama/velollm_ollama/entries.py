"""The knobs of Ollama: what each is for, where its value lives, and how Ollama is told it.

There are two kinds. What the server reads from its environment counts for every model and needs a
restart; what is an option of the model is kept with it (``PARAMETER`` in a Modelfile) or comes with
a request, and loads the model anew. A third kind is llama.cpp's own; see :mod:`.experimental`.

The context has one knob, ``num_ctx``, so that a tuner does not see it twice:
``OLLAMA_CONTEXT_LENGTH`` is the same setting for all models that have no ``num_ctx`` of their own,
weaker, and only to be changed with a restart.

Followed are Ollama's ``envconfig/config.go``, ``api/types.go``, ``llm/llama_server.go`` and
``server/sched.go`` of August 2026, and its ``docs/faq.mdx``.
"""

from __future__ import annotations

from typing import Any, Literal

from attrs import frozen

from velollm_core.config import Choices, Knob, Range, Role, Value

_FAQ = "Ollama, docs/faq.mdx"
_ENVIRONMENT = "Ollama, envconfig/config.go"
_OPTIONS = "Ollama, api/types.go, type Runner"
_ENGINE = "Ollama, llm/llama_server.go"

_THREE_WAY = Choices(("auto", "on", "off"))
_TOKENS = Range(0, 2**28)
_SECONDS = 2**31


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


def make(
    name: str,
    role: Role,
    domain: Choices | Range,
    summary: str,
    *,
    default: Value,
    source: str,
    **more: Any,
) -> Entry:
    """An entry; ``more`` are further fields of it and of its knob."""
    forms = {
        key: more.pop(key)
        for key in ("variable", "option", "key", "form", "own_choice_sayable")
        if key in more
    }
    knob = Knob(name=name, role=role, domain=domain, summary=summary, source=source, **more)
    return Entry(knob=knob, default=default, **forms)


ENTRIES: tuple[Entry, ...] = (
    make(
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
    make(
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
    make(
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
    make(
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
    make(
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
    make(
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
    make(
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
    make(
        "num_parallel",
        Role.SLOTS,
        Range(1, 256),
        "requests that a model answers at the same time, each with its own context",
        default=1,
        source=_FAQ,
        numerics="rounding",
        variable="OLLAMA_NUM_PARALLEL",
    ),
    make(
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
    make(
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
    make(
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
    make(
        "max_loaded_models",
        Role.RESIDENCY,
        Range(0, 1024),
        "models that stay loaded at the same time; 0: three for each GPU, three without",
        default=0,
        source=_FAQ,
        own_choice=0,
        variable="OLLAMA_MAX_LOADED_MODELS",
    ),
    make(
        "max_queue",
        Role.OTHER,
        Range(0, 2**20),
        "requests that may wait before further ones are refused",
        default=512,
        source=_FAQ,
        variable="OLLAMA_MAX_QUEUE",
    ),
    make(
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
    make(
        "gpu_overhead",
        Role.OTHER,
        Range(0, 2**48),
        "memory that is left free on each GPU",
        default=0,
        source=_ENVIRONMENT,
        unit="bytes",
        variable="OLLAMA_GPU_OVERHEAD",
    ),
    make(
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
