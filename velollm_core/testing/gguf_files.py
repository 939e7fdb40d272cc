"""Writes GGUF files, whatever one wants in them, and small models that llama.cpp loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

_VOCABULARY = 2048
_EMBEDDING = 256
_SEED = 1
_SCALE = 0.02

Shape = tuple[int, ...]


def write_gguf(
    path: Path,
    arch: str,
    keys: Mapping[str, Any],
    tensors: Mapping[str, Any],
    add: Callable[[gguf.GGUFWriter], None] | None = None,
    **options: Any,
) -> Path:
    """Write a file and give its path.

    Args:
        path: where to.
        arch: the architecture.
        keys: by full name; ``None`` is left out, an ``int`` becomes a uint32.
        tensors: arrays by name.
        add: called with the writer for whatever else there is.
        options: the writer's.
    """
    writer = gguf.GGUFWriter(path, arch, **options)
    for key, value in keys.items():
        _add(writer, key, value)
    if add is not None:
        add(writer)
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def transformer(path: Path, *, layers: int = 4, vocabulary: int = _VOCABULARY) -> Path:
    """A Llama so narrow that its weights take next to no time."""
    width, head = 64, 64
    keys = {
        "feed_forward_length": 2 * width,
        "attention.head_count": 1,
        "attention.head_count_kv": 1,
        "rope.dimension_count": head,
    }
    shapes: dict[str, Shape] = {}
    for layer in range(layers):
        shapes |= _attention(layer, heads=1, kv_heads=1, dim=head, width=width)
        shapes |= _feed_forward(layer, 2 * width, width)
    return _written(path, "llama", layers, keys, shapes, width=width, vocabulary=vocabulary)


def mixture_of_experts(path: Path, *, layers: int = 4, experts: int = 8) -> Path:
    """A Llama with experts, of which each token uses two (as Mixtral)."""
    keys = {
        "feed_forward_length": 512,
        "expert_count": experts,
        "expert_used_count": 2,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "rope.dimension_count": 64,
    }
    shapes: dict[str, Shape] = {}
    for layer in range(layers):
        shapes |= _attention(layer, heads=4, kv_heads=2, dim=64)
        shapes |= {
            f"blk.{layer}.ffn_gate_inp.weight": (experts, _EMBEDDING),
            f"blk.{layer}.ffn_gate_exps.weight": (experts, 512, _EMBEDDING),
            f"blk.{layer}.ffn_up_exps.weight": (experts, 512, _EMBEDDING),
            f"blk.{layer}.ffn_down_exps.weight": (experts, _EMBEDDING, 512),
        }
    return _written(path, "llama", layers, keys, shapes)


def hybrid(path: Path, *, layers: int = 8, attends_every: int = 4) -> Path:
    """Mamba layers with one of attention now and then (as Jamba)."""
    inner, state, rank, kernel = 2 * _EMBEDDING, 16, 16, 4
    attending = [layer % attends_every == attends_every - 1 for layer in range(layers)]
    keys = {
        "feed_forward_length": 768,
        "attention.head_count": 4,
        "attention.head_count_kv": [2 if attends else 0 for attends in attending],
        "ssm.conv_kernel": kernel,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": rank,
    }
    shapes: dict[str, Shape] = {}
    for layer, attends in enumerate(attending):
        shapes |= _feed_forward(layer, 768)
        if attends:
            shapes |= _attention(layer, heads=4, kv_heads=2, dim=64)
            continue
        shapes |= {
            f"blk.{layer}.attn_norm.weight": (_EMBEDDING,),
            f"blk.{layer}.ssm_in.weight": (2 * inner, _EMBEDDING),
            f"blk.{layer}.ssm_conv1d.weight": (inner, kernel),
            f"blk.{layer}.ssm_conv1d.bias": (inner,),
            f"blk.{layer}.ssm_x.weight": (rank + 2 * state, inner),
            f"blk.{layer}.ssm_dt_norm.weight": (rank,),
            f"blk.{layer}.ssm_dt.weight": (inner, rank),
            f"blk.{layer}.ssm_dt.bias": (inner,),
            f"blk.{layer}.ssm_b_norm.weight": (state,),
            f"blk.{layer}.ssm_c_norm.weight": (state,),
            f"blk.{layer}.ssm_a": (inner, state),
            f"blk.{layer}.ssm_d": (inner,),
            f"blk.{layer}.ssm_out.weight": (_EMBEDDING, inner),
        }
    return _written(path, "jamba", layers, keys, shapes)


def uneven_heads(path: Path) -> Path:
    """Layers with different numbers of heads and widths, one without attention (as DeciLM)."""
    heads, kv_heads = (8, 8, 0, 8, 4, 8), (2, 4, 0, 8, 1, 2)
    widths = (512, 768, 512, 1024, 512, 768)
    dim = _EMBEDDING // heads[0]
    keys = {
        "feed_forward_length": list(widths),
        "attention.head_count": list(heads),
        "attention.head_count_kv": list(kv_heads),
        "rope.dimension_count": dim,
    }
    shapes: dict[str, Shape] = {}
    for layer, (width, count, kv_count) in enumerate(zip(widths, heads, kv_heads, strict=True)):
        if count:
            shapes |= _attention(layer, heads=count, kv_heads=kv_count, dim=dim)
        shapes |= _feed_forward(layer, width)
    return _written(path, "deci", len(heads), keys, shapes)


def _attention(
    layer: int, *, heads: int, kv_heads: int, dim: int, width: int = _EMBEDDING
) -> dict[str, Shape]:
    return {
        f"blk.{layer}.attn_norm.weight": (width,),
        f"blk.{layer}.attn_q.weight": (heads * dim, width),
        f"blk.{layer}.attn_k.weight": (kv_heads * dim, width),
        f"blk.{layer}.attn_v.weight": (kv_heads * dim, width),
        f"blk.{layer}.attn_output.weight": (width, heads * dim),
        f"blk.{layer}.ffn_norm.weight": (width,),
    }


def _feed_forward(layer: int, inner: int, width: int = _EMBEDDING) -> dict[str, Shape]:
    return {
        f"blk.{layer}.ffn_norm.weight": (width,),
        f"blk.{layer}.ffn_gate.weight": (inner, width),
        f"blk.{layer}.ffn_up.weight": (inner, width),
        f"blk.{layer}.ffn_down.weight": (width, inner),
    }


def _written(
    path: Path,
    arch: str,
    layers: int,
    keys: Mapping[str, Any],
    shapes: Mapping[str, Shape],
    *,
    width: int = _EMBEDDING,
    vocabulary: int = _VOCABULARY,
) -> Path:
    """Random weights: matrices of the layers in float16, all else in float32 as llama.cpp wants."""
    random = np.random.default_rng(_SEED)
    whole = {
        "token_embd.weight": (vocabulary, width),
        "output_norm.weight": (width,),
        "output.weight": (vocabulary, width),
        **shapes,
    }
    tensors = {
        name: (random.standard_normal(shape, dtype=np.float32) * _SCALE).astype(
            np.float16 if _is_matrix(name, shape) else np.float32
        )
        for name, shape in whole.items()
    }
    every = {
        "block_count": layers,
        "context_length": 32768,
        "embedding_length": width,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "vocab_size": vocabulary,
        **keys,
    }
    named = {f"{arch}.{key}": value for key, value in every.items()}
    return write_gguf(path, arch, {**named, **_vocabulary(vocabulary)}, tensors)


def _is_matrix(name: str, shape: Sequence[int]) -> bool:
    vectors = ("ssm_conv1d", "ssm_a", "ssm_d", "ffn_gate_inp")
    return len(shape) > 1 and not any(part in name for part in vectors)


def _vocabulary(size: int) -> dict[str, Any]:
    """Three marks, the bytes, and filler: enough for the tokenizer of Llama."""
    marks = ["<unk>", "<s>", "</s>"]
    octets = [f"<0x{octet:02X}>" for octet in range(256)]
    filler = [f"word{index}" for index in range(size - len(marks) - len(octets))]
    unknown, control, normal, octet = 2, 3, 1, 6
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*marks, *octets, *filler],
        "tokenizer.ggml.scores": [0.0] * size,
        "tokenizer.ggml.token_type": [
            unknown,
            *(control, control),
            *([octet] * len(octets)),
            *([normal] * len(filler)),
        ],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
