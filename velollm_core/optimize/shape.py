"""What shares the memory, decided together: slots, context, KV type, batch, layers, prompts.

Nothing is taken from the layers on a GPU or from the context to make room for something else: what
is nice to have is taken only where both stay what they are without it.
"""

from __future__ import annotations

from functools import lru_cache

from attrs import evolve, field, frozen

from velollm_core.backends.advice import AdviceContext, Goal
from velollm_core.config import Choices, Config, Knob, Role, Value
from velollm_core.errors import UsageError
from velollm_core.hardware.parsing import MIB
from velollm_core.models.fit import Budget, best_placement
from velollm_core.models.memory import Use
from velollm_core.models.spec import ModelSpec
from velollm_core.optimize.memory import (
    LEAST_CONTEXT,
    Resolved,
    attention_on,
    context_is_open,
    engine_budget,
    extra_bytes,
    most_context,
    number,
    own_context,
    resolve,
    resolved,
    streams,
    whole,
)
from velollm_core.optimize.obstacle import obstacle
from velollm_core.optimize.prompts import SPARE, bound_mib
from velollm_core.optimize.words import round_figure

SMALLER_KV = "q8_0"
"""Of the quantized types the one that changes answers least, at little more than half of f16."""

MODEST_CONTEXT = 8192
"""Tokens a part that ``--goal memory`` asks of an engine which would take all that fits."""

_UNQUANTIZED = frozenset({"f32", "f16", "bf16"})
_BUSY_SLOTS = (8, 6, 4, 2)
_LARGE_UBATCHES = (2048, 1024)
_SMALL_UBATCH = 128
_WORTH_BYTES = 64 * MIB
_WORTH_ANSWERS_BYTES = 256 * MIB
"""Of what saves memory: less is not worth a change, or other answers."""


@frozen(kw_only=True)
class Shape:
    """What the rules that share the memory go by.

    ``now`` is the configuration in force, ``planned`` what comes of the decisions. A decision is
    ``None`` where things are to stay as they are: ``load_mode``, ``slots``, ``context_tokens`` (all
    slots together), ``kv_type``, ``ubatch_tokens``, ``prompt_cache_mib``. ``own_tokens`` is the
    context of an engine to which it is left, 0 where it is set; ``most_tokens`` how much of that
    there is ample room for. ``load_saved_bytes``, ``kv_saved_bytes`` and ``ubatch_saved_bytes`` are
    what those three save, ``spare_bytes`` is what the plan leaves of main memory. ``refit``: the
    layers are better placed anew. ``whole_if_quantized``: with a quantized KV cache all layers
    would lie on GPUs. ``obstacle`` says why the model does not fit, and what would; then nothing is
    decided.
    """

    room: Budget
    now: Resolved
    planned: Resolved
    spare_bytes: int
    load_mode: Value | None = None
    load_saved_bytes: int = 0
    slots: int | None = None
    context_tokens: int | None = None
    own_tokens: int = 0
    most_tokens: int = 0
    kv_type: str | None = None
    kv_saved_bytes: int = 0
    whole_if_quantized: bool = False
    refit: bool = False
    ubatch_tokens: int | None = None
    ubatch_saved_bytes: int = 0
    prompt_cache_mib: int | None = None
    obstacle: str | None = None


@frozen(kw_only=True)
class _Case:
    """What does not change from one decision to the next; ``layers`` as for ``resolved``.

    Every use is laid out once: that is most of the time that a plan takes.
    """

    context: AdviceContext
    spec: ModelSpec
    room: Budget
    layers: int | None
    _known: dict[Use, Resolved] = field(factory=dict, init=False)

    def resolved(self, use: Use) -> Resolved:
        if use not in self._known:
            self._known[use] = resolved(self.spec, use, self.room, self.layers)
        return self._known[use]

    def whole(self, use: Use) -> bool:
        return bool(self.room.gpu_bytes) and whole(self.spec, use, self.room) is not None


