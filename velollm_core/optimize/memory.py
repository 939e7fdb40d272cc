"""What a configuration takes of this machine's memory, with nothing left open."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from attrs import evolve, frozen

from velollm_core.backends.advice import AdviceContext
from velollm_core.backends.machine import budget, used_gpus
from velollm_core.config import ENGINE_DEFAULT, Config, Role, Value
from velollm_core.errors import UsageError
from velollm_core.models.fit import Budget, best_placement, largest_context, place
from velollm_core.models.memory import MemoryPlan, Placement, Use, plan_memory
from velollm_core.models.spec import ModelSpec

LEAST_CONTEXT = 4096
"""Tokens below which an engine that fits itself never goes (llama.cpp's ``--fit-ctx``)."""

_OFF = frozenset({False, "off"})
_ON: tuple[Value, ...] = ("auto", "on", True)
_UNLIMITED_BYTES = 1 << 60


@frozen(kw_only=True)
class Resolved:
    """A configuration with numbers for all that it leaves to the engine.

    Where ``fits`` is false, ``placement`` is what was asked for, or main memory alone.
    """

    use: Use
    placement: Placement
    memory: MemoryPlan
    fits: bool

    @property
    def host_bytes(self) -> int:
        """Main memory, the engine itself included."""
        return self.memory.host.total_bytes + self.memory.process_bytes

    @property
    def kv_bytes(self) -> int:
        """The KV cache on all devices."""
        return sum(part.kv_bytes for part in (self.memory.host, *self.memory.gpus))

    @property
    def total_bytes(self) -> int:
        """Memory of all devices."""
        return self.host_bytes + sum(part.total_bytes for part in self.memory.gpus)


def engine_budget(context: AdviceContext) -> Budget:
    """What the process may take; of GPUs only where the engine has something to place on them."""
    found = budget(context.hardware)
    if context.knob(Role.PLACEMENT) is None:
        return evolve(found, gpu_bytes=(), unified=False)
    return found


def asked(context: AdviceContext, role: Role, config: Mapping[str, Value]) -> Value | None:
    """What ``config``, over what is in force, sets the knob of ``role`` to.

    ``None`` where there is no such knob, its value is not known, or it is left to the engine.
    """
    knob = context.knob(role)
    if knob is None:
        return None
    value = config.get(knob.name)
    value = context.value(knob.name) if value is None else value
    return None if value == knob.own_choice else value


def number(context: AdviceContext, role: Role, config: Mapping[str, Value]) -> int | None:
    """:func:`asked`, where it is a whole number."""
    value = asked(context, role, config)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def context_is_open(context: AdviceContext) -> bool:
    """Whether nobody has set the context: it is the engine's own, which may tell how much it is."""
    knob = context.knob(Role.CONTEXT)
    if knob is None or number(context, Role.CONTEXT, Config()) is None:
        return True
    return context.current.origins.get(knob.name, "") == ENGINE_DEFAULT


def attention_on(context: AdviceContext) -> Config:
    """What turns flash attention on where somebody has turned it off; else empty."""
    knob = context.knob(Role.ATTENTION)
    if knob is None or asked(context, Role.ATTENTION, Config()) not in _OFF:
        return Config()
    on = next((value for value in _ON if knob.domain.accepts(value)), None)
    return Config() if on is None else Config({knob.name: on})


def streams(use: Use) -> int:
    """In how many parts the KV cache is."""
    return 1 if use.unified_kv else use.slots


def per_slot(context: AdviceContext) -> bool:
    """Whether the engine's context is that of one slot, not of all together."""
    knob = context.knob(Role.CONTEXT)
    return knob is not None and knob.per_slot


def context_value(context: AdviceContext, use: Use) -> int:
    """What the context's knob is set to for ``use``."""
    return use.context_tokens // (use.slots if per_slot(context) else 1)


def use_of(context: AdviceContext, config: Mapping[str, Value]) -> Use:
    """How the model would be run; ``context_tokens`` is 0 where the context is left to the engine.

    An engine without a knob for it shares the KV cache between its slots if its context is that of
    all of them together.
    """
    slots = number(context, Role.SLOTS, config) or 1
    unified = asked(context, Role.UNIFIED_KV, config)
    tokens = number(context, Role.CONTEXT, config) or 0
    type_k = asked(context, Role.KV_TYPE_K, config) or "f16"
    type_v = asked(context, Role.KV_TYPE_V, config) or (
        type_k if context.knob(Role.KV_TYPE_V) is None else "f16"
    )
    logical = number(context, Role.BATCH_LOGICAL, config)
    physical = number(context, Role.BATCH_PHYSICAL, config)
    plain = Use(context_tokens=tokens * slots if per_slot(context) else tokens, slots=slots)
    return evolve(
        plain,
        unified_kv=not per_slot(context) if unified is None else bool(unified),
        type_k=str(type_k),
        type_v=str(type_v),
        batch_tokens=logical or physical or plain.batch_tokens,
        ubatch_tokens=physical or logical or plain.ubatch_tokens,
        flash_attention=asked(context, Role.ATTENTION, config) not in _OFF,
    )


@lru_cache(maxsize=64)
def resolve(context: AdviceContext, config: Config = Config()) -> Resolved | None:
    """What the engine would make of ``config`` over what is in force.

    An engine that chooses its own context takes the model's training length, less where the memory
    is short, and at least :data:`LEAST_CONTEXT`; one that places layers itself takes as many on
    GPUs as fit (llama.cpp, ``common/fit.cpp``).

    Returns:
        ``None`` where the model's header or a GPU's memory is not known, where a server does not
        tell its context, and for a KV type whose blocks this model's heads do not fill.
    """
    spec = context.model.spec
    if spec is None or not _is_told(context, config):
        return None
    room = engine_budget(context)
    use = use_of(context, config)
    layers = number(context, Role.PLACEMENT, config)
    try:
        if not use.context_tokens:
            use = evolve(use, context_tokens=own_context(context, spec, use, room, layers))
        return resolved(spec, use, room, layers)
    except UsageError:
        return None


def extra_bytes(context: AdviceContext, found: Resolved, config: Config) -> int:
    """What the engine takes of main memory beyond ``found``, by the backend's own estimate.

    That may be a second copy of weights in another order of rows, which depends on how they are
    loaded, or a server beside the engine. 0 where GPUs take a part, or the backend does not tell.

    Args:
        context: the machine and the engine.
        found: ``config`` over what is in force, by :func:`resolve`.
        config: what is changed.
    """
    if engine_budget(context).gpu_bytes:
        return 0
    knob = context.knob(Role.CONTEXT)
    told = {} if knob is None else {knob.name: context_value(context, found.use)}
    footprint = context.footprint(context.current.config | config | told)
    return 0 if footprint is None else max(0, footprint.host_bytes - found.host_bytes)


def resolved(spec: ModelSpec, use: Use, room: Budget, layers: int | None = None) -> Resolved:
    """``use`` with the most layers on GPUs that fit, or with as many as ``layers`` says.

    Raises:
        UsageError: the model's heads do not fill the blocks of the KV cache's type.
    """
    wanted: Placement | None
    if layers is None or not room.gpu_bytes:
        wanted = best_placement(spec, use, room)
    else:
        wanted = place(spec, use, room, gpu_layers=min(layers, spec.layers + 1))
    placement = wanted or Placement(gpu_layers=(layers or 0) if room.gpu_bytes else 0)
    memory = plan_memory(spec, use, placement, gpus=len(room.gpu_bytes))
    return Resolved(use=use, placement=placement, memory=memory, fits=wanted is not None)


def whole(spec: ModelSpec, use: Use, room: Budget) -> Placement | None:
    """Every layer and the output on GPUs, ``None`` where they do not fit."""
    return place(spec, use, room, gpu_layers=spec.layers + 1)


def most_context(spec: ModelSpec, use: Use, room: Budget, *, on_gpus: bool = False) -> int:
    """The most positions, all slots together, that fit into ``room``; 0 where not even one does.

    A part is never given more than the model's training length, whoever shares it. With ``on_gpus``
    only what leaves all layers on GPUs counts.
    """
    placement = Placement(gpu_layers=spec.layers + 1) if on_gpus else None
    most = largest_context(spec, use, room, placement)
    return min(most, spec.context_length * streams(use))


def _is_told(context: AdviceContext, config: Config) -> bool:
    knob = context.knob(Role.CONTEXT)
    if knob is not None and context.value(knob.name) is None and knob.name not in config:
        return False
    cards = () if context.knob(Role.PLACEMENT) is None else used_gpus(context.hardware)
    return all(gpu.memory_total_bytes or gpu.memory_free_bytes for gpu in cards)


def own_context(
    context: AdviceContext, spec: ModelSpec, use: Use, room: Budget, layers: int | None
) -> int:
    """What an engine takes that is left to choose, as :func:`resolve` says, all slots together."""
    least = min(LEAST_CONTEXT, spec.context_length) * streams(use)
    if layers is not None:
        return spec.context_length * streams(use)
    if room.gpu_bytes:
        # It does not ask what main memory has left.
        seen = evolve(room, host_bytes=_UNLIMITED_BYTES, unified=False)
        found = most_context(spec, use, seen, on_gpus=True)
    else:
        # It does not see the limit of a control group, nor what others use.
        seen = evolve(room, host_bytes=context.hardware.memory.total_bytes)
        found = most_context(spec, use, seen)
    return max(found, least)
