"""What llama.cpp needs to compute one batch: its compute buffers and its buffer of logits.

llama.cpp reserves both at the start, for the largest physical batch over a full cache
(``llama_context::sched_reserve`` and ``output_reserve``, ``llama-context.cpp``). The graph that is
laid out here is the one that it builds (``llama-graph.cpp``, ``models/llama.cpp``,
``models/mamba-base.cpp``), as of build 11434: exact on the host for the Llama family with and
without experts, Gemma 3 and Jamba; for what is not told apart here (parallel blocks, gated delta
nets, RWKV, latent attention) an approximation by what is nearest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from attrs import define, evolve, field, frozen

from velollm_core.models.arena import Graph, Tensor, arena_bytes
from velollm_core.models.spec import LayerShape

_FLOAT = 4
_HALF = 2
_INDEX = 4
_LONG = 8
_KINDS_KEPT = 3
_HADAMARD = 64
_NO_ROTARY = frozenset({"jamba"})
_NO_MIXED_INPUT = frozenset({"cogvlm", "deepseek4", "granite_switch"})
_RWKV_PARTS = 6
_PIPELINE = 4  # GGML_SCHED_MAX_COPIES


@frozen(kw_only=True)
class Block:
    """One layer, as far as the graph goes. ``device`` 0 is the host, ``experts_device`` where its
    routed experts are.
    """

    shape: LayerShape
    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    slides: bool = False
    device: int = 0
    experts_device: int = 0


@frozen(kw_only=True)
class Batch:
    """What is computed at once.

    ``tokens`` in one physical batch of ``sequences``, ``outputs`` of which get logits; ``cells`` of
    the cache and ``window_cells`` of its sliding part are looked at in each of ``streams``.
    ``rotated_k`` and ``rotated_v`` are the sizes of the rotations that a quantized cache gets;
    ``cast_k`` and ``cast_v`` whether flash attention has to convert it, which takes no float32.
    """

    tokens: int
    sequences: int
    outputs: int
    cells: int
    window_cells: int
    streams: int
    flash_attention: bool
    rotated_k: int = 0
    rotated_v: int = 0
    cast_k: bool = False
    cast_v: bool = False


@frozen(kw_only=True)
class Network:
    """The model, as far as the graph goes. ``mixer`` holds the sizes of its recurrent layers:
    kernel, inner size, state size, groups and rank of the time step. ``pipelined`` is whether
    several GPUs work on different batches at a time.
    """

    architecture: str
    embedding: int
    vocabulary: int
    experts_used: int
    experts_total: int
    mixer: tuple[int, int, int, int, int]
    blocks: tuple[Block, ...]
    output_device: int = 0
    pipelined: bool = False


def rotation(quantized: bool, dims: Sequence[int], *, widest: bool) -> int:
    """Size of the Hadamard rotation of a quantized cache, 0 for none (``llama-kv-cache.cpp``).

    Args:
        quantized: the type of this half of the cache.
        dims: elements of a head in each layer that has a cache.
        widest: the largest power of two that divides them, as for keys, not the least.
    """
    sizes = set(dims)
    if not quantized or len(sizes) != 1 or (dim := sizes.pop()) % _HADAMARD or not dim:
        return 0
    return dim & -dim if widest else _HADAMARD


def compute_bytes(network: Network, batch: Batch, devices: int) -> tuple[int, ...]:
    """Compute buffers of each device, the host first, bytes."""
    kept, seen = [], Counter[Block]()
    for block in network.blocks[:-1]:
        # What is free when a layer begins repeats after a few layers of each kind.
        seen[block] += 1
        if seen[block] <= _KINDS_KEPT:
            kept.append(block)
    return _laid_out(evolve(network, blocks=(*kept, *network.blocks[-1:])), batch, devices)


@lru_cache(maxsize=1024)
def _laid_out(network: Network, batch: Batch, devices: int) -> tuple[int, ...]:
    graph = Graph(copies=_PIPELINE if network.pipelined else 1)
    return tuple(arena_bytes(_Builder(network, batch, graph).build(), devices))


@define
class _Builder:
    """Adds the operations of a model in the order in which llama.cpp computes them."""

    network: Network
    batch: Batch
    graph: Graph
    _inputs: dict[str, Tensor] = field(factory=dict, init=False)

    def build(self) -> Graph:
        network, graph = self.network, self.graph
        current = self._embedded()
        for index, block in enumerate(network.blocks):
            graph.device = block.device
            last = index == len(network.blocks) - 1
            current = self._layer(current, block, self.batch.outputs if last else 0)
        graph.device = network.output_device
        outputs = self.batch.outputs
        normed = self._norm(current, network.embedding * outputs, kept=True)
        graph.node(_FLOAT * network.vocabulary * outputs, normed, kept=True)
        return graph

    def _input(self, name: str, size: int) -> Tensor:
        if name not in self._inputs:
            self._inputs[name] = self.graph.input(size)
        return self._inputs[name]

    def _floats(
        self, count: int, *operands: Tensor, in_place: bool = False, kept: bool = False
    ) -> Tensor:
        return self.graph.node(_FLOAT * count, *operands, in_place=in_place, kept=kept)

    def _norm(self, tensor: Tensor, count: int, *, kept: bool = False) -> Tensor:
        normed = self._floats(count, tensor, in_place=True)
        return self._floats(count, normed, in_place=True, kept=kept)

    def _embedded(self) -> Tensor:
        """Token ids looked up; beside them room for vectors, and for a mixture of both."""
        tokens, width = self.batch.tokens, self.network.embedding * self.batch.tokens
        ids = self._input("ids", _INDEX * tokens)
        self._input("vectors", _FLOAT * width)
        embedded = self._floats(width, ids)
        if self.network.architecture not in _NO_MIXED_INPUT:
            mixed_ids = self._input("mixed ids", _INDEX * tokens)
            slots = self._input("mixed slots", _LONG * tokens)
            vectors = self._input("mixed vectors", _FLOAT * width)
            looked_up = self._floats(width, mixed_ids)
            mixture = self._floats(width, vectors)
            self.graph.write(mixture, looked_up, slots)
        if self.network.architecture.startswith("gemma"):
            scales = self._input("scales", _FLOAT * tokens)
            embedded = self._floats(width, embedded, scales, in_place=True)
        return embedded

    def _layer(self, tensor: Tensor, block: Block, outputs: int) -> Tensor:
        """``outputs``: how many tokens are still needed after this layer's mixing; 0: all."""
        width = self.network.embedding
        mixed = self._mixed(tensor, block)
        tokens = outputs or self.batch.tokens
        if outputs:
            ids = self._input("outputs", _INDEX * outputs)
            mixed = self._floats(width * tokens, mixed, ids) if mixed else None
            tensor = self._floats(width * tokens, tensor, ids)
        if mixed is not None:
            tensor = self._floats(width * tokens, mixed, tensor, in_place=True)
        shape = block.shape
        if not (shape.feed_forward or shape.experts):
            return tensor
        normed = self._norm(tensor, width * tokens)
        if shape.experts:
            out = self._experts(normed, block, tokens)
            if shape.shared_experts:
                shared = self._feed_forward(normed, shape.shared_experts, tokens, gated=shape.gated)
                out = self._floats(width * tokens, out, shared, in_place=True)
        else:
            out = self._feed_forward(normed, shape.feed_forward, tokens, gated=shape.gated)
        return self._floats(width * tokens, out, tensor, in_place=True)

    def _mixed(self, tensor: Tensor, block: Block) -> Tensor | None:
        """Attention, or a recurrence, or the sum of both where a layer has both."""
        attended = self._attention(self._normed(tensor), block) if block.shape.attends else None
        if block.shape.recurrence is None:
            return attended
        recurred = self._recurrent(tensor, block)
        if attended is None:
            return recurred
        count = self.network.embedding * self.batch.tokens
        return self._floats(count, attended, recurred, in_place=True)

    def _normed(self, tensor: Tensor) -> Tensor:
        return self._norm(tensor, self.network.embedding * self.batch.tokens)

    def _attention(self, normed: Tensor, block: Block) -> Tensor:
        graph, batch = self.graph, self.batch
        queries = block.heads * block.key_dim * batch.tokens
        keys = block.kv_heads * block.key_dim * batch.tokens
        values = block.kv_heads * block.value_dim * batch.tokens
        fused = self._floats(queries + keys + values, normed) if block.shape.fused else None
        rotary = self.network.architecture not in _NO_ROTARY

        def projected(count: int, *, rotary: bool, rotated: int, name: str) -> Tensor:
            made = graph.view(fused if fused is not None else self._floats(count, normed))
            if rotary:
                made = self._floats(count, made, self._input("positions", _INDEX * batch.tokens))
            return self._rotated(made, count, rotated, name + window)

        window = " in the window" if block.slides else ""
        query = projected(queries, rotary=rotary, rotated=batch.rotated_k, name="turn keys")
        if block.kv_heads:
            value = projected(values, rotary=False, rotated=batch.rotated_v, name="turn values")
            key = projected(keys, rotary=rotary, rotated=batch.rotated_k, name="turn keys")
            places = _LONG * batch.tokens
            graph.store(graph.view(key), self._input("place keys" + window, places))
            value = graph.view(value)
            if not batch.flash_attention:  # values are kept transposed, so each has its own place
                widest = max(other.kv_heads * other.value_dim for other in self.network.blocks)
                places *= widest
                if values < widest * batch.tokens:
                    value = graph.view(self._floats(widest * batch.tokens, value))
            graph.store(value, self._input("place values" + window, places))
        query = graph.view(graph.view(query))
        cells = batch.window_cells if block.slides else batch.cells
        size = _HALF if batch.flash_attention else _FLOAT
        mask = self._input("mask" + window, size * cells * batch.tokens)
        mask.kept = True  # else a longer context, whose mask leaves more room, could take less
        count = block.heads * block.value_dim * batch.tokens
        if batch.flash_attention:
            cached = block.kv_heads * cells * batch.streams
            read = [
                graph.node(_HALF * cached * dim)
                for cast, dim in (
                    (batch.cast_k, block.key_dim),
                    (batch.cast_v, block.value_dim),
                )
                if cast
            ]
            made = graph.view(self._floats(count, query, *read, mask))
            made = self._rotated(made, count, batch.rotated_v, "turn values" + window)
        else:
            scores = block.heads * cells * batch.tokens
            weights = self._floats(scores, self._floats(scores, query), mask, in_place=True)
            made = self._floats(count, graph.view(self._floats(count, weights)))
        return self._floats(self.network.embedding * batch.tokens, made)

    def _rotated(self, tensor: Tensor, count: int, size: int, name: str) -> Tensor:
        if not size:
            return tensor
        matrix = self._input(name, _FLOAT * size * size)
        return self.graph.view(self._floats(count, self.graph.view(tensor), matrix))

    def _feed_forward(self, normed: Tensor, width: int, tokens: int, *, gated: bool) -> Tensor:
        count = width * tokens
        wide = self._floats(count, normed)
        if gated:
            wide = self._floats(count, wide, self._floats(count, normed))
        else:
            wide = self._floats(count, wide, in_place=True)
        return self._floats(self.network.embedding * tokens, wide)

    def _experts(self, normed: Tensor, block: Block, tokens: int) -> Tensor:
        network, graph = self.network, self.graph
        used, total = network.experts_used, network.experts_total
        logits = self._floats(total * tokens, normed)
        probabilities = self._floats(total * tokens, logits, in_place=True)
        chosen = graph.view(graph.node(_INDEX * total * tokens, probabilities))
        weights = graph.view(self._floats(used * tokens, graph.view(probabilities), chosen))
        sums = self._floats(tokens, self._floats(tokens, weights), in_place=True)
        weights = graph.view(self._floats(used * tokens, weights, sums))
        spread = graph.view(normed)
        graph.device = block.experts_device
        count = block.shape.experts * used * tokens
        wide = self._floats(count, spread, chosen)
        if block.shape.gated:
            wide = self._floats(count, wide, self._floats(count, spread, chosen))
        else:
            wide = self._floats(count, wide, in_place=True)
        width = network.embedding * tokens
        answers = self._floats(width * used, wide, chosen)
        graph.device = block.device
        answers = self._floats(width * used, answers, weights, in_place=True)
        first, *others = [graph.view(answers) for _ in range(used)]
        total_answer = self._floats(width, first, *others[:1])
        for other in others[1:]:
            total_answer = self._floats(width, total_answer, other, in_place=True)
        return total_answer

    def _recurrent(self, tensor: Tensor, block: Block) -> Tensor:
        match block.shape.recurrence:
            case "mamba":
                return self._mamba(tensor)
            case "mamba2":
                return self._mamba2(tensor)
            case "shortconv":
                return self._short_convolution(tensor)
            case _:
                count = self.network.embedding * self.batch.tokens
                normed = self._normed(tensor)
                parts = [self._floats(count, normed) for _ in range(_RWKV_PARTS)]
                return self._floats(count, *parts)

    def _states(self, size: int, *, skipped: int) -> Tensor:
        """The states of all sequences, read from the cache and written back moved."""
        rows = self.batch.sequences
        order = self._input("states", _INDEX * rows)
        read = self._floats(size * (rows - skipped), self.graph.view(order))
        self.graph.store(self.graph.view(read))
        return read

    def _convolved(self, tensor: Tensor, wide: int, channels: int) -> tuple[Tensor, Tensor]:
        """What goes in, ``wide``, and the convolution of ``channels`` of it with the past."""
        batch, (kernel, *_) = self.batch, self.network.mixer
        before = self._states((kernel - 1) * channels, skipped=0)
        projected = self._floats(wide * batch.tokens, self.graph.view(self._normed(tensor)))
        joined = (kernel - 1) * batch.sequences + batch.tokens
        window = self._floats(
            joined * channels, self.graph.view(before), self.graph.view(projected)
        )
        self.graph.store(self.graph.view(window))
        convolved = self._floats(channels * batch.tokens, window)
        return projected, convolved

    def _scanned(self, *operands: Tensor) -> Tensor:
        """The state-space scan: outputs, and behind them the new states, which go to the cache."""
        _, inner, state, *_ = self.network.mixer
        sequences = self.batch.sequences
        scanned = self._floats(
            inner * (self.batch.tokens + state * sequences),
            *operands,
            self._input("states", _INDEX * sequences),
        )
        self._states(state * inner, skipped=1)
        self.graph.store(self.graph.view(scanned))
        return self.graph.view(scanned)

    def _mamba(self, tensor: Tensor) -> Tensor:
        tokens, (_, inner, state, _, rank) = self.batch.tokens, self.network.mixer
        graph, count = self.graph, inner * self.batch.tokens
        both, mixed = self._convolved(tensor, 2 * inner, inner)
        gate = graph.view(both)
        parts = self._floats((rank + 2 * state) * tokens, mixed)
        steps = self._floats(rank * tokens, graph.view(parts))
        steps = self._floats(count, steps)
        gains = [graph.view(parts), graph.view(parts)]
        if self.network.architecture == "jamba":
            gains = [self._norm(gain, state * tokens) for gain in gains]
        scanned = self._scanned(graph.view(mixed), steps, *gains)
        gate = self._floats(count, gate)
        mixed = self._floats(count, mixed, in_place=True)
        summed = self._floats(count, scanned, mixed, in_place=True)
        gated = self._floats(count, gate, summed)
        return graph.view(self._floats(self.network.embedding * tokens, gated))

    def _mamba2(self, tensor: Tensor) -> Tensor:
        tokens, (_, inner, state, groups, rank) = self.batch.tokens, self.network.mixer
        graph, count = self.graph, inner * self.batch.tokens
        channels = inner + 2 * groups * state
        everything, mixed = self._convolved(tensor, inner + channels + rank, channels)
        gate, steps = graph.view(everything), graph.view(everything)
        steps = self._floats(rank * tokens, steps)
        parts = [graph.view(mixed) for _ in range(3)]
        scanned = self._scanned(parts[0], steps, *parts[1:])
        gate = self._floats(count, gate)
        summed = self._floats(count, scanned, self._floats(count, parts[0]), in_place=True)
        gated = graph.view(self._floats(count, gate, summed))
        gated = graph.view(self._norm(gated, count))
        return self._floats(self.network.embedding * tokens, gated)

    def _short_convolution(self, tensor: Tensor) -> Tensor:
        graph, width = self.graph, self.network.embedding
        count = width * self.batch.tokens
        three, mixed = self._convolved(tensor, 3 * width, width)
        gated = self._floats(count, graph.view(three), mixed, in_place=True)
        return self._floats(count, gated)
