"""The core's own checks, offered as a plugin's would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core import hookimpl

if TYPE_CHECKING:
    from velollm_core.doctor.spec import Check


@hookimpl
def velollm_diagnose() -> tuple[Check, ...]:
    """Power, load, threads, settings, and VeloLLM's own installation."""
    # Imported here: every command loads this module, and only doctor needs the rest.
    from velollm_core.doctor import installation, load, power, settings, threads

    return (
        *power.CHECKS,
        *load.CHECKS,
        *threads.CHECKS,
        *settings.CHECKS,
        *installation.CHECKS,
    )
