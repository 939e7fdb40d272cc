"""``velollm models fit``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import click
from attrs import evolve

from velollm_core.cli.options import global_options, option
from velollm_core.cli.state import State
from velollm_core.cli.what_if import EXAMPLE, imagined
from velollm_core.errors import ModelError, UsageError, VeloError

if TYPE_CHECKING:
    from velollm_core.hardware.spec import HardwareSpec
    from velollm_core.models.memory import Part, Use
    from velollm_core.models.roofline import Rates
    from velollm_core.models.spec import ModelSpec
    from velollm_core.report.fit import Fit

_CONTEXTS = (4096, 16384, 65536)
_PARALLEL = (1, 4)
_KV_TYPES = ("f16", "q8_0")
_USUAL_CONTEXT = 8192
_MEASURING_S = 0.3


@click.command(name="fit", epilog=f"Example: velollm models fit demo --what-if '{EXAMPLE}'")
@click.argument("reference", metavar="REF")
@option(
    "--what-if",
    metavar="PARTS",
    help="A machine that you do not have: gpu=SIZE or gpu=SIZE@RATE for each GPU, ram=SIZE, "
    "bandwidth=RATE. What is not named is this machine's.",
)
@option(
    "--context",
    type=click.IntRange(1, 1 << 27),
    metavar="N",
    help="Tokens for each request; several are shown if not given.",
)
@option(
    "--parallel",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Requests at once; 1 and 4 are shown if not given.",
)
@global_options
@click.pass_obj
def fit(
    state: State, reference: str, what_if: str | None, context: int | None, parallel: int | None
) -> None:
    """Show which contexts and placements of a model fit, and how fast they should be.

    REF is a path, 'demo', or hf:owner/repo/file.gguf; only its header is read. Memory is computed,
    the speed of this machine's memory and processor measured in a second, and the speed of the
    model predicted from both. Where --backend names an engine with a planner of its own, its figure
    is shown, too.
    """
    from velollm_core.cli.choose import backends
    from velollm_core.cli.reference import resolve_model
    from velollm_core.documents import dumps
    from velollm_core.report.fit import KIND, MAJOR, to_terminal

    if state.backend is not None:
        backends(state)  # a mistake in its name is known before anything is read
    model = resolve_model(state, reference)
    if model.spec is None:
        raise ModelError(
            f"{reference} cannot be read from here, so nothing is known of its size.",
            "Name its file.",
        )
    hardware = _machine(state, what_if)
    found = _fit(
        model.spec, model.reference, hardware, what_if=what_if, context=context, parallel=parallel
    )
    if state.backend is not None and what_if is None and found.front:
        found = evolve(found, notes=(*found.notes, _engine_says(state, reference, found)))
    if state.json:
        state.output.text(dumps(KIND, MAJOR, found))
    else:
        state.output.show(to_terminal(found))


def _machine(state: State, what_if: str | None) -> HardwareSpec:
    from velollm_core.hardware.detect import detect, measured

    hardware = detect(gpus=state.plugins.detect_gpus)
    if what_if is not None:
        imagined(hardware, what_if)  # a mistake is known before anything is measured
    hardware = measured(hardware, budget_s=_MEASURING_S)
    return hardware if what_if is None else imagined(hardware, what_if)


def _fit(
    spec: ModelSpec,
    name: str,
    hardware: HardwareSpec,
    *,
    what_if: str | None,
    context: int | None,
    parallel: int | None,
) -> Fit:
    from velollm_core.backends.machine import budget, rates
    from velollm_core.models.fit import candidates, front, table
    from velollm_core.report.fit import Fit

    room, speeds = budget(hardware), rates(hardware)
    use = _use(context or min(_USUAL_CONTEXT, spec.context_length), parallel or 1)
    depth_tokens = use.context_tokens // use.slots // 2
    found = candidates(spec, use, room, speeds, depth_tokens=depth_tokens)
    return Fit(
        model=spec.name or name,
        layers=spec.layers,
        what_if=what_if,
        budget=room,
        rates=speeds,
        rows=table(spec, _uses(spec, context, parallel), room),
        use=use,
        depth_tokens=depth_tokens,
        candidates=found,
        front=front(found),
        notes=tuple(_notes(hardware, speeds, spec, use)),
    )


def _uses(spec: ModelSpec, context: int | None, parallel: int | None) -> tuple[Use, ...]:
    known = [tokens for tokens in _CONTEXTS if tokens < spec.context_length]
    contexts = [*known, spec.context_length] if context is None else [context]
    return tuple(
        _use(tokens, slots, kind)
        for tokens in contexts
        for slots in (_PARALLEL if parallel is None else (parallel,))
        for kind in _KV_TYPES
        if _holds(spec, kind)
    )


def _holds(spec: ModelSpec, kind: str) -> bool:
    """Whether the model's heads fill the blocks of this type."""
    from velollm_core.models.memory import kv_cache_bytes

    try:
        kv_cache_bytes(spec, 1, kind, kind)
    except UsageError:
        return False
    return True


