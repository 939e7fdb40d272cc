"""A running server of llama.cpp, started here or attached to."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing

from velollm_core.backends.contract import (
    Capability,
    Event,
    Finish,
    MemoryUse,
    Request,
    Session,
)
from velollm_core.backends.http import HttpClient, server_sent_events
from velollm_core.backends.memory import memory_use
from velollm_core.backends.processes import Child
from velollm_core.config import Config, Value
from velollm_core.errors import FailureKind, NeedsRestart, RequestError
from velollm_llamacpp.failures import explain
from velollm_llamacpp.readback import read_endpoints
from velollm_llamacpp.stream import call_for, decode

_REQUEST_FIELDS = {"cache_prompt": "cache_prompt", "cache_reuse": "n_cache_reuse"}
_METRIC = re.compile(r"^llamacpp:(\S+?)(\{[^}]*\})? (\S+)$", re.MULTILINE)
_DYING_S = 1.0
_LAST_LINES = 8


class LlamaSession(Session):
    """Talks to one server.

    Args:
        url: where it is.
        child: its process, if it was started here; it is ended by :meth:`close`.
        load_ms: from its start until it was ready.
        started: what its log told about itself.
        what: how messages call it.
        api_key: its key, if it asks for one.
        pids: its processes, where it was not started here but they are known.
        served_name: the model to ask for, where it may have several.
        known: what is known of its settings beside what it tells itself.
    """

    def __init__(
        self,
        url: str,
        *,
        child: Child | None = None,
        load_ms: float | None = None,
        started: Config = Config(),
        what: str = "llama-server",
        api_key: str | None = None,
        pids: tuple[int, ...] = (),
        served_name: str | None = None,
        known: Config = Config(),
    ) -> None:
        self.url = url
        self.pids = (child.pid,) if child is not None else pids
        self.load_ms = load_ms
        self._child = child
        self._started = started
        self._what = what
        self._served_name = served_name
        self._known = known
        self._live = Config()
        self._client = HttpClient(url, api_key)
        capabilities = {
            Capability.SERVER_TIMINGS,
            Capability.TOKEN_COUNTS,
            Capability.TOKEN_IDS,
            Capability.LOGPROBS,
            Capability.TOKENIZE,
        }
        if self.counters() is not None:
            capabilities.add(Capability.COUNTERS)
        if self.pids:
            capabilities.add(Capability.MEMORY)
        self.capabilities = frozenset(capabilities)

    def generate(self, request: Request) -> Iterator[Event | Finish]:
        """Stream one answer. Token ids of messages come only with ``top_logprobs``."""
        config = self._live | request.config
        call = call_for(request, _request_fields(config), self._served_name)
        stream = self._client.stream(call.path, call.body, request.timeout_s)
        try:
            # Closed here: an answer that cannot be read leaves no connection behind.
            with closing(stream) as lines:
                yield from decode(server_sent_events(lines), self._client, chat=call.chat)
        except RequestError as error:
            raise self._explained(error) from error

    def _explained(self, error: RequestError) -> RequestError:
        """``error``, or the death of the server where that is what lies behind it."""
        if self._child is None or error.kind is not FailureKind.CRASH:
            return error
        deadline = time.monotonic() + _DYING_S
        code = self._child.exit_code()
        while code is None and time.monotonic() < deadline:
            time.sleep(0.02)
            code = self._child.exit_code()
        if code is None:
            return error
        failure = explain(self._what, code, self._child.log_tail(_LAST_LINES))
        return RequestError(failure.message, failure.cause.hint, failure.cause.kind)

    def effective(self) -> Config:
        """What the log of the start and the endpoints tell."""
        try:
            slots = self._client.get("/slots")
        except RequestError:
            slots = None  # a server can be started without this endpoint
        told = read_endpoints(self._client.get("/props"), slots)
        return told | self._started if self._child is not None else told

    def reconfigure(self, config: Config) -> None:
        """Set per-request knobs for what follows.

        Raises:
            NeedsRestart: another knob is given, and it is not known to have that value already.
        """
        fixed = {
            name: value
            for name, value in config.items()
            if name not in _REQUEST_FIELDS and self._known.get(name) != value
        }
        if fixed:
            raise NeedsRestart(
                f"{', '.join(fixed)} cannot be changed on a running llama-server.",
                "Leave the knob out, or let VeloLLM start the server: without -X url.",
            )
        self._live |= {name: config[name] for name in _REQUEST_FIELDS if name in config}

    def tokenize(self, text: str) -> list[int]:
        """Token ids of ``text``, without the model's special tokens around it."""
        answer = self._client.post("/tokenize", {"content": text, "add_special": False})
        return [int(token) for token in answer["tokens"]]

    def counters(self) -> Mapping[str, float] | None:
        """``/metrics`` without the prefix ``llamacpp:``; labels stay part of the name."""
        try:
            text = self._client.text("/metrics")
        except RequestError:
            return None
        found = {name + labels: float(value) for name, labels, value in _METRIC.findall(text)}
        return found or None

    def memory(self) -> MemoryUse | None:
        """Memory of the server and its children."""
        return memory_use(self.pids)

    def log_tail(self) -> str:
        """The end of the log of a server that was started here."""
        return self._child.log_tail() if self._child is not None else ""

    def close(self) -> None:
        """Break off what is under way; end the server if it was started here."""
        self._client.abort()
        if self._child is not None:
            self._child.stop()


def _request_fields(config: Mapping[str, Value]) -> dict[str, Value]:
    """Per-request knobs by the names that the server has for them.

    Raises:
        NeedsRestart: a knob is no per-request knob.
    """
    fixed = [name for name in config if name not in _REQUEST_FIELDS]
    if fixed:
        raise NeedsRestart(f"{', '.join(fixed)} cannot be set for one request.")
    return {_REQUEST_FIELDS[name]: value for name, value in config.items()}
