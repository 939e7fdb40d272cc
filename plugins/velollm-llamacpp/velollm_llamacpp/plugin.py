"""What VeloLLM loads: the backend, and checks for doctor. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from velollm_core.backends.contract import Backend
    from velollm_core.doctor.spec import Check

VELOLLM_HOOKS = 1


@hookimpl
def velollm_register_backends(register: Callable[[Backend], None]) -> None:
    """Offer llama.cpp as backend ``llamacpp``."""
    # Imported here: every command loads this module, and only those that measure need the rest.
    from velollm_llamacpp.backend import LlamaCpp

    register(LlamaCpp())


@hookimpl
def velollm_diagnose() -> tuple[Check, ...]:
    """Offer checks of the build, its settings, and commands in scripts."""
    from velollm_llamacpp.diagnose import CHECKS

    return CHECKS
