"""What shares the memory, decided together: slots, context, batch, layers, loading, prompts.

Nothing is taken from the layers on a GPU or from the context to make room for something else: what
is nice to have is taken only where both stay what they are without it.
"""

from __future__ import annotations

from functools import lru_cache

from attrs import evolve, frozen

from velollm_core.backends.advice import AdviceContext, Goal
from velollm_core.config import Config, Role, Value
from velollm_core.models.fit import Budget
from velollm_core.models.memory import Use
from velollm_core.models.spec import ModelSpec
from velollm_core.optimize.case import Case
from velollm_core.optimize.extras import with_large_batch, with_more_slots
from velollm_core.optimize.memory import (
    LEAST_CONTEXT,
    Resolved,
    attention_on,
    context_is_open,
    context_value,
    engine_budget,
    extra_bytes,
    most_context,
    number,
    own_context,
    resolve,
    resolved,
    streams,
)
from velollm_core.optimize.obstacle import obstacle
from velollm_core.optimize.prompts import bound_mib
from velollm_core.optimize.required import lowered, needed, requested
from velollm_core.optimize.squeeze import (
    load_mode,
    quantized_saves_bytes,
    squeezed,
    ubatch_saved_bytes,
    whole_if_quantized,
)
from velollm_core.optimize.words import round_figure

MODEST_CONTEXT = 8192
"""Tokens a part that ``--goal memory`` asks of an engine which would take all that fits."""


@frozen(kw_only=True)
class Shape:
    """What the rules that share the memory go by.

    ``now`` is the configuration in force, ``planned`` what comes of the decisions. A decision is
    ``None`` where things are to stay as they are: ``load_mode``, ``slots``, ``context_tokens`` (all
    slots together), ``ubatch_tokens``, ``prompt_cache_mib``. ``own_tokens`` is the context of an
    engine to which it is left, 0 where it is set; ``most_tokens`` how much of that there is ample
    room for. ``load_saved_bytes`` and ``ubatch_saved_bytes`` are what those two save,
    ``spare_bytes`` is what the plan leaves of main memory. ``refit``: the layers are better placed
    anew. A quantized KV cache, which changes answers, is never decided: ``kv_saved_bytes`` is what
    it would save, 0 where there is none, and ``whole_if_quantized`` whether with it all layers
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
    kv_saved_bytes: int = 0
    whole_if_quantized: bool = False
    refit: bool = False
    ubatch_tokens: int | None = None
    ubatch_saved_bytes: int = 0
    prompt_cache_mib: int | None = None
    obstacle: str | None = None


@lru_cache(maxsize=4)
def shape(context: AdviceContext) -> Shape | None:
    """The decisions; ``None`` where it cannot be told what the model takes."""
    spec, now = context.model.spec, resolve(context)
    if spec is None or now is None:
        return None
    beyond = _beyond_training(context, spec)
    if beyond is not None:
        room = engine_budget(context)
        return Shape(room=room, now=now, planned=now, spare_bytes=0, obstacle=beyond)
    need = requested(context, now.use)
    least = min(LEAST_CONTEXT, spec.context_length)
    need = evolve(need, context_tokens=needed(context, now.use, need, least))
    if attention_on(context):
        need = evolve(need, flash_attention=True)
    found = _shape(context, spec, now, need)
    less = lowered(context, now.use, need)
    if less is not None and (context.goal is Goal.MEMORY or not found.case.is_ample(need)):
        found = _shape(context, spec, now, less)
    return found.shape


@frozen
class _Found:
    case: Case
    shape: Shape


def _shape(context: AdviceContext, spec: ModelSpec, now: Resolved, need: Use) -> _Found:
    """The decisions where no less than ``need`` is to be had."""
    room = engine_budget(context)
    layers = number(context, Role.PLACEMENT, Config())
    refit = _is_better_refitted(spec, need, room, layers)
    extra = extra_bytes(context, now, Config())
    case = Case(
        context=context,
        spec=spec,
        room=evolve(room, host_bytes=room.host_bytes - extra),
        layers=None if refit else layers,
    )
    loaded, saved = load_mode(case, now, need, extra)
    if loaded is not None:
        case = evolve(case, room=evolve(case.room, host_bytes=case.room.host_bytes + saved))

    plain, need = need, squeezed(case, need)
    least = case.resolved(need)
    found = Shape(
        room=room,
        now=now,
        planned=least,
        spare_bytes=_spare_bytes(case.room, least),
        load_mode=loaded,
        load_saved_bytes=saved,
        refit=refit,
    )
    if not least.fits:
        return _Found(case, evolve(found, obstacle=obstacle(case, need)))
    own = _own(case, now.use, need)
    most = _most(case, need, own) if own else 0
    tokens = _pinned(case, now.use, need, own, most, exactly=need != plain)
    use = with_more_slots(case, evolve(need, context_tokens=tokens or own or need.context_tokens))
    use = use if need != plain else with_large_batch(case, use)
    if tokens is None and not own and context_value(context, use) != context_value(context, need):
        tokens = use.context_tokens  # else more slots would share what is set
    planned = case.resolved(use)
    spare = _spare_bytes(case.room, planned)
    small = use.ubatch_tokens < now.use.ubatch_tokens
    return _Found(
        case,
        evolve(
            found,
            planned=planned,
            spare_bytes=spare,
            slots=use.slots if use.slots != now.use.slots else None,
            context_tokens=None if tokens is None else use.context_tokens,
            own_tokens=own,
            most_tokens=most,
            kv_saved_bytes=quantized_saves_bytes(case, use),
            whole_if_quantized=whole_if_quantized(case, need),
            ubatch_tokens=use.ubatch_tokens if use.ubatch_tokens != now.use.ubatch_tokens else None,
            ubatch_saved_bytes=ubatch_saved_bytes(case, use, now.use.ubatch_tokens) if small else 0,
            prompt_cache_mib=bound_mib(context, case.room.host_bytes, spare),
        ),
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


def _is_better_refitted(spec: ModelSpec, use: Use, room: Budget, layers: int | None) -> bool:
    if layers is None or not room.gpu_bytes:
        return False
    as_set, best = resolved(spec, use, room, layers), resolved(spec, use, room)
    return best.fits and (
        not as_set.fits or best.placement.gpu_layers > as_set.placement.gpu_layers
    )


def _most(case: Case, use: Use, own: int) -> int:
    """The most context for which there is ample room; more than ``own`` is not looked for."""
    if case.is_ample(evolve(use, context_tokens=own)):
        return own
    return most_context(case.spec, use, case.ample_room, on_gpus=bool(case.room.gpu_bytes))


def _own(case: Case, now: Use, use: Use) -> int:
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


def _pinned(case: Case, now: Use, use: Use, own: int, most: int, *, exactly: bool) -> int | None:
    """The context to set, all slots together; ``None`` to leave it as it is.

    An engine that takes all that it believes to fit is told a figure where its belief is wrong, and
    where a GPU holds less than the training length: what it would take then depends on what else
    lies on the GPU when it starts. One that goes by a table is told where that is too much.
    """
    need, top = use.context_tokens, case.spec.context_length * streams(use)
    if not own:
        return need if now.context_tokens != need else None
    if case.context.goal is Goal.MEMORY:
        modest = max(need, min(MODEST_CONTEXT * streams(use), top, most))
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
