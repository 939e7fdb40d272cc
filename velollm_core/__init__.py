"""VeloLLM's core: hooks and plain data. Everything else is public by submodule."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pluggy import HookimplMarker

    hookimpl: HookimplMarker

__all__ = ["__version__", "hookimpl"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Load pluggy only for those who implement a hook, so that ``--help`` does not pay for it."""
    if name == "hookimpl":
        from pluggy import HookimplMarker

        return HookimplMarker("velollm")
    raise AttributeError(f"module 'velollm_core' has no attribute {name!r}")
