"""What fits: contexts and placements within a machine's memory, and which of them are worth having.

Everything is asked of :func:`~velollm_core.models.memory.plan_memory`; nothing is estimated here.
More memory never gives fewer layers on GPUs or a smaller context: what fits into a budget fits into
every larger one, and of what fits the first in a fixed order is taken.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

from attrs import evolve, frozen

from velollm_core.models.memory import (
    HOST,
    MemoryPlan,
    Placement,
    Use,
    layer_devices,
    layer_sizes,
    plan_memory,
)
from velollm_core.models.roofline import Prediction, Rates, decode, prefill
from velollm_core.models.spec import ModelSpec

CONTEXT_STEP = 256
"""llama.cpp rounds a context up to so many tokens (``llama_context``)."""


@frozen(kw_only=True)
class Budget:
    """What an engine may take, bytes.

    ``gpu_bytes`` is what each GPU has free; ``margin_bytes`` of that is left free on each (1 GiB is
    the default of llama.cpp's ``--fit-target``). With ``unified`` the GPUs' memory is main memory:
    then what lies there counts against ``host_bytes`` too.
    """

    host_bytes: int
    gpu_bytes: tuple[int, ...] = ()
    margin_bytes: int = 1 << 30
    unified: bool = False

    def of_gpu(self, number: int) -> int:
        """What may be taken of that GPU."""
        return max(0, self.gpu_bytes[number] - self.margin_bytes)


@frozen(kw_only=True)
class Candidate:
    """One way to place a model, all of it within the budget.

    ``plan`` is for the use that was asked for; ``largest_context_tokens`` is the most that fits
    with as much on the GPUs, all slots together. ``decode`` and ``prefill`` are ``None`` where the
    rates of a device are not known.
    """

    placement: Placement
    plan: MemoryPlan
    largest_context_tokens: int
    decode: Prediction | None = None
    prefill: Prediction | None = None


@frozen(kw_only=True)
class Row:
    """One use of a model on a machine: what it takes, and where it fits.

    ``plan`` is for ``placement``, the one with the most on GPUs that fits; where none fits,
    ``placement`` is ``None`` and ``plan`` is for main memory alone.
    """

    use: Use
    plan: MemoryPlan
    placement: Placement | None


def total_bytes(plan: MemoryPlan) -> int:
    """What a plan takes of all memories together."""
    return host_bytes(plan) + sum(part.total_bytes for part in plan.gpus)


def host_bytes(plan: MemoryPlan) -> int:
    """What a plan takes of main memory, the engine itself included."""
    return plan.host.total_bytes + plan.process_bytes


def fits(plan: MemoryPlan, budget: Budget) -> bool:
    """Whether no memory is asked for more than may be taken of it."""
    asked = total_bytes(plan) if budget.unified else host_bytes(plan)
    return asked <= budget.host_bytes and all(
        not part.total_bytes or part.total_bytes <= budget.of_gpu(number)
        for number, part in enumerate(plan.gpus)
    )


def place(
    spec: ModelSpec, use: Use, budget: Budget, *, gpu_layers: int, cpu_expert_layers: int = 0
) -> Placement | None:
    """That much on the GPUs, if it fits; ``None`` where it does not.

    Several GPUs share the layers by what may be taken of each, as llama.cpp does by what is free.
    Where that does not fit, one of them holds all of it, or they are filled in their order; one of
    these fits if anything does. ``split`` is the number of layers on each.
    """
    placement = Placement(gpu_layers=gpu_layers, cpu_expert_layers=cpu_expert_layers)
    if (gpu_layers and not budget.gpu_bytes) or not _weights_fit(spec, budget, placement):
        return None
    tried: Iterable[Placement] = (placement,)
    if gpu_layers and len(budget.gpu_bytes) > 1:
        splits = _splits(spec, use, budget, placement)
        tried = (evolve(placement, split=tuple(map(float, counts))) for counts in splits)
    return next((way for way in tried if fits(_plan(spec, use, budget, way), budget)), None)


def placements(spec: ModelSpec, use: Use, budget: Budget) -> Iterator[Placement]:
    """Every placement that fits, the one with the most on GPUs first.

    In this order: all layers on GPUs, with the experts of ever more layers in main memory; then
    ever fewer layers on GPUs; everything in main memory last.
    """
    for gpu_layers, cpu_expert_layers in _order(spec, budget):
        found = place(spec, use, budget, gpu_layers=gpu_layers, cpu_expert_layers=cpu_expert_layers)
        if found is not None:
            yield found


def best_placement(spec: ModelSpec, use: Use, budget: Budget) -> Placement | None:
    """The first of :func:`placements`; ``None`` where none fits."""
    return next(placements(spec, use, budget), None)


def largest_context(
    spec: ModelSpec, use: Use, budget: Budget, placement: Placement | None = None
) -> int:
    """The most positions (all slots together) that fit, at most the model's own for each slot.

    Args:
        spec: the model.
        use: everything but the context.
        budget: what may be taken.
        placement: how much lies on GPUs; ``None``: as much as is best for the context.

    Returns:
        A multiple of 256 for each slot (one for all with ``unified_kv``), or the model's own
        context for each; 0 where not even the least fits.
    """
    step = CONTEXT_STEP * (1 if use.unified_kv else use.slots)
    most = spec.context_length * use.slots
    orders = list(_order(spec, budget))[::-1]
    if placement is not None:
        orders = [(placement.gpu_layers, placement.cpu_expert_layers)]

    def fails(context_tokens: int) -> bool:
        wanted = evolve(use, context_tokens=context_tokens)
        return all(
            place(spec, wanted, budget, gpu_layers=layers, cpu_expert_layers=experts) is None
            for layers, experts in orders
        )

    if not fails(most):
        return most
    return step * (_first(fails, range(step, most, step)))


def table(spec: ModelSpec, uses: Iterable[Use], budget: Budget) -> tuple[Row, ...]:
    """For each use what it takes, with the best placement that fits."""
    rows = []
    for use in uses:
        placement = best_placement(spec, use, budget)
        plan = _plan(spec, use, budget, placement or Placement())
        rows.append(Row(use=use, plan=plan, placement=placement))
    return tuple(rows)


def candidates(
    spec: ModelSpec,
    use: Use,
    budget: Budget,
    rates: Rates,
    *,
    depth_tokens: int = 0,
    at_most: int = 24,
) -> tuple[Candidate, ...]:
    """Placements that fit, with their predicted speed, in the order of :func:`placements`.

    Args:
        spec: the model.
        use: how it is going to be run.
        budget: what may be taken, of as many GPUs as ``rates`` tells of.
        rates: what the devices can do.
        depth_tokens: what one sequence holds when its speed is predicted.
        at_most: how many; of more, the first, the last and those at even steps between are taken.
    """
    found = list(placements(spec, use, budget))
    last = len(found) - 1
    if len(found) > at_most > 1:
        found = [found[round(last * k / (at_most - 1))] for k in range(at_most)]
    return tuple(
        Candidate(
            placement=placement,
            plan=_plan(spec, use, budget, placement),
            largest_context_tokens=largest_context(spec, use, budget, placement),
            decode=decode(spec, use, rates, placement, depth_tokens=depth_tokens),
            prefill=prefill(spec, use, rates, placement, depth_tokens=depth_tokens),
        )
        for placement in found
    )


def front(found: Sequence[Candidate], alike: float = 0.25) -> tuple[int, ...]:
    """Positions of those worth having: the fastest first, each next one better in something else.

    No other is at least as fast, with as much context, and takes no more memory. Of what is left,
    whatever a faster one comes near to in context and memory, by the part ``alike``, is left out.
    Speed is that of decoding; where one is not known, the order of :func:`placements` stands for
    it.
    """
    known = all(entry.decode is not None for entry in found)
    worth = [
        (
            entry.decode.tokens_per_s if known and entry.decode else -float(position),
            entry.largest_context_tokens,
            -total_bytes(entry.plan),
        )
        for position, entry in enumerate(found)
    ]
    best = [
        position
        for position, mine in enumerate(worth)
        if not any(_beats(other, mine) for other in worth) and mine not in worth[:position]
    ]
    kept: list[int] = []
    for position in sorted(best, key=lambda position: worth[position], reverse=True):
        _, context, memory = worth[position]
        if not any(
            worth[other][1] >= context * (1 - alike) and worth[other][2] >= memory * (1 + alike)
            for other in kept
        ):
            kept.append(position)
    return tuple(kept)


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def _plan(spec: ModelSpec, use: Use, budget: Budget, placement: Placement) -> MemoryPlan:
    return plan_memory(spec, use, placement, gpus=len(budget.gpu_bytes))


def _weights_fit(spec: ModelSpec, budget: Budget, placement: Placement) -> bool:
    """Whether the weights alone fit: a quick answer to most of what does not."""
    devices = layer_devices(spec, placement, min(1, len(budget.gpu_bytes)))
    sizes = (*layer_sizes(spec), spec.output_bytes)
    on_gpus = sum(size for size, device in zip(sizes, devices, strict=True) if device != HOST)
    on_gpus -= sum(
        size
        for layer, size in enumerate(spec.expert_bytes[: placement.cpu_expert_layers])
        if devices[layer] != HOST
    )
    on_host = sum(sizes[:-1]) - on_gpus
    room = sum(budget.of_gpu(number) for number in range(len(budget.gpu_bytes)))
    return on_gpus <= room and on_host <= budget.host_bytes


def _order(spec: ModelSpec, budget: Budget) -> Iterator[tuple[int, int]]:
    """GPU layers and layers with their experts in main memory: the most on GPUs first."""
    experts = spec.layers if any(spec.expert_bytes) else 0
    if budget.gpu_bytes:
        for cpu_expert_layers in range(experts + 1):
            yield spec.layers + 1, cpu_expert_layers
        for gpu_layers in range(spec.layers, 0, -1):
            yield gpu_layers, experts
    yield 0, 0


def _splits(
    spec: ModelSpec, use: Use, budget: Budget, placement: Placement
) -> Iterator[Sequence[int]]:
    """How many layers each GPU may get, in the order in which that is tried.

    Beside several that work at a time each keeps copies of what goes between them. So one may hold
    alone what does not fit on it and another together, and is tried by itself.
    """
    numbers = range(len(budget.gpu_bytes))
    yield _shared(placement.gpu_layers, budget)
    for number in numbers:
        yield [placement.gpu_layers if number == other else 0 for other in numbers]
    yield _filled(spec, use, budget, placement)


def _shared(gpu_layers: int, budget: Budget) -> list[int]:
    """By llama.cpp's rule, where shares are what may be taken."""
    sizes = [budget.of_gpu(number) for number in range(len(budget.gpu_bytes))]
    counts = [0] * len(sizes)
    total = max(1, sum(sizes))
    for layer in range(gpu_layers):
        reached = 0
        for number, size in enumerate(sizes):
            reached += size
            if layer * total < reached * gpu_layers or number == len(sizes) - 1:
                counts[number] += 1
                break
    return counts


def _filled(spec: ModelSpec, use: Use, budget: Budget, placement: Placement) -> list[int]:
    """Each filled in turn, but never one with all of it; the last gets what is left over."""
    counts: list[int] = []
    left, others = placement.gpu_layers, len(budget.gpu_bytes) - 1
    for number in range(others):

        def too_many(count: int, left: int = left, number: int = number) -> bool:
            shares = (*counts, count, *(0,) * (others - number - 1), left - count)
            plan = _plan(spec, use, budget, evolve(placement, split=tuple(map(float, shares))))
            return plan.gpus[number].total_bytes > budget.of_gpu(number)

        most = left if any(counts) else left - 1
        counts.append(_first(too_many, range(1, most + 1)))
        left -= counts[-1]
    return [*counts, left]


def _first(fails: Callable[[int], bool], tried: range) -> int:
    """How many of ``tried``, from the first on, do not fail, where one failing fails all later."""
    return bisect_left(tried, True, key=fails)
