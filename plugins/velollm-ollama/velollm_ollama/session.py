"""A running Ollama, started here or attached to, and one of its models."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing

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
from velollm_core.models.spec import Model
from velollm_ollama.api import LINE, Api, explained
from velollm_ollama.knobs import BY_NAME, options
from velollm_ollama.processes import engine_arguments, family, server_at
from velollm_ollama.readback import read_arguments
from velollm_ollama.server import blob_of, name_of
from velollm_ollama.stream import call_for, decode

_KEEP_ALIVE = "keep_alive"
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
        config=_of(config, {"reload"}),
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
        self._keep_alive: dict[str, Value] = {}
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
        """Have the model in memory with the configuration that requests will ask for.

        Raises:
            RequestError: it cannot be loaded.
        """
        started = time.monotonic()
        try:
            self._api.load(self._model, options(self._config), self._keep_alive)
        except RequestError as error:
            raise self._died(error) from error
        self.load_ms = (time.monotonic() - started) * 1000.0

    def generate(self, request: Request) -> Iterator[Event | Finish]:
        """Stream one answer. Reasoning is part of its text."""
        self._refuse(request.config, {"per_request"}, "cannot be set for one request.")
        client = self._api.client
        call = call_for(
            request,
            options(self._config),
            self._keep_alive | _keep_alive(request.config),
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
        self._refuse(wanted, {"per_request", "reload"}, what)
        loading = _of(config, {"reload"})
        before = self._config, self._keep_alive
        self._config |= loading
        self._keep_alive = self._keep_alive | _keep_alive(config)
        if loading:
            try:
                self.load()
            except BaseException:
                self._config, self._keep_alive = before
                raise

    def _refuse(self, config: Mapping[str, Value], kinds: set[str], what: str) -> None:
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
        """Break off what is under way; end the server if it was started here."""
        self._api.client.abort()
        if self._child is not None:
            self._child.stop()

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
    said = "\n".join(f"    {line}" for line in child.log_tail(_LAST_LINES).splitlines())
    words = f" Its last lines:\n{said}" if said else " It said nothing."
    return f"the private Ollama ended with {describe_exit(code)}.{words}"


def _keep_alive(config: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in config.items() if name == _KEEP_ALIVE}


def _of(config: Mapping[str, Value], kinds: set[str]) -> Config:
    return Config(
        {
            name: value
            for name, value in config.items()
            if name in BY_NAME and BY_NAME[name].knob.change in kinds
        }
    )
