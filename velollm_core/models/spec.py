"""The model as data: what a GGUF header tells, and how a model is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from attrs import field, frozen

Recurrence = Literal["mamba", "mamba2", "rwkv", "shortconv"]


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
class LayerShape:
    """What is computed in one layer, as its tensors show; widths in elements, 0 for none.

    ``attends`` is whether it has queries, ``fused`` whether they come from one matrix with the keys
    and values. ``feed_forward``, ``experts`` and ``shared_experts`` are the widths of a dense
    feed-forward network, of one expert's, and of that of all shared experts; ``gated`` is whether
    there is a second matrix of that width. A ``recurrence`` of Mamba's second kind or alike (gated
    delta nets) is ``mamba2``.
    """

    attends: bool = True
    fused: bool = False
    recurrence: Recurrence | None = None
    feed_forward: int = 0
    gated: bool = True
    experts: int = 0
    shared_experts: int = 0


@frozen(kw_only=True)
class ModelSpec:
    """What the header of a model file says.

    Per-layer tuples have ``layers`` entries. A layer that keeps no KV cache of its own, because it
    is recurrent or uses another layer's, has 0 KV heads. ``head_dims_k`` and ``head_dims_v`` are
    the elements of one head's key and value. ``type_bytes`` is the bytes of tensor data by tensor
    type name (``Q4_1``, ``F32`` ...). ``vocabulary_fingerprint``: where it is equal, two models can
    speculate together. ``sliding_window`` is in tokens, ``sliding_layers`` says to which layers
    llama.cpp gives it. ``latent_kv``: the values are a view of the keys, so that only keys are kept
    (MLA). ``split_count`` is the number of files that hold the model, ``file_bytes`` their sum.

    Where the bytes lie: ``layer_bytes`` in each layer, ``expert_bytes`` of these in its routed
    experts; ``input_bytes`` before the layers, ``output_bytes`` after them. Where the embeddings
    serve as output matrix too, their ``tied_bytes`` are in both. ``largest_bytes`` is the largest
    tensor of a layer. ``repackable_bytes`` is, by type, what a CPU may keep in another order of
    rows: in each layer and, last, in the output. Predicting layers that are only there to draft are
    counted in ``layers`` but have neither bytes nor KV heads, since they are not loaded.
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
    sliding_layers: tuple[bool, ...] = ()
    latent_kv: bool = False
    experts_total: int = 0
    experts_used: int = 0
    recurrent: RecurrentState | None = None
    context_length: int
    vocabulary_size: int | None = None
    vocabulary_fingerprint: str | None = None
    type_bytes: Mapping[str, int] = field(factory=dict)
    layer_bytes: tuple[int, ...] = ()
    expert_bytes: tuple[int, ...] = ()
    largest_bytes: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    tied_bytes: int = 0
    repackable_bytes: Mapping[str, tuple[int, ...]] = field(factory=dict)
    shapes: tuple[LayerShape, ...] = ()
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