@lru_cache(maxsize=4)
def shape(context: AdviceContext) -> Shape | None:
    """The decisions; ``None`` where it cannot be told what the model takes."""
    spec, now = context.model.spec, resolve(context)
    if spec is None or now is None:
        return None
    room = engine_budget(context)
    beyond = _beyond_training(context, spec)
    if beyond is not None:
        return Shape(room=room, now=now, planned=now, spare_bytes=0, obstacle=beyond)
    need = evolve(now.use, slots=max(now.use.slots, context.requirements.parallel or 0))
    need = evolve(need, context_tokens=_needed(context, spec, now.use, need))
    if attention_on(context):
        need = evolve(need, flash_attention=True)
    layers = number(context, Role.PLACEMENT, Config())
    refit = _is_better_refitted(spec, need, room, layers)
    extra = extra_bytes(context, now, Config())
    case = _Case(
        context=context,
        spec=spec,
        room=evolve(room, host_bytes=room.host_bytes - extra),
        layers=None if refit else layers,
    )
    load_mode, saved = _load_mode(case, now, need, extra)
    if load_mode is not None:
        case = evolve(case, room=evolve(case.room, host_bytes=case.room.host_bytes + saved))

    plain, need = need, _squeezed(case, need)
    least = case.resolved(need)
    found = Shape(
        room=room,
        now=now,
        planned=least,
        spare_bytes=_spare_bytes(case.room, least),
        load_mode=load_mode,
        load_saved_bytes=saved,
        kv_type=need.type_k if need.type_k != plain.type_k else None,
        kv_saved_bytes=case.resolved(plain).kv_bytes - least.kv_bytes,
        refit=refit,
    )
    if not least.fits:
        said = obstacle(spec, need, room, room.host_bytes - case.room.host_bytes)
        if _can_be_quantized(case, need) and case.resolved(_quantized(need)).fits:
            said += f" With a KV cache of {SMALLER_KV}, which changes answers, it would fit."
        return evolve(found, obstacle=said)
    own = _own(case, now.use, need)
    most = _most(case, need, own) if own else 0
    tokens = _pinned(case, now.use, need, own, most, exactly=need != plain)
    use = evolve(need, context_tokens=tokens or own or need.context_tokens)
    use = _with_more_slots(case, use)
    use = use if need != plain else _with_large_batch(case, use)
    planned = case.resolved(use)
    spare = _spare_bytes(case.room, planned)
    small = use.ubatch_tokens < now.use.ubatch_tokens
    return evolve(
        found,
        planned=planned,
        spare_bytes=spare,
        slots=use.slots if use.slots != now.use.slots else None,
        context_tokens=None if tokens is None else use.context_tokens,
        own_tokens=own,
        most_tokens=most,
        whole_if_quantized=_whole_if_quantized(case, need),
        ubatch_tokens=use.ubatch_tokens if use.ubatch_tokens != now.use.ubatch_tokens else None,
        ubatch_saved_bytes=_ubatch_saved_bytes(case, use, now.use.ubatch_tokens) if small else 0,
        prompt_cache_mib=bound_mib(context, case.room.host_bytes, spare),
    )


def _beyond_training(context: AdviceContext, spec: ModelSpec) -> str | None:
    required = context.requirements.context_tokens or 0
    if required <= spec.context_length:
        return None
    return (
        f"Requests of {required} tokens are required, and the model was trained for "
        f"{spec.context_length}: take another model, or require less."
    )


def _spare_bytes(room: Budget, planned: Resolved) -> int:
    """What ``planned`` leaves of main memory."""
    shared = sum(part.total_bytes for part in planned.memory.gpus) if room.unified else 0
    return max(0, room.host_bytes - planned.host_bytes - shared)


def _needed(context: AdviceContext, spec: ModelSpec, now: Use, use: Use) -> int:
    """The least context, all slots together, by what the user requires and has.

    What is set now is not given up, nor is what one of the slots is sure to get where the user asks
    for more of them.
    """
    required, parallel = context.requirements.context_tokens, context.requirements.parallel
    at_once = parallel or streams(use)
    if context_is_open(context):
        return (required or min(LEAST_CONTEXT, spec.context_length)) * max(at_once, streams(use))
    sure = required or now.context_tokens // (now.slots if parallel else streams(now))
    return max(now.context_tokens, sure * max(at_once, streams(use)))


def _is_better_refitted(spec: ModelSpec, use: Use, room: Budget, layers: int | None) -> bool:
    if layers is None or not room.gpu_bytes:
        return False
    as_set, best = resolved(spec, use, room, layers), resolved(spec, use, room)
    return best.fits and (
        not as_set.fits or best.placement.gpu_layers > as_set.placement.gpu_layers
    )


