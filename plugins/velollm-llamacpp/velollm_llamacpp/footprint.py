"""How much memory a configuration will take, on the host and on each GPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve

from velollm_core.backends.contract import Footprint
from velollm_core.backends.machine import usable_bytes
from velollm_core.config import Value
from velollm_core.hardware.spec import GpuInfo
from velollm_core.models.fit import Budget, best_placement, host_bytes, largest_context, place
from velollm_core.models.memory import Placement, Use, plan_memory
from velollm_core.models.spec import ModelSpec
from velollm_llamacpp.expected import positions

_DRAFT_LENGTHS = {
    "ngram-simple": "ngram_simple_size_m",
    "ngram-map-k": "ngram_map_k_size_m",
    "ngram-map-k4v": "ngram_map_k4v_size_m",
    "ngram-mod": "ngram_mod_n_max",
}
_MAPPED = frozenset({"auto", "mmap", "mlock", "mmap+mlock"})
_LEAST_CONTEXT = 4096  # --fit-ctx
_UNLIMITED_BYTES = 1 << 62


def use_of(spec: ModelSpec, complete: Mapping[str, Value]) -> Use:
    """``complete``, which holds a value for every knob, as far as memory goes."""
    drafts = _DRAFT_LENGTHS.get(str(complete.get("spec_type")), "")
    return Use(
        context_tokens=positions(spec, complete),
        slots=int(complete["slots"]),
        unified_kv=bool(complete.get("kv_unified", True)),
        type_k=str(complete["cache_type_k"]),
        type_v=str(complete["cache_type_v"]),
        batch_tokens=int(complete["batch"]),
        ubatch_tokens=int(complete["ubatch"]),
        flash_attention=complete["flash_attention"] != "off",
        draft_tokens=int(complete[drafts]) if drafts in complete else 0,
    )


def on_the_host(
    spec: ModelSpec, complete: Mapping[str, Value], cpu_features: Iterable[str]
) -> Footprint:
    """What a server takes with everything in main memory, bytes.

    What ``cache_ram`` allows is not counted: it fills only as prompts are kept.

    Args:
        spec: the model.
        complete: a value for every knob.
        cpu_features: those of the build.
    """
    mapped = complete.get("load_mode", "auto") in _MAPPED
    placement = Placement(repacked=repacked_types(cpu_features) if mapped else frozenset())
    plan = plan_memory(spec, use_of(spec, complete), placement)
    return Footprint(host_bytes=host_bytes(plan))


def on_gpus(spec: ModelSpec, complete: Mapping[str, Value], cards: Sequence[GpuInfo]) -> Footprint:
    """What a server takes that uses ``cards``, with as many layers on them as it is told.

    Left to itself it takes as many layers as fit, of a context that is left to it no more than
    fits with all of them, but at least 4096 positions a part (``common/fit.cpp``). Main memory that
    is a GPU's too is counted in both.
    """
    use = use_of(spec, complete)
    free = tuple(usable_bytes(card) for card in cards)
    layers = int(complete.get("gpu_layers", -1))
    if layers >= 0:
        placement = Placement(gpu_layers=layers, split=free if any(free) else ())
    else:
        budget = Budget(host_bytes=_UNLIMITED_BYTES, gpu_bytes=free)
        if not int(complete["context"]):
            use = _shrunk(spec, use, budget)
        placement = best_placement(spec, use, budget) or Placement()
    plan = plan_memory(spec, use, placement, gpus=len(cards))
    by_card = {card.uuid: part.total_bytes for card, part in zip(cards, plan.gpus, strict=True)}
    shared = sum(by_card[card.uuid] for card in cards if card.unified_memory)
    return Footprint(host_bytes=host_bytes(plan) + shared, gpu_bytes=by_card)


def repacked_types(cpu_features: Iterable[str]) -> frozenset[str]:
    """Tensor types that this build keeps in another order of rows.

    ``ggml_repack_get_optimal_repack_type`` in ``ggml-cpu/repack.cpp``.
    """
    features = set(cpu_features)
    if "REPACK" not in features:
        return frozenset()
    if "AVX2" in features:
        types = {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}
        return frozenset(types | {"Q2_K"} if "AVX512" in features else types)
    if "NEON" in features and features & {"DOTPROD", "MATMUL_INT8"}:
        return frozenset({"Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4"})
    return frozenset()


def _shrunk(spec: ModelSpec, use: Use, budget: Budget) -> Use:
    """``use`` with no more context than fits where all layers are on GPUs."""
    streams = 1 if use.unified_kv else use.slots
    least = evolve(use, context_tokens=min(use.context_tokens, _LEAST_CONTEXT * streams))
    whole = place(spec, least, budget, gpu_layers=spec.layers + 1)
    if whole is None:
        return least
    most = largest_context(spec, use, budget, whole)
    return evolve(use, context_tokens=min(use.context_tokens, max(least.context_tokens, most)))
