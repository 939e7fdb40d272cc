"""What is wrong with a configuration, beyond single values."""

from __future__ import annotations

from collections.abc import Mapping

from velollm_core.backends.contract import Installation
from velollm_core.config import Config, Knob, Problem, Value
from velollm_llamacpp.knobs import BY_NAME

_UNQUANTIZED = frozenset({"f32", "f16", "bf16"})


def missing(
    knobs: tuple[Knob, ...], config: Mapping[str, Value], installation: Installation
) -> tuple[Problem, ...]:
    """Knobs of llama.cpp in ``config`` that the build at hand does not have."""
    present = {knob.name for knob in knobs}
    shown = " ".join(filter(None, (installation.location, installation.version)))
    return tuple(
        Problem(name, f"{shown} has no {name}: {_why(name)}")
        for name in config
        if name in BY_NAME and name not in present
    )


def _why(name: str) -> str:
    if name == "gpu_layers":
        return "it has no GPU to use"
    return f"its --help knows no {' or '.join(BY_NAME[name].names)}"


def contradictions(config: Config, complete: Mapping[str, Value]) -> tuple[Problem, ...]:
    """Assignments with which llama.cpp does not start.

    Args:
        config: what is asked for.
        complete: the same, with everything that it leaves open as far as it is known.
    """
    found = []
    batch, slots = complete.get("batch"), complete.get("slots")
    if isinstance(batch, int) and isinstance(slots, int) and batch < slots:
        found.append(
            Problem("batch", f"batch cannot be below the number of slots, which is {slots}")
        )
    if (
        config.get("flash_attention") == "off"
        and config.get("cache_type_v", "f16") not in _UNQUANTIZED
    ):
        found.append(
            Problem("cache_type_v", "a quantized cache_type_v needs flash_attention on or auto")
        )
    least, most = config.get("ngram_mod_n_min"), config.get("ngram_mod_n_max")
    if isinstance(least, int) and isinstance(most, int) and least > most:
        found.append(Problem("ngram_mod_n_min", "ngram_mod_n_min cannot be above ngram_mod_n_max"))
    return tuple(found)
