"""A backend without an engine: its answers, their timing and its faults are planted.

Nothing sleeps: the arrival times of events are computed, so a thousand trials take a second. With a
:class:`~velollm_core.testing.clock.VirtualClock` in the script, loading and answering take that
clock's time, and a machine can drift over it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping

from attrs import define, field, frozen

from velollm_core.backends.contract import (
    Backend,
    Capability,
    Event,
    Finish,
    Footprint,
    Installation,
    MemoryUse,
    Request,
    ServerTimings,
    Session,
)
from velollm_core.backends.processes import Place
from velollm_core.config import ENGINE_DEFAULT, Choices, Config, Knob, Range, Role, Settings
from velollm_core.errors import FailureKind, LaunchError, NeedsRestart, RequestError
from velollm_core.experiment.monitor import Observed, Watch
from velollm_core.models.spec import Model
from velollm_core.testing.clock import VirtualClock
from velollm_core.testing.noise import Drift, factor, no_drift

KNOBS = (
    Knob(
        name="threads",
        role=Role.THREADS_DECODE,
        domain=Range(1, 64),
        summary="threads of the fake",
        source="the fake",
    ),
    Knob(
        name="cache",
        role=Role.PROMPT_CACHE,
        domain=Choices((True, False)),
        summary="whether the fake keeps prompts",
        source="the fake",
        change="per_request",
    ),
)
DEFAULTS = Config({"threads": 4, "cache": True})


@frozen(kw_only=True)
class Script:
    """How a fake behaves.

    ``token_ms`` gives the milliseconds a token from the configuration; noise multiplies it, once a
    launch and once a token: the standard deviation of the factor's logarithm, with heavy tails
    where ``tails`` (degrees of freedom of Student's t, above 2) are given. ``drift`` is a further
    factor on every duration, by the time that has passed on ``clock``. ``fail_request`` maps a
    request's number within a launch to the failure that it ends with, ``fail_launch`` a launch's
    number to one; ``crashes`` says of a configuration how its launch fails. ``ignores`` names knobs
    that the fake takes without effect. ``on_request`` is called before each answer.

    ``knobs`` are what can be set, ``defaults`` what each is where nothing is, ``current`` what the
    user has set. ``memory_bytes`` gives the memory of a configuration in place of
    ``footprint_bytes``. Where it is ``repeatable``, noise depends on the configuration and on the
    prompts alone, so that a launch comes out the same in another process.
    """

    token_ms: Callable[[Config], float] = lambda _: 8.0
    prompt_ms: float = 20.0
    knobs: tuple[Knob, ...] = KNOBS
    defaults: Config = DEFAULTS
    current: Config = Config()
    memory_bytes: Callable[[Config], int] | None = None
    crashes: Callable[[Config], FailureKind | None] = lambda _: None
    repeatable: bool = False
    launch_noise: float = 0.0
    token_noise: float = 0.0
    tails: float | None = None
    drift: Drift = no_drift
    clock: VirtualClock | None = None
    load_ms: float = 500.0
    seed: int = 0
    fail_request: Mapping[int, FailureKind] = field(factory=dict)
    fail_launch: Mapping[int, FailureKind] = field(factory=dict)
    ignores: frozenset[str] = frozenset()
    footprint_bytes: int = 1024
    on_request: Callable[[int], None] = lambda _: None

    def footprint(self, config: Config) -> int:
        """The memory that ``config`` takes, bytes."""
        return self.footprint_bytes if self.memory_bytes is None else self.memory_bytes(config)

    def passes(self, duration_ms: float) -> float:
        """How long ``duration_ms`` takes on the machine as it is now; the clock goes on by it."""
        now_ms = 0.0 if self.clock is None else self.clock.now_ms()
        taken_ms = duration_ms * self.drift(now_ms)
        if self.clock is not None:
            self.clock.advance(taken_ms)
        return taken_ms


@define
class FakeSession(Session):
    """A session of a :class:`FakeBackend`."""

    script: Script
    config: Config
    launch_number: int
    closed: bool = False
    url: str = "fake:"
    pids: tuple[int, ...] = ()
    load_ms: float | None = None
    capabilities: frozenset[Capability] = frozenset(
        {Capability.SERVER_TIMINGS, Capability.TOKEN_COUNTS, Capability.MEMORY}
    )
    _requests: int = 0
    _lock: threading.Lock = field(factory=threading.Lock)
    prompts: list[str] = field(factory=list)

    def effective(self) -> Config:
        """What the fake really uses."""
        return Config(
            {k: v for k, v in self.config.items() if k not in self.script.ignores}
            | {k: 1 for k in self.config if k in self.script.ignores}
        )

    def reconfigure(self, config: Config) -> None:
        """Change what a knob allows to be changed on a running server."""
        fixed = {knob.name for knob in self.script.knobs if knob.change == "restart"}
        if set(config) & fixed:
            raise NeedsRestart(f"{', '.join(config)} needs a restart.")
        self.config |= config

    def memory(self) -> MemoryUse:
        """As planted."""
        return MemoryUse(rss_bytes=self.script.footprint(self.config))

    def generate(self, request: Request) -> Iterator[Event | Finish]:
        """One event a token, at computed times."""
        with self._lock:
            number = self._requests
            self._requests += 1
            self.prompts.append(str(request.prompt))
        self.script.on_request(number)
        if self.closed:
            raise RequestError("the fake is closed.", "", FailureKind.INTERRUPTED)
        script, name = self.script, f"{self.script.seed}/{self.launch_number}"
        own = f"{name}/{number}"
        if script.repeatable:
            name = f"{script.seed}/{self.config}/{self.prompts[0]}"
            own = f"{name}/{request.prompt}"
        launch = random.Random(name)  # noqa: S311 - noise
        draw = random.Random(own)  # noqa: S311 - noise
        token_ms = script.token_ms(self.config) * factor(launch, script.launch_noise, script.tails)
        at_ms = first_ms = script.passes(script.prompt_ms)
        for index in range(request.max_tokens):
            if number in script.fail_request and index == request.max_tokens // 2:
                raise RequestError("the fake fails as planted.", "", script.fail_request[number])
            if index:
                at_ms += script.passes(token_ms * factor(draw, script.token_noise, script.tails))
            yield Event(at_ms=at_ms, text=f" {index}", tokens=1)
        yield Finish(
            at_ms=at_ms,
            reason="length",
            prompt_tokens=10,
            cached_tokens=0,
            output_tokens=request.max_tokens,
            timings=ServerTimings(prompt_ms=first_ms, predicted_ms=at_ms - first_ms),
        )

    def close(self) -> None:
        """Every answer under way ends."""
        self.closed = True


@define
class FakeBackend(Backend):
    """A backend whose engine is a :class:`Script`."""

    script: Script = field(factory=Script)
    name: str = "fake"
    sessions: list[FakeSession] = field(factory=list)

    def probe(
        self, options: Mapping[str, str], environ: Mapping[str, str]
    ) -> tuple[Installation, ...]:
        """One installation."""
        del options, environ
        return (Installation(backend=self.name, kind="binary", location="fake", version="1"),)

    def models(self, installation: Installation) -> tuple[Model, ...]:
        """One model."""
        del installation
        return (Model(reference="fake-model", fingerprint="0f"),)

    def knobs(self, installation: Installation, model: Model) -> tuple[Knob, ...]:
        """As planted."""
        del installation, model
        return self.script.knobs

    def defaults(self, installation: Installation, model: Model) -> Settings:
        """As planted."""
        del installation, model
        return Settings(config=self.script.defaults)

    def current(
        self, installation: Installation, model: Model, environ: Mapping[str, str]
    ) -> Settings:
        """The defaults, and over them what is planted."""
        del installation, model, environ
        script = self.script
        config = script.defaults | script.current
        origins = dict.fromkeys(config, ENGINE_DEFAULT) | dict.fromkeys(script.current, "planted")
        return Settings(config=config, origins=origins)

    def footprint(
        self, installation: Installation, model: Model, config: Config
    ) -> Footprint | None:
        """As planted."""
        del installation, model
        return Footprint(host_bytes=self.script.footprint(config))

    def launch(
        self, installation: Installation, model: Model, settings: Settings, place: Place
    ) -> Session:
        """A new session, or the planted failure."""
        del installation, model, place
        return self._open(settings.config)

    def attach(self, installation: Installation, model: Model, config: Config) -> Session:
        """A new session."""
        del installation, model
        return self._open(config)

    def _open(self, config: Config) -> Session:
        number = len(self.sessions)
        session = FakeSession(self.script, config, number)
        session.load_ms = self.script.passes(self.script.load_ms)
        self.sessions.append(session)
        failure = self.script.fail_launch.get(number) or self.script.crashes(config)
        if failure is not None:
            raise LaunchError("the fake does not start, as planted.", "", failure)
        return session


@define
class FakeServer:
    """A server that somebody else has started: whoever talks to it finds what was set last.

    ``asked`` is what it was told, in that order.
    """

    config: Config
    asked: list[Config] = field(factory=list)


@define
class AttachedSession(FakeSession):
    """A session of an :class:`AttachedBackend`."""

    server: FakeServer = field(kw_only=True)

    def effective(self) -> Config:
        """What the server really uses, whoever has set it."""
        self.config = self.server.config
        return super().effective()

    def reconfigure(self, config: Config) -> None:
        """Change what a knob allows to be changed on a running server, for all who use it."""
        super().reconfigure(config)
        self.server.config |= config
        self.server.asked.append(config)

    def generate(self, request: Request) -> Iterator[Event | Finish]:
        """As the server is set now."""
        self.config = self.server.config
        return super().generate(request)


@define
class AttachedBackend(FakeBackend):
    """Talks to one server that runs already, and cannot start any."""

    server: FakeServer = field()

    @server.default
    def _as_it_was_started(self) -> FakeServer:
        return FakeServer(self.script.defaults | self.script.current)

    def probe(
        self, options: Mapping[str, str], environ: Mapping[str, str]
    ) -> tuple[Installation, ...]:
        """The server."""
        del options, environ
        location = "http://127.0.0.1:1"
        return (Installation(backend=self.name, kind="server", location=location, version="1"),)

    def current(
        self, installation: Installation, model: Model, environ: Mapping[str, str]
    ) -> Settings:
        """What the server tells of itself."""
        del installation, model, environ
        config = self.server.config
        return Settings(config=config, origins=dict.fromkeys(config, "the server"))

    def launch(
        self, installation: Installation, model: Model, settings: Settings, place: Place
    ) -> Session:
        """Refused, as by every backend that does not say otherwise."""
        return Backend.launch(self, installation, model, settings, place)

    def attach(self, installation: Installation, model: Model, config: Config) -> Session:
        """A new session with the server, which is changed to ``config``."""
        del installation, model
        number = len(self.sessions)
        session = AttachedSession(self.script, self.server.config, number, server=self.server)
        self.sessions.append(session)
        session.reconfigure(config)
        return session


class NoMonitor:
    """Sees nothing, ends nothing."""

    def start(self, session: Session, on_danger: Callable[[str], None]) -> Watch:
        """A watch that sees nothing."""
        del session, on_danger
        return _NoWatch()

    def cpu_s(self, session: Session) -> tuple[float, float | None]:
        """Nothing used."""
        del session
        return 0.0, None


class _NoWatch:
    def stop(self) -> Observed:
        return Observed()
