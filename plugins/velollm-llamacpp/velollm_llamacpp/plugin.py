"""What VeloLLM loads: registers the backend. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable

from velollm_core import hookimpl
from velollm_core.backends.contract import Backend
from velollm_llamacpp.backend import LlamaCpp

VELOLLM_HOOKS = 1


@hookimpl
def velollm_register_backends(register: Callable[[Backend], None]) -> None:
    """Offer llama.cpp as backend ``llamacpp``."""
    register(LlamaCpp())
