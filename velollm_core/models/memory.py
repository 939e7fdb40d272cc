"""How much memory a model takes, from its header alone, as llama.cpp allocates it.

Read in llama.cpp's source, build 11434: ``llama-model.cpp`` (``load_tensors``, ``create_memory``),
``llama-kv-cache.cpp``, ``llama-kv-cache-iswa.cpp``, ``llama-memory-recurrent.cpp``,
``llama-hparams.cpp`` and ``llama-context.cpp``. The caches of sparse attention (the indexers of
DeepSeek 3.2 and alike) are not counted.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from attrs import frozen

from velollm_core.errors import UsageError
from velollm_core.models.compute import Batch, Block, Network, compute_bytes, rotation
from velollm_core.models.ggml_types import BY_NAME, GgmlType
from velollm_core.models.spec import LayerShape, ModelSpec

HOST = -1
"""Where :func:`layer_devices` keeps a layer in main memory."""

_STATE_ELEMENT_BYTES = 4
_LOGIT_BYTES = 4
_CELLS = 256  # caches hold a multiple of this many positions
_ENGINE_BYTES = 64 * 1024**2
_TOKEN_BYTES = 256
_NOTHING = LayerShape(attends=False, gated=False)


@frozen(kw_only=True)
class Use:
    """How a model is going to be run, as far as memory goes; the defaults are llama-server's.

    ``context_tokens`` is what the KV cache is asked for, all slots together; llama.cpp rounds it
    up. With ``unified_kv`` the slots share one pool, else each has its own part. ``draft_tokens``
    is the longest draft that speculation puts to the model at once.
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
    draft_tokens: int = 0


@frozen(kw_only=True)
class Placement:
    """Which part of a model lies where.

    ``gpu_layers`` counts the last layers, as ``llama-server -ngl`` does: ``layers + 1`` moves the
    output too, 0 keeps everything in main memory. ``cpu_expert_layers`` is how many of the first
    layers keep their experts in main memory (``--n-cpu-moe``). ``split`` is each GPU's share of the
    layers on GPUs; empty: equal ones, where llama.cpp goes by their free memory. ``repacked`` are
    the tensor types that the CPU keeps a second time with its rows in another order, beside the
    mapped file (``ggml-cpu/repack.cpp``; it does so only where no GPU is used).
    """

    gpu_layers: int = 0
    cpu_expert_layers: int = 0
    split: tuple[float, ...] = ()
    repacked: frozenset[str] = frozenset()


@frozen(kw_only=True)
class Part:
    """What one device holds, bytes.

    ``compute_bytes`` is the compute buffer and, on the host, the buffer of logits.
    """

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


def plan_memory(
    spec: ModelSpec,
    use: Use,
    placement: Placement = Placement(),
    gpus: int = 0,
) -> MemoryPlan:
    """What llama.cpp will allocate for ``spec`` in ``use``, by device.

    Weights and caches are exact, but that the padding of tensors to 32 bytes is not counted.
    Compute buffers are llama.cpp's own layout of its graph, see
    :mod:`velollm_core.models.compute`; with layers both on the host and on a GPU, the first GPU
    also gets the room for one tensor, since it computes large batches for the host. What a GPU's
    driver and libraries take for themselves, some hundred MiB, is not in it.

    Args:
        spec: the model.
        use: how it is run.
        placement: what lies on which of the GPUs; what does not lie there is on the host.
        gpus: how many GPUs the engine uses.

    Raises:
        UsageError: there is no such KV type, or a layer's KV heads do not fill whole blocks of it.
    """
    devices = layer_devices(spec, placement, gpus)
    parts = zip(
        _weights(spec, placement, devices, gpus),
        _caches(spec, use, devices, gpus),
        _states(spec, use, devices, gpus),
        _compute(spec, use, placement, devices, gpus),
        strict=True,
    )
    host, *others = (
        Part(
            weights_bytes=weights,
            kv_bytes=kv,
            recurrent_bytes=recurrent,
            compute_bytes=compute,
        )
        for weights, kv, recurrent, compute in parts
    )
    return MemoryPlan(host=host, gpus=tuple(others), process_bytes=process_bytes(spec))


def layer_devices(spec: ModelSpec, placement: Placement, gpus: int) -> tuple[int, ...]:
    """The GPU of each layer and, last, of the output; :data:`HOST` for main memory.

    As ``load_tensors`` does it: the last ``gpu_layers`` of ``layers + 1``, cut where the sums of
    the shares are passed.
    """
    count = min(placement.gpu_layers, spec.layers + 1) if gpus else 0
    sums = list(accumulate(placement.split or (1.0,) * gpus))
    bounds = [total / sums[-1] for total in sums]
    on_gpus = tuple(min(bisect_right(bounds, index / count), gpus - 1) for index in range(count))
    return (HOST,) * (spec.layers + 1 - count) + on_gpus


