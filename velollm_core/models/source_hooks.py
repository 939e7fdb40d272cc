"""The model sources that the core itself brings, registered as a plugin's would be."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from velollm_core import hookimpl

if TYPE_CHECKING:
    from velollm_core.models.references import ModelSource


@hookimpl
def velollm_register_model_sources(register: Callable[[ModelSource], None]) -> None:
    """Offer ``demo`` and ``hf:``."""
    from velollm_core.models.demo import DemoSource
    from velollm_core.models.hub import HubSource

    register(DemoSource())
    register(HubSource())
