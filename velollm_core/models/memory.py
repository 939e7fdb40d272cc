"""How much memory a model takes, from its header: a first, plain estimate for the memory guard."""

from __future__ import annotations

from attrs import frozen

from velollm_core.errors import UsageError
from velollm_core.models.ggml_types import BY_NAME
from velollm_core.models.spec import ModelSpec

_STATE_ELEMENT_BYTES = 4


@frozen(kw_only=True)
class Use:
    """How a model is going to be run, as far as memory goes; the defaults are llama-server's.

    ``context_tokens`` is what the KV cache is asked for, all slots together; llama.cpp rounds it
    up. With ``unified_kv`` the slots share one pool, else each has its own part.
    """

    context_tokens: int
    slots: int = 4
    unified_kv: bool = True
    type_k: str = "f16"
    type_v: str = "f16"
    batch_tokens: int = 2048
    ubatch_tokens: int = 512
    flash_attention: bool = True
    swa_full: bool = False


@frozen(kw_only=True)
class Placement:
    """Which part of a model lies where.

    ``gpu_layers`` counts the last layers, as ``llama-server -ngl`` does: ``layers + 1`` moves the
    output too, 0 keeps everything in main memory. ``cpu_expert_layers`` is how many of the first
    layers keep their experts in main memory (``--n-cpu-moe``). ``split`` is each GPU's share of the
    layers on GPUs; empty: by their free memory.
    """

    gpu_layers: int = 0
    cpu_expert_layers: int = 0
    split: tuple[float, ...] = ()


@frozen(kw_only=True)
class Part:
    """What one device holds, bytes."""

    weights_bytes: int = 0
    kv_bytes: int = 0
    recurrent_bytes: int = 0
    compute_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.kv_bytes + self.recurrent_bytes + self.compute_bytes


@frozen(kw_only=True)
class MemoryPlan:
    """What a model in use takes, by device; ``process_bytes`` is the engine without a model."""

    host: Part
    gpus: tuple[Part, ...] = ()
    process_bytes: int = 0


def weights_bytes(spec: ModelSpec) -> int:
    """Bytes of the tensors, which is what an engine that converts none of them holds."""
    return sum(spec.type_bytes.values())


def kv_cache_bytes(
    spec: ModelSpec, context_tokens: int, type_k: str = "f16", type_v: str = "f16"
) -> int:
    """Bytes of a KV cache for ``context_tokens`` positions, all sequences together.

    For each layer ``context_tokens x kv_heads x head_dim`` numbers for keys and as many for values,
    in whole blocks of the cache type. Exact for full attention, and for every layer that keeps no
    cache. An upper bound with a sliding window (such layers are counted with the whole context, as
    under llama.cpp's ``--swa-full``) and where values are a view of the keys (MLA).

    Args:
        spec: the model.
        context_tokens: positions that the cache holds; llama.cpp rounds them up to 256.
        type_k: tensor type of the keys (``f16``, ``q8_0`` ...).
        type_v: tensor type of the values.

    Raises:
        UsageError: there is no such type, or a layer's KV heads do not fill whole blocks of it.
    """
    total = 0
    for kind_name, dims in ((type_k, spec.head_dims_k), (type_v, spec.head_dims_v)):
        kind = BY_NAME.get(kind_name.upper())
        if kind is None:
            raise UsageError(f"there is no tensor type {kind_name!r} for a KV cache.")
        for kv_heads, dim in zip(spec.kv_heads, dims, strict=True):
            row_bytes = kind.row_bytes(kv_heads * dim)
            if row_bytes is None:
                raise UsageError(
                    f"a KV cache of type {kind_name} has blocks of {kind.block_elements} elements; "
                    f"this model's {kv_heads} KV heads of {dim} elements do not fill them.",
                    "Use f16, or a type with smaller blocks.",
                )
            total += context_tokens * row_bytes
    return total


def recurrent_bytes(spec: ModelSpec, sequences: int) -> int:
    """Bytes of the recurrent state of ``sequences`` sequences, whatever their length.

    Each recurrent layer keeps, in float32, the last ``conv_kernel - 1`` inputs of its convolution
    and one state: ``(conv_kernel - 1) x (inner_size + 2 x group_count x state_size) +
    inner_size x state_size`` numbers (``llama_hparams::n_embd_r`` and ``n_embd_s``).
    """
    state = spec.recurrent
    if state is None:
        return 0
    convolution = state.inner_size + 2 * state.group_count * state.state_size
    elements = max(0, state.conv_kernel - 1) * convolution + state.inner_size * state.state_size
    return sequences * state.layers * elements * _STATE_ELEMENT_BYTES