def _use(context: int, parallel: int, kind: str = "f16") -> Use:
    """So many requests at once, each with a context of its own."""
    from velollm_core.models.memory import Use

    return Use(
        context_tokens=context * parallel,
        slots=parallel,
        unified_kv=False,
        type_k=kind,
        type_v=kind,
    )


def _notes(hardware: HardwareSpec, speeds: Rates, spec: ModelSpec, use: Use) -> Iterator[str]:
    """What could not be told and why, and what may be asked too much."""
    from velollm_core.backends.machine import used_gpus

    if use.context_tokens // use.slots > spec.context_length:
        yield f"the model was trained for a context of {spec.context_length:,} tokens"
    if speeds.host is None:
        unmeasured = hardware.memory.bandwidth_bytes_per_s is None
        why = (
            "too little memory is free to measure how fast it is"
            if unmeasured
            else "the arithmetic of its instruction sets was never measured"
        )
        yield f"no speed is predicted for the processor: {why}"
    for gpu, known in zip(used_gpus(hardware), speeds.gpus, strict=True):
        if known is None:
            yield f"no speed is predicted for {gpu.name}: the bandwidth of its memory is not known"
        elif not known.weights.matrix:
            yield (
                f"no speed of reading prompts is predicted for {gpu.name}: the arithmetic of its "
                "16-bit matrices is not known"
            )


def _engine_says(state: State, reference: str, fit: Fit) -> str:
    """What the engine's own planner says of the first placement shown that it can be told."""
    from velollm_core.report.fit import where

    shown = (fit.candidates[position] for position in fit.front)
    asked = next((entry for entry in shown if not entry.placement.cpu_expert_layers), None)
    if asked is None:
        return f"{state.backend} was not asked: it cannot be told where experts lie"
    try:
        name, said = _own_plan(state, reference, fit.use, asked.placement.gpu_layers)
    except VeloError as error:
        return f"{state.backend} could not be asked: {error.message}"
    if said is None:
        return f"{name} has no planner of its own here that could be asked"
    computed = (asked.plan.host, *asked.plan.gpus)
    ours, theirs = (sum(part.total_bytes for part in parts) for parts in (computed, said.values()))
    difference = f", {ours / theirs - 1:+.1%} in all" if theirs else ""
    alone = "; it shares the layers among the GPUs itself" if asked.placement.split else ""
    return (
        f"of '{where(fit, asked.placement)}' {name}'s own planner says: {_sizes(said.values())} "
        f"({', '.join(said)}); computed are {_sizes(computed)}{difference}{alone}"
    )


def _own_plan(
    state: State, reference: str, use: Use, gpu_layers: int
) -> tuple[str, Mapping[str, Part] | None]:
    """The engine's name, and what its planner says.

    Raises:
        VeloError: there is no such engine here, or it does not run.
    """
    from velollm_core.cli.choose import choose
    from velollm_core.config import Config, Role, Value

    state.model = reference
    chosen = choose(state)
    wanted: dict[Role, Value] = {
        Role.SLOTS: use.slots,
        Role.KV_TYPE_K: use.type_k,
        Role.KV_TYPE_V: use.type_v,
        Role.PLACEMENT: gpu_layers,
    }
    knobs = chosen.backend.knobs(chosen.installation, chosen.model)
    values = {knob.name: wanted[knob.role] for knob in knobs if knob.role in wanted}
    for knob in knobs:
        if knob.role is Role.CONTEXT:
            values[knob.name] = use.context_tokens // (use.slots if knob.per_slot else 1)
    said = chosen.backend.own_plan(chosen.installation, chosen.model, Config(values))
    return chosen.backend.name, said


def _sizes(parts: Iterable[Part]) -> str:
    parts = tuple(parts)
    sums = {
        "weights": sum(part.weights_bytes for part in parts),
        "cache": sum(part.kv_bytes + part.recurrent_bytes for part in parts),
        "compute buffers": sum(part.compute_bytes for part in parts),
    }
    return ", ".join(f"{label} {size / (1 << 20):.0f} MiB" for label, size in sums.items())
