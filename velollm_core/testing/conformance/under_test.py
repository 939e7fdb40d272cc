"""The backend under test: its engine and model as found, its sessions, and bounded waiting."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import psutil
import pytest
from attrs import define, field, frozen

from velollm_core.backends.contract import (
    Event,
    Finish,
    Installation,
    Message,
    Request,
    Session,
)
from velollm_core.backends.local import is_local
from velollm_core.config import Config, Settings
from velollm_core.models.references import resolve
from velollm_core.models.spec import Model
from velollm_core.testing.conformance.facts import Facts
from velollm_core.testing.places import Command, Record, RecordingPlace
from velollm_core.testing.processes import Family, nothing_left
from velollm_core.testing.relay import Relay

_MARK = "CONFORMANCE_RUN"
_MANY_TOKENS = 500
T = TypeVar("T")

STORY = (
    Message(
        role="user",
        content="Write a long story about a dog, a river and the seven days that it took them to"
        " meet: where each of them came from, whom they asked for the way, what they ate, and why"
        " in the end neither of them wanted to leave the other again.",
    ),
)


@define
class Answer:
    """What came of one request. ``received_ms`` is when each item was given out, on our clock."""

    events: list[Event] = field(factory=list)
    finishes: list[Finish] = field(factory=list)
    items: list[Event | Finish] = field(factory=list)
    received_ms: list[float] = field(factory=list)

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(event.text for event in self.events)

    @property
    def finish(self) -> Finish:
        """Its end."""
        if not self.finishes:
            pytest.fail("the answer has no Finish")
        return self.finishes[-1]

    @property
    def told(self) -> int | None:
        """Tokens by the events, or ``None`` where an event with text does not tell."""
        counts = [event.tokens for event in self.events if event.text]
        return None if None in counts else sum(count or 0 for count in counts)


@frozen
class Fragile:
    """A session whose server can be killed, or made to hang."""

    session: Session
    kill: Callable[[], None]
    hang: Callable[[], None]


class UnderTest:
    """What the tests of one backend share. The engine is looked for, and the shared session opened,
    when they are first needed.

    Args:
        facts: what the author says.
        folder: for places and files.
    """

    def __init__(self, facts: Facts, folder: Path) -> None:
        self.facts = facts
        self.backend = facts.backend
        self.environ: Mapping[str, str] = os.environ if facts.environ is None else facts.environ
        self.record = Record()
        self._folder = folder
        self._mark = (_MARK, uuid.uuid4().hex)
        self._installation: Installation | None = None
        self._model: Model | None = None
        self._shared: Session | None = None
        self._family = Family(self._mark)
        self._fault: BaseException | None = None
        self._places = 0

    @property
    def installation(self) -> Installation:
        """The first engine that the options lead to."""
        if self._fault is not None:
            raise self._fault
        if self._installation is None:
            with self._noting_a_fault():
                found = self.within("probe", lambda: self.probe(self.facts.options))
                if not found:
                    pytest.fail("probe found no engine; give facts.options that lead to one")
                self._installation = found[0]
        return self._installation

    @contextmanager
    def _noting_a_fault(self) -> Iterator[None]:
        """What failed once is not tried again by every test, at the price of its bound."""
        try:
            yield
        except BaseException as error:
            self._fault = error
            raise

    def probe(self, options: Mapping[str, str]) -> tuple[Installation, ...]:
        """What the backend finds with ``options``."""
        return self.backend.probe(dict(options), dict(self.environ))

    @property
    def model(self) -> Model:
        """The model that the facts name."""
        if self._model is None:
            loaded = self.backend.models(self.installation)
            wanted = self.facts.model
            named = [m for m in loaded if not wanted or wanted in {m.reference, m.served_name}]
            if not named and not wanted:
                pytest.fail("the backend names no model itself; give facts.model")
            self._model = named[0] if named else self._resolved(wanted)
        return self._model

    def _resolved(self, reference: str) -> Model:
        from velollm_core.plugins import load

        sources = load(dict(os.environ)).model_sources()
        return resolve(reference, sources, progress=lambda *_: None, environ=os.environ)

    @property
    def config(self) -> Config:
        """What a session is opened with: the defaults, and the facts over them. An attached server
        keeps what it has.
        """
        if self.facts.mode == "attach":
            return self.facts.config
        return self.backend.defaults(self.installation, self.model).config | self.facts.config

    @property
    def session(self) -> Session:
        """One session for all tests that do it no harm."""
        if self._fault is not None:
            raise self._fault
        if self._shared is None:
            self._family = Family(self._mark)
            with self._noting_a_fault():
                self._shared = self.open(self.config, self.place())
        return self._shared

    def open(self, config: Config, place: RecordingPlace, model: Model | None = None) -> Session:
        """A new session; whoever asks has to close it."""
        settings = Settings(config=config)
        model = model or self.model
        if self.facts.mode == "attach":
            return self.within(
                "attach", lambda: self.backend.attach(self.installation, model, config)
            )
        bound = max(0.0, place.remaining_s()) + self.facts.patience_s
        return self.within(
            "launch",
            lambda: self.backend.launch(self.installation, model, settings, place),
            bound,
        )

    @contextmanager
    def opened(
        self, config: Config | None = None, place: RecordingPlace | None = None
    ) -> Iterator[Session]:
        """A session of one's own, that ends with the block, whatever the backend does."""
        family = Family(self._mark)
        session = self.open(self.config if config is None else config, place or self.place())
        try:
            yield session
        finally:
            family.look()
            try:
                self.within("close", session.close)
            finally:
                family.kill()

    @contextmanager
    def fragile(self) -> Iterator[Fragile]:
        """A session of one's own with a server that may be harmed."""
        if self.facts.mode == "attach":
            if not self.facts.url_option:
                pytest.skip("facts.url_option is not given: no relay can stand before the server")
            url = self.facts.options.get(self.facts.url_option, "")
            if urlsplit(url).scheme != "http" or not is_local(url):
                pytest.skip(
                    f"facts.options name {url!r}, which is no http:// URL of this machine: the"
                    " relay before it would be one, and backends may trust it with a key"
                )
            with Relay(url) as relay:
                options = {**self.facts.options, self.facts.url_option: relay.url}
                installation = self.probe(options)[0]
                session = self.backend.attach(installation, self.model, self.config)
                try:
                    yield Fragile(session, relay.cut, relay.hold)
                finally:
                    self.within("close", session.close)
            return
        with self.opened() as session:
            if not session.pids:
                pytest.skip("the session names no pids: there is no server to harm")
            family: dict[psutil.Process, None] = {}  # in order, each once
            for pid in session.pids:
                with suppress(psutil.NoSuchProcess):
                    process = psutil.Process(pid)
                    family |= dict.fromkeys([process, *process.children(recursive=True)])

            def each(act: Callable[[psutil.Process], None]) -> None:
                for process in family:
                    with suppress(psutil.NoSuchProcess):
                        act(process)

            yield Fragile(
                session,
                lambda: each(psutil.Process.kill),
                lambda: each(psutil.Process.suspend),
            )

    def place(
        self,
        seconds: float | None = None,
        *,
        usual: Command | None = None,
        instead: Command | None = None,
    ) -> RecordingPlace:
        """A place with an own directory, that notes commands in :attr:`record`."""
        self._places += 1
        directory = self._folder / f"place-{self._places}"
        directory.mkdir()
        bound = self.facts.launch_s if seconds is None else seconds
        return RecordingPlace(
            directory=directory,
            log_path=directory / "server.log",
            environ={**os.environ, self._mark[0]: self._mark[1]},
            deadline=time.monotonic() + bound,
            record=self.record,
            usual=usual,
            instead=instead,
        )

    def request(self, prompt: str | tuple[Message, ...] = STORY, max_tokens: int = 24) -> Request:
        """A greedy request."""
        return Request(prompt=prompt, max_tokens=max_tokens, timeout_s=self.facts.answer_s)

    def long_request(self) -> Request:
        """A request whose answer is still under way when something happens to it."""
        return self.request(max_tokens=_MANY_TOKENS)

    def ask(self, request: Request | None = None, session: Session | None = None) -> Answer:
        """The answer to ``request``, from the shared session unless told, in bounded time."""
        asked = session or self.session
        wanted = request or self.request()
        return self.within("an answer", lambda: listen(asked.generate(wanted)), self.facts.answer_s)

    def within(self, what: str, action: Callable[[], T], seconds: float | None = None) -> T:
        """The value of ``action``, or its error; fails where it takes longer than ``seconds``."""
        return bounded(what, action, self.facts.patience_s if seconds is None else seconds)

    @contextmanager
    def nothing_left(self) -> Iterator[Family]:
        """Fail where a process started inside outlives the block."""
        with nothing_left(self.facts.patience_s, self._mark) as family:
            yield family

    def end(self) -> None:
        """Close the shared session."""
        if self._shared is None:
            return
        self._family.look()
        try:
            self.within("close", self._shared.close)
        finally:
            self._family.kill()


def listen(items: Iterator[Event | Finish], until: int | None = None) -> Answer:
    """Everything that ``items`` gives, or the first ``until`` of it."""
    answer = Answer()
    started = time.perf_counter()
    for item in items:
        answer.received_ms.append((time.perf_counter() - started) * 1000.0)
        answer.items.append(item)
        if isinstance(item, Finish):
            answer.finishes.append(item)
        else:
            answer.events.append(item)
        if len(answer.items) == until:
            break
    return answer


def bounded(what: str, action: Callable[[], T], seconds: float) -> T:
    """The value of ``action``, or its error; fails where it takes longer than ``seconds``."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(action())
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's own thread
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        pytest.fail(f"{what} was not over within {seconds:g} seconds")
    return results[0]