def _load_mode(case: _Case, now: Resolved, need: Use, extra: int) -> tuple[Value | None, int]:
    """A way to load that keeps less in main memory, where that limits the context; and how much.

    Only what the backend's own estimate says counts.
    """
    knob = case.context.knob(Role.LOAD)
    if knob is None or not isinstance(knob.domain, Choices) or extra < _WORTH_BYTES:
        return None, 0
    value = min(
        knob.domain.values,
        key=lambda mode: extra_bytes(case.context, now, Config({knob.name: mode})),
    )
    saved = extra - extra_bytes(case.context, now, Config({knob.name: value}))
    most = evolve(need, context_tokens=case.spec.context_length * streams(need))
    short = case.context.goal is Goal.MEMORY or not (
        _is_ample(case, most) if context_is_open(case.context) else case.resolved(need).fits
    )
    return (value, saved) if short and saved >= _WORTH_BYTES else (None, 0)


def _squeezed(case: _Case, use: Use) -> Use:
    """``use`` with a smaller batch or a quantized KV cache, where only that fits.

    The batch goes first: it changes no answer. Beside GPUs neither is done: a little more main
    memory would undo it, and with it take layers from a GPU.
    """
    if case.context.goal is Goal.MEMORY:
        return _with_small_batch(case, _quantized_if_worth(case, use))
    if case.room.gpu_bytes or case.resolved(use).fits:
        return use
    small = _with_small_batch(case, use)
    tried = [small]
    if _can_be_quantized(case, use):
        tried += [_quantized(use), _quantized(small)]
    return next((entry for entry in tried if case.resolved(entry).fits), use)


def _quantized_if_worth(case: _Case, use: Use) -> Use:
    if not _can_be_quantized(case, use):
        return use
    modest = _modest_context(case, use) if context_is_open(case.context) else use.context_tokens
    before, after = (
        case.resolved(evolve(entry, context_tokens=modest)) for entry in (use, _quantized(use))
    )
    worth = before.kv_bytes - after.kv_bytes >= _WORTH_ANSWERS_BYTES
    return _quantized(use) if worth else use


def _with_small_batch(case: _Case, use: Use) -> Use:
    """``use`` with a smaller batch, where that is worth it wherever the layers lie."""
    small = _with_ubatch(use, _SMALL_UBATCH)
    if _batch_knob(case.context) is None or use.ubatch_tokens <= _SMALL_UBATCH:
        return use
    on_host = evolve(case.room, gpu_bytes=(), unified=False)
    before, after = (resolved(case.spec, entry, on_host) for entry in (use, small))
    return small if before.total_bytes - after.total_bytes > _WORTH_BYTES else use


def _ubatch_saved_bytes(case: _Case, use: Use, ubatch_tokens: int) -> int:
    """What ``use`` takes less than with a batch of ``ubatch_tokens``."""
    before = case.resolved(_with_ubatch(use, ubatch_tokens))
    return before.total_bytes - case.resolved(use).total_bytes


def _whole_if_quantized(case: _Case, use: Use) -> bool:
    return (
        bool(case.room.gpu_bytes)
        and not case.whole(use)
        and _can_be_quantized(case, use)
        and case.whole(_quantized(use))
    )


def _can_be_quantized(case: _Case, use: Use) -> bool:
    knobs = [case.context.knob(role) for role in (Role.KV_TYPE_K, Role.KV_TYPE_V)]
    present = [knob for knob in knobs if knob is not None]
    if not present or not {use.type_k, use.type_v} <= _UNQUANTIZED:
        return False
    try:
        case.resolved(_quantized(use))
    except UsageError:  # this model's heads do not fill its blocks
        return False
    return all(knob.domain.accepts(SMALLER_KV) for knob in present)


def _quantized(use: Use) -> Use:
    return evolve(use, type_k=SMALLER_KV, type_v=SMALLER_KV)


