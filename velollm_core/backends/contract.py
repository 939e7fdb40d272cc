"""What a backend is: :class:`Backend` finds and starts engines, :class:`Session` is a running one.

An adapter subclasses both. Only what its engine really has needs overriding: every optional method
has a default that says "no".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from attrs import field, frozen

from velollm_core.backends.messages import (
    Event,
    Finish,
    Message,
    Request,
    Sampling,
    ServerTimings,
)
from velollm_core.config import (
    Config,
    Kept,
    Knob,
    Problem,
    Settings,
    Suggestion,
    Value,
    problems,
)
from velollm_core.errors import NeedsRestart, Unavailable, UsageError

if TYPE_CHECKING:
    from velollm_core.backends.advice import AdviceContext
    from velollm_core.backends.changes import Change
    from velollm_core.backends.processes import Place
    from velollm_core.models.memory import Part
    from velollm_core.models.spec import Model

__all__ = [
    "Backend",
    "Capability",
    "Event",
    "Finish",
    "Footprint",
    "Installation",
    "MemoryUse",
    "Message",
    "Mismatch",
    "Option",
    "Request",
    "Sampling",
    "ServerTimings",
    "Session",
    "mismatches",
]


class Capability(StrEnum):
    """What a session can tell beyond text; reports leave out what it cannot."""

    SERVER_TIMINGS = "server_timings"
    TOKEN_COUNTS = "token_counts"  # noqa: S105 - not a password
    TOKEN_IDS = "token_ids"  # noqa: S105 - not a password
    LOGPROBS = "logprobs"
    TOKENIZE = "tokenize"
    COUNTERS = "counters"
    MEMORY = "memory"


@frozen(kw_only=True)
class Option:
    """A key that ``-X key=value`` accepts. A ``secret`` is never stored nor shown."""

    name: str
    summary: str
    secret: bool = False


@frozen(kw_only=True)
class Installation:
    """An engine that was found.

    ``location`` is a path or a URL. ``options`` are the ``-X`` values it was found with, which a
    backend may need again to start it or to attach to it.
    """

    backend: str
    kind: Literal["binary", "wheel", "server"]
    location: str
    version: str | None = None
    build: str | None = None
    cpu_features: tuple[str, ...] = ()
    options: Mapping[str, str] = field(factory=dict, repr=False)


@frozen(kw_only=True)
class Footprint:
    """Memory that a configuration is expected to take: host bytes, and bytes by GPU uuid."""

    host_bytes: int
    gpu_bytes: Mapping[str, int] = field(factory=dict)


@frozen(kw_only=True)
class MemoryUse:
    """Memory that an engine takes now: resident host bytes, and bytes by GPU uuid where NVML
    tells.
    """

    rss_bytes: int
    gpu_bytes: Mapping[str, int] = field(factory=dict)


class Session(ABC):
    """A running endpoint, and a context manager that ends it. ``generate`` is safe from many
    threads.

    ``pids`` are the server's processes where they are known. ``load_ms`` is the time from start to
    readiness, ``None`` for a server that was already running. ``log_tail`` quotes the server's last
    words.
    """

    url: str
    pids: tuple[int, ...] = ()
    load_ms: float | None = None
    capabilities: frozenset[Capability] = frozenset()

    @abstractmethod
    def generate(self, request: Request) -> Iterator[Event | Finish]:
        """Stream one answer: events in order of arrival, then exactly one :class:`Finish`.

        Raises:
            RequestError: the server refused, broke off, fell silent or died.
        """

    @abstractmethod
    def close(self) -> None:
        """End what was started; leave alone what was only attached to. May be called twice."""

    def effective(self) -> Config:
        """The configuration read back from the server. What it does not tell is absent, never
        assumed.
        """
        return Config()

    def reconfigure(self, config: Config) -> None:
        """Change per-request and reload knobs.

        Raises:
            NeedsRestart: a knob in ``config`` takes effect only at the server's start.
        """
        if config:
            raise NeedsRestart(
                f"{', '.join(config)} cannot be changed on a running server.",
                "Use a backend that starts its own server, or leave the knob out.",
            )

    def tokenize(self, text: str) -> list[int]:
        """Token ids of ``text`` without special tokens; needs :attr:`Capability.TOKENIZE`."""
        raise Unavailable(
            f"the server at {self.url} does not tokenize ({len(text)} characters asked)."
        )

    def counters(self) -> Mapping[str, float] | None:
        """The server's counters by name, or ``None`` where it has none."""
        return None

    def memory(self) -> MemoryUse | None:
        """Memory in use now, or ``None`` where the processes are not known."""
        return None

    def log_tail(self) -> str:
        """The server's last lines, for error messages; empty where they cannot be read."""
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Backend(ABC):
    """An inference engine that VeloLLM can drive: one object per plugin, without state of its own.

    ``automatic`` backends may be chosen where the user names none; among those that find something,
    a running server goes before a binary, and a binary before a wheel. Where it is ``"running"``,
    a server that runs already is chosen so, and what would have to be started only where there is
    nothing else. ``absence`` is what a user who names the backend is told to do where :meth:`probe`
    finds nothing, ``startable`` how to have VeloLLM start the server although one runs already.
    """

    name: str
    options: tuple[Option, ...] = ()
    automatic: bool | Literal["running"] = False
    absence: str = ""
    startable: str = "leave out -X url=..."

    @abstractmethod
    def probe(
        self, options: Mapping[str, str], environ: Mapping[str, str]
    ) -> tuple[Installation, ...]:
        """Engines that can be used, best first. No side effects, bounded time.

        Raises:
            Unavailable: what ``options`` name explicitly is not there.
        """

    def models(self, installation: Installation) -> tuple[Model, ...]:
        """Models that are loaded, or there to be loaded without a path."""
        del installation
        return ()

    def server_pids(self, installation: Installation) -> tuple[int, ...]:
        """The processes of a running server, without their children, where they are of this machine
        and may be seen.
        """
        from velollm_core.backends.local import listeners

        if installation.kind != "server":
            return ()
        return tuple(process.pid for process in listeners(installation.location))

    def in_memory(self, installation: Installation) -> Mapping[str, str]:
        """Models that a running server holds in memory and gives back, each with the command that
        makes it do so.
        """
        del installation
        return {}

    def knobs(self, installation: Installation, model: Model) -> tuple[Knob, ...]:
        """What can be set."""
        del installation, model
        return ()

    def defaults(self, installation: Installation, model: Model) -> Settings:
        """What the engine does when nothing is set: one value for every knob."""
        del installation, model
        return Settings()

    def current(
        self, installation: Installation, model: Model, environ: Mapping[str, str]
    ) -> Settings:
        """The user's own settings; of a running server, from its arguments and environment."""
        del installation, model, environ
        return Settings()

    def check(
        self, installation: Installation, model: Model, config: Config
    ) -> tuple[Problem, ...]:
        """What is wrong with ``config``: unknown knobs, values outside their domain,
        contradictions.
        """
        return problems(self.knobs(installation, model), config)

    def expected(self, installation: Installation, model: Model, config: Config) -> Config:
        """What ``effective()`` should say under ``config``: engines round and cap."""
        unreadable = {knob.name for knob in self.knobs(installation, model) if knob.unreadable}
        return Config({name: value for name, value in config.items() if name not in unreadable})

    def footprint(
        self, installation: Installation, model: Model, config: Config
    ) -> Footprint | None:
        """Memory that ``config`` will take, or ``None`` where it cannot be told."""
        del installation, model, config
        return None

    def own_plan(
        self, installation: Installation, model: Model, config: Config
    ) -> Mapping[str, Part] | None:
        """What the engine's own planner says that ``config`` takes, by its names of devices.

        A program of the engine's may run for some seconds, but loads no model. ``None`` where there
        is no such planner.

        Raises:
            Unavailable: there is one, and it does not run.
        """
        del installation, model, config
        return None

    def suggest(self, context: AdviceContext) -> Iterable[Suggestion | Kept]:
        """What this engine's own rules propose, beside the core's rules, which go by role."""
        del context
        return ()

    def forms(self, installation: Installation) -> tuple[str, ...]:
        """The forms that :meth:`render` knows, the most useful first: ``sh``, ``ini`` ..."""
        del installation
        return ()

    def render(
        self, installation: Installation, model: Model, settings: Settings, form: str
    ) -> str:
        """``settings`` in a form that the engine really reads, every value quoted for that form.

        Raises:
            UsageError: there is no such form, or a value cannot be said in it.
        """
        del model, settings
        known = ", ".join(self.forms(installation)) or "none"
        raise UsageError(f"backend {self.name} has no form {form!r}.", f"It has: {known}.")

    def omitted(
        self, installation: Installation, model: Model, config: Config, form: str
    ) -> tuple[str, ...]:
        """The knobs of ``config`` that :meth:`render` cannot say in that form and leaves out."""
        del installation, model, config, form
        return ()

    def plan_apply(
        self, installation: Installation, model: Model, settings: Settings, target: str | None
    ) -> tuple[Change, ...]:
        """The files that would make ``settings`` the user's own. Data only: the core executes it,
        and can undo it.

        Args:
            installation: the engine whose configuration is meant.
            model: the model that is tuned.
            settings: the knobs to write, and no others.
            target: where to, where there is a choice; ``None`` for the usual place.

        Raises:
            UsageError: there is no such target, or a setting cannot be kept there.
        """
        del model, settings, target
        raise UsageError(
            f"backend {self.name} has no place to write settings of {installation.location} to.",
            "Write them to a file and use that: -o velollm.sh",
        )

    def launch(
        self, installation: Installation, model: Model, settings: Settings, place: Place
    ) -> Session:
        """Start a server of one's own and wait until it is ready.

        Raises:
            LaunchError: it did not start, or was not ready before ``place.deadline``.
        """
        del model, settings, place
        raise Unavailable(
            f"backend {self.name} cannot start {installation.location} itself.",
            "Start the server and name its URL: -X url=http://...",
        )

    def attach(self, installation: Installation, model: Model, config: Config) -> Session:
        """Use a server that is running already.

        Raises:
            Unavailable: nothing usable answers there.
        """
        del model, config
        raise Unavailable(f"backend {self.name} cannot attach to {installation.location}.")


@frozen
class Mismatch:
    """A knob whose value, read back, is not what was to be expected. ``found`` is ``None`` where it
    was missing.
    """

    knob: str
    expected: Value
    found: Value | None


def mismatches(expected: Config, effective: Config) -> tuple[Mismatch, ...]:
    """Every expected value that was not read back: the engine ignored the setting, or did not
    tell.
    """
    return tuple(
        Mismatch(name, value, effective.get(name))
        for name, value in expected.items()
        if effective.get(name) != value
    )
