"""What VeloLLM loads: backend, ``ollama:`` models, checks for doctor. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from velollm_core.backends.contract import Backend
    from velollm_core.doctor.spec import Check
    from velollm_core.models.references import ModelSource

VELOLLM_HOOKS = 1


@hookimpl
def velollm_register_backends(register: Callable[[Backend], None]) -> None:
    """Offer Ollama as backend ``ollama``."""
    # Imported here: every command loads this module, and only those that measure need the rest.
    from velollm_ollama.backend import Ollama

    register(Ollama())


@hookimpl
def velollm_register_model_sources(register: Callable[[ModelSource], None]) -> None:
    """Offer ``ollama:NAME``, the file of a model that Ollama has pulled."""
    from velollm_ollama.source import OllamaSource

    register(OllamaSource())


@hookimpl
def velollm_diagnose() -> tuple[Check, ...]:
    """Offer checks of variables that Ollama does not read, or misreads."""
    from velollm_ollama.diagnose import CHECKS

    return CHECKS
