"""How much memory a configuration will take: weights, KV cache, and what computing needs."""

from __future__ import annotations

from collections.abc import Mapping

from velollm_core.backends.contract import Footprint
from velollm_core.config import Value
from velollm_core.models.memory import kv_cache_bytes, recurrent_bytes, weights_bytes
from velollm_core.models.spec import ModelSpec
from velollm_llamacpp.expected import positions, rounded

_PROCESS_BYTES = 160 * 1024**2
"""The engine without a model: its code, the vocabulary in its hash tables, threads."""

_FLOAT_BYTES = 4


def on_the_host(spec: ModelSpec, complete: Mapping[str, Value]) -> Footprint:
    """What a server takes with everything in main memory, bytes.

    The compute buffer is bounded by the widest things that live at once in one physical batch: the
    attention mask, without flash attention the scores of every head too, twice the feed-forward
    width, four hidden states, and one row of logits a slot. What ``cache_ram`` allows is not
    counted: it fills only as prompts are kept.

    Args:
        spec: the model.
        complete: a value for every knob.
    """
    context = rounded(positions(spec, complete), complete)
    ubatch = min(int(complete["ubatch"]), int(complete["batch"]), context)
    slots = int(complete["slots"])
    heads = max(spec.heads, default=0) if complete["flash_attention"] == "off" else 0
    width = (
        context * (1 + heads)
        + 2 * (spec.feed_forward_length or 4 * spec.embedding_length)
        + 4 * spec.embedding_length
    )
    host_bytes = (
        _PROCESS_BYTES
        + weights_bytes(spec)
        + kv_cache_bytes(
            spec, context, str(complete["cache_type_k"]), str(complete["cache_type_v"])
        )
        + recurrent_bytes(spec, slots)
        + _FLOAT_BYTES * (ubatch * width + slots * (spec.vocabulary_size or 0))
    )
    return Footprint(host_bytes=host_bytes)
