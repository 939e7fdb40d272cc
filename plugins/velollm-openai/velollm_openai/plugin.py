"""What VeloLLM loads: registers the backend. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from velollm_core.backends.contract import Backend

VELOLLM_HOOKS = 1


@hookimpl
def velollm_register_backends(register: Callable[[Backend], None]) -> None:
    """Offer any OpenAI-compatible server as backend ``openai``."""
    # Imported here: every command loads this module, and only those that measure need the rest.
    from velollm_openai.backend import OpenAI

    register(OpenAI())
