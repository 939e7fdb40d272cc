"""``llama-fit-params``, llama.cpp's own planner, which most builds put beside ``llama-server``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from velollm_core.config import Value
from velollm_core.errors import Unavailable
from velollm_core.hardware.probe import execute
from velollm_core.models.memory import Part
from velollm_llamacpp.arguments import arguments
from velollm_llamacpp.engines import EMBEDDED, Engine, shielded

_NAME = "llama-fit-params"
_TIMEOUT_S = 60.0
_KNOBS = (
    *("context", "slots", "batch", "ubatch", "flash_attention", "gpu_layers"),
    *("cache_type_k", "cache_type_v"),
)
_ROW = re.compile(r"^(\S+) +(\d+) +(\d+) +(\d+) *$", re.MULTILINE)
_MIB = 1 << 20


def planned(
    server: Path, engine: Engine, model: Path, complete: Mapping[str, Value]
) -> Mapping[str, Part] | None:
    """What it says that ``model`` will take, by the engine's device name, in whole MiB.

    It lays everything out and loads nothing. Recurrent states are in ``kv_bytes``. It makes room
    for the logits of every token in a physical batch, of which a server needs a few. Only what it
    is told here counts, not the user's own settings for llama.cpp.

    Args:
        server: the ``llama-server`` beside which it is looked for.
        engine: the build.
        model: its first file.
        complete: a value for every knob.

    Returns:
        ``None`` where there is no such program, or it says nothing of the kind.

    Raises:
        Unavailable: it does not run, or fails.
    """
    program = server.with_name(_NAME + server.suffix)
    if not program.exists():
        return None
    told = {name: complete[name] for name in _KNOBS if name in complete}
    argv = [str(program), "-m", str(model), "--fit-print", "on", "--offline"]
    argv += arguments(engine.flags, told)
    try:
        done = execute(argv, _TIMEOUT_S, shielded(os.environ, EMBEDDED.parent))
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"{program} cannot be used: {error}.") from error
    if done.code:
        words = done.err.strip().splitlines()
        raise Unavailable(f"{program} failed: {words[-1] if words else f'exit code {done.code}'}.")
    rows = _ROW.findall(done.out)
    if not rows:
        return None
    return {
        name: Part(
            weights_bytes=int(model_mib) * _MIB,
            kv_bytes=int(context_mib) * _MIB,
            compute_bytes=int(compute_mib) * _MIB,
        )
        for name, model_mib, context_mib, compute_mib in rows
    }
