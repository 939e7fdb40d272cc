"""The workloads that the core itself brings, registered as a plugin's would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from velollm_core.experiment.spec import Workload


@hookimpl
def velollm_register_workloads(register: Callable[[Workload], None]) -> None:
    """Offer the built-in workloads."""
    from velollm_core.experiment.workloads.builtin import builtin_workloads

    for workload in builtin_workloads():
        register(workload)
