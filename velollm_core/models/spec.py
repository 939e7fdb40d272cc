"""The model as data: what a GGUF header tells, and how a model is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen


@frozen(kw_only=True)
class RecurrentState:
    """State-space layers (Mamba and kin): sizes of the state that replaces a KV cache, elements."""

    conv_kernel: int
    inner_size: int
    state_size: int
    group_count: int = 1
    time_step_rank: int = 0


@frozen(kw_only=True)
class ModelSpec:
    """What the header of a model file says.

    Per-layer tuples have ``layers`` entries; a layer without attention has 0 KV heads.
    ``type_bytes`` is the bytes of tensor data by tensor type name (``Q4_1``, ``F32`` ...).
    ``vocabulary_fingerprint`` is equal for two models that can speculate together.
    ``sliding_window`` is in tokens. ``split_count`` is the number of files that hold the model.
    """

    architecture: str
    name: str | None = None
    parameter_count: int
    layers: int
    embedding_length: int
    feed_forward_length: int | None = None
    heads: tuple[int, ...] = ()
    kv_heads: tuple[int, ...] = ()
    head_dim_k: int | None = None
    head_dim_v: int | None = None
    sliding_window: int | None = None
    experts_total: int = 0
    experts_used: int = 0
    recurrent: RecurrentState | None = None
    context_length: int
    vocabulary_size: int | None = None
    vocabulary_fingerprint: str | None = None
    type_bytes: Mapping[str, int] = field(factory=dict)
    tensor_count: int = 0
    quantization: str | None = None
    chat_template: bool = False
    file_bytes: int = 0
    split_count: int = 1
    big_endian: bool = False


@frozen(kw_only=True)
class Model:
    """A model as it was asked for and as it was found.

    A server may serve a model that cannot be read from here: then ``served_name`` is set and ``path``,
    ``spec`` and ``fingerprint`` may be ``None``. ``paths`` of a split model beyond the first file follow from
    ``spec.split_count``.
    """

    reference: str
    path: Path | None = None
    served_name: str | None = None
    spec: ModelSpec | None = None
    fingerprint: str | None = None
