"""A model in words, for a table of two columns."""

from __future__ import annotations

from velollm_core.models.memory import kv_cache_bytes, recurrent_bytes
from velollm_core.models.spec import Model, ModelSpec


def describe(model: Model) -> list[tuple[str, str]]:
    """Label and value of everything that is known of ``model``, in reading order."""
    rows = [
        ("reference", model.reference),
        ("file", str(model.path or "")),
        ("served as", model.served_name or ""),
        *(_rows(model.spec) if model.spec else ()),
        ("fingerprint", model.fingerprint or ""),
    ]
    return [(label, value) for label, value in rows if value]


def _rows(spec: ModelSpec) -> list[tuple[str, str]]:
    weights = sorted(spec.type_bytes.items(), key=lambda item: -item[1])
    heads = (
        f"{_span(spec.heads)} heads, {_span(spec.kv_heads)} KV heads of "
        f"{_span(spec.head_dims_k)} (keys) and {_span(spec.head_dims_v)} (values) elements"
    )
    files = f" in {spec.split_count} files" if spec.split_count > 1 else ""
    experts = f"{spec.experts_used} of {spec.experts_total} used for a token"
    state = f"{mebibytes(recurrent_bytes(spec, 1))} a sequence"
    vocabulary = f"{spec.vocabulary_size or 0:,} tokens, fingerprint {spec.vocabulary_fingerprint}"
    return [
        ("name", spec.name or ""),
        ("architecture", spec.architecture),
        ("parameters", f"{spec.parameter_count:,}"),
        ("quantization", spec.quantization or ""),
        ("weights", ", ".join(f"{kind} {mebibytes(size)}" for kind, size in weights)),
        ("size", mebibytes(spec.file_bytes) + files),
        ("layers", str(spec.layers)),
        ("embedding", str(spec.embedding_length)),
        ("attention", heads if any(spec.heads) else "none"),
        ("sliding window", _window(spec)),
        ("experts", experts if spec.experts_total else ""),
        ("recurrent state", state if spec.recurrent else ""),
        ("context", f"{spec.context_length:,} tokens"),
        ("KV cache", f"{kv_cache_bytes(spec, 1):,} bytes a token at most (f16)"),
        ("vocabulary", vocabulary if spec.vocabulary_fingerprint else ""),
        ("chat template", "yes" if spec.chat_template else "no"),
        ("byte order", "big-endian" if spec.big_endian else ""),
    ]


def _window(spec: ModelSpec) -> str:
    if not spec.sliding_window:
        return ""
    sliding = sum(spec.sliding_layers)
    return f"{spec.sliding_window:,} tokens" + (
        f" in {sliding} of {spec.layers} layers" if sliding else ", which llama.cpp does not use"
    )


def mebibytes(size: int) -> str:
    """``size`` bytes in MiB with one decimal."""
    return f"{size / (1 << 20):,.1f} MiB"


def _span(counts: tuple[int, ...]) -> str:
    """What all layers have, or the least and the most that one has."""
    low, high = min(counts, default=0), max(counts, default=0)
    return f"{low}" if low == high else f"{low} to {high}"