def process_bytes(spec: ModelSpec) -> int:
    """The engine without the model: code, libraries, threads, and the vocabulary in its tables.

    From above: xllamacpp took 25 MiB more than its buffers with 2,048 tokens, up to 54 with 49,152
    and 75 with 262,144.
    """
    return _ENGINE_BYTES + _TOKEN_BYTES * (spec.vocabulary_size or 0)


def cache_cells(spec: ModelSpec, use: Use) -> tuple[int, int]:
    """Positions in each part of the KV cache: of full attention, and of a sliding window.

    A window's cache holds the window of each slot that shares it, and one physical batch
    (``llama_kv_cache_iswa``).
    """
    cells = -(-use.context_tokens // _CELLS) * _CELLS
    if not use.unified_kv:
        cells = -(-(cells // use.slots) // _CELLS) * _CELLS
    if use.swa_full or not spec.sliding_window:
        return cells, cells
    sharing = use.slots if use.unified_kv else 1
    window = min(cells, spec.sliding_window * sharing + _ubatch(use))
    return cells, -(-window // _CELLS) * _CELLS


def weights_bytes(spec: ModelSpec) -> int:
    """Bytes of the tensors, which is what an engine that converts none of them holds."""
    return sum(spec.type_bytes.values())


def layer_sizes(spec: ModelSpec) -> tuple[int, ...]:
    """Bytes of each layer's weights; equal parts of all where the spec does not tell them apart."""
    return spec.layer_bytes or (weights_bytes(spec) // spec.layers,) * spec.layers


def kv_cache_bytes(
    spec: ModelSpec, context_tokens: int, type_k: str = "f16", type_v: str = "f16"
) -> int:
    """Bytes of a KV cache for ``context_tokens`` positions, all sequences together.

    For each layer ``context_tokens x kv_heads x head_dim`` numbers for keys and as many for values,
    in whole blocks of the cache type. With a sliding window an upper bound: such layers are counted
    with the whole context, as under llama.cpp's ``--swa-full``.

    Args:
        spec: the model.
        context_tokens: positions that the cache holds; llama.cpp rounds them up to 256.
        type_k: tensor type of the keys (``f16``, ``q8_0`` ...).
        type_v: tensor type of the values.

    Raises:
        UsageError: there is no such type, or a layer's KV heads do not fill whole blocks of it.
    """
    return sum(
        context_tokens * size for size in _cache_rows(spec, type_k, type_v, flash_attention=True)
    )


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


def _ubatch(use: Use) -> int:
    return min(use.ubatch_tokens, use.batch_tokens, use.context_tokens)


def _cache_type(name: str) -> GgmlType:
    kind = BY_NAME.get(name.upper())
    if kind is None:
        raise UsageError(f"there is no tensor type {name!r} for a KV cache.")
    return kind


def _cache_rows(
    spec: ModelSpec, type_k: str, type_v: str, *, flash_attention: bool
) -> tuple[int, ...]:
    """Bytes of one position in each layer's cache.

    Without flash attention the values are kept transposed, in every layer as many rows as the layer
    with the most has.
    """
    keys = [heads * dim for heads, dim in zip(spec.kv_heads, spec.head_dims_k, strict=True)]
    values = [heads * dim for heads, dim in zip(spec.kv_heads, spec.head_dims_v, strict=True)]
    if not flash_attention:
        widest = max(values)
        values = [widest if _is_cached(spec, layer) else 0 for layer in range(spec.layers)]
    if spec.latent_kv:
        values = [0] * len(values)
    return tuple(
        _row_bytes(spec, type_k, key, layer) + _row_bytes(spec, type_v, value, layer)
        for layer, (key, value) in enumerate(zip(keys, values, strict=True))
    )


def _is_cached(spec: ModelSpec, layer: int) -> bool:
    """Whether llama.cpp gives the layer a cache, be it an empty one.

    It does so in a model without recurrence, unless the layer uses the cache of another or is not
    loaded.
    """
    if spec.kv_heads[layer] or spec.recurrent is not None or not spec.shapes:
        return spec.kv_heads[layer] > 0
    return spec.layer_bytes[layer] > 0 and not spec.shapes[layer].attends


def _row_bytes(spec: ModelSpec, name: str, elements: int, layer: int) -> int:
    kind = _cache_type(name)
    size = kind.row_bytes(elements)
    if size is None:
        heads = spec.kv_heads[layer]
        raise UsageError(
            f"a KV cache of type {name} has blocks of {kind.block_elements} elements; "
            f"this model's {heads} KV heads of {elements // heads} elements do not fill them.",
            "Use f16, or a type with smaller blocks.",
        )
    return size


def _slides(spec: ModelSpec) -> tuple[bool, ...]:
    return spec.sliding_layers or (False,) * spec.layers


def _shapes(spec: ModelSpec) -> tuple[LayerShape, ...]:
    plain = LayerShape(feed_forward=spec.feed_forward_length or 4 * spec.embedding_length)
    return spec.shapes or (plain,) * spec.layers


def _weights(
    spec: ModelSpec, placement: Placement, devices: tuple[int, ...], gpus: int
) -> list[int]:
    sums = [0] * (1 + gpus)
    *layers, output = devices
    sums[0] += spec.input_bytes
    experts = spec.expert_bytes or (0,) * spec.layers
    for layer, (size, device) in enumerate(zip(layer_sizes(spec), layers, strict=True)):
        moved = experts[layer] if layer < placement.cpu_expert_layers else 0
        sums[0] += moved
        sums[1 + device] += size - moved
    sums[1 + output] += spec.output_bytes - (spec.tied_bytes if output == HOST else 0)
    if not gpus:
        sums[0] += sum(sum(spec.repackable_bytes.get(kind, ())) for kind in placement.repacked)
    return sums


def _caches(spec: ModelSpec, use: Use, devices: tuple[int, ...], gpus: int) -> list[int]:
    sums = [0] * (1 + gpus)
    cells, window_cells = cache_cells(spec, use)
    streams = 1 if use.unified_kv else use.slots
    rows = _cache_rows(spec, use.type_k, use.type_v, flash_attention=use.flash_attention)
    for device, slides, size in zip(devices, _slides(spec), rows, strict=False):
        sums[1 + device] += size * streams * (window_cells if slides else cells)
    return sums


def _states(spec: ModelSpec, use: Use, devices: tuple[int, ...], gpus: int) -> list[int]:
    sums = [0] * (1 + gpus)
    if spec.recurrent is not None:
        one = recurrent_bytes(spec, use.slots) // max(1, spec.recurrent.layers)
        for device, recurs in zip(devices, _recurring(spec), strict=False):
            sums[1 + device] += one * recurs
    return sums


def _recurring(spec: ModelSpec) -> tuple[bool, ...]:
    recurring = tuple(shape.recurrence is not None for shape in spec.shapes)
    layers = spec.recurrent.layers if spec.recurrent else 0
    return recurring if any(recurring) else (True,) * layers


def _compute(
    spec: ModelSpec, use: Use, placement: Placement, devices: tuple[int, ...], gpus: int
) -> list[int]:
    batch = _batch(spec, use)
    shapes, slides = _shapes(spec), _slides(spec)
    state = spec.recurrent
    network = Network(
        architecture=spec.architecture,
        embedding=spec.embedding_length,
        vocabulary=spec.vocabulary_size or 0,
        experts_used=spec.experts_used,
        experts_total=spec.experts_total,
        mixer=(
            (
                state.conv_kernel,
                state.inner_size,
                state.state_size,
                state.group_count,
                state.time_step_rank,
            )
            if state
            else (1, 0, 0, 0, 0)
        ),
        blocks=tuple(
            Block(
                shape=shapes[layer],
                heads=spec.heads[layer],
                kv_heads=spec.kv_heads[layer],
                key_dim=spec.head_dims_k[layer],
                value_dim=spec.head_dims_v[layer],
                slides=slides[layer],
                device=1 + devices[layer],
                experts_device=0 if layer < placement.cpu_expert_layers else 1 + devices[layer],
            )
            for layer in range(spec.layers)
            if shapes[layer] != _NOTHING
        ),
        output_device=1 + devices[-1],
        pipelined=len(set(devices)) > 1 and HOST not in devices and not placement.cpu_expert_layers,
    )
    sums = list(compute_bytes(network, batch, 1 + gpus))
    sums[0] += _LOGIT_BYTES * network.vocabulary * max(batch.outputs, use.slots)
    experts_on_host = placement.cpu_expert_layers > 0 and any(spec.expert_bytes)
    if any(device != HOST for device in devices) and (HOST in devices[:-1] or experts_on_host):
        sums[1] += spec.largest_bytes
    return sums


def _batch(spec: ModelSpec, use: Use) -> Batch:
    cells, window_cells = cache_cells(spec, use)
    tokens = _ubatch(use)
    drafted = use.slots * (1 + use.draft_tokens)
    cached = [layer for layer, heads in enumerate(spec.kv_heads) if heads]
    quantized_k, quantized_v = (
        _cache_type(name).block_elements > 1 for name in (use.type_k, use.type_v)
    )
    return Batch(
        tokens=-(-tokens // use.slots) * use.slots,
        sequences=use.slots,
        outputs=min(tokens, use.batch_tokens, drafted),
        cells=cells,
        window_cells=window_cells,
        streams=1 if use.unified_kv else use.slots,
        flash_attention=use.flash_attention,
        rotated_k=rotation(quantized_k, [spec.head_dims_k[layer] for layer in cached], widest=True),
        rotated_v=rotation(
            quantized_v, [spec.head_dims_v[layer] for layer in cached], widest=False
        ),
        cast_k=use.type_k == "f32",
        cast_v=use.type_v == "f32",
    )
