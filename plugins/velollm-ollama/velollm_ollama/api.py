"""Ollama's HTTP API, as far as it is used: what it has, what it has loaded, and loading.

Reference: https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from attrs import frozen

from velollm_core.backends.http import HttpClient
from velollm_core.config import Value
from velollm_core.errors import FailureKind, RequestError
from velollm_ollama.store import Name, is_name

_QUICK_S = 10.0
_NOT_FOUND, _FAILED, _BUSY = 404, 500, 503
_LOAD_S = 600.0
"""Longer than Ollama itself waits for a load that makes no progress."""
_NO_FIELDS: Mapping[str, Value] = {}
_NO_ENTRY = (
    "A model of Ollama's cloud needs: ollama signin. A server that is reached by a name which it "
    "does not know refuses, too."
)
_MEMORY = re.compile(
    r"more (?:system )?memory .*than|out of memory|failed to allocate|cannot be allocated"
    r"|unable to allocate|insufficient memory|cudaMalloc failed",
    re.IGNORECASE,
)
_RUNNER_DIED = re.compile(r"unexpectedly stopped|has terminated|while running the model")
LINE = (b"{",)
"""How a line of an answer begins: one JSON object a line (NDJSON)."""
_CUT = "The server died or was stopped."


@frozen
class Listed:
    """A model that the server has. ``digest`` is its manifest's; ``completes``: it writes text, on
    this machine and not in a cloud.
    """

    name: str
    digest: str | None
    completes: bool


@frozen
class Loaded:
    """A model that the server holds in memory. ``context_tokens`` is what one request may hold."""

    name: str
    context_tokens: int | None
    size_bytes: int


class Api:
    """Calls to one server; ``client`` is what they go through."""

    def __init__(self, url: str) -> None:
        self.client = HttpClient(url, key_hint=_NO_ENTRY)

    def version(self, timeout_s: float = _QUICK_S) -> str:
        """The server's version.

        Raises:
            RequestError: nothing answers, or something that is no Ollama.
        """
        told = self.client.get("/api/version", timeout_s)
        version = told.get("version") if isinstance(told, dict) else None
        if not isinstance(version, str):
            raise RequestError(
                f"{self.client.url} is no Ollama: its /api/version is another's.",
                "",
                FailureKind.REFUSED,
            )
        return self.client.quoted(version, 80)

    def tags(self) -> tuple[Listed, ...]:
        """Every model that the server has, in its order: the one changed last first."""
        return tuple(
            Listed(
                name=entry["name"],
                digest=entry["digest"] if isinstance(entry.get("digest"), str) else None,
                completes=not entry.get("remote_host") and _completes(entry.get("capabilities")),
            )
            for entry in self._listed("/api/tags")
        )

    def ps(self) -> tuple[Loaded, ...]:
        """Every model that is loaded now."""
        return tuple(
            Loaded(
                name=entry["name"],
                context_tokens=_count(entry.get("context_length")),
                size_bytes=_count(entry.get("size")) or 0,
            )
            for entry in self._listed("/api/ps")
        )

    def show(self, model: str) -> Mapping[str, Any]:
        """What the server knows of a model: ``parameters``, ``modelfile``, ``model_info`` ..."""
        try:
            told = self.client.post("/api/show", {"model": model}, _QUICK_S)
        except RequestError as error:
            raise explained(error, model) from error
        return told if isinstance(told, dict) else {}

    def load(
        self,
        model: str,
        options: Mapping[str, Value],
        fields: Mapping[str, Value] = _NO_FIELDS,
        timeout_s: float = _LOAD_S,
    ) -> None:
        """Have the model in memory with these options: loaded anew where they differ from those
        that it has.

        Args:
            model: its name.
            options: those of a request that needs a load.
            fields: further ones of the request, such as ``keep_alive``.
            timeout_s: how long it may take.

        Raises:
            RequestError: it cannot be loaded.
        """
        body = {"model": model, "stream": False, "options": dict(options), **fields}
        try:
            self.client.post("/api/generate", body, timeout_s)
        except RequestError as error:
            raise explained(error, model) from error

    def _listed(self, path: str) -> Iterator[dict[str, Any]]:
        told = self.client.get(path, _QUICK_S)
        models = told.get("models") if isinstance(told, dict) else None
        if not isinstance(models, list):
            raise RequestError(
                f"{self.client.url} is no Ollama: its {path} is another's.",
                "",
                FailureKind.REFUSED,
            )
        for entry in models:
            if isinstance(entry, dict) and is_name(entry.get("name")):
                yield entry


def parsed(line: bytes, client: HttpClient) -> dict[str, Any]:
    """One line of a stream.

    Raises:
        RequestError: it is cut short or no object, or says that the server gave up.
    """
    try:
        data = orjson.loads(line)
    except ValueError as error:
        raise RequestError(f"{client.url} stopped in the middle of a line.", _CUT) from error
    if not isinstance(data, dict):
        raise RequestError(
            f"{client.url} sent a line that is no object: {client.quoted(line, 80)!r}.",
            "",
            FailureKind.REFUSED,
        )
    if "error" in data:
        words = client.quoted(str(data["error"]))
        raise RequestError(f"{client.url} gave up: {words}.", "", FailureKind.REFUSED, _FAILED)
    return data


def explained(error: RequestError, model: str) -> RequestError:
    """``error`` of a request about ``model``, with what it means to whoever uses Ollama."""
    hint, kind = error.hint, error.kind
    if error.status is not None and _MEMORY.search(error.message):
        kind = FailureKind.OUT_OF_MEMORY
        hint = "It does not fit: lower num_ctx or num_parallel, or take a smaller model."
    elif error.status == _NOT_FOUND:
        named = Name.parse(model).short if is_name(model) else "NAME"
        hint = f"Pull it: ollama pull {named}"
    elif error.status == _BUSY:
        hint = "Its queue is full: send fewer requests at once, or raise OLLAMA_MAX_QUEUE."
    elif error.status == _FAILED:
        kind = FailureKind.CRASH if _RUNNER_DIED.search(error.message) else kind
        hint = "Its log says more: journalctl -u ollama, or ~/.ollama/logs/server.log"
    return RequestError(error.message, hint, kind, error.status)


def _completes(capabilities: object) -> bool:
    """Older servers do not say what a model can do."""
    return "completion" in capabilities if isinstance(capabilities, list) and capabilities else True


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None
