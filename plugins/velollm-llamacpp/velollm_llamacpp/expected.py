"""What a started server will report for a configuration: llama.cpp rounds and caps.

As ``llama_context`` in ``src/llama-context.cpp`` does it, and as measured with build 11434 and with
xllamacpp 2026.10.11549; the tests hold both engines to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from velollm_core.config import Config, Knob, Value, inactive
from velollm_core.models.spec import ModelSpec
from velollm_llamacpp.knobs import BY_NAME

_CELLS = 256  # a KV cache holds a multiple of this many positions


def reported(
    knobs: tuple[Knob, ...],
    spec: ModelSpec | None,
    config: Mapping[str, Value],
    complete: Mapping[str, Value],
) -> Config:
    """The part of ``config`` that can be read back, with the values that will be.

    What is left to the engine's choice, has no meaning under ``complete``, or cannot be read back
    is left out.

    Args:
        knobs: those of the engine.
        spec: the model, where its header is known.
        config: what is asked for.
        complete: the same, with everything that it leaves open.
    """
    idle = inactive(knobs, complete)
    readable = {knob.name for knob in knobs if knob.unreadable is None}
    values = dict(_rounded(spec, complete))
    return Config(
        {
            name: values[name]
            for name in config
            if name in readable and name in values and name not in idle
        }
    )


def positions(spec: ModelSpec | None, complete: Mapping[str, Value]) -> int:
    """How many positions the KV cache is asked for, all slots together; 0 where that is not known.

    Left to the engine, it is the model's training length, times the slots where each has its own
    part.
    """
    asked = int(complete["context"])
    if asked > 0 or spec is None:
        return asked
    return spec.context_length * _streams(complete)


def rounded(asked: int, complete: Mapping[str, Value]) -> int:
    """What llama.cpp makes of ``asked`` positions: every part is a multiple of 256."""
    streams = _streams(complete)
    return _up(_up(asked) // streams) * streams


def _rounded(spec: ModelSpec | None, complete: Mapping[str, Value]) -> Mapping[str, Value]:
    values = {name: value for name, value in complete.items() if value != BY_NAME[name].own_choice}
    asked = positions(spec, complete)
    if "context" in values:
        values["context"] = rounded(asked, complete)
    if asked > 0:
        values["batch"] = min(int(complete["batch"]), asked)
    values["ubatch"] = min(int(complete["ubatch"]), int(values["batch"]))
    if spec is not None and "gpu_layers" in values:
        values["gpu_layers"] = min(int(values["gpu_layers"]), spec.layers + 1)
    return values


def _streams(complete: Mapping[str, Value]) -> int:
    """In how many parts the cache is; builds without the choice have one."""
    return 1 if complete.get("kv_unified", True) else int(complete["slots"])


def _up(positions: int) -> int:
    return -(-positions // _CELLS) * _CELLS
