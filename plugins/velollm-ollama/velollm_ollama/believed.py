"""Variables that many set and Ollama does not read, and where the setting really lives."""

from __future__ import annotations

from collections.abc import Mapping

from velollm_core.config import LeftOut
from velollm_ollama.knobs import BY_VARIABLE
from velollm_ollama.values import cleaned

BELIEVED: Mapping[str, str] = {
    "OLLAMA_NUM_CTX": "num_ctx",
    "OLLAMA_NUM_BATCH": "num_batch",
    "OLLAMA_NUM_GPU": "num_gpu",
    "OLLAMA_NUM_THREAD": "num_thread",
}
"""The option that each is taken for; none is in ``envconfig/config.go``."""

_MOST_SHOWN = 20


def instead_of(name: str, text: str) -> str:
    """Where what the variable ``name`` was meant to set is really set, for ``text``."""
    option = BELIEVED[name]
    value = cleaned(text)
    shown = value if value.isalnum() and len(value) <= _MOST_SHOWN else "VALUE"
    served = next((v for v, entry in BY_VARIABLE.items() if entry.knob.name == option), None)
    told = f"the option {option} of a request, or PARAMETER {option} {shown} in a Modelfile"
    return f"{told}, or {served} of the server" if served else told


def left_out(name: str, text: str, origin: str) -> LeftOut:
    """What is said of such a variable."""
    reason = f"Ollama does not read it; the setting is {instead_of(name, text)}"
    return LeftOut(name, origin, reason)
