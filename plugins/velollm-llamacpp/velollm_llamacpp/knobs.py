"""The knobs of llama.cpp: what each is for, how a build spells it, and its field of the wheel.

Defaults are not here: they are read from the help of the build at hand. What is said of a knob
follows llama.cpp's ``tools/server/README.md`` and ``docs/speculative.md``; the limits are those
that ``common/arg.cpp`` enforces, where it enforces any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen

from velollm_core.config import Choices, Condition, Knob, Range, Role, Value

_README = "llama.cpp, tools/server/README.md"
_SPECULATIVE = "llama.cpp, docs/speculative.md"
_SILENT = "llama.cpp reports it on no endpoint and in no log line"
_FOREIGN = "a server that VeloLLM did not start reports it on no endpoint"
_TOLD_BY_ANY_SERVER = frozenset({"slots", "spec_type"})

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
SPECULATION_TYPES = ("none", "ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod")
"""Kinds of speculation that need no second model."""


@frozen(kw_only=True)
class Entry:
    """A knob and its forms.

    ``names`` are the flags that set it, newest first. ``attribute`` is that of the wheel's
    ``CommonParams``, and ``members`` the members of its enumeration by value. ``said`` maps words
    that a help prints as default to values. ``older`` spells values for builds that have none of
    ``names``.
    """

    knob: Knob
    names: tuple[str, ...]
    attribute: str
    members: Mapping[Value, str] | None = None
    said: Mapping[str, Value] = field(factory=dict)
    older: Mapping[Value, tuple[str, ...]] = field(factory=dict)

    @property
    def own_choice(self) -> Value | None:
        """The value with which no flag is given and the engine decides."""
        return self.knob.own_choice


_SWITCH = Choices((True, False))


def _entry(
    name: str,
    role: Role,
    domain: Choices | Range,
    summary: str,
    *,
    flags: str,
    attribute: str,
    **more: Any,
) -> Entry:
    forms = {key: more.pop(key) for key in ("members", "said", "older") if key in more}
    knob = Knob(
        name=name,
        role=role,
        domain=domain,
        summary=summary,
        source=more.pop("source", f"{_README}, {flags.split(maxsplit=1)[0]}"),
        **more,
    )
    return Entry(knob=knob, names=tuple(flags.split()), attribute=attribute, **forms)


def _speculation(
    kind: str, attribute: str, parts: tuple[tuple[str, str, Role, str], ...]
) -> list[Entry]:
    """The lengths of one kind of n-gram speculation, which mean nothing under another."""
    return [
        _entry(
            f"{kind.replace('-', '_')}_{part}",
            role,
            Range(1, 1024),
            summary,
            flags=flags,
            attribute=f"speculative.{attribute}.{part}",
            unit="hits" if part == "min_hits" else "tokens",
            numerics="rounding",
            active_when=Condition("spec_type", (kind,)),
            source=_SPECULATIVE,
        )
        for part, flags, role, summary in parts
    ]


def _map_parts(kind: str) -> tuple[tuple[str, str, Role, str], ...]:
    flag = f"--spec-{kind}"
    return (
        (
            "size_n",
            f"{flag}-size-n --spec-ngram-size-n",
            Role.SPECULATION_MATCH,
            "length of the n-gram that is looked up",
        ),
        (
            "size_m",
            f"{flag}-size-m --spec-ngram-size-m",
            Role.SPECULATION_LENGTH,
            "length of the draft",
        ),
        (
            "min_hits",
            f"{flag}-min-hits --spec-ngram-min-hits",
            Role.OTHER,
            "how often an n-gram must have been seen before it is used",
        ),
    )


_KV_MEMBERS: Mapping[Value, str] = {
    name: f"ggml_type.GGML_TYPE_{name.upper()}" for name in KV_TYPES
}
_SPECULATIVE_TYPE = "common_speculative_type.COMMON_SPECULATIVE_TYPE"
_MOD = "--spec-ngram-mod"

ENTRIES: tuple[Entry, ...] = (
    _entry(
        "threads",
        Role.THREADS_DECODE,
        Range(0, 512),
        "processor threads that generate; 0: the engine's own choice",
        flags="--threads",
        attribute="cpuparams.n_threads",
        numerics="rounding",
        own_choice=0,
        said={"-1": 0},
    ),
    _entry(
        "threads_batch",
        Role.THREADS_PREFILL,
        Range(0, 512),
        "processor threads that read the prompt; 0: as many as generate",
        flags="--threads-batch",
        attribute="cpuparams_batch.n_threads",
        numerics="rounding",
        own_choice=0,
        said={"-1": 0, "same": 0},
    ),
    _entry(
        "batch",
        Role.BATCH_LOGICAL,
        Range(1, 2**20),
        "most tokens that are submitted to the model at once",
        flags="--batch-size",
        attribute="n_batch",
        unit="tokens",
        numerics="rounding",
    ),
    _entry(
        "ubatch",
        Role.BATCH_PHYSICAL,
        Range(1, 2**20),
        "most tokens that are computed at once",
        flags="--ubatch-size",
        attribute="n_ubatch",
        unit="tokens",
        numerics="rounding",
    ),
    _entry(
        "context",
        Role.CONTEXT,
        Range(0, 2**28),
        "positions of the KV cache, all slots together; 0: the model's training length, less where"
        " memory is short",
        flags="--ctx-size",
        attribute="n_ctx",
        unit="tokens",
        own_choice=0,
    ),
    _entry(
        "slots",
        Role.SLOTS,
        Range(1, 256),
        "requests that are answered at the same time",
        flags="--parallel",
        attribute="n_parallel",
        numerics="rounding",
        said={"-1": 4},
    ),
    _entry(
        "kv_unified",
        Role.UNIFIED_KV,
        _SWITCH,
        "whether the slots share one KV cache instead of an equal part each",
        flags="--kv-unified",
        attribute="kv_unified",
        numerics="rounding",
    ),
    _entry(
        "cache_type_k",
        Role.KV_TYPE_K,
        Choices(KV_TYPES),
        "type of the keys in the KV cache",
        flags="--cache-type-k",
        attribute="cache_type_k",
        numerics="lossy",
        members=_KV_MEMBERS,
    ),
    _entry(
        "cache_type_v",
        Role.KV_TYPE_V,
        Choices(KV_TYPES),
        "type of the values in the KV cache; a quantized one needs flash attention",
        flags="--cache-type-v",
        attribute="cache_type_v",
        numerics="lossy",
        members=_KV_MEMBERS,
    ),
    _entry(
        "flash_attention",
        Role.ATTENTION,
        Choices(("auto", "on", "off")),
        "the fused attention kernel; auto: where the device has it",
        flags="--flash-attn",
        attribute="flash_attn_type",
        numerics="rounding",
        own_choice="auto",
        members={
            "auto": "llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_AUTO",
            "on": "llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED",
            "off": "llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED",
        },
        said={"disabled": "off", "enabled": "on"},
    ),
    _entry(
        "gpu_layers",
        Role.PLACEMENT,
        Range(-1, 9999),
        "layers kept on the GPU; -1: as many as fit",
        flags="--n-gpu-layers",
        attribute="n_gpu_layers",
        numerics="rounding",
        own_choice=-1,
        said={"auto": -1},
    ),
    _entry(
        "load_mode",
        Role.LOAD,
        Choices(("auto", "none", "mmap", "mlock", "mmap+mlock", "dio")),
        "how the model's file comes into memory; auto: mapped, unless a device cannot",
        flags="--load-mode",
        attribute="load_mode",
        own_choice="auto",
        members={
            "auto": "llama_load_mode.LLAMA_LOAD_MODE_AUTO",
            "none": "llama_load_mode.LLAMA_LOAD_MODE_NONE",
            "mmap": "llama_load_mode.LLAMA_LOAD_MODE_MMAP",
            "mlock": "llama_load_mode.LLAMA_LOAD_MODE_MLOCK",
            "mmap+mlock": "llama_load_mode.LLAMA_LOAD_MODE_MMAP_MLOCK",
            "dio": "llama_load_mode.LLAMA_LOAD_MODE_DIRECT_IO",
        },
        older={"auto": (), "none": ("--no-mmap",), "mmap+mlock": ("--mlock",)},
    ),
    _entry(
        "cache_ram",
        Role.PROMPT_CACHE,
        Range(-1, 2**24),
        "most main memory for the prompts of idle slots; -1: no limit, 0: none",
        flags="--cache-ram",
        attribute="cache_ram_mib",
        unit="MiB",
        numerics="rounding",
    ),
    _entry(
        "ctx_checkpoints",
        Role.PROMPT_CACHE,
        Range(0, 2**16),
        "states kept per slot to return to, for models with a sliding window or a recurrent state",
        flags="--ctx-checkpoints --swa-checkpoints",
        attribute="n_ctx_checkpoints",
        numerics="rounding",
    ),
    _entry(
        "cache_prompt",
        Role.PROMPT_CACHE,
        _SWITCH,
        "whether a prompt reuses what its slot holds of it",
        flags="--cache-prompt",
        attribute="cache_prompt",
        numerics="rounding",
        change="per_request",
        unreadable=_SILENT,
    ),
    _entry(
        "cache_reuse",
        Role.PROMPT_CACHE,
        Range(0, 2**20),
        "shortest piece of a prompt that is reused at another position; 0: none is",
        flags="--cache-reuse",
        attribute="n_cache_reuse",
        unit="tokens",
        numerics="lossy",
        change="per_request",
        active_when=Condition("cache_prompt", (True,)),
        unreadable=_SILENT,
    ),
    _entry(
        "slot_similarity",
        Role.PROMPT_CACHE,
        Range(0.0, 1.0),
        "share of a prompt that a slot must hold to be preferred for it",
        flags="--slot-prompt-similarity",
        attribute="slot_prompt_similarity",
        numerics="rounding",
        unreadable="llama.cpp tells it only when it chooses a slot by similarity",
    ),
    _entry(
        "poll",
        Role.OTHER,
        Range(0, 100),
        "how hard idle threads poll for work; 0: they sleep",
        flags="--poll",
        attribute="cpuparams.poll",
        unreadable=_SILENT,
    ),
    _entry(
        "spec_type",
        Role.SPECULATION_TYPE,
        Choices(SPECULATION_TYPES),
        "how tokens are drafted ahead of the model",
        flags="--spec-type",
        attribute="speculative.types",
        numerics="rounding",
        members={
            name: f"{_SPECULATIVE_TYPE}_{name.replace('-', '_').upper()}"
            for name in SPECULATION_TYPES
        },
        source=_SPECULATIVE,
    ),
    *_speculation("ngram-simple", "ngram_simple", _map_parts("ngram-simple")),
    *_speculation("ngram-map-k", "ngram_map_k", _map_parts("ngram-map-k")),
    *_speculation("ngram-map-k4v", "ngram_map_k4v", _map_parts("ngram-map-k4v")),
    *_speculation(
        "ngram-mod",
        "ngram_mod",
        (
            (
                "n_match",
                f"{_MOD}-n-match",
                Role.SPECULATION_MATCH,
                "length of the n-gram that is looked up",
            ),
            ("n_min", f"{_MOD}-n-min", Role.OTHER, "shortest draft that is used"),
            ("n_max", f"{_MOD}-n-max", Role.SPECULATION_LENGTH, "longest draft"),
        ),
    ),
)

KNOBS: tuple[Knob, ...] = tuple(entry.knob for entry in ENTRIES)

BY_NAME: Mapping[str, Entry] = {entry.knob.name: entry for entry in ENTRIES}


def of_attached(knob: Knob) -> Knob:
    """``knob`` as it is on a server that was not started here: most cannot be read back."""
    if knob.name in _TOLD_BY_ANY_SERVER:
        return knob
    return evolve(knob, unreadable=knob.unreadable or _FOREIGN)