def _is_ample(case: _Case, use: Use) -> bool:
    """Whether there is room with all layers on GPUs, or in main memory with some to spare."""
    if case.room.gpu_bytes:
        return case.whole(use)
    spare = evolve(case.room, host_bytes=case.room.host_bytes - case.room.host_bytes // SPARE)
    return best_placement(case.spec, use, spare) is not None


def _most(case: _Case, use: Use, own: int) -> int:
    """The most context for which there is ample room; more than ``own`` is not looked for."""
    if _is_ample(case, evolve(use, context_tokens=own)):
        return own
    return most_context(case.spec, use, lambda tried: _is_ample(case, tried))


def _own(case: _Case, now: Use, use: Use) -> int:
    """What the engine takes of itself under ``use``, all slots together; 0 where it is told."""
    if not context_is_open(case.context):
        return 0
    if _is_told(case.context):
        return now.context_tokens // streams(now) * streams(use)
    layers = number(case.context, Role.PLACEMENT, Config())
    if layers == case.layers and evolve(use, context_tokens=now.context_tokens) == now:
        return now.context_tokens
    return own_context(case.context, case.spec, use, case.room, case.layers)


def _is_told(context: AdviceContext) -> bool:
    """Whether the context in force is a number, be it the engine's own."""
    return number(context, Role.CONTEXT, Config()) is not None


def _pinned(case: _Case, now: Use, use: Use, own: int, most: int, *, exactly: bool) -> int | None:
    """The context to set, all slots together; ``None`` to leave it as it is.

    An engine that takes all that it believes to fit is told a figure where its belief is wrong, and
    where a GPU holds less than the training length: what it would take then depends on what else
    lies on the GPU when it starts. One that goes by a table is told where that is too much.
    """
    need, top = use.context_tokens, case.spec.context_length * streams(use)
    if not own:
        return need if now.context_tokens < need else None
    if case.context.goal is Goal.MEMORY:
        modest = max(need, min(_modest_context(case, use), most))
        return modest if own > modest or own < need else None
    if exactly or own < need:
        return need
    told = _is_told(case.context)
    if most < need:  # not all layers on GPUs, or with little to spare
        right = own == need if told else case.resolved(evolve(use, context_tokens=own)).fits
        return None if right else need
    varies = bool(case.room.gpu_bytes) and not told
    if most >= top or (own <= most and not varies):
        return None
    return max(need, round_figure(most // streams(use)) * streams(use))


def _modest_context(case: _Case, use: Use) -> int:
    """What is enough where memory is wanted, all slots together, but no less than required."""
    each = min(MODEST_CONTEXT, case.spec.context_length)
    return max(use.context_tokens, each * streams(use))


def _with_more_slots(case: _Case, use: Use) -> Use:
    """Slots for work at once, where that is what is wanted and nobody has said how many."""
    context = case.context
    knob = context.knob(Role.SLOTS)
    if context.goal is not Goal.THROUGHPUT or context.requirements.parallel or knob is None:
        return use
    before, ample = case.resolved(use), _is_ample(case, use)
    for slots in _BUSY_SLOTS:
        tokens = use.context_tokens * (use.slots if use.unified_kv else slots) // use.slots
        tried = evolve(use, slots=slots, context_tokens=tokens)
        more = slots > use.slots and knob.domain.accepts(slots)
        if more and _is_no_worse(case, before, tried) and _is_ample(case, tried) >= ample:
            return tried
    return use


def _is_no_worse(case: _Case, before: Resolved, use: Use) -> bool:
    after = case.resolved(use)
    return after.fits and (
        after.placement.gpu_layers >= before.placement.gpu_layers
        and after.placement.cpu_expert_layers <= before.placement.cpu_expert_layers
    )


def _with_large_batch(case: _Case, use: Use) -> Use:
    """``use`` with a larger batch, where each batch carries weights to the GPU again."""
    knob, room = _batch_knob(case.context), case.room
    fast = case.context.goal is not Goal.MEMORY and room.gpu_bytes and not room.unified
    if knob is None or not fast or case.whole(use):
        return use
    before = case.resolved(use)
    for tokens in _LARGE_UBATCHES:
        larger = tokens > use.ubatch_tokens and knob.domain.accepts(tokens)
        if larger and _is_no_worse(case, before, _with_ubatch(use, tokens)):
            return _with_ubatch(use, tokens)
    return use


def _batch_knob(context: AdviceContext) -> Knob | None:
    return context.knob(Role.BATCH_PHYSICAL) or context.knob(Role.BATCH_LOGICAL)


def _with_ubatch(use: Use, tokens: int) -> Use:
    return evolve(use, ubatch_tokens=tokens, batch_tokens=max(use.batch_tokens, tokens))
