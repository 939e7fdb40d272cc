"""A running Ollama, started here or attached to, and one of its models."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import closing, suppress

from velollm_core.backends.contract import (
    Capability,
    Event,
    Finish,
    Installation,
    MemoryUse,
    Request,
    Session,
)
from velollm_core.backends.memory import memory_use
from velollm_core.backends.processes import Child, describe_exit
from velollm_core.config import Config, Value
from velollm_core.errors import FailureKind, NeedsRestart, RequestError
from velollm_core.hardware.probe import Probe
from velollm_core.models.spec import Model
from velollm_ollama.api import LINE, Api, explained
from velollm_ollama.knobs import BY_NAME, options
from velollm_ollama.places import look
from velollm_ollama.processes import engine_arguments, family, server_at
from velollm_ollama.readback import read_arguments
from velollm_ollama.server import blob_of, name_of, pid_of
from velollm_ollama.stream import call_for, decode
from velollm_ollama.values import read

_KEEP_ALIVE = "keep_alive"
_USUAL_S = int(BY_NAME[_KEEP_ALIVE].default)
_HELD_S = 60
_CLOSING_S = 10.0
_LIVE = frozenset({"reload", "per_request"})
"""How a knob changes that a running server can be told."""
_LOGPROBS_SINCE = (0, 12, 11)
_DYING_S = 2.0
_LAST_LINES = 8


def attach(installation: Installation, model: Model, config: Config) -> OllamaSession:
    """A session with the running server, the model loaded with ``config``.

    Raises:
        NeedsRestart: ``config`` wants what a running server cannot change.
        RequestError: the server does not load the model.
    """
    process = server_at(installation.location)
    session = OllamaSession(
        installation,
        name_of(model),
        pid=None if process is None else process.pid,
        config=_of(config, _LIVE),
        usual_keep_alive=usual_keep_alive(installation, os.environ),
    )
    try:
        session.load()  # before the rest is looked at: of a model not loaded little is told
        session.reconfigure(config)
    except BaseException:
        session.close()
        raise
    session.load_ms = None
    return session


class OllamaSession(Session):
    """Talks to one server about one model.

    After :meth:`reconfigure` with a knob that takes a load, ``load_ms`` is how long the server took
    until the model was there with it: next to nothing where it was already.

    Args:
        installation: what it is.
        model: its name.
        url: where it is, if it was started here.
        pid: its process, where that is known.
        child: the same, if it was started here; it is ended by :meth:`close`.
        config: what every request asks for.
        usual_keep_alive: seconds for which a server that was not started here keeps a model unless
            a request says.
        started: what its log told about itself.
        load_ms: from its start until the model was there.
    """

    def __init__(
        self,
        installation: Installation,
        model: str,
        *,
        url: str | None = None,
        pid: int | None = None,
        child: Child | None = None,
        config: Config = Config(),
        usual_keep_alive: int = _USUAL_S,
        started: Config = Config(),
        load_ms: float | None = None,
    ) -> None:
        self.url = url or installation.location
        self.load_ms = load_ms
        self._pid = pid
        self._child = child
        self._model = model
        self._started = started
        self._config = config
        self._usual_keep_alive = usual_keep_alive
        self._keeps_otherwise = False
        if usual_keep_alive == 0 and _KEEP_ALIVE not in config:
            self._config |= {_KEEP_ALIVE: 0}  # to be held for a load, and said again with a request
        self._api = Api(self.url)
        self._blob: str | None = None
        told = {Capability.SERVER_TIMINGS, Capability.TOKEN_COUNTS}
        numbers = tuple(map(int, re.findall(r"\d+", installation.version or "")[:3]))
        if numbers >= _LOGPROBS_SINCE:
            told.add(Capability.LOGPROBS)
        if pid is not None:
            told.add(Capability.MEMORY)
        self.capabilities = frozenset(told)

    @property
    def pids(self) -> tuple[int, ...]:  # type: ignore[override]
        """The server and its engines, which come and go with the models that it loads."""
        return () if self._pid is None else family(self._pid)

    def load(self) -> None:
        """Have the model in memory with the configuration that requests will ask for, long enough
        to be looked at whatever that says.

        Raises:
            RequestError: it cannot be loaded.
        """
        started = time.monotonic()
        try:
            self._api.load(self._model, options(self._config), self._held())
        except RequestError as error:
            raise self._died(error) from error
        self.load_ms = (time.monotonic() - started) * 1000.0

    def generate(self, request: Request) -> Iterator[Event | Finish]:
        """Stream one answer. Reasoning is part of its text."""
        self._refuse(request.config, {"per_request"}, "cannot be set for one request.")
        client, config = self._api.client, self._config | request.config
        self._keeps_otherwise |= _KEEP_ALIVE in config
        call = call_for(
            request,
            options(self._config),
            _keep_alive(config),
            self._model,
        )
        stream = client.stream(call.path, call.body, request.timeout_s, LINE)
        try:
            # Closed here: an answer may be given up long before its connection ends.
            with closing(stream) as answer:
                yield from decode(answer, client, max_tokens=request.max_tokens)
        except RequestError as error:
            raise self._died(explained(error, self._model)) from error

    def reconfigure(self, config: Config) -> None:
        """Set knobs for what follows; the model is loaded anew where one of them takes that.

        Raises:
            NeedsRestart: a knob of the server's start is given, and not known to be so already.
            RequestError: the model cannot be loaded with them.
        """
        known = self.effective() if _of(config, {"restart"}) else Config()
        wanted = Config({name: config[name] for name in config if known.get(name) != config[name]})
        what = "cannot be changed on a running Ollama."
        self._refuse(wanted, _LIVE, what)
        before, self._config = self._config, self._config | _of(config, _LIVE)
        if _of(config, {"reload"}):
            try:
                self.load()
            except BaseException:
                self._config = before
                raise

    def _held(self) -> dict[str, Value]:
        self._keeps_otherwise |= _KEEP_ALIVE in self._config
        return load_fields(self._config)

    def _refuse(self, config: Mapping[str, Value], kinds: AbstractSet[str], what: str) -> None:
        allowed = _of(config, kinds)
        fixed = [name for name in config if name not in allowed]
        if fixed:
            raise NeedsRestart(
                f"{', '.join(fixed)} {what}",
                "Leave the knob out, or let VeloLLM start a private server: -X mode=private",
            )

    def effective(self) -> Config:
        """What the server's list of loaded models, its engine's arguments and its log tell."""
        held = next((entry for entry in self._api.ps() if entry.name == self._model), None)
        if held is None:
            return self._started
        told = Config() if held.context_tokens is None else Config({"num_ctx": held.context_tokens})
        if self._pid is None:
            return self._started | told
        self._blob = self._blob or blob_of(self._api, self._model)
        weights = None if self._blob is None else re.split(r"[\\/]", self._blob)[-1]
        return self._started | read_arguments(engine_arguments(self._pid, weights)) | told

    def memory(self) -> MemoryUse | None:
        """Memory of the server and its engines, other models that it holds included."""
        return memory_use(() if self._pid is None else (self._pid,))

    def log_tail(self) -> str:
        """The end of the log of a server that was started here."""
        return "" if self._child is None else self._child.log_tail()

    def close(self) -> None:
        """Break off what is under way; end the server if it was started here. One that was not
        keeps the model as long as it would have.
        """
        self._api.client.abort()
        if self._child is not None:
            self._child.stop()
        elif self._keeps_otherwise:
            self._keeps_otherwise = False
            with suppress(RequestError):
                self._keep_as_usual(Api(self.url))

    def _keep_as_usual(self, api: Api) -> None:
        """Only a model that is there: else it would be loaded for this."""
        if any(held.name == self._model for held in api.ps()):
            usual = {_KEEP_ALIVE: self._usual_keep_alive}
            api.load(self._model, options(self._config), usual, _CLOSING_S)

    def _died(self, error: RequestError) -> RequestError:
        """``error``, or the end of a server that was started here where that lies behind it."""
        if self._child is None or error.kind is not FailureKind.CRASH:
            return error
        deadline = time.monotonic() + _DYING_S
        while (code := self._child.exit_code()) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return error if code is None else RequestError(ended(code, self._child))


def ended(code: int, child: Child) -> str:
    """How a server that was started here ended, with its own last words."""
    return f"the private Ollama ended with {describe_exit(code)}.{last_words(child)}"


def last_words(child: Child) -> str:
    """The end of its log, to be put behind a sentence."""
    said = "\n".join(f"    {line}" for line in child.log_tail(_LAST_LINES).splitlines())
    return f" Its last lines:\n{said}" if said else " It said nothing."


def usual_keep_alive(installation: Installation, environ: Mapping[str, str]) -> int:
    """Seconds for which a running server keeps a model unless a request says; its default where
    that cannot be seen.
    """
    entry = BY_NAME[_KEEP_ALIVE]
    there = look(installation, environ, Probe(environ=environ), pid_of(installation)).in_force
    told = there.get(entry.variable or "")
    seconds = None if told is None else read(entry, told.text).value
    return _USUAL_S if seconds is None else int(seconds)


def load_fields(config: Mapping[str, Value]) -> dict[str, Value]:
    """What a request that loads a model says of how long it stays: what an answer would leave no
    time for, is held a while.
    """
    return {
        name: max(int(seconds), _HELD_S) if int(seconds) >= 0 else seconds
        for name, seconds in _keep_alive(config).items()
    }


def _keep_alive(config: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in config.items() if name == _KEEP_ALIVE}


def _of(config: Mapping[str, Value], kinds: AbstractSet[str]) -> Config:
    return Config(
        {
            name: value
            for name, value in config.items()
            if name in BY_NAME and BY_NAME[name].knob.change in kinds
        }
    )
