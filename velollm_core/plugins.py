"""Finds plugins, keeps a broken one from taking the command down, and calls their hooks.

pluggy loads entry points all-or-nothing, and one raising implementation aborts a collecting call
for every plugin. Here each entry point is loaded, and each implementation called, under its own
guard. This is the only file that touches pluggy's hooks: one typed method a hook.
"""

from __future__ import annotations

import reprlib
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy
from attrs import frozen

from velollm_core import hookspecs
from velollm_core.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from pluggy._hooks import HookImpl

    from velollm_core.backends.advice import AdviceContext
    from velollm_core.backends.contract import Backend
    from velollm_core.config import Kept, Suggestion
    from velollm_core.doctor.spec import Check, Context
    from velollm_core.experiment.spec import BenchmarkResult, Trial, Workload
    from velollm_core.hardware.probe import Probe
    from velollm_core.hardware.spec import GpuInfo
    from velollm_core.models.references import ModelSource

GROUP = "velollm"
CORE_DISTRIBUTION = "velollm"


T = TypeVar("T")


@frozen(kw_only=True)
class BrokenPlugin:
    """A plugin, or a part of it, that does not work, and why."""

    name: str
    distribution: str
    version: str
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.name} ({self.distribution} {self.version}) {self.reason}"


@frozen(kw_only=True)
class PluginInfo:
    """A plugin that was found. ``hooks`` names what it implements; ``broken`` says why it, or a
    part of it, does not work.
    """

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


class Plugins:
    """The plugins of this process. Made by :func:`load`; tests add their own with :meth:`add`.

    Args:
        trace: is told of every call of a hook, with its time; see ``VELOLLM_TRACE_PLUGINS``.
    """

    def __init__(self, trace: Callable[[str], None] | None = None) -> None:
        self._manager = pluggy.PluginManager("velollm")
        self._manager.add_hookspecs(hookspecs)
        self._trace = trace
        self._origins: dict[str, tuple[str, str]] = {}
        self._broken: list[BrokenPlugin] = []

    @property
    def broken(self) -> tuple[BrokenPlugin, ...]:
        """What has failed until now, in the order it was noticed."""
        return tuple(self._broken)

    def add(
        self, load: Callable[[], object], name: str, distribution: str = "", version: str = ""
    ) -> None:
        """Load and register one plugin; a failure is noted in :attr:`broken`, never raised."""
        if name in self._origins:
            taken = " ".join(self._origins[name])
            reason = f"could not be loaded: {taken} has a plugin of that name"
            self._note(name, reason, (distribution, version))
            return
        self._origins[name] = (distribution, version)
        try:
            plugin = load()
            wanted = getattr(plugin, "VELOLLM_HOOKS", hookspecs.VELOLLM_HOOKS)
            if wanted != hookspecs.VELOLLM_HOOKS:
                raise Unavailable(
                    f"it was built for VELOLLM_HOOKS {wanted}, "
                    f"this VeloLLM has {hookspecs.VELOLLM_HOOKS}"
                )
            self._manager.register(plugin, name=name)
            self._manager.check_pending()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the others go on
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            self._note(name, f"could not be loaded: {_reason(error)}")

    def listing(self) -> tuple[PluginInfo, ...]:
        """Every plugin that was found, working or not, by name."""
        rows = []
        for name, (distribution, version) in sorted(self._origins.items()):
            plugin = self._manager.get_plugin(name)
            callers = [] if plugin is None else self._manager.get_hookcallers(plugin) or []
            rows.append(
                PluginInfo(
                    name=name,
                    distribution=distribution,
                    version=version,
                    hooks=tuple(sorted(caller.name for caller in callers)),
                    broken=tuple(entry.reason for entry in self._broken if entry.name == name),
                )
            )
        return tuple(rows)

    def detect_gpus(self, probe: Probe) -> tuple[GpuInfo, ...]:
        """Every processor that any plugin sees; one that is seen twice stands in it twice."""
        found: list[GpuInfo] = []
        self._each("velollm_detect_gpus", lambda result: found.extend(result or ()), probe=probe)
        return tuple(found)

    def backends(self) -> Mapping[str, Backend]:
        """Backends by name."""
        return self._registered("velollm_register_backends", "backend")

    def workloads(self) -> Mapping[str, Workload]:
        """Workloads by name."""
        return self._registered("velollm_register_workloads", "workload")

    def model_sources(self) -> tuple[ModelSource, ...]:
        """Resolvers for ``scheme:rest`` references."""
        found: dict[str, ModelSource] = self._registered(
            "velollm_register_model_sources", "model source", "scheme"
        )
        return tuple(found.values())

    def suggest(self, context: AdviceContext) -> tuple[Suggestion | Kept, ...]:
        """What the rules of every plugin suggest, in the order of plugin names."""
        found: list[Suggestion | Kept] = []
        self._each("velollm_suggest", lambda result: found.extend(_advice(result)), context=context)
        return tuple(found)

    def diagnose(self, context: Context) -> Mapping[str, tuple[Check, ...]]:
        """The checks of each plugin, by its name."""
        found: dict[str, tuple[Check, ...]] = {}
        for implementation in self._implementations("velollm_diagnose"):

            def take(checks: Iterable[Check], name: str = implementation.plugin_name) -> None:
                found[name] = tuple(checks or ())

            self._call("velollm_diagnose", implementation, take, {"context": context})
        return found

    def trial_finished(self, trial: Trial) -> None:
        """Tell the observers."""
        self._each("velollm_trial_finished", _ignore, trial=trial)

    def benchmark_finished(self, result: BenchmarkResult) -> None:
        """Tell the observers."""
        self._each("velollm_benchmark_finished", _ignore, result=result)

    def backend(self, name: str) -> Backend:
        """The backend called ``name``.

        Raises:
            UsageError: there is none; the message lists those there are.
            Unavailable: the plugin of that name is broken; the message says why.
        """
        backends = self.backends()
        if name in backends:
            return backends[name]
        for entry in self._broken:
            if entry.name == name:
                raise Unavailable(
                    f"backend {name} cannot be used: {entry}.",
                    f"Reinstall or update it: pip install --upgrade {entry.distribution or name}",
                )
        raise UsageError(
            f"there is no backend {name!r}; installed: {', '.join(sorted(backends)) or 'none'}.",
            f"Install one, for example: pip install velollm-{name}",
        )

    def _registered(self, hook: str, what: str, key: str = "name") -> dict[str, T]:
        """What was registered, by its ``key``, which has to be there and to be its own."""
        found: dict[str, T] = {}
        owners: dict[str, str] = {}

        def register_for(owner: str) -> Callable[[T], None]:
            def register(thing: T) -> None:
                name = getattr(thing, key, None)
                if not isinstance(name, str) or not name:
                    raise UsageError(f"registers a {what} without a {key}")
                if name in found:
                    raise UsageError(
                        f"registers {what} {name!r}, which {owners[name]} has registered already"
                    )
                found[name] = thing
                owners[name] = owner

            return register

        for implementation in self._implementations(hook):
            owner = implementation.plugin_name
            self._call(hook, implementation, _ignore, {"register": register_for(owner)})
        return found

    def _each(self, hook: str, take: Callable[[Any], None], **arguments: object) -> None:
        for implementation in self._implementations(hook):
            self._call(hook, implementation, take, arguments)

    def _implementations(self, hook: str) -> Iterable[HookImpl]:
        """Implementations of ``hook``, in the order of plugin names: the same everywhere."""
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        return sorted(caller.get_hookimpls(), key=lambda entry: entry.plugin_name)

    def _call(
        self,
        hook: str,
        implementation: HookImpl,
        take: Callable[[Any], None],
        arguments: Mapping[str, object],
    ) -> None:
        started = time.perf_counter()
        outcome = "ok"
        try:
            # A generator raises only when it is consumed, so that happens in here as well.
            take(implementation.function(*(arguments[name] for name in implementation.argnames)))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the others go on
            outcome = f"failed: {_reason(error)}"
            self._note(implementation.plugin_name, f"failed in {hook}: {_reason(error)}")
        if self._trace is not None:
            elapsed_ms = (time.perf_counter() - started) * 1000
            self._trace(f"{hook} {implementation.plugin_name} {elapsed_ms:.1f} ms {outcome}")

    def _note(self, name: str, reason: str, origin: tuple[str, str] | None = None) -> None:
        distribution, version = origin or self._origins.get(name, ("", ""))
        entry = BrokenPlugin(name=name, distribution=distribution, version=version, reason=reason)
        if entry not in self._broken:
            self._broken.append(entry)


