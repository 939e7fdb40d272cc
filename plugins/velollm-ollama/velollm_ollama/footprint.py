"""How much memory a private Ollama will take with one model."""

from __future__ import annotations

from collections.abc import Mapping

from velollm_core.backends.contract import Footprint
from velollm_core.config import Value
from velollm_core.models.memory import Use, plan_memory
from velollm_core.models.spec import Model
from velollm_ollama.knobs import parallel_in_force

_SERVER_BYTES = 64 << 20
"""The server beside its engine."""
_BATCH = 512


def on_the_host(model: Model, complete: Mapping[str, Value]) -> Footprint | None:
    """What it takes with everything in main memory, bytes.

    What the user's own server holds is in use already, the same model included: it is no part of
    what is available, and so not counted twice here.

    Args:
        model: the model.
        complete: a value for every knob.

    Returns:
        it, or ``None`` where the model's header is not known.
    """
    spec = model.spec
    if spec is None:
        return None
    slots = parallel_in_force(model, int(complete["num_parallel"]))
    batch = int(complete["num_batch"]) or _BATCH
    kind = str(complete["kv_cache_type"])
    use = Use(
        context_tokens=min(int(complete["num_ctx"]), spec.context_length) * slots,
        slots=slots,
        unified_kv=False,
        type_k=kind,
        type_v=kind,
        batch_tokens=batch,
        ubatch_tokens=batch,
        flash_attention=complete["flash_attention"] != "off",
    )
    plan = plan_memory(spec, use)
    return Footprint(host_bytes=plan.host.total_bytes + plan.process_bytes + _SERVER_BYTES)
