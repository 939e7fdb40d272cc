"""Every hook that a plugin may implement. Reference: ``docs/reference/hooks.md``, generated from
here.

A plugin is a module (or object) named by an entry point of group ``velollm``. It implements any of
these with ``velollm_core.hookimpl`` and may set ``VELOLLM_HOOKS`` to the number it was written for.
Hooks are for discovery, never on a hot path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from velollm_core.backends.advice import AdviceContext
    from velollm_core.backends.contract import Backend
    from velollm_core.config import Kept, Suggestion
    from velollm_core.doctor.spec import Check, Context
    from velollm_core.experiment.spec import BenchmarkResult, Trial, Workload
    from velollm_core.hardware.probe import Probe
    from velollm_core.hardware.spec import GpuInfo
    from velollm_core.models.references import ModelSource

VELOLLM_HOOKS = 1
"""The number of this set of hooks. It rises when a hook changes in a way that breaks plugins."""

hookspec = pluggy.HookspecMarker("velollm")


@hookspec
def velollm_detect_gpus(probe: Probe) -> Iterable[GpuInfo]:
    """Report the graphics processors that you can see.

    Every implementation is asked; what several report under one ``uuid`` is merged, the first that
    knows a field winning. Return nothing where there is no such hardware. Must end within two
    seconds: run programs through ``probe.run``, which bounds them and names those that hang.

    Args:
        probe: runs programs in bounded time and reads files below a root, so that tests can plant
        both.
    """
    raise NotImplementedError


@hookspec
def velollm_register_backends(register: Callable[[Backend], None]) -> None:
    """Offer inference engines.

    Call ``register`` once for each :class:`~velollm_core.backends.contract.Backend`. Its ``name``
    is the value of ``--backend``; a name that is taken is an error that names both plugins.

    Args:
        register: takes one backend object.
    """


@hookspec
def velollm_suggest(context: AdviceContext) -> Iterable[Suggestion | Kept]:
    """Suggest configurations, for any backend or for your own.

    The core's rules are implementations of this hook; they go by the role of a knob, so that they
    serve engines that they have never seen. What a backend suggests itself
    (:meth:`~velollm_core.backends.contract.Backend.suggest`) goes before. Look at ``context``
    alone: no file, no process.

    Args:
        context: the machine, the model, the knobs, and what the user wants.
    """
    raise NotImplementedError


@hookspec
def velollm_register_workloads(register: Callable[[Workload], None]) -> None:
    """Offer workloads: families of prompts that a benchmark sends.

    Args:
        register: takes one :class:`~velollm_core.experiment.spec.Workload`; its ``name`` is the
            value of ``--workload``.
    """


@hookspec
def velollm_register_model_sources(register: Callable[[ModelSource], None]) -> None:
    """Offer resolvers for model references of the form ``scheme:rest``.

    Args:
        register: takes one :class:`~velollm_core.models.references.ModelSource`.
    """


@hookspec
def velollm_trial_finished(trial: Trial) -> None:
    """Observe a trial that has ended and is in the journal. Called between trials, never inside
    one.

    Args:
        trial: the finished :class:`~velollm_core.experiment.spec.Trial`, failed ones included.
    """


@hookspec
def velollm_benchmark_finished(result: BenchmarkResult) -> None:
    """Observe a benchmark that has ended and is saved.

    Args:
        result: the :class:`~velollm_core.experiment.spec.BenchmarkResult` as it is written to disk.
    """


@hookspec
def velollm_diagnose(context: Context) -> Iterable[Check]:
    """Offer checks of what holds the machine or your part of the installation back.

    Each :class:`~velollm_core.doctor.spec.Check` has a ``code`` that begins with your plugin's
    name, and a function that yields its findings. All checks run, each under its own guard: one
    that raises costs its own findings alone. Look through ``context``, so that tests can plant what
    you look at; start no engine unless ``context.compare`` is there.

    Args:
        context: the machine, engines, folders and scripts, gathered before.
    """
    raise NotImplementedError
