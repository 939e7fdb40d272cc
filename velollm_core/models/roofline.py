"""How fast a model should run, from what its header says and what each device can do.

A roofline (Williams, Waterman and Patterson, "Roofline: an insightful visual performance model",
CACM 52/4, 2009) for the two phases of inference. Nothing is run here.

A step on one device takes, in seconds::

    hypot(bytes read / bandwidth, multiplications / arithmetic) + layers x layer_s

and the devices of a layer split work one after the other. A roofline takes the larger of its two
terms; the root of the sum of their squares is at most 1.4 times that, and nearer to what kernels do
where both are about equal, when neither hides wholly behind the other.

While an answer is written (``decode``), a step reads all weights but the table of token embeddings:
of experts those that at least one sequence is sent to, ``1 - (1 - used / total) ** sequences`` of
them, and the KV cache up to the depth, in a sliding window that much of it. Each weight takes part
in one multiplication for each sequence; attention takes ``head_dim_k + head_dim_v`` of them for
each head and position. They come in dot products, each of which takes ``length / per_s + start_s``:
with weights as many as there are rows (as long as the embedding, which most are), with attention
one for each head and position.

While a prompt is read (``prefill``), the same in steps of one physical batch, with arithmetic of
matrices; the output layer meets only the last token. Weights that lie in main memory while a GPU is
there are brought over the link and multiplied on it, as llama.cpp does for 32 tokens and more
(``GGML_OP_OFFLOAD_MIN_BATCH``), if that is the faster of the two.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from attrs import define, evolve, field, frozen

from velollm_core.errors import UsageError
from velollm_core.models.ggml_types import BY_NAME
from velollm_core.models.memory import HOST, Placement, Use, layer_devices, recurrent_bytes
from velollm_core.models.spec import ModelSpec
from velollm_core.models.steps import Step

Bound = Literal["bandwidth", "arithmetic", "link", "overhead"]

OTHER = "*"
"""The key of every tensor type that a table of rates does not name."""

_LEAST_OFFLOADED = 32
_FLOAT_BYTES = 4
_NORMS_BYTES = 64


@frozen
class Rate:
    """Multiplications, each with its addition, a second, and what each dot product takes beside.

    Of attention, ``start_s`` is what each head and position takes: a dot product with the key, an
    exponential, and a row of values that is added.
    """

    per_s: float
    start_s: float = 0.0


@frozen(kw_only=True)
class Arithmetic:
    """Rates by tensor type; under the key :data:`OTHER` stands every type that is not named.

    ``vector`` where one token meets the numbers, ``matrix`` where many do.
    """

    vector: Mapping[str, Rate] = field(factory=dict)
    matrix: Mapping[str, Rate] = field(factory=dict)


_INSTANT = Arithmetic(vector={OTHER: Rate(math.inf)}, matrix={OTHER: Rate(math.inf)})


@frozen(kw_only=True)
class DeviceRates:
    """What one device can do.

    ``bandwidth_bytes_per_s`` is of reading its memory; ``weights`` by the type of the weights,
    ``attention`` by that of the KV cache, ``None`` where attention is never what takes the time;
    ``layer_s`` is what a layer costs in each step whatever its size: its operations are started,
    and wait for each other.
    """

    bandwidth_bytes_per_s: float
    weights: Arithmetic
    attention: Arithmetic | None = None
    layer_s: float = 0.0


@frozen(kw_only=True)
class Rates:
    """What the devices of a machine can do; ``None`` where that is not known.

    ``link_bytes_per_s`` is between main memory and a GPU. ``step_s`` is what each step costs beside
    the model (server, answer on its way), ``candidate_s`` what each entry of the vocabulary costs
    when a token is chosen.
    """

    host: DeviceRates | None = None
    gpus: tuple[DeviceRates | None, ...] = ()
    link_bytes_per_s: float | None = None
    step_s: float = 0.0
    candidate_s: float = 0.0


@frozen(kw_only=True)
class Prediction:
    """``tokens_per_s`` of all sequences together, and what takes the largest part of the time."""

    tokens_per_s: float
    binds: Bound


def decode(
    spec: ModelSpec,
    use: Use,
    rates: Rates,
    placement: Placement = Placement(),  # noqa: B008 - frozen
    *,
    depth_tokens: int = 0,
    sequences: int = 1,
) -> Prediction | None:
    """Tokens a second while answers are written.

    Args:
        spec: the model.
        use: the types of its KV cache.
        rates: what the devices can do, as many GPUs as there are.
        placement: which layers lie where.
        depth_tokens: what each sequence holds already.
        sequences: how many are written at once, one token of each in a step.

    Returns:
        ``None`` where the rates of a device that would take part are not known.

    Raises:
        UsageError: there is no such type of KV cache.
    """
    step = Step(sequences=sequences, start=depth_tokens, length=1, answers=sequences)
    return _Run(spec, use, rates, placement).predict([step], sequences)


def prefill(
    spec: ModelSpec,
    use: Use,
    rates: Rates,
    placement: Placement = Placement(),  # noqa: B008 - frozen
    *,
    prompt_tokens: int = 512,
    depth_tokens: int = 0,
) -> Prediction | None:
    """Tokens a second while one prompt is read, in physical batches of ``use.ubatch_tokens``.

    Args:
        spec: the model.
        use: the types of its KV cache, and the batches.
        rates: what the devices can do, as many GPUs as there are.
        placement: which layers lie where.
        prompt_tokens: length of the prompt.
        depth_tokens: what the sequence holds already.

    Returns:
        ``None`` where the rates of a device that would take part are not known.

    Raises:
        UsageError: there is no such type of KV cache.
    """
    steps = [
        Step(
            sequences=1,
            start=depth_tokens + start,
            length=min(use.ubatch_tokens, prompt_tokens - start),
            answers=int(start + use.ubatch_tokens >= prompt_tokens),
        )
        for start in range(0, prompt_tokens, use.ubatch_tokens)
    ]
    return _Run(spec, use, rates, placement).predict(steps, prompt_tokens)


@define
class _Load:
    """What one device does in a step.

    ``weights`` are bytes of the layers that are read, ``weight_uses`` the same times the tokens
    that each of them meets; ``output`` and ``output_uses`` are those of the output layer. ``cache``
    is bytes of KV cache and recurrent state. Attention looks at ``pairs`` of head and position, in
    ``keys`` and ``values`` multiplications. ``layers`` is how many it takes part in.
    """

    weights: float = 0.0
    weight_uses: float = 0.0
    output: float = 0.0
    output_uses: float = 0.0
    cache: float = 0.0
    pairs: float = 0.0
    keys: float = 0.0
    values: float = 0.0
    layers: int = 0


_Loads = dict[int, _Load]
_Times = dict[Bound, float]


@frozen
class _Run:
    """A model in use, placed on devices."""

    spec: ModelSpec
    use: Use
    rates: Rates
    placement: Placement

    def predict(self, steps: Iterable[Step], tokens: int) -> Prediction | None:
        if len(self.spec.layer_bytes) != self.spec.layers:
            return None  # from a document that does not tell where the bytes lie
        total_s = 0.0
        spent: _Times = {"bandwidth": 0.0, "arithmetic": 0.0, "link": 0.0, "overhead": 0.0}
        for step in steps:
            timed = [self._timed(step, *way) for way in self._ways(step)]
            known = [way for way in timed if way is not None]
            if not known:
                return None
            step_s, times = min(known, key=lambda way: way[0])
            total_s += step_s
            for bound, seconds in times.items():
                spent[bound] += seconds
        return Prediction(tokens_per_s=tokens / total_s, binds=max(spent, key=lambda b: spent[b]))

    def _ways(self, step: Step) -> Iterator[tuple[_Loads, float]]:
        """Loads, and bytes over the link: as placed, and with weights of the host brought over."""
        loads, crossing = self._loads(step)
        yield loads, crossing
        host = loads.get(HOST, _Load())
        if host.weights and self.rates.gpus and step.tokens >= _LEAST_OFFLOADED:
            gpu = loads.get(0, _Load())
            brought = evolve(
                gpu,
                weights=gpu.weights + host.weights,
                weight_uses=gpu.weight_uses + host.weight_uses,
            )
            kept = evolve(host, weights=0.0, weight_uses=0.0)
            yield {**loads, HOST: kept, 0: brought}, crossing + host.weights

    def _loads(self, step: Step) -> tuple[_Loads, float]:
        spec = self.spec
        loads: defaultdict[int, _Load] = defaultdict(_Load)
        used = spec.experts_used / spec.experts_total if spec.experts_total else 1.0
        touched = 1.0 - (1.0 - used) ** step.tokens
        row_bytes = step.tokens * spec.embedding_length * _FLOAT_BYTES
        crossing, before = 0.0, HOST
        *devices, output_device = layer_devices(spec, self.placement, len(self.rates.gpus))
        for layer, device in enumerate(devices):
            if not spec.layer_bytes[layer]:
                continue  # there to draft only, and not loaded
            experts = spec.expert_bytes[layer]
            dense = spec.layer_bytes[layer] - experts
            apart = experts and device != HOST and layer < self.placement.cpu_expert_layers
            home, away = loads[device], loads[HOST if apart else device]
            home.weights += dense
            home.weight_uses += dense * step.tokens
            home.layers += 1
            away.weights += experts * touched
            away.weight_uses += experts * used * step.tokens
            away.layers += 1 if apart else 0
            self._attend(home, step, layer)
            crossing += row_bytes * ((device != before) + (2 if apart else 0))
            before = device
        last = loads[output_device]
        last.output += spec.output_bytes if step.answers else 0
        last.output_uses += spec.output_bytes * step.answers
        return loads, crossing + row_bytes * (output_device != before)

    def _attend(self, load: _Load, step: Step, layer: int) -> None:
        spec, shape = self.spec, self.spec.shapes[layer]
        if spec.recurrent is not None and shape.recurrence is not None:
            # Read and written once a step, whatever the number of tokens.
            load.cache += 2 * recurrent_bytes(spec, step.sequences) / spec.recurrent.layers
        if not shape.attends:
            return
        window = spec.sliding_window if spec.sliding_layers[layer] else None
        key, value = spec.head_dims_k[layer], spec.head_dims_v[layer]
        pairs = spec.heads[layer] * step.pairs(window)
        load.pairs += pairs
        load.keys += pairs * key
        load.values += pairs * value
        row_bytes = key * _element_bytes(self.use.type_k)
        if not spec.latent_kv:
            row_bytes += value * _element_bytes(self.use.type_v)
        load.cache += step.positions(window) * _read_heads(spec, layer) * row_bytes

    def _timed(self, step: Step, loads: _Loads, crossing: float) -> tuple[float, _Times] | None:
        """Seconds of a step, and what they go to."""
        rates = self.rates
        if crossing and not rates.link_bytes_per_s:
            return None
        choosing_s = rates.candidate_s * step.answers * (self.spec.vocabulary_size or 0)
        times: _Times = {
            "bandwidth": 0.0,
            "arithmetic": 0.0,
            "link": crossing / rates.link_bytes_per_s if rates.link_bytes_per_s else 0.0,
            "overhead": rates.step_s + choosing_s,
        }
        total_s = times["link"] + times["overhead"]
        for device, load in loads.items():
            speed = rates.host if device == HOST else rates.gpus[device]
            arithmetic_s = None if speed is None else self._arithmetic_s(step, load, speed)
            if speed is None or arithmetic_s is None:
                return None
            bandwidth_s = (load.weights + load.output + load.cache) / speed.bandwidth_bytes_per_s
            waiting_s = load.layers * speed.layer_s
            total_s += math.hypot(bandwidth_s, arithmetic_s) + waiting_s
            times["bandwidth"] += bandwidth_s
            times["arithmetic"] += arithmetic_s
            times["overhead"] += waiting_s
        return total_s, times

    def _arithmetic_s(self, step: Step, load: _Load, speed: DeviceRates) -> float | None:
        inner, outer = _types(self.spec)
        weights, attention = speed.weights, speed.attention or _INSTANT
        width = self.spec.embedding_length
        many, several = step.tokens > 1, step.answers > 1
        looking = attention.matrix if step.length > 1 else attention.vector
        parts = (
            _weights_s(load.weight_uses, inner, weights.matrix if many else weights.vector, width),
            _weights_s(
                load.output_uses, outer, weights.matrix if several else weights.vector, width
            ),
            _dots_s(load.keys, load.pairs / 2, looking, self.use.type_k),
            _dots_s(load.values, load.pairs / 2, looking, self.use.type_v),
        )
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None


def _read_heads(spec: ModelSpec, layer: int) -> int:
    """KV heads of the cache that a layer reads: its own, or the last before it with such a window
    where it keeps none.
    """
    slides = spec.sliding_layers[layer]
    caches = (
        spec.kv_heads[other]
        for other in range(layer, -1, -1)
        if spec.kv_heads[other] and spec.sliding_layers[other] == slides
    )
    return next(caches, 0)


def _dots_s(numbers: float, dots: float, table: Mapping[str, Rate], kind: str) -> float | None:
    """Seconds of so many dot products of ``numbers`` numbers in all."""
    if not numbers:
        return 0.0
    rate = table.get(kind.upper(), table.get(OTHER))
    return None if rate is None else numbers / rate.per_s + dots * rate.start_s


def _weights_s(
    uses: float, types: Mapping[str, int], table: Mapping[str, Rate], width: int
) -> float | None:
    """Seconds that ``uses`` bytes, a mixture of ``types`` in rows of ``width``, take."""
    if not types.keys() <= BY_NAME.keys():
        return None
    share = uses / max(1, sum(types.values()))
    total_s = 0.0
    for kind, size in types.items():
        numbers = share * size / _element_bytes(kind)
        part_s = _dots_s(numbers, numbers / width, table, kind)
        if part_s is None:
            return None
        total_s += part_s
    return total_s


def _types(spec: ModelSpec) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Bytes by tensor type: of the layers, and of the output matrix.

    A header's sums do not tell which types the two tables of the vocabulary have; their sizes do.
    """
    inner = dict(spec.type_bytes)
    outer = _table(spec, spec.output_bytes)
    tables = [outer] if spec.tied_bytes else [outer, _table(spec, spec.input_bytes)]
    for kind, size in (entry for table in tables for entry in table.items()):
        inner[kind] -= size
    return inner, outer or spec.type_bytes


def _table(spec: ModelSpec, size: int) -> Mapping[str, int]:
    """The matrix of one row for each token of the vocabulary that ``size`` bytes hold, by type."""
    norms = _NORMS_BYTES * spec.embedding_length  # there may be a norm or a bias beside it
    for name, type_bytes in spec.type_bytes.items():
        kind = BY_NAME.get(name)
        row_bytes = kind.row_bytes(spec.embedding_length) if kind else None
        matrix = (row_bytes or 0) * (spec.vocabulary_size or 0)
        if 0 < matrix <= type_bytes and matrix <= size <= matrix + norms:
            return {name: matrix}
    return {}


def _element_bytes(kind: str) -> float:
    entry = BY_NAME.get(kind.upper())
    if entry is None:
        raise UsageError(f"there is no tensor type {kind!r}.")
    return entry.block_bytes / entry.block_elements