def load(environ: Mapping[str, str], trace: Callable[[str], None] | None = None) -> Plugins:
    """Load every installed plugin.

    Environment: ``VELOLLM_PLUGINS`` (comma-separated names: only these, beside the core's own),
    ``VELOLLM_DISABLE_PLUGINS`` (not these), ``VELOLLM_TRACE_PLUGINS`` (any value: tell ``trace`` of
    each call).
    """
    only = _names(environ.get("VELOLLM_PLUGINS", ""))
    without = _names(environ.get("VELOLLM_DISABLE_PLUGINS", ""))
    plugins = Plugins(trace if environ.get("VELOLLM_TRACE_PLUGINS") else None)
    for entry in _sorted_entry_points():
        distribution = entry.dist.name if entry.dist else ""
        wanted = not only or entry.name in only or distribution == CORE_DISTRIBUTION
        if wanted and entry.name not in without:
            version = entry.dist.version if entry.dist else ""
            plugins.add(entry.load, entry.name, distribution, version)
    return plugins


def _sorted_entry_points() -> list[EntryPoint]:
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.name)


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def _advice(result: Any) -> tuple[Suggestion | Kept, ...]:
    """What a rule gave back, all of which the planner can work with.

    Raises:
        UsageError: something of it is of another type than it has to be.
    """
    from velollm_core.config import Kept, Suggestion

    entries = tuple(result or ())
    for entry in entries:
        sound = (isinstance(entry, Suggestion) and _is_sound(entry)) or (
            isinstance(entry, Kept)
            and isinstance(entry.knobs, tuple)
            and isinstance(entry.reason, str)
        )
        if not sound:
            raise UsageError(f"suggests what is no sound Suggestion or Kept: {reprlib.repr(entry)}")
    return entries


def _is_sound(entry: Suggestion) -> bool:
    from velollm_core.config import Config

    return (
        isinstance(entry.assignments, Config)
        and bool(entry.assignments)
        and all(isinstance(value, (bool, int, float, str)) for value in entry.assignments.values())
        and all(isinstance(text, str) for text in (entry.reason, entry.effect, entry.source))
        and entry.confidence in {"high", "medium", "low"}
    )


def _ignore(_: Any) -> None:
    return None


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (
        text if isinstance(error, (UsageError, Unavailable)) else f"{type(error).__name__}: {text}"
    )
