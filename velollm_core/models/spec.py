"""The model as data: what a GGUF header tells, and how a model is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen


@frozen(kw_only=True)
class RecurrentState:
    """State that replaces a KV cache in ``layers`` of the layers: its sizes, in elements.

    In the terms of Mamba-2. Mamba-1, RWKV and short-convolution layers are put in the same, with
    ``group_count`` 0, such that :func:`~velollm_core.models.memory.recurrent_bytes` holds for them.
    """

    layers: int
    conv_kernel: int
    inner_size: int
    state_size: int
    group_count: int = 0
    time_step_rank: int = 0


@frozen(kw_only=True)
class ModelSpec:
    """What the header of a model file says.

    Per-layer tuples have ``layers`` entries. A layer that keeps no KV cache of its own, because it
    is recurrent or uses another layer's, has 0 KV heads. ``head_dims_k`` and ``head_dims_v`` are
    the elements of one head's key and value. ``type_bytes`` is the bytes of tensor data by tensor
    type name (``Q4_1``, ``F32`` ...). ``vocabulary_fingerprint``: where it is equal, two models can
    speculate together. ``sliding_window`` is in tokens. ``split_count`` is the number of files that
    hold the model, ``file_bytes`` their sum.
    """

    architecture: str
    name: str | None = None
    parameter_count: int
    layers: int
    embedding_length: int
    feed_forward_length: int | None = None
    heads: tuple[int, ...] = ()
    kv_heads: tuple[int, ...] = ()
    head_dims_k: tuple[int, ...] = ()
    head_dims_v: tuple[int, ...] = ()
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

    A server may serve a model that cannot be read from here: then ``served_name`` is set and
    ``path``, ``spec`` and ``fingerprint`` may be ``None``. ``path`` of a split model is its first
    file.
    """

    reference: str
    path: Path | None = None
    served_name: str | None = None
    spec: ModelSpec | None = None
    fingerprint: str | None = None
