"""A running OpenAI-compatible server that is measured."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing

from velollm_core.backends.contract import (
    Capability,
    Event,
    Finish,
    Installation,
    MemoryUse,
    Message,
    Request,
    Session,
)
from velollm_core.backends.http import server_sent_events
from velollm_core.backends.memory import memory_use
from velollm_core.config import Config, Value
from velollm_core.errors import FailureKind, NeedsRestart, RequestError
from velollm_core.models.spec import Model
from velollm_openai.knobs import knobs_of
from velollm_openai.metrics import read_metrics
from velollm_openai.server import CHAT, client_of, endpoint_of, kind_of, processes
from velollm_openai.stream import call_for, decode

_OUT_OF_MEMORY = re.compile(r"out ?of ?memory|failed to allocate", re.IGNORECASE)
_UNKNOWN_FIELD = frozenset({400, 422})
_NO_TEMPLATE = frozenset({400, 422, 500})
_FIRST_ANSWER_S = 300.0
"""A server may load the model only when it is first asked for."""


def attach(installation: Installation, model: Model, config: Config) -> OpenAISession:
    """A session with the server, with ``config`` in force.

    The server is asked for one token: so it is known before anything is timed whether it answers at
    this endpoint, and whether it counts tokens. Where it refuses ``stream_options``, it is asked
    again without.

    Raises:
        NeedsRestart: ``config`` holds what no request can change.
        RequestError: it does not answer that request.
    """
    session = OpenAISession(installation, model)
    session.reconfigure(config)
    try:
        session.greet()
    except RequestError as error:
        session.close()
        hint = error.hint
        if not hint and error.status in _NO_TEMPLATE and endpoint_of(installation) == CHAT:
            hint = "Has the model no chat template? Then: -X endpoint=completions"
        raise RequestError(error.message, hint, error.kind, error.status) from None
    return session


class OpenAISession(Session):
    """Talks to one server about one model.

    ``capabilities`` hold :attr:`Capability.TOKEN_COUNTS` once :meth:`greet` has seen counts.
    """

    def __init__(self, installation: Installation, model: Model) -> None:
        self.url = installation.location
        self.pids = processes(self.url)
        self._model = model.served_name or model.reference
        self._endpoint = endpoint_of(installation)
        self._fields = frozenset(knob.name for knob in knobs_of(kind_of(installation)))
        self._client = client_of(installation)
        self._live = Config()
        self._usage = True
        capabilities = set()
        if self.pids:
            capabilities.add(Capability.MEMORY)
        if self.counters() is not None:
            capabilities.add(Capability.COUNTERS)
        self.capabilities = frozenset(capabilities)

    def greet(self) -> None:
        """Ask for one token, and learn from the answer whether the server counts them.

        Raises:
            RequestError: there is none.
        """
        prompt = (Message(role="user", content="Hello"),)
        request = Request(prompt=prompt, max_tokens=1, timeout_s=_FIRST_ANSWER_S)
        try:
            (end,) = deque(self.generate(request), maxlen=1)
        except RequestError as error:
            if error.status not in _UNKNOWN_FIELD:
                raise
            self._usage = False
            (end,) = deque(self.generate(request), maxlen=1)
        if isinstance(end, Finish) and end.output_tokens is not None:
            self.capabilities |= {Capability.TOKEN_COUNTS}

    def generate(self, request: Request) -> Iterator[Event | Finish]:
        """Stream one answer. Of log-probabilities and token ids nothing is asked."""
        config = self._live | request.config
        self._refuse_fixed(config, "cannot be set for one request.")
        call = call_for(
            request,
            config,
            model=self._model,
            endpoint=self._endpoint,
            usage=self._usage,
        )
        try:
            stream = self._client.stream(call.path, call.body, request.timeout_s)
            # Closed here: an answer may be given up long before its connection ends.
            with closing(stream) as lines:
                payloads = server_sent_events(lines)
                yield from decode(payloads, self._client, max_tokens=request.max_tokens)
        except RequestError as error:
            if error.kind is FailureKind.REFUSED and _OUT_OF_MEMORY.search(error.message):
                kind = FailureKind.OUT_OF_MEMORY
                raise RequestError(error.message, error.hint, kind, error.status) from None
            raise

    def reconfigure(self, config: Config) -> None:
        """Set per-request knobs for what follows.

        Raises:
            NeedsRestart: another knob is given.
        """
        self._refuse_fixed(config, "cannot be changed on a running server.")
        self._live |= config

    def _refuse_fixed(self, config: Mapping[str, Value], what: str) -> None:
        fixed = [name for name in config if name not in self._fields]
        if fixed:
            raise NeedsRestart(
                f"{', '.join(fixed)} {what}", "Leave the knob out; the server is its owner's."
            )

    def counters(self) -> Mapping[str, float] | None:
        """What the server tells at ``/metrics``, by its own names; see
        :func:`~velollm_openai.metrics.read_metrics`.
        """
        try:
            return read_metrics(self._client.text("/metrics")) or None
        except RequestError:
            return None

    def memory(self) -> MemoryUse | None:
        """Memory of the server's processes, where they are of this machine."""
        return memory_use(self.pids)

    def close(self) -> None:
        """Break off what is under way; the server is left running."""
        self._client.abort()
