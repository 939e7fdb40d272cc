"""The command ``velollm``: one module a command, and the only place that prints."""

from __future__ import annotations

from velollm_core.cli.app import main

__all__ = ["main"]
